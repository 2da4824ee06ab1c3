"""Atomic file writes, content hashes and manifests."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from llmdirect.common.errors import DataError
from llmdirect.common.types import Json

MANIFEST = "manifest.json"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def digest(*parts: bytes | str) -> str:
    """32 hex digits over the parts, each with its length, so that their borders count too."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a sibling, syncs it, renames it over `path`, syncs the folder: all of it or nothing."""
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Before the work whose result is to be this file: OSError where it cannot be written there."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")


def file_digest(path: Path) -> str:
    """32 hex digits over a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_hashed(folder: Path, stem: str, suffix: str, write: Callable[[IO[bytes]], object]) -> Json:
    """Writes `<stem>-<hash of the bytes><suffix>` and returns its manifest entry: name, bytes, hash.

    The file means nothing until a manifest names it.
    """
    temporary = folder / f".{stem}{suffix}.tmp{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        entry: Json = {"bytes": temporary.stat().st_size, "hash": file_digest(temporary)}
        entry["name"] = f"{stem}-{entry['hash']}{suffix}"
        os.replace(temporary, folder / entry["name"])
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return entry


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, manifest: Json) -> None:
    """The commit of an artefact: after this line a reader sees the new state, before it the old one."""
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / MANIFEST, lambda file: file.write(text.encode() + b"\n"))


def read_manifest(folder: Path, format: str, version: int, made_by: str, oldest: int | None = None) -> Json:
    """Reads `folder/manifest.json` and checks that it is of this format and version, or from `oldest` on.

    Raises FileNotFoundError where there is none (naming the command that makes it), DataError where it
    is not JSON, of another format, or of a version this code does not read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        missing = path if folder.is_dir() else folder
        raise FileNotFoundError(f"{missing}: not found; `{made_by}` makes it") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); remove it and run `{made_by}` again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != format:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path}: format is {found!r}, expected {format!r}, which `{made_by}` makes")
    found = manifest.get("version")
    if not isinstance(found, int) or not (oldest or version) <= found <= version:
        read = version if oldest in (None, version) else f"{oldest} to {version}"
        raise DataError(f"{path}: version {found}, this release reads {read}")
    return manifest


def check_disk(folder: Path, needed: int, what: str) -> None:
    """OSError (ENOSPC) where the disk of `folder`, which need not exist yet, has fewer free bytes."""
    free = free_bytes(folder)
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{what} {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free; make room, or keep the "
            "data on a larger disk",
            str(folder),
        )


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which `folder` lies or would lie."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


@contextmanager
def disk_full_hint(folder: Path, cure: str) -> Iterator[None]:
    """Adds the cure to the error of a full disk, a quota or a limit on file sizes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OSError(error.errno, f"{error.strerror}; {cure}", error.filename or str(folder)) from None
