"""Throughput of an encoding run and its share of the peak of the device."""

import threading
import time

from llmdirect.common.progress import Task
from llmdirect.encoding.results import Throughput


class ThroughputMeter:
    """Counter of encoded batches and written bytes, shown next to the progress bar.

    Parameters
    ----------
    task
        Progress bar, in tokens.
    peak
        Floating-point operations per second of the device.
    peak_from
        Source of `peak`: "data sheet" or "measured".
    """

    def __init__(self, task: Task, peak: float, peak_from: str) -> None:
        self._task, self._peak, self._peak_from = task, peak, peak_from
        self._passages = self._tokens = self._bytes = 0
        self._operations = 0.0
        self._lock = threading.Lock()  # shards are written in a thread of their own
        self._started = time.perf_counter()

    def add_batch(self, passages: int, tokens: int, operations: float) -> None:
        """Count an encoded batch; `operations` are floating-point operations."""
        self._task.advance(tokens)
        with self._lock:
            self._passages += passages
            self._tokens += tokens
            self._operations += operations
            self._task.note(self._note(time.perf_counter() - self._started))

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes written to disk."""
        with self._lock:
            self._bytes += num_bytes

    def _note(self, seconds: float) -> str:
        mfu = self._operations / seconds / self._peak
        return (
            f"{self._passages / seconds:,.0f} passages/s, MFU {mfu:.0%}, {self._bytes / 1e9:.2f} GB written"
        )

    def summary(self) -> Throughput:
        """Mean rates since the meter was created."""
        seconds = time.perf_counter() - self._started
        return Throughput(
            seconds,
            tokens_per_second=self._tokens / seconds,
            passages_per_second=self._passages / seconds,
            mfu=self._operations / seconds / self._peak,
            peak_flops=self._peak,
            peak_from=self._peak_from,
        )


def format_duration(seconds: float) -> str:
    """Duration in seconds, minutes or hours: "90 s", "12 min", "3.4 h"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
