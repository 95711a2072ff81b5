"""Where progress is shown: on standard error, in a terminal or a notebook."""

import builtins

from rich.console import Console
from rich.progress import Progress


def progress_bar(shown, *columns, **options) -> Progress:
    """A bar of rich's, on standard error."""
    return Progress(*columns, console=_console(), disable=not shown, **options)


def is_watched() -> bool:
    """Whether standard error is a terminal or a notebook, where a bar can move."""
    return _console().is_terminal


def _console():
    # In a notebook rich would draw by ipywidgets, and without these nothing; there as in a terminal \r redraws a line.
    notebook = type(getattr(builtins, "get_ipython", lambda: None)()).__name__ == "ZMQInteractiveShell"
    return Console(stderr=True, force_jupyter=False, force_terminal=True if notebook else None)
