"""`download` from a local server: resuming, verification, offline errors."""

import fcntl
import gzip
import http.server
import json
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path

import pytest

from command_line import CommandLine
from llmdirect.common.errors import BusyError, DataError, MissingError
from llmdirect.data import download as module
from llmdirect.data.download import CATEGORIES, download

CONTENT = gzip.compress(random.Random(0).randbytes(300_000))
NAME = "reviews_Musical_Instruments_5.json.gz"


@dataclass
class Behaviour:
    """Files of the server, and its failures."""

    content: bytes = CONTENT
    etag: str = '"1"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes sent by the first answers before they break
    status: list[int] = field(default_factory=list)  # of the first answers
    length: bool = True
    requests: list[Message] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        how = self.behaviour
        how.requests.append(self.headers)
        if how.status and (status := how.status.pop(0)) != 200:
            self.send_error(status)
            return
        start, total = 0, len(how.content)
        range_header = self.headers.get("Range")
        if range_header and how.ranges and self.headers.get("If-Range") in (None, how.etag):
            start = int(range_header.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("ETag", how.etag)
        if how.length:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        end = start + how.cut_after.pop(0) if how.cut_after else total
        self.wfile.write(how.content[start:end])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        base = f"http://127.0.0.1:{listening.server_port}"
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(
            module, "ADDRESSES", {2014: base + "/reviews_{}_5.json.gz", 2018: base + "/{}_5.json.gz"}
        )
        yield behaviour
        listening.shutdown()
        thread.join()


def ranges(server: Behaviour) -> list[str | None]:
    return [headers.get("Range") for headers in server.requests]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fetches_once(tmp_path: Path, server: Behaviour) -> None:
    result = download("Musical_Instruments", tmp_path / "raw")
    assert result.status == "fetched"
    assert result.bytes == len(CONTENT)
    assert result.path == tmp_path / "raw" / NAME
    assert files(tmp_path / "raw") == {NAME: CONTENT}
    assert ranges(server) == [None]
    assert download("Musical_Instruments", tmp_path / "raw") == replace(result, status="present")
    assert len(server.requests) == 1
    assert (
        download("Magazine_Subscriptions", tmp_path, year=2018).path
        == tmp_path / "Magazine_Subscriptions_5.json.gz"
    )


def test_interrupted_transfer_resumes_in_same_call(tmp_path: Path, server: Behaviour) -> None:
    server.cut_after = [1000, 50_000, 7]
    download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: CONTENT}
    assert ranges(server) == [None, "bytes=1000-", "bytes=51000-", "bytes=51007-"]


def test_interrupted_transfer_resumes_in_next_call(tmp_path: Path, server: Behaviour) -> None:
    server.cut_after = [2000] + [0] * 4
    with pytest.raises(ConnectionError) as caught:
        download("Musical_Instruments", tmp_path, pause=0)
    assert f"{NAME}: cannot be fetched (the connection was cut after 2,000 of {len(CONTENT):,} bytes)" in str(
        caught.value
    )
    assert "2,000 bytes are kept, run the same command" in str(caught.value)
    assert files(tmp_path)[f"{NAME}.part"] == CONTENT[:2000]
    server.requests.clear()
    download("Musical_Instruments", tmp_path, pause=0)
    assert ranges(server) == ["bytes=2000-"]
    assert files(tmp_path) == {NAME: CONTENT}


def test_changed_file_is_fetched_again(tmp_path: Path, server: Behaviour) -> None:
    server.cut_after = [2000] + [0] * 4
    with pytest.raises(ConnectionError):
        download("Musical_Instruments", tmp_path, pause=0)
    server.etag, server.content = '"2"', gzip.compress(b"quite another file" * 1000)
    download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: server.content}


def test_complete_partial_file_is_not_fetched_again(tmp_path: Path, server: Behaviour) -> None:
    server.cut_after = [2000] + [0] * 4
    with pytest.raises(ConnectionError):
        download("Musical_Instruments", tmp_path, pause=0)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    server.requests.clear()
    assert download("Musical_Instruments", tmp_path, pause=0).bytes == len(CONTENT)
    assert ranges(server) == [f"bytes={len(CONTENT)}-"]
    assert files(tmp_path) == {NAME: CONTENT}


def test_too_long_partial_file_restarts(tmp_path: Path, server: Behaviour) -> None:
    server.cut_after = [2000] + [0] * 4
    with pytest.raises(ConnectionError):
        download("Musical_Instruments", tmp_path, pause=0)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: CONTENT}


