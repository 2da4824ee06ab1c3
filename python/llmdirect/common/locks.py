"""File locks: a single writer per folder."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from llmdirect.common.errors import BusyError

LOCK = ".lock"
"""Name of the lock file of a folder."""

_TEMPORARY = re.compile(r"\..+\.tmp\d+(-\d+)?")  # files that the writers of this package have not completed


@contextmanager
def single_writer(folder: Path) -> Iterator[Callable[[], None]]:
    """Exclusive lock of a folder, as a context manager.

    Temporary files of killed writers are removed. The lock belongs to the open file, so the system releases
    that of a killed process. A folder that does not exist is created, and removed again if nothing was
    written into it.

    Yields
    ------
    share
        Function to call to let `shared_writer` write too; others still may not.

    Raises
    ------
    BusyError
        If another process holds the lock.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with _lock(folder, fcntl.LOCK_EX) as handle:
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
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
    """Shared lock of a folder, next to a `single_writer` that shares its own.

    It keeps other writers out, also after the `single_writer` has ended.

    Raises
    ------
    BusyError
        If the lock is not shared.
    """
    with _lock(folder, fcntl.LOCK_SH):
        yield


def _lock(folder: Path, kind: int) -> IO[bytes]:
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("wb")
        try:
            _flock(handle, kind, folder)
        except BusyError:
            handle.close()
            raise
        if _is_same_file(handle, path):
            return handle
        handle.close()  # the writer before removed it, after we had opened it


def _flock(handle: IO[bytes], kind: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"{folder}: another llmdirect process is writing here; wait for it") from None


def _is_same_file(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
