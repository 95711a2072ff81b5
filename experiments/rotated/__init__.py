"""The rotated "1": what Monte Carlo dropout says of a digit as it is turned, and what one softmax says.

    python -m experiments rotated --data-dir FOLDER

The convolutional network of `mnist` (dropout 0.5 before its last layer) learns MNIST in two epochs. A hundred test
images of the digit 1 are turned by 0 to 165 degrees, in twelve steps; the network says each by 100 passes, and by one
deterministic one.

The table has, for each angle, the spread of the softmax's input (the standard deviation over passes for the class that
the mean prefers), how far the two highest classes are apart there (the mean of their difference over its standard
deviation), the predictive entropy and the mutual information in nats, the highest probability of the mean and of the
deterministic pass, and the share of images about whose class more than a tenth of the passes disagree. Expect the
classes to overlap in the middle, and entropy and disagreement to grow with the rotation, while the deterministic pass
is surer than the mean. Writes rotated.csv, rotated.md and rotated.png, which shows one of the images as the paper does.
A minute on two cores.

Paper: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", figure 4.
"""