def test_partial_file_of_another_address_is_not_resumed(tmp_path: Path, server: Behaviour) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    download("Musical_Instruments", tmp_path)
    assert ranges(server) == [None]
    assert files(tmp_path) == {NAME: CONTENT}


def test_server_without_range_support(tmp_path: Path, server: Behaviour) -> None:
    server.ranges, server.cut_after = False, [5000, 6000]
    download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: CONTENT}


def test_temporary_server_failure_is_retried(tmp_path: Path, server: Behaviour) -> None:
    server.status = [503, 429, 500]
    download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: CONTENT}
    server.status = [503] * 4
    with pytest.raises(
        ConnectionError, match=r"cannot be fetched \(503 Service Unavailable\); 0 bytes are kept"
    ):
        download("Books", tmp_path, pause=0)
    assert files(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, MissingError, "the server does not have it (404); download it on another machine and give the"),
        (403, OSError, "the server refuses (403 Forbidden); download it on another machine"),
    ],
)
def test_client_errors_are_not_retried(
    tmp_path: Path, server: Behaviour, status: int, error: type[Exception], words: str
) -> None:
    server.status = [status]
    with pytest.raises(error) as caught:
        download("Musical_Instruments", tmp_path / "raw", pause=0)
    assert f"/{NAME}: {words}" in str(caught.value)
    assert len(server.requests) == 1
    assert files(tmp_path / "raw") == {}


@pytest.mark.parametrize("damage", ["cut", "flipped", "html", "tail"])
def test_invalid_gzip_file_is_removed(tmp_path: Path, server: Behaviour, damage: str) -> None:
    middle = len(CONTENT) // 2
    server.content = {
        "cut": CONTENT[:-100],
        "flipped": CONTENT[:middle] + bytes([CONTENT[middle] ^ 1]) + CONTENT[middle + 1 :],
        "html": b"<html>please log in</html>",
        "tail": CONTENT + b"trailing",
    }[damage]
    with pytest.raises(
        DataError, match=rf"{NAME}: what came is no sound gzip file \(.*\); run the command again"
    ):
        download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {}
    server.content = CONTENT
    download("Musical_Instruments", tmp_path)
    assert files(tmp_path) == {NAME: CONTENT}


def test_server_without_content_length(tmp_path: Path, server: Behaviour) -> None:
    server.length = False
    with pytest.raises(ConnectionError, match="the server does not say how long the file is"):
        download("Musical_Instruments", tmp_path, pause=0)
    assert files(tmp_path) == {}


def test_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error names the address and a solution, and no file remains."""
    with socket.socket() as bound:  # an unused port
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(module, "ADDRESSES", {2014: address + "reviews_{}_5.json.gz"})
        monkeypatch.setattr(module.time, "sleep", lambda seconds: waited.append(seconds))
        waited: list[float] = []
        answer = CommandLine(monkeypatch, capsys)(
            "download", "Musical_Instruments", "--out", tmp_path / "raw"
        )
    assert (answer.code, answer.out) == (1, "")
    assert f"{address}{NAME}: cannot be fetched (" in answer.err
    assert "Connection refused" in answer.err
    assert (
        "run the same command once you are online to go on, or download it on another machine" in answer.err
    )
    assert "give the file to `llmdirect prepare`" in answer.err
    assert waited == [1, 2, 4]
    assert files(tmp_path / "raw") == {}


def test_single_process_fetches_file(tmp_path: Path, server: Behaviour) -> None:
    with (tmp_path / f"{NAME}.part").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=rf"{NAME}.part: another llmdirect process is fetching it; wait"):
            download("Musical_Instruments", tmp_path)
    assert server.requests == []


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"no category 'Musical_Instrument' in the 2014 .*Musical_Instruments"
    ):
        download("Musical_Instrument", tmp_path / "raw")
    with pytest.raises(MissingError, match=r"no category '../etc' in the 2018 collection; there is "):
        download("../etc", tmp_path / "raw", year=2018)
    with pytest.raises(ValueError, match="`year`: 2015, there are 2014 and 2018"):
        download("Books", tmp_path / "raw", year=2015)
    assert list(tmp_path.iterdir()) == []
    assert len(CATEGORIES[2014]) == 24


def test_command(
    tmp_path: Path, server: Behaviour, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = CommandLine(monkeypatch, capsys)
    answer = cli("download", "Musical_Instruments", "--out", tmp_path, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["bytes"] == len(CONTENT)
    assert "already there" in cli("download", "Musical_Instruments", "--out", tmp_path).out
