"""Progress of long work: the library reports it, the command line draws it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """A piece of work in progress."""

    def advance(self, amount: float = 1) -> None:
        """Report `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show a short text next to the bar, such as the last loss."""


class Progress(Protocol):
    """Receiver of progress reports."""

    def task(self, label: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """Start a piece of work, as a context manager.

        Parameters
        ----------
        label
            Name of the work.
        total
            Number of units, None if unknown.
        unit
            Name of the units, "B" for bytes.
        """


class _SilentTask:
    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Silent:
    """Progress that is not shown: the default of library calls."""

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Task]:
        yield _SilentTask()


SILENT = Silent()
