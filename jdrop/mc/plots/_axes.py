"""Axes of matplotlib, where that is installed."""


def new_axes(rows=1, columns=1, **options):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("jdrop.mc.plots draws with matplotlib: write pip install 'jdrop[plots]'.") from error
    axes = plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)[1]
    return axes if rows > 1 else axes[0, 0]
