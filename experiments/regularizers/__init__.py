"""Regularizers on MNIST: Srivastava's comparison of L2, L1, sparsity, max-norm and dropout; Bernoulli and Gaussian.

    python -m experiments regularizers --data-dir FOLDER

The network is 784-1024-1024-2048-10 with ReLU, dropout 0.5 in each hidden layer and 0.2 on the inputs; Adam with a
cosine from 1e-3 to 0, batch 128. A regularizer's strength is the one of three with the lowest error on the last 10,000
training images, by one seed and a third of the epochs; then three seeds of every row learn from the other 50,000, in
one program. The sparsity penalty is the divergence of the units' mean activities from 0.1 as rates of Poisson
processes, since ReLUs are not bounded. Gaussian noise N(1, 1) stands beside dropout 0.5 with two layers of 1,024 and
max-norm.

Writes regularizers.csv, regularizers.md (the errors beside the published ones), order.csv, order.md (each row against
the next one, with a verdict by its 95 % interval), strengths.csv, strengths.md and regularizers.png. Two and a quarter
hours on two cores, where 7,020 updates stand beside the paper's million: L2 and sparsity err 0.2 points less than
published, max-norm about as published, dropout 0.2 to 0.4 more, and no row is separable from the next. A quarter of the
widths (`--divide 4 --epochs 30`) takes half an hour, and dropout is behind there. With `--quick` 500 images and an
eighth of the widths, where on MNIST dropout has the lowest errors too.

Paper: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", table 9 and 10.1.
"""
