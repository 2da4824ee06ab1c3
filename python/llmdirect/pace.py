"""How fast a run encodes, what it has left to do, and how near that is to what the device could do."""

import logging
import threading
import time
from typing import Any

from llmdirect.progress import Task

logger = logging.getLogger(__name__)


class Pace:
    """Counts batches as they are encoded and bytes as they are written; shows both beside the bar.

    `total` and the `operations` of a batch are floating-point operations, `peak` those a second that the
    device could do, and `peak_from` how that is known.
    """

    def __init__(self, task: Task, total: float, peak: float, peak_from: str) -> None:
        self._task, self._total, self._peak, self._peak_from = task, total, peak, peak_from
        self._passages = self._tokens = self._bytes = self._batches = 0
        self._operations = 0.0
        self._lock = threading.Lock()  # the writer counts its bytes in a thread of its own
        self._started = time.perf_counter()

    def encoded(self, passages: int, tokens: int, operations: float) -> None:
        """A batch is done. The first tells how long the run will take."""
        self._task.advance(tokens)
        with self._lock:
            self._passages += passages
            self._tokens += tokens
            self._operations += operations
            self._batches += 1
            seconds = time.perf_counter() - self._started
            if self._batches == 1:
                logger.info(
                    "about %s for all of it, by the first batch (%s tokens in %.1f s)",
                    *(_duration(seconds * self._total / max(operations, 1)), f"{tokens:,}", seconds),
                )
            self._task.note(self._note(seconds))

    def written(self, num_bytes: int) -> None:
        """A shard is on disk."""
        with self._lock:
            self._bytes += num_bytes

    def _note(self, seconds: float) -> str:
        share = self._operations / seconds / self._peak
        return (
            f"{self._passages / seconds:,.0f} passages/s, MFU {share:.0%}, {self._bytes / 1e9:.2f} GB written"
        )

    def summary(self) -> dict[str, Any]:
        """{"seconds", "tokens_per_second", "passages_per_second", "mfu", "peak_flops", "peak_from"}."""
        seconds = time.perf_counter() - self._started
        return {
            "seconds": seconds,
            "tokens_per_second": self._tokens / seconds,
            "passages_per_second": self._passages / seconds,
            "mfu": self._operations / seconds / self._peak,
            "peak_flops": self._peak,
            "peak_from": self._peak_from,
        }


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
