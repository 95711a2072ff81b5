"""The family of dropouts on one network: each at its best rate, chosen on validation data.

A residual network of dense layers, 64-128-128-128-10, learns 700 of scikit-learn's 8x8 digits by Adam for 600 steps of
64. Each kind of dropout stands where its paper has it: on hidden units, residual branches, weights, the rows of the
image as tokens, or blocks of its pixels; alpha dropout with SELU. All rates and five seeds of a kind train as one
program.

The rate is the one with the lowest mean negative log-likelihood of 400 validation digits, by 50 Monte Carlo passes. The
table and the figure have the error, the negative log-likelihood and the calibration error (ECE) of 697 test digits for
that rate, by the same passes; "±" is the standard error over the seeds. Kinds for texts, pretrained weights or patches
are not in it. What a rate is: of `gaussian_noise` the standard deviation, of `concrete_dropout` the one that learning
starts from; `variational_dropout` and `masksembles` have none.

    python -m experiments family

Writes family.csv, family.md, rates.csv, rates.md and family.png. About seven minutes on two cores.
"""
