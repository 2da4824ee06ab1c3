"""Overlapping windows of passages longer than an encoder reads at once."""

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """Tokens [start, stop) read together, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(length: int, room: int) -> list[Window]:
    """Windows of at most `room` tokens over `length` tokens; one window where they fit.

    Neighbours share at least a quarter of `room`, and windows are spread evenly. Of the shared tokens each
    half is kept in the window where its shorter context is longer.

    Raises
    ------
    ValueError
        If `room` is below 1.
    """
    if room < 1:
        raise ValueError(f"room: {room}, expected 1 or more tokens")
    if length <= room:
        return [Window(0, length, 0, length)]
    overlap = room // 4
    count = -(-(length - overlap) // (room - overlap))
    starts = [index * (length - room) // (count - 1) for index in range(count)]
    borders = [(after + before + room) // 2 for before, after in pairwise(starts)]
    return [
        Window(start, start + room, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(starts, [0, *borders], [*borders, length], strict=True)
    ]
