"""Atomic file writes, confined reads, content hashes and manifests."""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final

from llmdirect.common.errors import DataError
from llmdirect.common.types import Json

MANIFEST = "manifest.json"
"""Name of the manifest of an artefact."""

_MAX_JSON_BYTES: Final = 1 << 28
"""Limit of a JSON file; a store of version 1 keeps its checksums there, 60 bytes per 4 MiB of data."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ROOM = "make room and run again"


class DiskFullError(OSError):
    """A full disk, a quota or a limit of file sizes; the message names the file and the cure."""


def digest(*parts: bytes | str) -> str:
    """BLAKE2b hash of the parts and their lengths: 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file completely or not at all.

    A temporary file in the same folder is written, synced, and renamed to `path`.

    Parameters
    ----------
    path
        File to write or replace.
    write
        Function that writes the content into an open file.
    """
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with disk_full_hint(path, _ROOM):
            _write_synced(temporary, write)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Check, before long work, that its result can be written to a file.

    Raises
    ------
    IsADirectoryError
        If `path` is a folder.
    FileNotFoundError
        If the folder of the file does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; named pipes and devices, which may never end, are refused.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DataError
        If it is not a regular file.
    """
    # Opening a named pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = next((text for is_kind, text in _KINDS if is_kind(mode)), "not a regular file")
        raise DataError(f"{path}: is {what}, expected a regular file; replace it")
    return os.fdopen(handle, "rb")


def file_inside(folder: Path, name: Any) -> Path:
    """Path of a file that a manifest names, confined to its folder; it need not exist.

    Raises
    ------
    DataError
        If the name leads out of the folder (a path, or a symbolic link to a file elsewhere), or is that of a
        folder, a named pipe or a device.
    """
    is_plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    if not is_plain or Path(name).name != name:
        raise DataError(
            f"{folder}: {name!r} is not the name of a file in this folder; make the artefact again"
        )
    path: Path = folder / name
    if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise DataError(
            f"{path}: is a symbolic link to {os.path.realpath(path)}, outside its folder; copy the file here"
        )
    if path.exists():
        open_regular(path).close()
    return path


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file; DataError if it is larger than `max_bytes`."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{path}: larger than {max_bytes:,} bytes, the limit of such a file")
    return content


def file_digest(path: Path) -> str:
    """BLAKE2b hash of a regular file's bytes: 32 hex digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_hashed(folder: Path, stem: str, suffix: str, write: Callable[[IO[bytes]], object]) -> Json:
    """Write a file that is named by its content: `<stem>-<hash><suffix>`.

    The file is not part of an artefact until a manifest names it.

    Parameters
    ----------
    folder
        Folder of the file.
    stem, suffix
        Parts of its name.
    write
        Function that writes the content into an open file.

    Returns
    -------
    Entry for the manifest: name, bytes (length) and hash.
    """
    temporary = folder / f".{stem}{suffix}.tmp{os.getpid()}"
    try:
        with disk_full_hint(folder / f"{stem}{suffix}", _ROOM):
            _write_synced(temporary, write)
        entry: Json = {"bytes": temporary.stat().st_size, "hash": file_digest(temporary)}
        entry["name"] = f"{stem}-{entry['hash']}{suffix}"
        os.replace(temporary, folder / entry["name"])
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return entry


def _write_synced(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that renames survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, manifest: Json) -> None:
    """Write `folder/manifest.json`, which commits the state of an artefact."""
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / MANIFEST, lambda file: file.write(text.encode() + b"\n"))


def read_manifest(folder: Path, format: str, version: int, made_by: str, oldest: int | None = None) -> Json:
    """Read `folder/manifest.json` and check its format and version.

    Parameters
    ----------
    folder
        Folder of the artefact.
    format
        Format that the manifest must state.
    version
        Newest version that is read.
    made_by
        Command that creates the artefact, for error messages.
    oldest
        Oldest version that is read; by default `version`.

    Raises
    ------
    FileNotFoundError
        If there is no manifest.
    DataError
        If it is not JSON, of another format, or of a version that is not read.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        missing = path if folder.is_dir() else folder
        raise FileNotFoundError(f"{missing}: not found; `{made_by}` makes it") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); remove it and run `{made_by}` again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != format:
        actual = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path}: format is {actual!r}, expected {format!r}, which `{made_by}` makes")
    actual = manifest.get("version")
    if type(actual) is not int or not (oldest or version) <= actual <= version:
        readable = version if oldest in (None, version) else f"{oldest} to {version}"
        newer = isinstance(actual, int) and actual > version
        cure = "install a newer release of llmdirect" if newer else f"run `{made_by}` again"
        raise DataError(f"{path}: version {actual}, this release reads {readable}; {cure}")
    return manifest


def read_json(path: Path) -> Any:
    """Value of a JSON file.

    Raises
    ------
    OSError
        If the file cannot be read.
    DataError
        If it is not a regular file, or of more than 256 MiB.
    ValueError
        If it is not JSON, or nested too deeply.
    """
    try:
        content = read_limited(path, _MAX_JSON_BYTES)
        return json.loads(content, parse_float=_finite, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    """A number of JSON; ValueError for one beyond all floats, which Python reads as infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond all floats")
    return value


def _refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which JSON does not have and Python reads."""
    raise ValueError(f"{name} is no JSON number")


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Check the free space of the disk of a folder, which need not exist yet.

    Parameters
    ----------
    folder
        Folder to write into.
    needed
        Bytes to write.
    what
        Beginning of the error message, such as "the shards need".

    Raises
    ------
    OSError
        With errno ENOSPC, if the disk has fewer free bytes.
    """
    free = free_bytes(folder)
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{what} {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free; make room, or keep the "
            "data on a larger disk",
            str(folder),
        )


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder, which need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


@contextmanager
def disk_full_hint(folder: Path, cure: str) -> Iterator[None]:
    """Append a cure to the error of a full disk, a quota or a limit of file sizes.

    Parameters
    ----------
    folder
        Folder that the error names where the system names no file.
    cure
        What to do, such as "make room and run again".
    """
    try:
        yield
    except DiskFullError as error:  # of a file inside, with a cure that knows less
        if cure == _ROOM:
            raise
        reason = str(error.strerror).partition("; ")[0]
        raise DiskFullError(error.errno, f"{reason}; {cure}", error.filename) from None
    except Exception as error:
        number = _disk_full_errno(error)
        has_own_text = isinstance(error, OSError) and error.strerror != os.strerror(error.errno or 0)
        if number is None or has_own_text:
            raise
        path, reason = str(folder), os.strerror(number)
        if isinstance(error, OSError):
            path, reason = error.filename or path, error.strerror or reason
        raise DiskFullError(number, f"{reason}; {cure}", path) from None


def _disk_full_errno(error: Exception) -> int | None:
    """Number of the error of the system; libraries that are not of Python have only its text."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return error.errno
    return next((number for number in _DISK_FULL if f"os error {number}" in str(error)), None)
