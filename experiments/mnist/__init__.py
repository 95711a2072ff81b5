"""MNIST: the dense and convolutional networks of the source articles.

    python -m experiments mnist --data-dir FOLDER

dense64     784-64-10, dropout 0.5; 5 epochs, batch 32; the last 20 % of its training images are for validation
dense64_l2  the same with the loss L + 1e-4 R, where R sums the squares of all elements of the kernels (not the biases)
dense128    784-128-10, dropout 0.5; 5 epochs, batch 64
conv        3x3 convolutions to 32 and 64 channels, padded, each with 2x2 max-pooling; dense 128, dropout 0.5, 10;
            8 epochs, batch 128

All with ReLU and Adam (1e-3). FOLDER holds the four IDX files of MNIST, gzipped or not. The last 10,000 of its 60,000
training images are held out from every network, so the validation split is of the first 50,000. The epochs of `conv`
were chosen on the held-out images; nothing was chosen on the test files.

Writes mnist.csv and mnist.md. Two minutes on two cores, nearly all for `conv`: about 10 s an epoch, 0.97 and 1.07 times
PyTorch 2.13's for the same network (medians of ten and of seven interleaved epochs). Its held-out error is 0.87, 0.89
and 0.81 % with the seeds 0, 1 and 2.
"""
