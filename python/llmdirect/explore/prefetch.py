"""Prefetching of the texts of a list in a background thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

DELAY: Final = 0.3
"""Seconds without another list before prefetching starts."""


class Prefetcher:
    """Reads the texts of a list's items in the background, so that an item opens quickly.

    Parameters
    ----------
    read
        Reads and caches an item's texts; called in one background thread.
    """

    def __init__(self, read: Callable[[int], object]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._timer: asyncio.TimerHandle | None = None
        self._futures: list[Future[object]] = []

    def schedule(self, items: list[int]) -> None:
        """Prefetch these items after DELAY, in place of the list before; call it from the event loop."""
        self.cancel()
        self._timer = asyncio.get_running_loop().call_later(DELAY, self._start, items)

    def cancel(self) -> None:
        """Drop all items whose reading has not started."""
        if self._timer is not None:
            self._timer.cancel()
        for future in self._futures:
            future.cancel()

    def _start(self, items: list[int]) -> None:
        self._futures = [self._pool.submit(self._read, item) for item in items]
