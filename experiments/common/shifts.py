"""Images that are not like those a network was trained on."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_sample_images

import jdrop


def against(inside, outside):
    """The uncertainties of both, and which are to be detected: those outside."""
    return np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside)


def turned(images, degrees):
    """Images of shape (n, height, width, ...), turned about their middle, with zeros from outside."""
    return rotate(images, degrees, (1, 2), reshape=False, order=1)


def corrupted(key, images, share=0.5):
    """A share of the pixels replaced by uniform noise."""
    noise = jax.random.uniform(jdrop.fold_in(key, "noise"), images.shape)
    return jnp.where(jdrop.keep_mask(key, images.shape, share), images, noise)


def photographs(key, count):
    """Grey 8x8 patches of scikit-learn's two photographs, scaled to [0, 1]."""
    grey = np.stack([image.mean(-1) / 255 for image in load_sample_images().images]).astype(np.float32)
    limits = jnp.array(grey.shape) - jnp.array([0, 7, 7])
    corners = np.asarray(jax.random.randint(key, (count, 3), 0, limits))
    return np.stack([grey[i, row : row + 8, column : column + 8].reshape(64) for i, row, column in corners])
