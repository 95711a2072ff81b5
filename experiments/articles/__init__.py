"""The networks and the claims of five introductory articles on dropout, settled with numbers and error bars.

    python -m experiments articles --data-dir FOLDER [--article 003]

000  784-64-10, dropout 0.5, Adam, 5 epochs, batch 32, the last 20 % for validation; with an L2 penalty; rates 0 to 0.9
001  50-64-10 (the images' first 50 principal components), D(x) without a scale; gradients; cost; recurrent networks
002  784-128-10, dropout 0.5, Adam, 5 epochs, batch 64; the rate for few and many images; networks 8,192 units wide
003  784-128-10 with masks by a keep probability, and three ways of relating the weights in training and prediction
004  two 3x3 convolutions (32, 64), two max-poolings, dense 128, dropout 0.5: as an ensemble, its units' correlations;
     E[r x]; dropout beside other regularizers, on 5,000 images

FOLDER holds the four IDX files of MNIST, gzipped or not; without it scikit-learn's digits are used. What an article
does not say is ours: 001's optimizer, batch and epochs are 000's, 003's network is 002's, 004 has Adam, batch 128 and
2 epochs.

Five seeds, in one program for each network. In the tables a ± is a standard error over seeds. A claim's figure is a
difference between networks of the same seeds, and its standard error that over new seeds and new test examples (over
seeds alone for correlations, over blocks for times), with these training examples. It is
confirmed or refuted only where its whole 95 % Student interval lies on one side, for these networks and data; at that
level one in twenty claims about no difference at all would get a verdict.

Writes articles (the networks), claims, errors (of the articles), and details as CSV and Markdown, and articles.png;
with --article the first three and the figure are named after it. A quarter of an hour on two cores.
"""
