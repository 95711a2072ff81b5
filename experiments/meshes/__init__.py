"""Training on meshes of devices: the masks of one device to the bit, its numbers to the tolerance of float32.

Trains a dense 64-128-128-10 network with dropout 0.5 after each hidden layer on scikit-learn's 1,797 bundled digits, by
`jdrop.training.fit`: on one device; on meshes whose axis "data" splits each batch and whose axis "model" splits the
units of the first hidden layer; and in two processes that talk over gloo, with two devices each. All devices are
virtual ones of the CPU, eight in this process, so that the numbers say what is computed and not how fast.

The table compares each run with that on one device: a digest of the units that were kept at every step, the losses of
the epochs, the trained parameters, and the accuracy on 360 test digits.

    python -m experiments meshes

Writes meshes.csv and meshes.md. About a minute on two cores.
"""
