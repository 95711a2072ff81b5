"""Concrete dropout's demonstration: learned rates and both kinds of uncertainty against the number of data.

    python -m experiments concrete

Data y = 2 x + 8 + e, x and e standard normal, N = 10 to 1,000 of them. A network of three hidden layers of 1,024 ReLU
and two outputs, mean and log-variance, learns them with concrete dropout of a rate of its own before every dense layer:
Adam 1e-3, batches of 20 and 4,000 steps, l = 1e-4, so the penalties' strengths are l^2 / N of the weights and 2 / N of
the entropy. Rates start from 0.1. Three repeats with data of their own are one program for each N.

The table has RMSE on 1,000 new data by the mean of 20 passes, the epistemic and the aleatoric standard deviation (the
true one is 1), and the learned rates of the inputs, of the three hidden layers, and their mean, beside the published
ones. Expect rates and epistemic uncertainty to fall with N. Writes concrete.csv, concrete.md and concrete.png.
Eleven minutes on two cores.

Paper: Gal, Hron & Kendall 2017, "Concrete dropout", and its published notebook.
"""
