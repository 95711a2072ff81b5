"""The gain of dropout against the number of training images, from 100 to all of MNIST.

    python -m experiments data_size --data-dir FOLDER

A 784-256-256-10 network with ReLU, without dropout and with rate 0.5 in the hidden layers and 0.2 on the inputs, learns
from the first images of MNIST by 5,000 updates of 100 images, in whole epochs, so that all 60,000 have 4,800 (Adam, a
cosine from 1e-3 to 0 at 5,000). Five seeds of both are one program; in a pair first weights, batches and masks are
those of one key.

The table has the test errors, and the gain: the error without less that with dropout, of the same seeds, with its
standard error over seeds and test images and a verdict by its 95 % interval. Expect a gain that grows with the images
and declines again. The paper sees none from 100 and 500 images, and a small one from all of MNIST, with wider networks
and longer training; here eight epochs of it are too few for dropout. Writes data_size.csv, data_size.md and
data_size.png. A quarter of an hour on two cores.

Paper: Srivastava et al. 2014, figure 10 (there 784-1024-1024-2048-10).
"""
