"""How every stage writes: immutable files, one manifest that commits them, one writer at a time."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmdirect.errors import BusyError, DataError

MANIFEST = "manifest.json"
Json = dict[str, Any]


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


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


def read_manifest(folder: Path, format: str, version: int, made_by: str) -> Json:
    """Reads `folder/manifest.json` and checks that it is of this format and version.

    Raises FileNotFoundError where there is none (naming the command that makes it), DataError where it
    is not JSON, of another format, or of a version this code does not read.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found; `{made_by}` makes it") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); run `{made_by}` again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != format:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path}: format is {found!r}, expected {format!r}")
    if manifest.get("version") != version:
        raise DataError(f"{path}: version {manifest.get('version')}, this release reads {version}")
    return manifest


@contextmanager
def single_writer(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; a second writer gets BusyError at once. Cleans what a killed one left.

    The lock belongs to the open file, so a killed process gives it back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{folder}: another llmdirect process is writing here; wait for it") from None
        for orphan in folder.glob(".*.tmp*"):
            orphan.unlink(missing_ok=True)
        yield
