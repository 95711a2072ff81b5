"""Axes of matplotlib, where that is installed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


def new_axes() -> "Axes":
    return new_grid(1, 1)[0, 0]


def new_grid(rows, columns, **options) -> "np.ndarray":
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("jdrop.mc.plots draws with matplotlib: write pip install 'jdrop[plots]'.") from error
    return plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)[1]
