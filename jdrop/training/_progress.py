"""The progress bar of training."""

import contextlib
import time

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from jdrop._progress import progress_bar as new_bar

REFRESH = 0.25  # seconds; drawing takes milliseconds that the steps would like to have


class _Throughput(ProgressColumn):
    def render(self, task):
        steps = task.completed - task.fields["first"]
        return Text(f"{steps * task.fields['size']() / (task.elapsed or 1):,.0f} examples/s")


@contextlib.contextmanager
def progress_bar(first, end, size, shown):
    """A bar over the steps from `first` to `end`, as a context that yields `advance(step, epoch=None, news=None)`.

    `size()` is how many examples a step has.
    """
    fixed = {"no_wrap": True, "min_width": 6}
    rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(**fixed)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(**fixed)),
        _Throughput(table_column=Column(**fixed)),
        TimeRemainingColumn(table_column=Column(**fixed)),
        TextColumn("{task.fields[news]}", markup=False, table_column=rest),
    )
    drawn = 0.0
    with new_bar(shown, *columns, auto_refresh=False, expand=True) as bar:
        fields = {"first": first, "size": size, "news": ""}
        task = bar.add_task("training", total=end, completed=first, **fields)

        def advance(step, epoch=None, news=None):
            nonlocal drawn
            if shown and (news is not None or time.monotonic() - drawn > REFRESH):
                news = {} if news is None else {"news": news}
                bar.update(task, completed=step, description=epoch, refresh=True, **news)
                drawn = time.monotonic()

        yield advance
