"""Monte Carlo dropout in jdrop, torch-uncertainty and probly: time, memory and scores of the same networks.

    pip install -e ".[uncertainty-peers]" && python -m experiments peers --data-dir FOLDER

Networks with dropout 0.5, trained by jdrop in two epochs, five seeds each: 784-128-10, 784-256-256-10 and two
convolutions with a dense layer of 128. Their weights are copied into PyTorch, and each library draws 100 passes with
its own Monte Carlo dropout: `jdrop.mc.samples`; `mc_dropout` of torch-uncertainty, on a batch that repeats the images,
and in a loop; `Dropout` of probly, which puts dropout before each dense layer but the first, so that the convolutional
network can't be had from it. All compute on the CPU with all its cores.

The table has the time of 100 passes of 256 images, measured in one process by turns; the memory that a process of its
own needs for them beyond what it had before; NLL, ECE and the AUROC by which the predictive entropy tells test images
from images half of whose pixels are noise, with standard errors over seeds; and whether a score differs from jdrop's,
by the 95 % interval of the paired difference. Expect jdrop to be about 9 to 29 times as fast, and of convolutions 50 to
230 times, since it computes once what comes before the first dropout. Without MNIST scikit-learn's digits serve. Writes
peers.csv, peers.md, scores.csv, scores.md and peers.png. Half an hour on two cores, four minutes of it for the dense
networks; the convolutional one takes 5 GiB in PyTorch.
"""
