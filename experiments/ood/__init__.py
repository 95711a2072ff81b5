"""Out of distribution: MNIST against rotations, noise and notMNIST, by six ways to be uncertain.

    python -m experiments ood --data-dir FOLDER

Dense networks, 784-256-256-10 with ReLU, learn MNIST in ten epochs (Adam, a cosine from 1e-3 to 0, batch 128). Beside a
network without dropout: one with dropout 0.5, by one pass with scaled weights, by 100 Monte Carlo passes, and by
`jdrop.mc.propagate`, which carries mean and variance to the logits in one pass, whose normal numbers are then drawn; an
ensemble of five networks without dropout; Masksembles with four masks. Three repeats of all; the networks with and
without dropout are one program, those with masks another.

The tables have accuracy, NLL and ECE on the test images, as they are, turned by 30 and 60 degrees, and with half of the
pixels replaced by noise; and the AUROC by which predictive entropy and mutual information tell test images from each of
these and from notMNIST (with it in a folder `notmnist` of FOLDER). "±" is a standard error over repeats; "better" says
by how much Monte Carlo dropout's ECE is below another's, with a verdict by its 95 % interval over repeats. Writes
calibration, detection and versus as CSV and Markdown, and ood.png. Ten minutes on two cores.

Papers: Lakshminarayanan, Pritzel & Blundell 2017 (ensembles); Durasov et al. 2021 (Masksembles); Wang & Manning 2013
(moments).
"""
