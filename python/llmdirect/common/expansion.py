"""Budget of what a compressed file expands to, against files made to fill the memory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from llmdirect.common.errors import DataError
from llmdirect.common.files import open_regular

VARIABLE: Final = "LLMDIRECT_MAX_EXPANSION"
"""Environment variable with the largest expansion of a file, times its size."""
_EXPANSION: Final = 200
_FREE_BYTES: Final = 1 << 30
"""Bytes to which any file may expand."""
_MAGIC: Final = b"PAR1"
_BYTES_PER_VALUE: Final = 16  # of the longest fixed type, and of a view of a text


def expansion_budget(size: int) -> int:
    """Bytes to which a file of `size` bytes may expand.

    Raises
    ------
    ValueError
        If the environment variable is not a number of 1 or more.
    """
    return max(_FREE_BYTES, size * expansion_limit())


def expansion_limit() -> int:
    """Times its size that a file may expand to; raises as `expansion_budget`."""
    text = os.environ.get(VARIABLE, str(_EXPANSION))
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{VARIABLE}={text}: expected a whole number of 1 or more")
    return int(text)


def check_expansion(label: Path | str, size: int, expanded: int) -> None:
    """Check that a file of `size` bytes does not expand beyond its budget; `label` names it in the error.

    Raises
    ------
    DataError
        If it does; the message has the budget and how to raise it.
    """
    budget = expansion_budget(size)
    if expanded > budget:
        raise DataError(
            f"{label}: {size:,} bytes expand to {expanded:,} or more, beyond the budget of {budget:,}; if "
            f"you trust the file, set the environment variable {VARIABLE} to more than {expansion_limit()}, "
            "the times its size that a file may expand to"
        )


def check_parquet(path: Path, label: str | None = None) -> None:
    """Check the size that the footer of a Parquet file states; a damaged footer is left to its reader.

    Parameters
    ----------
    path
        The file.
    label
        Its name in the error; by default its path.

    Raises
    ------
    DataError
        If its columns, decompressed, are beyond the budget.
    """
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        footer = _footer(file, size)
    try:
        expanded = _stated_bytes(footer)
    except (AttributeError, IndexError, ValueError, TypeError, RecursionError):
        return
    check_expansion(label or path, size, expanded)


def _footer(file: IO[bytes], size: int) -> bytes:
    """Thrift-encoded metadata at the end of a Parquet file; empty where there is none."""
    if size < 12:
        return b""
    file.seek(size - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > min(size - 8, 1 << 28):
        return b""
    file.seek(size - 8 - length)
    return file.read(length)


def _stated_bytes(footer: bytes) -> int:
    """Bytes of all row groups: those of their pages decompressed, and at least those of their values."""
    metadata = _Thrift(footer).struct()
    total = 0
    for group in metadata.get(4, []):
        columns, page_bytes, num_rows = group.get(1, []), group.get(2, 0), group.get(3, 0)
        pages = sum(column.get(3, {}).get(6, 0) for column in columns)
        total += max(page_bytes, pages, num_rows * len(columns) * _BYTES_PER_VALUE)
    return total


class _Thrift:
    """Reader of Thrift's compact protocol, in which Parquet writes its footer.

    References
    ----------
    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
    """

    def __init__(self, data: bytes) -> None:
        self._bytes: Iterator[int] = iter(data)

    def struct(self) -> dict[int, Any]:
        """Fields of a struct by their ids."""
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            delta, kind = header >> 4, header & 15
            number = number + delta if delta else self._integer()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _byte(self) -> int:
        try:
            return next(self._bytes)
        except StopIteration:
            raise IndexError("the footer ends early") from None

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, count: int) -> None:
        for _ in range(count):
            self._byte()

    def _list(self) -> list[Any]:
        header = self._byte()
        count = header >> 4 if header >> 4 < 15 else self._varint()
        return [self._value(header & 15) for _ in range(count)]

    def _map(self) -> None:
        count = self._varint()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4)
            self._value(kinds & 15)

    def _value(self, kind: int) -> Any:
        readers: dict[int, Callable[[], Any]] = {
            1: self._byte,  # in a list, where a bool is a byte
            2: self._byte,
            3: self._byte,
            4: self._integer,
            5: self._integer,
            6: self._integer,
            7: lambda: self._skip(8),
            8: lambda: self._skip(self._varint()),
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
        }
        if kind not in readers:
            raise ValueError(f"type {kind} of Thrift")
        return readers[kind]()
