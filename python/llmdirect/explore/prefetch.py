"""What is likely asked for next is made ready while nobody asks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

PAUSE: Final = 0.3
"""Seconds without another list, after which this one is taken to be looked at."""


class ReadAhead:
    """Reads the texts of a list's items while it is looked at, so that an item opens at once."""

    def __init__(self, read: Callable[[int], object]) -> None:
        """read: reads an item's texts, in a thread of its own."""
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._planned: asyncio.TimerHandle | None = None
        self._waiting: list[Future[object]] = []

    def of(self, items: list[int]) -> None:
        """Goes on to this list, from within the event loop; what is left of the list before is dropped."""
        self.stop()
        self._planned = asyncio.get_running_loop().call_later(PAUSE, self._start, items)

    def stop(self) -> None:
        """Nothing more is begun."""
        if self._planned is not None:
            self._planned.cancel()
        for each in self._waiting:
            each.cancel()

    def _start(self, items: list[int]) -> None:
        self._waiting = [self._pool.submit(self._read, item) for item in items]
