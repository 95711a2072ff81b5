"""The error against the rate: with a fixed width, and with a fixed number of units that are kept.

    python -m experiments rates --data-dir FOLDER

A network with two hidden layers of ReLU learns 10,000 images of MNIST by 3,000 updates of 100 (Adam, a cosine from 1e-3
to 0), with dropout in the hidden layers. First both have 256 units; then the width grows with the rate, so that 128
units are kept on average. Five seeds; with a fixed width all rates and seeds are one program.

The table has the training and the test error for each rate. Expect the test error to be flat between the rates 0.1 and
0.5 at a fixed width (published: 0.2 and 0.6, of wider layers), and to fall as far as 0.5 at a fixed number kept. Writes
rates.csv, rates.md and rates.png. A quarter of an hour on two cores.

Paper: Srivastava et al. 2014, figure 9 (there three layers and 2,048 units, or 256 kept).
"""
