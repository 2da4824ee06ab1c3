"""Terminal output of the commands: consoles, progress bars, JSON, and data made safe to print."""

import re
import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from llmdirect.cli.flags import with_flags
from llmdirect.common.progress import Task

if TYPE_CHECKING:
    from rich.console import Console

_MESSAGES = ("notes", "problems")
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the result as one JSON object on stdout; progress and messages go to stderr."
    ),
]


@cache
def stdout() -> "Console":
    """Console of what a command prints; made on first use, since `--help` does without rich.console."""
    from rich.console import Console

    return Console()


@cache
def stderr() -> "Console":
    """Console of errors, log messages and progress bars."""
    from rich.console import Console

    return Console(stderr=True)


def emit(result: dict[str, Any]) -> None:
    """Print the result of a command as JSON on one line of stdout.

    Notes and problems name settings as options of the command line.
    """
    import json

    texts = {key: [with_flags(text) for text in result[key]] for key in _MESSAGES if key in result}
    result = result | texts
    sys.stdout.write(json.dumps(result, allow_nan=False, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Print text on stdout as it is: not wrapped, no markup, no colours."""
    stdout().print(text, highlight=False, markup=False, soft_wrap=True)


def safe(text: str) -> str:
    """Data that cannot steer the terminal: no escape sequences, no overriding of text direction."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """`safe` data on one line."""
    return re.sub(r"\s+", " ", safe(text))


def literal(text: str, style: str = "") -> Text:
    """Data as a cell or title of a table, in which no bracket is markup."""
    return Text(one_line(text), style=style)


class Bars:
    """Progress bars on stderr with rate and remaining time."""

    def task(self, label: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """Start a bar; the interface is `llmdirect.common.progress.Progress`."""
        from llmdirect.cli.progress_bars import progress_bar

        return progress_bar(stderr(), label, total, unit)
