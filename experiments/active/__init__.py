"""Active learning on MNIST, from 20 to 1,000 labels: five acquisitions and BatchBALD, beside the published counts.

    python -m experiments active --data-dir FOLDER

A network of two convolutions (5x5 with stride 3 to 16 channels, 3x3 with stride 2 to 32), dropout 0.25, a dense layer
of 128, dropout 0.5 and ten outputs starts from 20 labels, two of each digit. In each round it is trained anew on the
labels it has (Adam 1e-3, batches of 64, 300 steps and one more for every two labels), scores 500 of the unlabelled
images at random by 50 Monte Carlo passes, and gets the labels of the ten that score highest: by BALD, variation ratio,
maximum entropy, the mean standard deviation, or at random; BatchBALD picks ten together, from passes whose masks all
images share. Three repeats, of which the methods start from the same labels; all networks of a round are one program.

The tables have the test error by the number of labels, and the labels at which it first reaches 10 and 5 %, beside the
published ones (of a larger network, pools scored whole, and a weight decay chosen on 100 more labels). Expect up to
twice the published counts, at random too, and the acquisitions to need half of what random labels do, as published.
Writes active.csv, active.md, labels.csv, labels.md and active.png. About half an hour on two cores; `--rounds` takes
fewer.

Papers: Gal, Islam & Ghahramani 2017, "Deep Bayesian active learning with image data"; Kirsch, van Amersfoort & Gal
2019, "BatchBALD".
"""
