"""Two processes, as started by torchrun, divide the shards of one store."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from llmdirect.common.errors import BusyError
from llmdirect.encoding.process_group import ProcessGroup
from llmdirect.store.consolidation import consolidate
from precompute_helpers import TEXTS, build_checkpoints, make_dataset
from processes import TOO_LONG, finish, kill, wait_for
from store_helpers import visible

Start = Callable[..., BaseProcess]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[object, ...]]:
    """A dataset and the options of its runs."""
    folder = tmp_path_factory.mktemp("work")
    model = build_checkpoints(folder, "bert")["bert"].path
    texts = [f"{text} {number}" for number in range(2) for text in TEXTS[:6]]
    options = ("--encoder", model, "--shard-tokens", 1, "--token-budget", 1, "--dtype", "int8")
    return make_dataset(folder, texts), options


def start_two(start: Start, *arguments: object) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}
    return [
        start(*arguments, errors=f"errors{rank}", RANK=rank, LOCAL_RANK=rank, **environment)
        for rank in range(2)
    ]


def shards(dataset: Path) -> list[int]:
    return sorted(int(path.parent.name) for path in dataset.glob("stores/*/shards/*/manifest.json"))


def pause(process: BaseProcess) -> None:
    os.kill(process.pid or 0, signal.SIGSTOP)


@pytest.mark.slow
def test_two_processes_match_one_and_single_process_resumes(
    work: tuple[Path, tuple[object, ...]], tmp_path: Path, start: Start
) -> None:
    dataset, options = work
    alone, shared, broken = (Path(shutil.copytree(dataset, tmp_path / name)) for name in "abc")
    finish(start("precompute", alone, *options), tmp_path)
    total = len(shards(alone))
    assert total >= 10

    two = start_two(start, "precompute", shared, *options)
    for process in two:
        process.join(TOO_LONG)
    errors = [(tmp_path / f"errors{rank}").read_text() for rank in range(2)]
    assert [process.exitcode for process in two] == [0, 0], errors
    assert visible(shared) == visible(alone)
    outputs = [(tmp_path / f"errors{rank}.out").read_text() for rank in range(2)]
    assert f"{total} of {total} shards made now" in outputs[0]
    assert outputs[1] == ""
    again = start_two(start, "precompute", shared, *options)
    for process in again:
        process.join(TOO_LONG)
    assert [process.exitcode for process in again] == [0, 0]

    first, second = start_two(start, "precompute", broken, *options)
    wait_for(lambda: any(number % 2 for number in shards(broken)), second)
    assert kill(second)
    first.join(TOO_LONG)
    assert first.exitcode == 1
    assert "another of the 2 processes has ended" in (tmp_path / "errors0").read_text()
    remaining = set(range(total)) - set(shards(broken))
    assert remaining
    assert all(number % 2 for number in remaining)  # the first process completed its own shards
    finish(start("precompute", broken, *options), tmp_path)
    assert f"{len(remaining)} of {total} shards made now" in (tmp_path / "errors.out").read_text()
    assert visible(broken) == visible(alone)
    for folder in (alone, shared, broken):
        consolidate(folder)
    assert visible(broken) == visible(shared) == visible(alone)


@pytest.mark.slow
def test_store_is_locked_while_any_process_is_alive(
    work: tuple[Path, tuple[object, ...]], tmp_path: Path, start: Start
) -> None:
    dataset, options = work
    folder = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    first, second = start_two(start, "precompute", folder, *options)
    wait_for(lambda: any(number % 2 for number in shards(folder)), second)
    pause(first)
    pause(second)
    busy = re.escape(str(next((folder / "stores").iterdir()))) + ": another llmdirect process is writing"
    with pytest.raises(BusyError, match=busy):
        consolidate(folder)
    assert kill(first)
    with pytest.raises(BusyError, match=busy):
        consolidate(folder)
    others = start_two(start, "precompute", folder, *options)
    for process in others:
        process.join(TOO_LONG)
    assert [process.exitcode for process in others] == [1, 1]
    assert "another llmdirect process is writing here" in (tmp_path / "errors0").read_text()
    assert "another of the 2 processes has ended" in (tmp_path / "errors1").read_text()
    assert kill(second)
    finish(start("precompute", folder, *options), tmp_path)
    assert consolidate(folder).changed


def test_process_group_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert ProcessGroup.from_environment() == ProcessGroup(0, 1, 0)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    group = ProcessGroup.from_environment()
    assert (group, group.is_main) == (ProcessGroup(5, 8, 1), False)
    assert group.partition(list(range(20))) == [5, 13]
    parts = [ProcessGroup(rank, 8).partition(list(range(20))) for rank in range(8)]
    assert sorted(number for part in parts for number in part) == list(range(20))
    assert group.device("cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [group.device(device) for device in ("auto", "cuda", "cuda:0", "cpu")] == [
        *("cuda:1", "cuda:1", "cuda:0", "cpu")
    ]
    assert ProcessGroup().device("auto") == "auto"
