"""The progress bar of training."""

import contextlib
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

REFRESH = 0.25  # seconds; drawing takes milliseconds that the steps would like to have


class _Throughput(ProgressColumn):
    def render(self, task):
        return Text(f"{(task.speed or 0) * task.fields['batch_size']:,.0f} examples/s")


@contextlib.contextmanager
def progress_bar(first, end, batch_size, shown):
    """A bar over the steps from `first` to `end`, as a context that yields `advance(step, text=None)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Throughput())
    drawn = 0.0
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), auto_refresh=False, disable=not shown
    ) as bar:
        task = bar.add_task("training", total=end, completed=first, batch_size=batch_size)

        def advance(step, text=None):
            nonlocal drawn
            if shown and (text is not None or time.monotonic() - drawn > REFRESH):
                bar.update(task, completed=step, description=text, refresh=True)
                drawn = time.monotonic()

        yield advance
