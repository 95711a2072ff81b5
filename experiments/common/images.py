"""MNIST, and where there is none scikit-learn's digits."""

from typing import NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_digits

from experiments import MissingFiles
from experiments.common.idx import find_idx, read_idx

FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
CLASSES = 10
DIGITS_TEST = 397  # the last ones, which other people wrote


class Images(NamedTuple):
    """Pairs of images, shape (n, height, width, 1) in [0, 1], and labels."""

    name: str
    train: tuple
    test: tuple


def load_mnist(folder) -> Images:
    """MNIST from the four IDX files in a folder, or in its folder `mnist`, gzipped or not."""
    folder = folder and subfolder(folder, "mnist")
    paths = [folder and find_idx(folder, name) for name in FILES]
    if None in paths:
        files = "\n".join(f"  {name}{'' if path else '  (missing)'}" for name, path in zip(FILES, paths))
        advice = "Put these four into one folder, as they are or gzipped (with .gz after the name), and name the folder"
        raise MissingFiles("the files of MNIST are", folder, f"{files}\n{advice}")
    images, labels, test_images, test_labels = map(read_idx, paths, FILES.values())
    for path, of in ((paths[1], labels), (paths[3], test_labels)):
        if of.max() >= CLASSES:
            raise ValueError(f"{path} has the label {of.max()}, but MNIST has {CLASSES} classes: fetch it again.")
    return Images(
        "MNIST", _prepare(images / np.float32(255), labels), _prepare(test_images / np.float32(255), test_labels)
    )


def subfolder(folder, name):
    """The folder of that name in a folder, if there is one, else the folder itself."""
    return folder / name if (folder / name).is_dir() else folder


def load_notmnist(folder):
    """The 10,000 letters A to J of notMNIST, as MNIST's test images, in the folder `notmnist`; None without it."""
    path = folder and find_idx(folder / "notmnist", "t10k-images-idx3-ubyte")
    if not path:
        return None
    images = read_idx(path, FILES["t10k-images-idx3-ubyte"])
    return (images / np.float32(255))[..., None]


def load_images(folder) -> Images:
    """MNIST from a folder; without one scikit-learn's 1,797 digits of 8x8 pixels."""
    if folder is not None:
        return load_mnist(folder)
    images, labels = load_digits(return_X_y=True)
    data = _prepare(images.reshape(-1, 8, 8) / 16, labels)
    return Images("scikit-learn's digits", take(data, slice(-DIGITS_TEST)), take(data, slice(-DIGITS_TEST, None)))


def take(data, rows):
    return jax.tree.map(lambda array: array[rows], data)


def _prepare(images, labels):
    return images[..., None].astype(np.float32), labels.astype(np.int32)
