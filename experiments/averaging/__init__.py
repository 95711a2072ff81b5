"""Averaging of Monte Carlo passes against one pass with scaled weights: 1 to 200 passes.

    python -m experiments averaging --data-dir FOLDER

Five 784-256-256-10 networks with dropout 0.5 in the hidden layers and 0.2 on the inputs learn MNIST by 6,000 updates of
100 images, in one program. Each says the digits of the test images by the mean of the probabilities of its first k
passes, by their geometric mean, which scaled weights approximate, and by one deterministic pass, whose weights are
scaled (with jdrop's dropout, in training).

The table has test error and NLL for each k, and the difference of the errors from those of the deterministic pass with
a verdict by its 95 % interval. Expect the mean of about 50 passes to err as the deterministic pass does, and more to
gain little. Writes averaging.csv, averaging.md and averaging.png. Three minutes on two cores.

Paper: Srivastava et al. 2014, figure 11.
"""
