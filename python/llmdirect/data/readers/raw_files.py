"""Raw files as they come: plain or compressed, read in blocks of whole lines, damage named."""

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
from llmdirect.common.progress import SILENT, Progress

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 25  # decompressed bytes handled at once
_COMPRESSED_SUFFIXES = {".gz", ".zst", ".bz2", ".xz"}
_TAR_MARK = slice(257, 262)


def stem(path: Path) -> str:
    """The file's name without the suffixes of compression and format: `reviews.json.gz` gives `reviews`."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else Path(path.name)
    return name.stem


def format_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: `.json` of `reviews.json.gz`."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED_SUFFIXES else path
    return name.suffix.lower()


def check_file(path: Path) -> None:
    """Raises FileNotFoundError or IsADirectoryError that says what was expected there."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; expected a file (JSON lines, CSV or Parquet)")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder, expected a file (JSON lines, CSV or Parquet)")


def raw_kind(path: Path) -> str:
    """`json`, `csv` or `parquet`: by the first bytes, and by the suffix where those leave it open.

    Raises DataError for an empty file, a JSON array and an archive.
    """
    with open_raw(path) as file:
        head = file.read(4096)
    if not head:
        raise DataError(f"{path}: the file is empty")
    if head.startswith(b"PK\x03\x04") or head[_TAR_MARK] == b"ustar":
        raise DataError(f"{path}: an archive; unpack it and give the file inside")
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    suffix = format_suffix(path)
    if suffix in (".csv", ".tsv"):
        return "csv"
    if first == b"[":
        raise DataError(f"{path}: a JSON array, expected one object a line: jq -c '.[]' FILE > FILE.jsonl")
    if first == b"{" or suffix in (".json", ".jsonl", ".ndjson"):
        return "json"
    return "csv"


@contextmanager
def open_raw(path: Path, progress: Progress = SILENT) -> Iterator[IO[bytes]]:
    """Opens a file for reading, decompressed; gzip, zstd, bzip2 and xz are told by their first bytes.

    Raises OSError kinds where the file cannot be opened, DataError where its compressed stream is cut
    or damaged: whatever was read up to there must not be used.
    """
    with (
        path.open("rb") as raw,
        progress.task(f"reading {path.name}", path.stat().st_size, "B") as task,
        _decompressed(raw) as file,
    ):
        reported = 0

        class Reporting(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # bytes alone are read
                nonlocal reported
                data = file.read(len(buffer))
                buffer[: len(data)] = data
                position = raw.tell()
                task.advance(position - reported)
                reported = position
                return len(data)

        try:
            yield io.BufferedReader(Reporting(), buffer_size=1 << 20)
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


def line_blocks(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, from 1; bytes): blocks of whole lines, of any length of line."""
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
