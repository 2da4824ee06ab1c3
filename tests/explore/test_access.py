"""Whom the server of the pages answers, how long it waits, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import uvicorn

from explore_world import client, explored, no_encoder
from html_page import Page
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore import app as app_module
from llmdirect.explore import http
from llmdirect.explore.access import accepts_host, is_cross_site
from llmdirect.explore.app import make_app
from llmdirect.explore.http import TimedProtocol
from llmdirect.explore.people import MAX_TEXT, Guests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    return explored(tmp_path_factory.mktemp("explored"))("default")


LOOPBACK = (
    "127.0.0.1", "127.0.0.1:8000", "127.0.0.2", "127.1", "127.255.255.254:80", "localhost", "LocalHost:8000",
    "localhost.", "LOCALHOST.:80", "127.0.0.1.", "::1", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]",
    "[::FFFF:127.0.0.1]:8000", "0x7f000001",
)  # fmt: skip
FOREIGN = (
    "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "128.0.0.1", "[::2]", "[::1",
    "10.0.0.5:80",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in LOOPBACK if name != "::1"])
def test_every_spelling_of_this_machine_is_accepted(explainer: Explainer, name: str) -> None:
    asked = client(explainer, hosts=["127.0.0.1"])
    assert asked.get("/", headers={"host": name}).status_code == 200
    assert accepts_host(name, ["shop.example"])


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_are_refused(explainer: Explainer, name: str) -> None:
    answer = client(explainer, hosts=["127.0.0.1"]).get("/", headers={"host": name})
    assert answer.status_code == 400
    assert "--host" in Page(answer.text).text()
    assert "content-security-policy" in answer.headers
    assert not accepts_host(name, ["shop.example", "10.0.0.9", "fe80::1"])


def test_the_host_that_is_listened_on_is_accepted() -> None:
    assert accepts_host("Shop.example.:8000", ["shop.example"])
    assert accepts_host("10.0.0.5:8000", ["10.0.0.5"])
    assert accepts_host("[fe80::1]:8000", ["fe80::1"])
    for everything in ("0.0.0.0", "::"):  # names can be made to lead here, addresses cannot
        assert accepts_host("10.0.0.5:8000", [everything])
        assert accepts_host(socket.gethostname(), [everything])
        assert not accepts_host("evil.example", [everything])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"origin": "http://127.0.0.1"}, 303),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}, 303),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_forms_of_other_web_sites_are_refused(
    explainer: Explainer, headers: dict[str, str], status: int
) -> None:
    asked, item = client(explainer), explainer.trained.item_ids[0]
    assert asked.post("/guest", data={"item": item}, headers=headers).status_code == status
    assert asked.get("/", headers=headers).status_code == 200  # reading changes nothing
    assert is_cross_site({"host": "127.0.0.1", **headers}) == (status == 403)


@pytest.mark.parametrize("value", ["1e308", "nan", "-1", "inf", "1e999", "x", "", "1001", "9" * 5000, "²"])
def test_a_number_that_cannot_be_is_named(explainer: Explainer, value: str) -> None:
    asked, user = client(explainer), explainer.trained.users.ids[0]
    answer = asked.get("/user", params={"user": user, "a1": value})
    assert answer.status_code == 400
    assert "a1=" in Page(answer.text).text()
    if value != "1001":
        answer = asked.get("/aspect", params={"n": value})
        assert answer.status_code == 400
        assert "n=" in Page(answer.text).text()


def test_a_text_that_is_too_long_is_named(explainer: Explainer) -> None:
    answer = client(explainer).post("/guest", data={"text": "warm " * (MAX_TEXT // 5 + 1)})
    assert answer.status_code == 400
    assert "20,000 at most; shorten it" in Page(answer.text).text()


def test_a_text_that_is_read_does_not_keep_others_waiting(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, done, add = threading.Event(), threading.Event(), Guests.add

    def slow(self: Guests, text: str, items: list[int]) -> str:
        begun.set()
        assert done.wait(20)
        return add(self, "", items)

    monkeypatch.setattr(Guests, "add", slow)
    monkeypatch.setattr(app_module, "MAX_WAITING", 2)
    with client(explainer) as site, ThreadPoolExecutor(3) as threads:
        form = {"text": "warm", "item": explainer.trained.item_ids[0]}
        posts = [threads.submit(site.post, "/guest", data=form) for _ in range(2)]
        assert begun.wait(20)
        began = time.monotonic()
        assert site.get("/aspects").status_code == 200
        while (answer := site.post("/guest", data=form)).status_code != 503:
            assert time.monotonic() - began < 10
        assert "try again" in Page(answer.text).text()
        assert not posts[0].done()
        done.set()
        assert [post.result().status_code for post in posts] == [303, 303]


# ---- connections


@contextmanager
def served(explainer: Explainer) -> Iterator[int]:
    """Port of the pages, served as `llmdirect explore` serves them."""
    config = uvicorn.Config(
        make_app(explainer, no_encoder),  # type: ignore[arg-type]
        port=0,
        http=TimedProtocol,
        ws="none",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def answer_to(port: int, *parts: bytes, pause: float = 0.1) -> tuple[bytes, float]:
    """Everything that comes back until the server ends the connection, and the seconds that it took."""
    began = time.monotonic()
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        try:
            while data := connection.recv(1 << 16):
                received += data
        except ConnectionError:
            pass
    return received, time.monotonic() - began


def test_half_a_request_does_not_hold_a_connection(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.5)
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    form = b"POST /guest HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\nConnection: close\r\n\r\nitem="
    with served(explainer) as port:
        for parts in ((), (head,), tuple(head[place : place + 1] for place in range(30))):
            received, seconds = answer_to(port, *parts)
            assert received == b""
            assert seconds < 5
        received, seconds = answer_to(port, form)
        assert received.startswith(b"HTTP/1.1 408")
        assert seconds < 5
        received, _ = answer_to(port, head + b"Connection: close\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("requests", [0, 1])
def test_ctrl_c_ends_the_server_without_noise(explainer: Explainer, requests: int) -> None:
    command = [sys.executable, "-m", "llmdirect", "explore", str(explainer.trained.run.path), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", address)
    assert found, process.communicate(timeout=30)
    if requests:
        received, _ = answer_to(int(found[1]), b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in received
    open_connection = socket.create_connection(("127.0.0.1", int(found[1])))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    open_connection.close()
    assert process.returncode == 0
    assert out == ""
    for noise in ("error", "traceback", "interrupt", "abort"):
        assert noise not in err.lower(), err
