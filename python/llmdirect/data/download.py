"""Download of public review files, resumable and verified."""

import difflib
import fcntl
import gzip
import http.client
import json
import os
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Final, Literal

from llmdirect.common.errors import BusyError, DataError, MissingError
from llmdirect.common.files import sync_folder, write_atomic
from llmdirect.common.progress import SILENT, Progress, Task
from llmdirect.common.types import Result

_2014: Final = """Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl
Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Grocery_and_Gourmet_Food
Health_and_Personal_Care Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products
Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games
Video_Games"""
_2018: Final = """AMAZON_FASHION All_Beauty Appliances Arts_Crafts_and_Sewing Automotive Books CDs_and_Vinyl
Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards
Grocery_and_Gourmet_Food Home_and_Kitchen Industrial_and_Scientific Kindle_Store Luxury_Beauty
Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies
Prime_Pantry Software Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"""
CATEGORIES: Final = {2014: tuple(_2014.split()), 2018: tuple(_2018.split())}
ADDRESSES: Final = {
    2014: "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{}_5.json.gz",
    2018: "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2/categoryFilesSmall/{}_5.json.gz",
}
_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT: Final = 30.0  # seconds without a byte
_ATTEMPTS: Final = 4  # in a row without a new byte
_OFFLINE_CURE: Final = "download it on another machine and give the file to `llmdirect prepare`"


@dataclass(frozen=True)
class DownloadResult(Result):
    """A review file that was fetched, or was there already."""

    path: Path
    url: str
    status: Literal["fetched", "present"]
    bytes: int
    """Length of the file."""


def download(
    category: str,
    folder: Path | str = ".",
    *,
    year: int = 2014,
    address: str | None = None,
    pause: float = 1.0,
    progress: Progress = SILENT,
) -> DownloadResult:
    """Download the 5-core reviews of an Amazon category into a folder.

    A broken transfer is resumed, in this call or the next one. The file appears under its name when its
    length and gzip checksums have been verified. An existing file is left as it is.

    Parameters
    ----------
    category
        Category such as "Musical_Instruments"; `CATEGORIES` lists them.
    folder
        Folder of the file.
    year
        Collection: 2014 or 2018.
    address
        URL to download from, with {} for the category.
    pause
        Seconds before the first new attempt, doubled for each further one.
    progress
        Receiver of progress reports.

    Raises
    ------
    MissingError
        If the category does not exist, or the server does not have it.
    OSError
        If the server cannot be reached.
    DataError
        If the downloaded bytes are not the file.
    BusyError
        If another process is downloading it.
    """
    if year not in CATEGORIES:
        raise ValueError(f"`year`: {year}, there are {' and '.join(map(str, CATEGORIES))}")
    if category not in CATEGORIES[year]:
        near = difflib.get_close_matches(category, CATEGORIES[year], n=3, cutoff=0.4) or CATEGORIES[year]
        raise MissingError(f"no category {category!r} in the {year} collection; there is {', '.join(near)}")
    url = (address or ADDRESSES[year]).format(category)
    folder = Path(folder)
    path = folder / url.rsplit("/", 1)[1]
    if path.exists():
        return DownloadResult(path, url, "present", path.stat().st_size)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{part}: another llmdirect process is fetching it; wait for it") from None
        try:
            total = _fetch(url, file, _state_file(part), pause, progress)
            os.fsync(file.fileno())
            _verify(file, url, total)
            os.replace(part, path)
        finally:
            if path.exists() or not part.stat().st_size:  # complete, or empty
                _state_file(part).unlink(missing_ok=True)
                part.unlink(missing_ok=True)
    sync_folder(folder)
    return DownloadResult(path, url, "fetched", total)


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _fetch(url: str, file: IO[bytes], state: Path, pause: float, progress: Progress) -> int:
    """Append to `file` until it is complete; returns its length."""
    failures, reason = 0, "no answer"
    with progress.task(f"fetching {url.rsplit('/', 1)[1]}", None, "B") as task:
        while failures < _ATTEMPTS:
            before = file.seek(0, os.SEEK_END)
            try:
                total = _transfer(url, file, state, task)
                if file.tell() == total:
                    return total
                reason = f"the connection was cut after {file.tell():,} of {total:,} bytes"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (404, 410):
                    raise MissingError(
                        f"{url}: the server does not have it ({error.code}); {_OFFLINE_CURE}"
                    ) from None
                if error.code < 500 and error.code != 429:
                    raise OSError(
                        f"{url}: the server refuses ({error.code} {error.reason}); {_OFFLINE_CURE}"
                    ) from None
                reason = f"{error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            failures = 0 if file.tell() > before else failures + 1
            if failures and failures < _ATTEMPTS:
                time.sleep(pause * 2 ** (failures - 1))
    raise ConnectionError(
        f"{url}: cannot be fetched ({reason}); {file.tell():,} bytes are kept, run the same command once you "
        f"are online to go on, or {_OFFLINE_CURE}"
    )


def _transfer(url: str, file: IO[bytes], state: Path, task: Task) -> int:
    """Request the missing bytes once; returns the full length, which the file may not have reached."""
    start = file.tell()
    saved: dict[str, str] = json.loads(state.read_bytes()) if start and state.exists() else {}
    if start and saved.get("url") != url:
        start = 0
    headers = {"User-Agent": "llmdirect", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if "validator" in saved:
            headers["If-Range"] = saved["validator"]  # a changed file is sent whole
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `start`: complete, or another file
            error.close()
            total = _range_total(error.headers)
            if total != start:
                file.truncate(file.seek(0))
            return start if total == start else -1
        raise
    with response:
        if response.status == 206:
            total = _range_total(response.headers)
        else:
            total = int(response.headers.get("Content-Length", -1))
            file.truncate(file.seek(0))
            start = 0
        if total < 0:
            raise OSError("the server does not say how long the file is")
        if start == 0:
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
            state_json = json.dumps({"url": url} | ({"validator": validator} if validator else {}))
            write_atomic(state, lambda out: out.write(state_json.encode()))
        task.note(f"of {total / 1e6:,.0f} MB")
        task.advance(start)
        while data := response.read(_CHUNK_BYTES):
            file.write(data)
            file.flush()
            task.advance(len(data))
    return total


def _range_total(headers: Message) -> int:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else -1


def _verify(part: IO[bytes], url: str, total: int) -> None:
    """Check length and gzip checksums; empty the file and raise DataError if they are wrong."""
    size = os.stat(part.name).st_size
    if size != total:
        part.truncate(0)
        raise DataError(f"{url}: {size:,} bytes came instead of {total:,}; run the command again")
    try:
        with gzip.open(part.name) as file:
            while file.read(_CHUNK_BYTES):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        part.truncate(0)
        raise DataError(f"{url}: what came is no sound gzip file ({error}); run the command again") from None
