"""How fast a run encodes, what it has left to do, and how near that is to what the device could do."""

import threading
import time

from llmdirect.common.progress import Task
from llmdirect.encoding.results import Throughput


class ThroughputMeter:
    """Counts batches as they are encoded and bytes as they are written; shows both beside the bar.

    The `operations` of a batch are floating-point operations, `peak` those a second that the device could do,
    and `peak_from` how that is known.
    """

    def __init__(self, task: Task, peak: float, peak_from: str) -> None:
        self._task, self._peak, self._peak_from = task, peak, peak_from
        self._passages = self._tokens = self._bytes = 0
        self._operations = 0.0
        self._lock = threading.Lock()  # the writer counts its bytes in a thread of its own
        self._started = time.perf_counter()

    def encoded(self, passages: int, tokens: int, operations: float) -> None:
        """A batch is done."""
        self._task.advance(tokens)
        with self._lock:
            self._passages += passages
            self._tokens += tokens
            self._operations += operations
            self._task.note(self._note(time.perf_counter() - self._started))

    def written(self, num_bytes: int) -> None:
        """A shard is on disk."""
        with self._lock:
            self._bytes += num_bytes

    def _note(self, seconds: float) -> str:
        share = self._operations / seconds / self._peak
        return (
            f"{self._passages / seconds:,.0f} passages/s, MFU {share:.0%}, {self._bytes / 1e9:.2f} GB written"
        )

    def summary(self) -> Throughput:
        """Rates since the meter was made."""
        seconds = time.perf_counter() - self._started
        return Throughput(
            seconds,
            tokens_per_second=self._tokens / seconds,
            passages_per_second=self._passages / seconds,
            mfu=self._operations / seconds / self._peak,
            peak_flops=self._peak,
            peak_from=self._peak_from,
        )


def duration(seconds: float) -> str:
    """ "90 s", "12 min", "3.4 h"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
