"""Active learning: a network asks for the labels of the digits that it would learn most from.

A dense 64-128-128-10 network with dropout 0.5 learns scikit-learn's 8x8 digits from 20 labels. In each of eight rounds
it scores 300 of a pool of 1,000 unlabelled digits by 50 Monte Carlo passes, each with one mask for them all, gets ten
labels, and is trained anew: by BALD, by the entropy of the mean prediction, by BatchBALD, and at random. Five seeds of
each, all networks of a round in one program; accuracy is that on the 797 digits that are in no pool.

    python -m experiments active_learning

Writes active_learning.csv, active_learning.md and active_learning.png. Half a minute on two cores. The scores are those
of Gal, Islam & Ghahramani 2017 and of Kirsch, van Amersfoort & Gal 2019, who use MNIST.
"""
