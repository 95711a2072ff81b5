"""Where progress is shown: on standard error, in a terminal or a notebook."""

import builtins

from rich.console import Console
from rich.progress import Progress


def progress_bar(shown, *columns, **options) -> Progress:
    """A bar of rich's, which draws nothing unless it is shown and somebody looks."""
    # In a notebook rich would draw by ipywidgets, and without these nothing; there as in a terminal \r redraws a line.
    notebook = type(getattr(builtins, "get_ipython", lambda: None)()).__name__ == "ZMQInteractiveShell"
    console = Console(stderr=True, force_jupyter=False, force_terminal=True if notebook else None)
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), **options)
