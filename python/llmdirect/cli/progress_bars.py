"""Progress bars of the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def _amount(value: float, unit: str) -> str:
    return f"{value / 1e6:,.1f}" if unit == "B" else f"{value:,.0f}"


class _Completed(ProgressColumn):
    """Completed amount and speed."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        shown = "MB" if unit == "B" else unit
        done = _amount(task.completed, unit)
        text = f"{done}/{_amount(task.total, unit)} {shown}" if task.total else f"{done} {shown}"
        speed = task.finished_speed or task.speed
        if speed and speed < 1:
            text += f", {1 / speed:,.1f} s each"
        elif speed:
            text += f", {_amount(speed, unit)}/s"
        return Text(text, style="progress.data.speed")


class _BarTask:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)


@contextmanager
def progress_bar(console: Console, label: str, total: float | None, unit: str) -> Iterator[_BarTask]:
    """Progress bar with rate and remaining time."""
    with Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        _Completed(),
        TimeRemainingColumn(elapsed_when_finished=True, compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        task = progress.add_task(label, total=total, unit=unit, note="")
        yield _BarTask(progress, task)
        # Done, though the total was unknown or less was needed: no spinner stays behind.
        completed = progress.tasks[0].completed
        progress.update(task, total=completed or 1, completed=completed or 1)
