"""`precompute --engine ray` on a local cluster with two workers, one of which is killed."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llmdirect.encoding
from command_line import CommandLine
from llmdirect.common.errors import BusyError
from llmdirect.common.progress import SILENT
from llmdirect.store.consolidation import consolidate
from precompute_helpers import TEXTS, build_checkpoints, make_dataset
from processes import finish, wait_for
from store_helpers import visible

pytestmark = pytest.mark.slow  # starts Ray

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: llmdirect[ray]"
)


def command_of(number: int) -> bytes:
    """Command line of a process, in which Ray names the worker's task; empty if it has ended."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def below(process: BaseProcess, name: bytes) -> list[int]:
    """Descendants of the process with this name."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue

    def descends(number: int) -> bool:
        while number in parents and number != process.pid:
            number = parents[number]
        return number == process.pid

    return [number for number in parents if descends(number) and name in command_of(number)]


def stop_one_at_work(process: BaseProcess) -> int:
    """Pause a worker that is encoding a shard."""
    stopped: list[int] = []

    def stop() -> bool:
        for number in below(process, b"ray::Worker.encode"):
            os.kill(number, signal.SIGSTOP)
            if b"ray::Worker.encode" in command_of(number):
                stopped.append(number)
                return True
            os.kill(number, signal.SIGCONT)
        return False

    wait_for(stop, process)
    [number] = stopped
    return number


def shards(dataset: Path) -> int:
    return len(list(dataset.glob("stores/*/shards/*/manifest.json")))


@NEEDS_RAY
def test_shard_of_killed_worker_is_reassigned_bit_equal(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    (tmp_path / "made").mkdir()
    dataset = make_dataset(tmp_path / "made", [f"{text} {number}" for number in range(4) for text in TEXTS])
    model = build_checkpoints(tmp_path, "bert")["bert"].path
    options = (
        "--encoder",
        model,
        "--shard-tokens",
        1,
        "--token-budget",
        1,
        "--dtype",
        "int8",
        "--project",
        8,
    )
    alone, shared = (Path(shutil.copytree(dataset, tmp_path / name)) for name in "ab")
    finish(start("precompute", alone, *options), tmp_path)
    total = shards(alone)
    assert total > 32

    environment = {"RAY_ADDRESS": "local"}
    process = start(
        "precompute", shared, *options, "--engine", "ray", "--workers", 2, "--json", **environment
    )
    killed = stop_one_at_work(process)
    assert shards(shared) < total - 2
    # The other worker encodes all but the two shards assigned to the paused one (over 32 for two workers).
    wait_for(lambda: shards(shared) >= total - 2, process)
    assert process.is_alive(), (tmp_path / "errors").read_text()
    os.kill(killed, signal.SIGKILL)
    finish(process, tmp_path)
    errors = (tmp_path / "errors").read_text()
    assert errors.count("a worker has died at shards") == 1
    # Ray also reports the death, but not on standard output.
    assert json.loads((tmp_path / "errors.out").read_text())["encoded_shards"] == total
    assert visible(shared) == visible(alone)
    for folder in (alone, shared):
        consolidate(folder)
    assert visible(shared) == visible(alone)


class Cluster:
    """Fake Ray: actor calls return the values of `answers`, the oldest call first."""

    def __init__(self, answers: Callable[[str, tuple[int, ...]], object]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.resources: dict[str, int] = {}

    def remote(self, **resources: int) -> Callable[[type], Any]:
        self.resources = resources
        actor = SimpleNamespace(
            **{
                name: SimpleNamespace(remote=lambda shards=(), name=name: (name, shards, object()))
                for name in ("plan", "open", "encode")
            }
        )
        return lambda _: SimpleNamespace(remote=lambda _: actor)

    def wait(self, calls: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return calls[:num_returns], calls[num_returns:]

    def get(self, call: tuple[str, tuple[int, ...], object]) -> object:
        name, shards, _ = call
        self.calls.append((name, shards))
        answer = self.answers(name, shards)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self, actor: object) -> None:
        pass


@NEEDS_RAY
def test_worker_deaths_and_retry_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, WorkerCrashedError

    from llmdirect.encoding import ray_backend

    options = SimpleNamespace(folder=tmp_path)

    def pool(answers: Callable[[str, tuple[int, ...]], object]) -> tuple[Any, Cluster]:
        cluster = Cluster(answers)
        monkeypatch.setattr(ray_backend, "ray", cluster)
        return ray_backend._Pool(options, 2, num_gpus=0, num_cpus=3), cluster

    plans: list[object] = [WorkerCrashedError(), OutOfMemoryError("memory"), ({0: 5}, {})]
    workers, cluster = pool(lambda *_: plans.pop(0))
    assert workers.plan() == ({0: 5}, {})
    assert cluster.resources == {"num_cpus": 3, "num_gpus": 0}
    workers, _ = pool(lambda *_: OutOfMemoryError("memory"))
    with pytest.raises(BusyError, match="3 times while it made the plan"):
        workers.plan()

    # Failing starts between successful shards do not end the run, however many.
    failures: dict[tuple[int, ...], list[object]] = {
        (shard,): [OutOfMemoryError("x")] * 2 for shard in range(9)
    }

    def failing_starts(name: str, shards: tuple[int, ...]) -> object:
        if name == "open":
            return WorkerCrashedError() if len(cluster.calls) % 3 == 0 else None
        return failures[shards].pop() if failures.get(shards) else None

    workers, cluster = pool(failing_starts)
    workers.encode(dict.fromkeys(range(9), 7), SILENT)
    done = [shards for name, shards in cluster.calls if name == "encode"]
    assert sorted(done) == sorted([(shard,) for shard in range(9)] * 3)
    assert sum(name == "open" for name, _ in cluster.calls) > 18

    workers, _ = pool(lambda name, shards: WorkerCrashedError() if shards == (4,) else None)
    with pytest.raises(BusyError, match="3 times at shard 4"):
        workers.encode(dict.fromkeys(range(9), 7), SILENT)
    workers, _ = pool(lambda name, _: WorkerCrashedError() if name == "open" else None)
    with pytest.raises(BusyError, match="6 times at its start"):
        workers.encode(dict.fromkeys(range(9), 7), SILENT)
    workers, _ = pool(lambda *_: ActorUnschedulableError("no such node"))
    with pytest.raises(BusyError, match="no such node"):
        workers.plan()


@NEEDS_RAY
def test_gpu_index_is_invalid_with_ray(tmp_path: Path, cli: CommandLine) -> None:
    dataset = make_dataset(tmp_path, TEXTS)
    answer = cli("precompute", dataset, "--encoder", "minilm", "--engine", "ray", "--device", "cuda:1")
    assert (answer.code, "each worker its GPU; take --device cuda" in answer.err) == (1, True), answer.err


def test_unknown_engine(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in [
        (("--engine", "slurm"), "--engine: 'slurm', expected one of here, ray"),
        (("--workers", 2), "--workers: has no effect with --engine here"),
        (("--engine", "ray", "--workers", 0), "--workers: 0, expected "),
    ]:
        answer = cli("precompute", tmp_path, "--encoder", "minilm", *options)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    dataset = make_dataset(tmp_path, TEXTS)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "llmdirect.encoding.ray_backend", raising=False)
    monkeypatch.delattr(llmdirect.encoding, "ray_backend", raising=False)
    answer = cli("precompute", dataset, "--encoder", "minilm", "--engine", "ray")
    assert (answer.code, "pip install llmdirect[ray]" in answer.err) == (1, True), answer.err
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    answer = cli("precompute", dataset, "--encoder", "minilm", "--engine", "ray")
    assert (answer.code, "run it without torchrun" in answer.err) == (2, True), answer.err
