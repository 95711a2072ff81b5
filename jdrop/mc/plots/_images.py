"""Figures of single images."""

import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_size
from jdrop.mc._checks import as_finite
from jdrop.mc.plots._axes import new_grid


def most_least_certain(
    images: ArrayLike, uncertainty: ArrayLike, n: int = 8, axes: np.ndarray | None = None, unit: str = "nats"
) -> np.ndarray:
    """The n images of the highest uncertainty above the n of the lowest, each with its value.

    Args:
      images: finite, shape (count, height, width), or (count, height, width, 3) in [0, 1].
      uncertainty: finite, shape (count,).
      n: how many of each, in [1, count].
      axes: matplotlib axes in an array of shape (2, n); new ones if None.
      unit: the unit of the uncertainty.

    Returns:
      The axes, shape (2, n).

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, shapes that don't match, or n outside [1, count].

    Example:
      >>> import jax, jdrop
      >>> images = jax.random.uniform(jax.random.key(0), (9, 8, 8))
      >>> axes = jdrop.mc.plots.most_least_certain(images, images.std((1, 2)), 3, unit="std")
    """
    colors = ("3",) * (np.shape(images)[3:] == (3,))
    images = np.asarray(as_finite("images", images, "count", "height", "width", *colors))
    uncertainty = np.asarray(as_finite("uncertainty", uncertainty, "count"))
    if len(uncertainty) != len(images):
        raise ValueError(
            f"there are {len(images)} images, but {len(uncertainty)} uncertainties: give one uncertainty for each."
        )
    n = as_size("n", n, write=min(8, len(images)))
    if n > len(images):
        raise ValueError(f"n is {n}, but there are {len(images)} images: write n={len(images)}.")
    axes = new_grid(2, n, figsize=(1.2 * n + 0.6, 3.4)) if axes is None else np.asarray(axes)
    if axes.shape != (2, n):
        raise ValueError(f"axes has shape {axes.shape}, but (2, {n}) is needed: write plt.subplots(2, {n})[1].")

    order = np.argsort(uncertainty, kind="stable")
    for row, name, chosen in zip(axes, ("least certain", "most certain"), (order[::-1][:n], order[:n])):
        for ax, i in zip(row, chosen):
            ax.imshow(images[i], cmap="gray_r", vmin=images.min(), vmax=images.max())
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{uncertainty[i]:.3g} {unit}", fontsize=8)
        row[0].set_ylabel(name)
    return axes
