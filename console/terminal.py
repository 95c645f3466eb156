"""Messages and progress on the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_S = 5.0


messages = Console(stderr=True)
"""Console for messages to people; output for programs goes to standard output."""


class _RateColumn(ProgressColumn):
    """Column of a progress bar with the rate per second."""

    def render(self, task: Task) -> Text:
        """Return the rate as text, empty until one is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show progress: a bar on a terminal, elsewhere a plain line every LINE_EVERY_S seconds.

    The block gets a function that takes the number of items done so far. `total` is None if it is not known.
    """
    if messages.is_terminal:
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            _RateColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=messages, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    begun = last = time.monotonic()

    def plain(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last, rate = now, done / (now - begun)
            left = f" of {total:,}, {(total - done) / rate:,.0f} s left" if total and rate else ""
            messages.print(f"{what}: {done:,}{left}, {rate:,.0f}/s", highlight=False)

    yield plain


def print_status_line(name: str, what: str) -> None:
    """Print one line about a part of the system."""
    messages.print(f"{name:<12} {what}", highlight=False)
