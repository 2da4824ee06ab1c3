"""Texts of a list are read while it is looked at: after a pause, and no longer than it is the last one."""

import asyncio
import threading

import pytest

from llmdirect.explore import prefetch
from llmdirect.explore.prefetch import Prefetcher


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "DELAY", 0.01)


async def until(done: threading.Event) -> None:
    while not done.is_set():
        await asyncio.sleep(0.001)


def test_the_list_that_stays_is_read_beside_the_loop() -> None:
    found: list[tuple[int, bool]] = []
    last = threading.Event()

    def read(item: int) -> None:
        found.append((item, threading.current_thread() is threading.main_thread()))
        if item == 5:
            last.set()

    async def ask() -> None:
        reader = Prefetcher(read)
        reader.schedule([1, 2])  # gone before the pause is over
        reader.schedule([3, 4, 5])
        assert not found
        await until(last)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert found == [(3, False), (4, False), (5, False)]


def test_the_end_does_not_wait_for_what_is_left() -> None:
    found: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def read(item: int) -> None:
        found.append(item)
        begun.set()
        assert go_on.wait(60)

    reader = Prefetcher(read)

    async def ask() -> None:
        reader.schedule([1, 2, 3])
        await until(begun)
        reader.cancel()
        go_on.set()

    asyncio.run(asyncio.wait_for(ask(), 60))
    reader._pool.shutdown(wait=True)
    assert found == [1]


def test_what_is_left_of_a_list_is_dropped_for_the_next() -> None:
    found: list[int] = []
    begun, go_on, last = threading.Event(), threading.Event(), threading.Event()

    def read(item: int) -> None:
        found.append(item)
        begun.set()
        assert go_on.wait(60)
        if item == 9:
            last.set()

    async def ask() -> None:
        reader = Prefetcher(read)
        reader.schedule([1, 2, 3])
        await until(begun)  # the first is being read
        reader.schedule([9])
        go_on.set()
        await until(last)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert found == [1, 9]
