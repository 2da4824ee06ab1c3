"""Raw files, plain or compressed: their format and their content."""

import bz2
import gzip
import io
import lzma
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

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 25
"""Decompressed bytes in memory at once."""
_COMPRESSED_SUFFIXES = {".gz", ".zst", ".bz2", ".xz"}
_TAR_MARK = slice(257, 262)


def base_name(path: Path) -> str:
    """File name without the suffixes of format and compression: "reviews" of "reviews.json.gz"."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else Path(path.name)
    return name.stem


def _format_suffix(path: Path) -> str:
    """Suffix of the format in lower case: ".json" of "reviews.json.gz"."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else path
    return name.suffix.lower()


def check_input_file(path: Path) -> None:
    """Check that there is a file.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    IsADirectoryError
        If there is a folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; expected a file (JSON lines, CSV or Parquet)")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder, expected a file (JSON lines, CSV or Parquet)")


def detect_format(path: Path) -> str:
    """Format of a raw file by its first bytes, else by its suffix: "json", "csv" or "parquet".

    Raises
    ------
    DataError
        If the file is empty, a JSON array or an archive.
    """
    with open_decompressed(path) as file:
        head = file.read(4096)
    if not head:
        raise DataError(f"{path}: the file is empty")
    if head.startswith(b"PK\x03\x04") or head[_TAR_MARK] == b"ustar":
        raise DataError(f"{path}: an archive; unpack it and give the file inside")
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    suffix = _format_suffix(path)
    if suffix in (".csv", ".tsv"):
        return "csv"
    if first == b"[":
        raise DataError(f"{path}: a JSON array, expected one object a line: jq -c '.[]' FILE > FILE.jsonl")
    if first == b"{" or suffix in (".json", ".jsonl", ".ndjson"):
        return "json"
    return "csv"


@contextmanager
def open_decompressed(path: Path, progress: Progress = SILENT) -> Iterator[IO[bytes]]:
    """Open a raw file for reading, decompressed if its first bytes are of gzip, zstd, bzip2 or xz.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DataError
        If it is not a regular file, or the compressed stream is truncated, damaged or expands beyond its
        budget (`common.expansion`); what was read before must not be used.
    """
    with (
        open_regular(path) as raw,
        progress.task(f"reading {path.name}", path.stat().st_size, "B") as task,
        _decompressed(raw) as file,
    ):
        reported = expanded = 0
        size = path.stat().st_size
        if raw.read(4) == b"PAR1":
            check_parquet(path)
        raw.seek(0)

        class ReportingReader(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # bytes alone are read
                nonlocal reported, expanded
                data = file.read(len(buffer))
                expanded += len(data)
                check_expansion(path, size, expanded)
                buffer[: len(data)] = data
                position = raw.tell()
                task.advance(position - reported)
                reported = position
                return len(data)

        try:
            yield io.BufferedReader(ReportingReader(), buffer_size=1 << 20)
        except EOFError:
            raise DataError(
                f"{path}: the compressed stream is cut (the file ends after {raw.tell():,} bytes, before the "
                "end mark); fetch the file again"
            ) from None
        except (zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstd.ZstdError) as error:
            raise DataError(f"{path}: the compressed stream is damaged ({error}); fetch it again") from None
        except OSError as error:
            if error.errno is None:  # how bz2 reports a damaged stream
                raise DataError(
                    f"{path}: the compressed stream is damaged ({error}); fetch it again"
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
