"""Encodings of raw text files, all of which are read as UTF-8."""

import codecs
import io
from typing import IO, Final

from llmdirect.common.errors import DataError

NOT_UTF8: Final = "not UTF-8; name the encoding of the file with `encoding`"
"""Reason of a bad line."""
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MIN_ZEROS: Final = 0.02  # of the bytes of a text that is not UTF-8
_MOST: Final = 0.7
_CHUNK_BYTES: Final = 1 << 20


def check_encoding(encoding: str | None) -> None:
    """Check that Python knows a text encoding of that name. Raises ValueError."""
    if encoding is None:
        return
    try:
        "".encode(encoding)
    except LookupError:
        raise ValueError(
            f"`encoding`: {encoding!r} is unknown; examples: cp1252, latin-1, gbk, shift_jis, utf-16"
        ) from None


def is_utf8(text: str) -> bool:
    """Whether a text decoded with the error handler surrogateescape was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_unmarked(label: str, head: bytes) -> None:
    """Check that the first bytes of a text are not UTF-16 or UTF-32 without a byte order mark.

    Raises
    ------
    DataError
        If they are.
    """
    is_zero = [byte == 0 for byte in head]
    if sum(is_zero) < _MIN_ZEROS * len(head):
        return
    encoding = None
    for name, first in (("utf-32-le", 2), ("utf-32-be", 0)):  # half of each character is zero
        halves = [*is_zero[first::4], *is_zero[first + 1 :: 4]]
        if sum(halves) > _MOST * len(halves):
            encoding = name
    for name, first in (("utf-16-le", 1), ("utf-16-be", 0)):  # that of Latin ones
        if encoding is None and sum(is_zero[first::2]) > _MOST * sum(is_zero):
            encoding = name
    if encoding is not None:
        raise DataError(
            f"{label}: {encoding[:-3].upper()} without a byte order mark; name it with "
            f'`encoding="{encoding}"`'
        )


def as_utf8(label: str, file: io.BufferedReader, encoding: str | None) -> IO[bytes]:
    """The text of a file as UTF-8; a byte order mark of UTF-16 or UTF-32 counts more than `encoding`.

    Raises
    ------
    DataError
        On reading, if the text is not of the encoding.
    """
    head = file.peek(4)[:4]
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), encoding)
    if encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return file
    return io.BufferedReader(_Transcoded(label, file, encoding), buffer_size=_CHUNK_BYTES)


class _Transcoded(io.RawIOBase):
    """Stream of UTF-8 from a stream of another encoding."""

    def __init__(self, label: str, file: IO[bytes], encoding: str) -> None:
        self._label, self._file, self._encoding = label, file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._pending = b""
        self._num_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # bytes alone are read
        while not self._pending:
            data = self._file.read(_CHUNK_BYTES)
            try:
                self._pending = self._decoder.decode(data, final=not data).encode()
            except UnicodeError as error:
                start = self._num_read + getattr(error, "start", 0)
                raise DataError(
                    f"{self._label}: not {self._encoding} at byte {start:,} or shortly before; "
                    "name the encoding of the file with `encoding`"
                ) from None
            self._num_read += len(data)
            if not data:
                break
        part, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
