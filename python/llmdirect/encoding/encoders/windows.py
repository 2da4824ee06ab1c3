"""Passages beyond a model's limit: overlapping windows, of which each token is kept once."""

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """Tokens [start, stop) are read together; of them [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(length: int, room: int) -> list[Window]:
    """Cuts `length` tokens into windows of at most `room`; one window where they fit.

    Neighbours share at least a quarter of `room`, windows are spread evenly, and a shared token is kept
    where it has more context on its poorer side: the border is the middle of the overlap.
    """
    if room < 1:
        raise ValueError(f"room must be at least 1 token, not {room}")
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
