"""Batch plan of an embedding store, fixed before the first shard so that resumed runs give equal bytes."""

import fcntl
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import digest, read_json, write_atomic
from llmdirect.common.types import Json

PLAN = "plan.json"
FORMAT, VERSION = "llmdirect-plan", 1


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Distinct texts in the order of encoding, longest first, cut into batches and shards."""

    text_idx: NDArray[np.int32]
    """int32 [n] index of each text among the distinct texts, sorted by key."""
    num_tokens: NDArray[np.int32]
    """int32 [n] tokens of each text, descending."""
    batch: NDArray[np.int32]
    """int32 [n] batch of each text, ascending."""
    shard: NDArray[np.int32]
    """int32 [n] shard of each text, ascending."""
    token_budget: int
    """Tokens per batch."""
    budgets: dict[int, int]
    """Tokens at once of the batches that did not fit the memory of the device, by batch."""
    header: Json
    """Texts, encoder and settings that the plan is for."""
    calibration: Json | None = None
    """Entry of the calibration file."""

    @property
    def num_shards(self) -> int:
        """Number of shards, at least one."""
        return int(self.shard[-1]) + 1

    def shard_range(self, shard: int) -> tuple[int, int]:
        """Rows [start, stop) of the plan that a shard holds."""
        start, stop = np.searchsorted(self.shard, [shard, shard + 1])
        return int(start), int(stop)

    def shard_tokens(self, shard: int) -> int:
        """Number of tokens of the texts of a shard."""
        return int(self.num_tokens[slice(*self.shard_range(shard))].sum())

    def batches(self, shard: int) -> list[tuple[int, int, int]]:
        """Batches of a shard: (batch, start, stop) with rows [start, stop) of the plan."""
        start, stop = self.shard_range(shard)
        borders = [start, *(np.flatnonzero(np.diff(self.batch[start:stop])) + start + 1).tolist(), stop]
        return [(int(self.batch[low]), low, high) for low, high in pairwise(borders)]


def make_plan(
    num_tokens: NDArray[np.int32],
    header: Json,
    *,
    max_length: int,
    cost: Callable[[int, int], int],
    token_budget: int,
    shard_tokens: int,
    calibration: Json | None = None,
) -> BatchPlan:
    """Sort texts by length and cut them into batches and shards.

    A batch has at least one text, a shard at least one batch; a batch belongs to one shard. Texts without
    tokens come last and belong to the last batch.

    Parameters
    ----------
    num_tokens
        int32 [n] tokens of each text.
    header
        Identity of the plan.
    max_length
        Tokens that the encoder reads at once.
    cost
        Tokens of the budget that a text takes, given its tokens and the longest sequence of its batch.
    token_budget
        Tokens per batch.
    shard_tokens
        Tokens per shard.
    calibration
        Entry of the calibration file.
    """
    order = np.argsort(-num_tokens, kind="stable").astype(np.int32)
    batch, shard = np.zeros_like(order), np.zeros_like(order)
    batch_now = shard_now = longest = used = tokens_in_shard = 0
    for row, count in enumerate(num_tokens[order].tolist()):
        longest = longest or min(count, max_length)
        if used and count and used + cost(count, longest) > token_budget:
            batch_now += 1
            longest, used = min(count, max_length), 0
            if tokens_in_shard >= shard_tokens:
                shard_now += 1
                tokens_in_shard = 0
        used += cost(count, longest)
        tokens_in_shard += count
        batch[row], shard[row] = batch_now, shard_now
    return BatchPlan(order, num_tokens[order], batch, shard, token_budget, {}, header, calibration)


def write_plan(folder: Path, plan: BatchPlan) -> None:
    """Write the assignment to a file named by its hash, then plan.json, which commits it."""
    table = np.stack([plan.text_idx, plan.num_tokens, plan.batch, plan.shard], axis=1).astype("<i4")
    name = f"plan-{digest(table.tobytes())[:16]}.npy"
    if not (folder / name).exists():
        buffer = io.BytesIO()
        np.save(buffer, table)
        write_atomic(folder / name, lambda file: file.write(buffer.getbuffer()))
    value = {
        "format": FORMAT,
        "version": VERSION,
        **plan.header,
        "num_shards": plan.num_shards,
        "token_budget": plan.token_budget,
        "assignment": name,
        **({"calibration": plan.calibration} if plan.calibration else {}),
        "budgets": {str(batch): budget for batch, budget in sorted(plan.budgets.items())},
    }
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / PLAN, lambda file: file.write(text.encode() + b"\n"))


def record_budget(folder: Path, plan: BatchPlan, batch: int, budget: int) -> None:
    """Record the tokens at once of one batch in the plan on disk, with those of other processes."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # between the processes of one run, which share the store's lock
        recorded = read_json(folder / PLAN)["budgets"]
        plan.budgets.update({int(number): int(tokens) for number, tokens in recorded.items()})
        plan.budgets[batch] = budget
        write_plan(folder, plan)
    finally:
        os.close(handle)


def read_plan(folder: Path, header: Json) -> BatchPlan | None:
    """Plan of a store.

    Parameters
    ----------
    folder
        Folder of the store.
    header
        Identity that the plan must have.

    Returns
    -------
    BatchPlan or None
        None where there is no plan, and where the header `grows` a consolidated store and the plan is the
        one by which that store was written.

    Raises
    ------
    MismatchError
        If the plan has another header.
    DataError
        If a file is damaged.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    growing = "grows" in header
    cure = f"delete {path} and {folder / 'shards'}" if growing else f"delete {folder}"
    cure += " or choose another `store`"
    try:
        value = read_json(path)
        version = value["format"], value["version"]
        if growing and value.get("grows") != header["grows"]:
            return None
        budgets = {int(batch): int(budget) for batch, budget in value["budgets"].items()}
        # Plans of earlier releases have the budget among the settings alone.
        token_budget = int(value.get("token_budget", value["settings"]["token_budget"]))
        name = str(value["assignment"])
        different = differences({key: value.get(key) for key in header}, header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a plan ({error!r}); {cure}") from None
    if version != (FORMAT, VERSION):
        raise DataError(f"{path}: format and version {version}, expected {(FORMAT, VERSION)}; {cure}")
    if different:
        raise MismatchError(
            f"{path}: a store of another run ({'; '.join(different)}); give the same options, {cure}; where "
            "texts differ and its shards are complete, `llmdirect consolidate` lets the store grow"
        )
    try:
        table = np.load(folder / name)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder / name}: damaged or missing ({error}); {cure}") from None
    if name != f"plan-{digest(table.tobytes())[:16]}.npy":
        raise DataError(f"{folder / name}: content does not match the hash in its name; {cure}")
    text_idx, num_tokens, batch, shard = np.ascontiguousarray(table.T)
    calibration = value.get("calibration")
    return BatchPlan(text_idx, num_tokens, batch, shard, token_budget, budgets, header, calibration)


def remove_plan(folder: Path) -> None:
    """Remove the plan of a consolidated store."""
    (folder / PLAN).unlink(missing_ok=True)
    for path in folder.glob("plan-*.npy"):
        path.unlink()


def differences(stored: Json, expected: Json, prefix: str = "") -> list[str]:
    """Leaves in which two JSON objects differ, each a line with both values; `prefix` is their path."""
    lines: list[str] = []
    for key in dict.fromkeys([*expected, *stored]):
        here, there = expected.get(key), stored.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            lines += differences(there, here, f"{prefix}{key}.")
        elif here != there:
            lines.append(f"{prefix}{key} is {there!r} there, {here!r} here")
    return lines
