"""File locks: one writer at a time in a folder."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from llmdirect.common.errors import BusyError

LOCK = ".lock"

_ORPHAN = re.compile(r"\..+\.tmp\d+(-\d+)?")  # what the writers of this package call a file in the making


@contextmanager
def single_writer(folder: Path) -> Iterator[Callable[[], None]]:
    """Holds the folder's lock; a second writer gets BusyError at once. Cleans what a killed one left.

    The lock belongs to the open file, so a killed process gives it back. The folder is made where it is
    missing, and goes again where nothing was written into it. Yields a function after whose call
    `shared_writer` may write too, and others still may not.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with _lock(folder, fcntl.LOCK_EX) as handle:
        for path in folder.iterdir():
            if _ORPHAN.fullmatch(path.name):
                path.unlink(missing_ok=True)
        try:
            yield lambda: _flock(handle, fcntl.LOCK_SH, folder)
        finally:
            if missing and folder.exists() and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                with suppress(OSError):  # another process has begun to write there
                    for path in missing:
                        path.rmdir()


@contextmanager
def shared_writer(folder: Path) -> Iterator[None]:
    """Writes beside a `single_writer` that shares its lock, and keeps others out like it, even after its end.

    Raises BusyError where the lock is not shared.
    """
    with _lock(folder, fcntl.LOCK_SH):
        yield


def _lock(folder: Path, kind: int) -> IO[bytes]:
    """The folder's lock file, locked. BusyError where another process has it."""
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("wb")
        try:
            _flock(handle, kind, folder)
        except BusyError:
            handle.close()
            raise
        if _lies_at(handle, path):
            return handle
        handle.close()  # the writer before removed it, after we had opened it


def _flock(handle: IO[bytes], kind: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"{folder}: another llmdirect process is writing here; wait for it") from None


def _lies_at(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
