"""What all commands share: progress bars, JSON output, errors a person can act on, exit codes."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
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

from llmdirect.cli.flags import with_flags

_MESSAGES = ("notes", "problems")
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

stderr = Console(stderr=True)
stdout = Console()

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")
]


def emit(result: dict[str, Any]) -> None:
    """Print the result of a command as JSON on one line of stdout.

    Notes and problems name settings as options of the command line.
    """
    texts = {key: [with_flags(text) for text in result[key]] for key in _MESSAGES if key in result}
    result = result | texts
    sys.stdout.write(json.dumps(result, allow_nan=False, ensure_ascii=False) + "\n")


def show(text: str) -> None:
    """Print text on stdout as it is: not wrapped, no markup, no colours."""
    stdout.print(text, highlight=False, markup=False, soft_wrap=True)


def safe(text: str) -> str:
    """Data that cannot steer the terminal: no escape sequences, no overriding of text direction."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """`safe` data on one line."""
    return re.sub(r"\s+", " ", safe(text))


def literal(text: str, style: str = "") -> Text:
    """Data as a cell or title of a table, in which no bracket is markup."""
    return Text(one_line(text), style=style)


def _amount(value: float, unit: str) -> str:
    return f"{value / 1e6:,.1f}" if unit == "B" else f"{value:,.0f}"


class _Done(ProgressColumn):
    """How much of it, and how fast."""

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


class Bars:
    """Progress bars on stderr with rate and remaining time."""

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[_BarTask]:
        with Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            _Done(),
            TimeRemainingColumn(elapsed_when_finished=True, compact=True),
            TextColumn("{task.fields[note]}"),
            console=stderr,
        ) as progress:
            task = progress.add_task(label, total=total, unit=unit, note="")
            yield _BarTask(progress, task)
            # Done, though the total was unknown or less was needed: no spinner stays behind.
            completed = progress.tasks[0].completed
            progress.update(task, total=completed or 1, completed=completed or 1)
