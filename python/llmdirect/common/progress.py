"""How long work reports itself: the library calls, the command line draws."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """`amount` more units are done."""

    def note(self, text: str) -> None:
        """A few words shown beside the bar, such as the last loss."""


class Progress(Protocol):
    """Receives what a stage is doing."""

    def task(self, label: str, total: float | None, unit: str) -> AbstractContextManager[Task]:
        """Starts a piece of work of `total` units (None: unknown); used in a `with` statement."""


class _SilentTask:
    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Silent:
    """Draws nothing: the default in library calls."""

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Task]:
        yield _SilentTask()


SILENT = Silent()
