"""Encoding of the shards of a job by actors of a Ray cluster.

Only shard indices and counts pass through Ray. Texts are read, and vectors written, in folders that all
machines see under the same path.
"""

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
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
from llmdirect.common.files import check_disk
from llmdirect.common.locks import shared_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.job import Job, open_job, plan_job
from llmdirect.encoding.options import Options
from llmdirect.encoding.results import PrecomputeResult, Throughput
from llmdirect.encoding.shard_encoder import ShardEncoder

_Batch = tuple[int, ...]
"""Shards of one call of an actor; empty for its start."""

_DEATH_ERRORS = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
_MAX_DEATHS = 3  # at the same batch, before the batch is taken to be the cause
_CALLS_PER_WORKER = 8  # about; within a call, threads tokenise ahead and write behind
_MAX_BATCH_SHARDS = 16  # of a call: what a death can cost

logger = logging.getLogger(__name__)


class Worker:
    """Actor that encodes shards."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._job: Job | None = None
        self._encoder: ShardEncoder | None = None

    def plan(self) -> tuple[dict[int, int], PrecomputeResult]:
        """Write the plan, under the lock of the caller; tokens of each pending shard, and the result."""
        self._job, pending, result = plan_job(self._options, Dataset.open(self._options.dataset))
        plan = self._job.plan if self._job else None
        return {shard: plan.shard_tokens(shard) for shard in pending} if plan else {}, result

    def open(self) -> None:
        """Read the plan and load the encoder."""
        if self._job is None:
            job = open_job(self._options, Dataset.open(self._options.dataset), write=False)
            assert isinstance(job, Job)  # something is pending
            self._job = job
        self._encoder = ShardEncoder(self._job)

    def encode(self, shards: _Batch) -> None:
        """Encode those of the shards that no other worker completed before it died."""
        assert self._job is not None
        assert self._encoder is not None
        with shared_writer(self._options.folder):  # keeps others out even where the caller has died
            self._encoder.encode(self._job.pending_shards(shards), SILENT)


def cluster_options(options: Options) -> Options:
    """Options with absolute paths, because an actor works in a folder of its own.

    Links are not resolved: they may lead elsewhere on other machines.

    Raises
    ------
    MissingError
        If the device is a GPU by its number.
    """
    if options.device.startswith("cuda:"):
        raise MissingError(f"`device`: {options.device}; Ray gives each worker its GPU; take `device='cuda'`")
    store, encoder = options.store, Path(options.encoder).expanduser()
    return replace(
        options,
        dataset=options.dataset.absolute(),
        encoder=str(encoder.absolute()) if encoder.is_dir() else options.encoder,
        store=str(Path(store).absolute()) if store and os.sep in store else store,
    )


def encode(
    options: Options, workers: int | None, share: Callable[[], None] | None, progress: Progress
) -> PrecomputeResult:
    """Encode the pending shards by actors of a Ray cluster.

    Joins the cluster of RAY_ADDRESS, or one that runs on this machine, or starts one here. The shards of a
    worker that died go to the others, and a new worker replaces it. Without GPUs, the workers share the
    cores of the cluster.

    Parameters
    ----------
    options
        Settings with absolute paths (`cluster_options`).
    workers
        Number of actors, each on a GPU if there are any; by default one per GPU, or one.
    share
        Lets the workers write to the store, whose lock the caller holds.
    progress

    Raises
    ------
    BusyError
        If workers die three times at the same shards, or Ray fails otherwise.

    Also raises what `precompute` raises.
    """
    # A cluster started here reports to nobody, and its workers have the priority of other programs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    with (
        redirect_stdout(sys.stderr),  # messages of Ray; standard output is for results
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if not ray.is_initialized()
        else nullcontext(),
    ):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray: no types
        gpus = 0 if options.device in ("cpu", "mps") else int(resources.get("GPU", 0))
        size = workers or gpus or 1
        on_gpu = gpus > 0 or options.device == "cuda"  # whose machine may still have to start
        cores = 1 if on_gpu else max(1, int(resources.get("CPU", 1)) // size)
        pool = _Pool(options, size, num_gpus=int(on_gpu), num_cpus=cores)
        try:
            with progress.task("wait for a worker and its plan", None, "texts"):
                shard_tokens, result = pool.plan()
            if share is not None:
                share()
            if shard_tokens and result.plan:
                check_disk(options.folder, result.plan.bytes_to_write, "the shards need")
                result = replace(result, throughput=pool.encode(shard_tokens, progress))
        finally:
            pool.close()
    return replace(result, encoded_shards=len(shard_tokens))


class _Pool:
    """Actors by index; an actor that died is replaced."""

    def __init__(self, options: Options, size: int, *, num_gpus: int, num_cpus: int) -> None:
        self._options = options
        self._actor: Any = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(Worker)
        self._actors: list[Any] = [self._actor.remote(options) for _ in range(size)]

    def plan(self) -> tuple[dict[int, int], PrecomputeResult]:
        """Tokens of each pending shard, and the result, from the first actor or its replacement."""
        deaths = 0
        while True:
            try:
                shard_tokens, result = _get(self._actors[0].plan.remote())
                return shard_tokens, result
            except _DEATH_ERRORS as error:
                deaths += 1
                if deaths == _MAX_DEATHS:
                    raise self._death(f"{deaths} times while it made the plan", error) from None
                logger.warning("a worker has died while it made the plan (%s)", _reason(error))
                self._replace(0)

    def encode(self, shard_tokens: dict[int, int], progress: Progress) -> Throughput:
        """Encode shards, given with the number of their tokens."""
        shards, started = list(shard_tokens), time.perf_counter()
        size = max(1, min(len(shards) // (_CALLS_PER_WORKER * len(self._actors)), _MAX_BATCH_SHARDS))
        waiting = deque(tuple(shards[start : start + size]) for start in range(0, len(shards), size))
        deaths: Counter[_Batch] = Counter()
        running: dict[Any, tuple[int, _Batch]] = {}
        idle: list[int] = []
        remaining = len(shards)
        # An actor gets shards once it has opened: one for which the cluster has no room yet holds none back.
        for index, actor in enumerate(self._actors):
            running[actor.open.remote()] = index, ()
        with progress.task("encode with ray", sum(shard_tokens.values()), "tokens") as task:
            while remaining:
                [call], _ = ray.wait(list(running), num_returns=1)
                index, batch = running.pop(call)
                try:
                    _get(call)
                    idle.append(index)
                    remaining -= len(batch)
                    deaths.pop((), None)  # workers do get through their start
                    task.advance(sum(shard_tokens[shard] for shard in batch))
                except _DEATH_ERRORS as error:
                    deaths[batch] += 1
                    if deaths[batch] == (_MAX_DEATHS if batch else _MAX_DEATHS * len(self._actors)):
                        raise self._death(f"{deaths[batch]} times at {_describe(batch)}", error) from None
                    logger.warning(
                        "a worker has died at %s (%s); others go on", _describe(batch), _reason(error)
                    )
                    waiting.extend((shard,) for shard in batch)  # apart, so that the cause is found
                    running[self._replace(index).open.remote()] = index, ()
                while idle and waiting:
                    index, batch = idle.pop(), waiting.popleft()
                    running[self._actors[index].encode.remote(batch)] = index, batch
        seconds = time.perf_counter() - started
        return Throughput(seconds, sum(shard_tokens.values()) / seconds)

    def _replace(self, index: int) -> Any:
        ray.kill(self._actors[index])  # it may still run where only its machine was out of reach
        self._actors[index] = self._actor.remote(self._options)
        return self._actors[index]

    def _death(self, when: str, error: RayError) -> BusyError:
        return BusyError(
            f"{self._options.folder}: a worker has died {when} ({_reason(error)}); Ray's log says why; run "
            "the command again, what is complete stays"
        )

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


def _describe(batch: _Batch) -> str:
    return f"shard{'s' * (len(batch) > 1)} {', '.join(map(str, batch))}" if batch else "its start"


def _reason(error: RayError) -> str:
    return str(error).splitlines()[0].rstrip(".:")


def _get(call: Any) -> Any:
    """Value of a call, or the error of the actor's method; BusyError where Ray itself fails."""
    try:
        return ray.get(call)
    except RayTaskError as error:
        expected = isinstance(error.cause, (LlmdirectError, OSError, ValueError))
        raise error.cause from (None if expected else error)
    except _DEATH_ERRORS:
        raise
    except RayError as error:
        raise BusyError(f"Ray: {_reason(error)}; what is complete stays") from error
