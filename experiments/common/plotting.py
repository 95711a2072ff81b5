"""Matplotlib without a screen."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def save(figure, path, dpi=110):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
