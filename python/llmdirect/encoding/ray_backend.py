"""`precompute --engine ray`: actors of a Ray cluster, each of which writes its own shards.

Only numbers of shards and counts go through Ray. Texts are read, and vectors written, in folders
that every machine sees under the same path.
"""

import logging
import os
import sys
import time
from collections import Counter, deque
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from llmdirect.common.errors import BusyError, LlmdirectError, MissingError
from llmdirect.common.files import check_disk, disk_full_hint
from llmdirect.common.locks import shared_writer, single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.job import Job, Options, open_job
from llmdirect.encoding.results import PrecomputeResult, Throughput
from llmdirect.encoding.shard_encoder import ShardEncoder, open_run

_DEATH = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
_DEATHS = 3  # at the same work, before it is taken to be what kills the workers
_UNITS = 8  # a worker's calls in a run, about: within a call its threads read and write ahead
_MOST_SHARDS = 16  # of a call: what a death can cost

logger = logging.getLogger(__name__)


class Worker:
    """What an actor does."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._run: ShardEncoder | None = None

    def plan(self) -> tuple[dict[int, int], PrecomputeResult]:
        """Freezes the plan, under the caller's lock: tokens of each pending shard, `precompute`'s answer."""
        self._run, pending, result = open_run(self._options, Dataset.open(self._options.dataset), SILENT)
        return {shard: self._run.rows(shard) for shard in pending} if self._run else {}, result

    def open(self) -> None:
        """Reads the frozen plan and loads the model."""
        if self._run is None:
            job = open_job(self._options, Dataset.open(self._options.dataset), frozen=False)
            assert isinstance(job, Job)  # something is pending
            self._run = ShardEncoder(job)

    def encode(self, shards: tuple[int, ...]) -> None:
        """Makes those of the shards that a worker before, which died, did not complete."""
        assert self._run is not None  # `open` came first
        with shared_writer(self._options.store):  # keeps others out even where the caller has died
            self._run.encode(self._run.pending(shards), SILENT)


def encode(options: Options, workers: int | None, progress: Progress) -> PrecomputeResult:
    """As `precompute`, by `workers` actors (default: one a GPU of the cluster, or one), each on a GPU if any.

    Joins the cluster of RAY_ADDRESS, or one that runs on this machine, or starts one here. What a worker that
    died had in hand goes to the others, and a new one is asked for in its place. Without GPUs the cluster's
    cores are shared out among the workers.

    Raises what `precompute` raises; BusyError where workers die three times at the same work, and where Ray
    fails otherwise.
    """
    # A cluster started here reports to nobody, and its workers are not of less weight than other programs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    options = _from_anywhere(options)
    with (
        redirect_stdout(sys.stderr),  # Ray's own messages; answers alone go to standard output
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if not ray.is_initialized()
        else nullcontext(),
        single_writer(options.store) as share,
        disk_full_hint(options.store, "make room and run again: shards that are complete stay"),
    ):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray: no types
        gpus = 0 if options.device in ("cpu", "mps") else int(resources.get("GPU", 0))
        size = workers or gpus or 1
        on_gpu = gpus > 0 or options.device == "cuda"  # whose machine may still be on its way
        cores = 1 if on_gpu else max(1, int(resources.get("CPU", 1)) // size)
        pool = _Pool(options, size, num_gpus=int(on_gpu), num_cpus=cores)
        try:
            with progress.task("wait for a worker and its plan", None, "texts"):
                tokens, result = pool.plan()
            share()
            if tokens and result.plan:
                check_disk(options.store, result.plan.bytes_to_write, "the shards need")
                result = replace(result, throughput=pool.encode(tokens, progress))
        finally:
            pool.close()
    return replace(result, encoded_shards=len(tokens))


def _from_anywhere(options: Options) -> Options:
    """With absolute paths: an actor works in a folder of its own. Links stay: others may lead elsewhere."""
    if options.device.startswith("cuda:"):
        raise MissingError(f"device {options.device}: Ray gives each worker its GPU; take --device cuda")
    name, model = options.name, Path(options.model).expanduser()
    return replace(
        options,
        dataset=options.dataset.absolute(),
        model=str(model.absolute()) if model.is_dir() else options.model,
        name=str(Path(name).absolute()) if name and os.sep in name else name,
    )


class _Pool:
    """Actors by place; a place whose actor died gets another."""

    def __init__(self, options: Options, size: int, *, num_gpus: int, num_cpus: int) -> None:
        self._options = options
        self._actor: Any = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(Worker)
        self._actors: list[Any] = [self._actor.remote(options) for _ in range(size)]

    def plan(self) -> tuple[dict[int, int], PrecomputeResult]:
        """The first worker's; another's, where it dies."""
        deaths = 0
        while True:
            try:
                tokens, result = _get(self._actors[0].plan.remote())
                return tokens, result
            except _DEATH as error:
                deaths += 1
                if deaths == _DEATHS:
                    raise self._died(f"{deaths} times while it made the plan", error) from None
                logger.warning("a worker has died while it made the plan (%s)", _reason(error))
                self._replace(0)

    def encode(self, tokens: dict[int, int], progress: Progress) -> Throughput:
        """Makes the shards, whose `tokens` are given; returns how fast."""
        shards, started = list(tokens), time.perf_counter()
        size = max(1, min(len(shards) // (_UNITS * len(self._actors)), _MOST_SHARDS))
        waiting = deque(tuple(shards[start : start + size]) for start in range(0, len(shards), size))
        deaths: Counter[tuple[int, ...]] = Counter()
        in_hand: dict[Any, tuple[int, tuple[int, ...]]] = {}
        idle: list[int] = []
        left = len(shards)
        # An actor gets shards once it has opened: one for which the cluster has no room yet holds none back.
        for place, actor in enumerate(self._actors):
            in_hand[actor.open.remote()] = place, ()
        with progress.task("encode with ray", sum(tokens.values()), "tokens") as task:
            while left:
                [done], _ = ray.wait(list(in_hand), num_returns=1)
                place, unit = in_hand.pop(done)
                try:
                    _get(done)
                    idle.append(place)
                    left -= len(unit)
                    deaths.pop((), None)  # workers do get through their start
                    task.advance(sum(tokens[shard] for shard in unit))
                except _DEATH as error:
                    deaths[unit] += 1
                    if deaths[unit] == (_DEATHS if unit else _DEATHS * len(self._actors)):
                        raise self._died(f"{deaths[unit]} times at {_named(unit)}", error) from None
                    logger.warning("a worker has died at %s (%s); others go on", _named(unit), _reason(error))
                    waiting.extend((shard,) for shard in unit)  # apart, so that the one to blame is found
                    in_hand[self._replace(place).open.remote()] = place, ()
                while idle and waiting:
                    place, unit = idle.pop(), waiting.popleft()
                    in_hand[self._actors[place].encode.remote(unit)] = place, unit
        seconds = time.perf_counter() - started
        return Throughput(seconds, sum(tokens.values()) / seconds)

    def _replace(self, place: int) -> Any:
        ray.kill(self._actors[place])  # it may live on where only its machine was out of reach
        self._actors[place] = self._actor.remote(self._options)
        return self._actors[place]

    def _died(self, when: str, error: RayError) -> BusyError:
        return BusyError(
            f"{self._options.store}: a worker has died {when} ({_reason(error)}); Ray's log says why; run "
            "the command again, what is complete stays"
        )

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


def _named(unit: tuple[int, ...]) -> str:
    return f"shard{'s' * (len(unit) > 1)} {', '.join(map(str, unit))}" if unit else "its start"


def _reason(error: RayError) -> str:
    return str(error).splitlines()[0].rstrip(".:")


def _get(reference: Any) -> Any:
    """The value, or the error that the actor's method raised; BusyError for what Ray fails at otherwise."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        told = isinstance(error.cause, (LlmdirectError, OSError, ValueError))
        raise error.cause from (None if told else error)
    except _DEATH:
        raise
    except RayError as error:
        raise BusyError(f"Ray: {_reason(error)}; what is complete stays") from error
