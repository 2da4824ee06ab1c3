"""Raw files, plain or compressed: their format and their content."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from llmdirect.common.errors import DataError
from llmdirect.common.expansion import check_expansion, check_parquet
from llmdirect.common.files import open_regular
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.encodings import as_utf8, check_unmarked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 25
"""Decompressed bytes in memory at once."""
_OTHER_KINDS = (
    (b"PK\x03\x04", "an archive or an Excel file", "unpack it, or save its sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "save its sheet as CSV"),
    *(
        (
            b"\x80" + bytes([version]),
            "a pickle, which can run code when it is loaded; not read",
            "load it where you trust it, and write it with DataFrame.to_parquet",
        )
        for version in (2, 3, 4, 5)
    ),
    (b"\x89HDF", "an HDF5 file", "write its table with DataFrame.to_parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table of reviews as CSV or JSON lines"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (b"\x93NUMPY", "a NumPy array", "give a table of reviews"),
    (b"<!DOCTYPE", "an HTML page, perhaps of a failed download", "fetch the file again"),
    (b"<html", "an HTML page, perhaps of a failed download", "fetch the file again"),
    (b"%PDF", "a PDF file", "give a table of reviews"),
)
"""Marks of files that are not read, what they are, and the cure."""
_COMPRESSED_SUFFIXES = {".gz", ".zst", ".bz2", ".xz"}
_TAR_MARK = slice(257, 262)
_ARRAY = re.compile(rb"\[\s*[\[{\]]")
"""Start of a JSON array of records."""


def base_name(path: Path) -> str:
    """File name without the suffixes of format and compression: "reviews" of "reviews.json.gz"."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else Path(path.name)
    return name.stem


def format_suffix(path: Path) -> str:
    """Suffix of the format in lower case: ".json" of "reviews.json.gz"."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else path
    return name.suffix.lower()


def detect_format(path: Path, encoding: str | None = None, label: str | None = None) -> str:
    """Format of a raw file by its first bytes, else by its suffix: "json", "csv", "parquet" or "feather".

    Parameters
    ----------
    path, encoding, label
        As in `open_decompressed`.

    Raises
    ------
    DataError
        If the file is empty, or of a kind that is not read.
    """
    with open_decompressed(path, encoding=encoding, label=label) as file:
        head = file.read(4096)
    label = label or str(path)
    if not head:
        raise DataError(f"{label}: the file is empty")
    for mark, kind, cure in _OTHER_KINDS:
        if head.startswith(mark):
            raise DataError(f"{label}: {kind}; {cure}")
    if head[_TAR_MARK] == b"ustar":
        raise DataError(f"{label}: an archive; unpack it and give the file inside")
    for mark, format in ((b"PAR1", "parquet"), (b"ARROW1", "feather"), (b"FEA1", "feather")):
        if head.startswith(mark):
            return format
    check_unmarked(label, head)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    suffix = format_suffix(path)
    if suffix in (".csv", ".tsv"):
        return "csv"
    if text.startswith(b"{") or suffix in (".json", ".jsonl", ".ndjson"):
        return "json"
    return "json" if _ARRAY.match(text) else "csv"


@contextmanager
def open_decompressed(
    path: Path, progress: Progress = SILENT, *, encoding: str | None = None, label: str | None = None
) -> Iterator[IO[bytes]]:
    """Open a raw file for reading, decompressed if its first bytes are of gzip, zstd, bzip2 or xz.

    Parameters
    ----------
    path
        The file.
    progress
        Receiver of progress reports.
    encoding
        Encoding of a text file, which is read as UTF-8; by default that of its byte order mark, else UTF-8.
    label
        Name of the file in messages; by default its path.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DataError
        If it is not a regular file, the compressed stream is truncated, damaged or expands beyond its budget
        (`common.expansion`), or the text is not of the encoding; what was read before must not be used.
    """
    title, name = label or path.name, label or str(path)
    with (
        open_regular(path) as raw,
        progress.task(f"reading {title}", path.stat().st_size, "B") as task,
        _decompressed(raw) as file,
    ):
        reported = expanded = 0
        size = path.stat().st_size
        if raw.read(4) == b"PAR1":
            check_parquet(path, name)
        raw.seek(0)

        class ReportingReader(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # bytes alone are read
                nonlocal reported, expanded
                data = file.read(len(buffer))
                expanded += len(data)
                check_expansion(name, size, expanded)
                buffer[: len(data)] = data
                position = raw.tell()
                task.advance(position - reported)
                reported = position
                return len(data)

        try:
            yield as_utf8(name, io.BufferedReader(ReportingReader(), buffer_size=1 << 20), encoding)
        except EOFError:
            raise DataError(
                f"{name}: the compressed stream is cut (the file ends after {raw.tell():,} bytes, before "
                "the end mark); fetch the file again"
            ) from None
        except (zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError) as error:
            raise DataError(f"{name}: the compressed stream is damaged ({error}); fetch it again") from None
        except OSError as error:
            if error.errno is None:  # how bz2 reports a damaged stream
                raise DataError(
                    f"{name}: the compressed stream is damaged ({error}); fetch it again"
                ) from None
            raise


def read_line_blocks(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Read a file in blocks of whole lines.

    Yields
    ------
    line
        Number of the first line, from 1.
    block
        Bytes of the lines.
    """
    line, rest = 1, [b""]
    while data := file.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end == 0:
            rest.append(data)
            continue
        block = b"".join((*rest, data[:end]))
        rest = [data[end:]]
        yield line, block
        line += block.count(b"\n")
    if last := b"".join(rest):
        yield line, last


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(IO[bytes], zstd.ZstdFile(raw))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    return raw
