"""Prefetching of a list's texts: starts after a delay, cancelled by the next list."""

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


def test_last_list_is_prefetched_in_background() -> None:
    prefetched: list[tuple[int, bool]] = []
    last = threading.Event()

    def read(item: int) -> None:
        prefetched.append((item, threading.current_thread() is threading.main_thread()))
        if item == 5:
            last.set()

    async def ask() -> None:
        reader = Prefetcher(read)
        reader.schedule([1, 2])  # replaced before the delay has passed
        reader.schedule([3, 4, 5])
        assert not prefetched
        await until(last)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert prefetched == [(3, False), (4, False), (5, False)]


def test_shutdown_does_not_wait_for_remaining_items() -> None:
    prefetched: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def read(item: int) -> None:
        prefetched.append(item)
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
    assert prefetched == [1]


def test_next_list_cancels_remaining_items() -> None:
    prefetched: list[int] = []
    begun, go_on, last = threading.Event(), threading.Event(), threading.Event()

    def read(item: int) -> None:
        prefetched.append(item)
        begun.set()
        assert go_on.wait(60)
        if item == 9:
            last.set()

    async def ask() -> None:
        reader = Prefetcher(read)
        reader.schedule([1, 2, 3])
        await until(begun)  # the first is in progress
        reader.schedule([9])
        go_on.set()
        await until(last)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert prefetched == [1, 9]
