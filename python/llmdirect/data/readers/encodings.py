"""Encodings of raw text files, all of which are read as UTF-8."""

import codecs
import io
from pathlib import Path
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


def as_utf8(path: Path, file: io.BufferedReader, encoding: str | None) -> IO[bytes]:
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
    return io.BufferedReader(_Transcoded(path, file, encoding), buffer_size=_CHUNK_BYTES)


class _Transcoded(io.RawIOBase):
    """Stream of UTF-8 from a stream of another encoding."""

    def __init__(self, path: Path, file: IO[bytes], encoding: str) -> None:
        self._path, self._file, self._encoding = path, file, encoding
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
                    f"{self._path}: not {self._encoding} at byte {start:,} or shortly before; "
                    "name the encoding of the file with `encoding`"
                ) from None
            self._num_read += len(data)
            if not data:
                break
        part, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
