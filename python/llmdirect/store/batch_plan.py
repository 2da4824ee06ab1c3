"""What is encoded together, fixed before the first shard: a resumed run computes the very same bits."""

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
from llmdirect.common.files import digest, write_atomic
from llmdirect.common.types import Json

PLAN = "plan.json"
FORMAT, VERSION = "llmdirect-plan", 1


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Distinct texts in the order they are encoded, longest first, cut into batches and shards.

    `text` int32 [n] numbers the distinct texts in the order of their keys; `rows` int32 [n] are their tokens;
    `batch` and `shard` int32 [n] ascend. `token_budget` is the tokens of a batch, `budgets` holds the tokens
    at once of batches that did not fit the device's memory whole; `calibration` is the entry of the file that
    the run stores tokens with.
    """

    text: NDArray[np.int32]
    rows: NDArray[np.int32]
    batch: NDArray[np.int32]
    shard: NDArray[np.int32]
    token_budget: int
    budgets: dict[int, int]
    header: Json
    calibration: Json | None = None

    @property
    def num_shards(self) -> int:
        """Number of shards, at least one."""
        return int(self.shard[-1]) + 1

    def shard_range(self, shard: int) -> tuple[int, int]:
        """The places [start, stop) in the plan's order that the shard holds."""
        start, stop = np.searchsorted(self.shard, [shard, shard + 1])
        return int(start), int(stop)

    def batches(self, shard: int) -> list[tuple[int, int, int]]:
        """(batch number, start, stop) of each batch of the shard, in places of the plan's order."""
        start, stop = self.shard_range(shard)
        cuts = [start, *(np.flatnonzero(np.diff(self.batch[start:stop])) + start + 1).tolist(), stop]
        return [(int(self.batch[low]), low, high) for low, high in pairwise(cuts)]


def make_plan(
    rows: NDArray[np.int32],
    header: Json,
    *,
    max_length: int,
    cost: Callable[[int, int], int],
    token_budget: int,
    shard_tokens: int,
    calibration: Json | None = None,
) -> BatchPlan:
    """Sorts the texts by length and cuts them: `token_budget` tokens a batch, `shard_tokens` a shard.

    `cost` says how much of the budget a text of so many tokens takes, given the batch's longest sequence.
    A batch holds at least one text, a shard at least one batch; a batch lies in one shard. Texts without
    rows come last and belong to the last batch.
    """
    order = np.argsort(-rows, kind="stable").astype(np.int32)
    batch, shard = np.zeros_like(order), np.zeros_like(order)
    batch_now = shard_now = longest = taken = shard_rows = 0
    for place, count in enumerate(rows[order].tolist()):
        longest = longest or min(count, max_length)
        if taken and count and taken + cost(count, longest) > token_budget:
            batch_now += 1
            longest, taken = min(count, max_length), 0
            if shard_rows >= shard_tokens:
                shard_now += 1
                shard_rows = 0
        taken += cost(count, longest)
        shard_rows += count
        batch[place], shard[place] = batch_now, shard_now
    return BatchPlan(order, rows[order], batch, shard, token_budget, {}, header, calibration)


def write_plan(folder: Path, plan: BatchPlan) -> None:
    """Writes the assignment under a name that carries its hash, then commits it with plan.json."""
    table = np.stack([plan.text, plan.rows, plan.batch, plan.shard], axis=1).astype("<i4")
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
    """Writes the plan with the tokens at once of one batch more, and with those that others have recorded."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # between processes of one run: the store's own lock is theirs
        found = json.loads((folder / PLAN).read_bytes())["budgets"]
        plan.budgets.update({int(number): int(tokens) for number, tokens in found.items()})
        plan.budgets[batch] = budget
        write_plan(folder, plan)
    finally:
        os.close(handle)


def read_plan(folder: Path, header: Json) -> BatchPlan | None:
    """The plan that lies in `folder`, or None. MismatchError where it was made for another `header`.

    None as well where the header `grows` a consolidated store and the plan is the one that store was made
    by. DataError where the files are damaged.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    growing = "grows" in header
    cure = f"delete {path} and {folder / 'shards'}" if growing else f"delete {folder}"
    cure += " or choose another --store"
    try:
        value = json.loads(path.read_bytes())
        version = value["format"], value["version"]
        if growing and value.get("grows") != header["grows"]:
            return None
        budgets = {int(batch): int(budget) for batch, budget in value["budgets"].items()}
        # Plans of versions before it was looked for do not have it.
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
    text, rows, batch, shard = np.ascontiguousarray(table.T)
    return BatchPlan(text, rows, batch, shard, token_budget, budgets, header, value.get("calibration"))


def remove_plan(folder: Path) -> None:
    """Removes the plan of a store that is complete."""
    (folder / PLAN).unlink(missing_ok=True)
    for path in folder.glob("plan-*.npy"):
        path.unlink()


def differences(found: Json, wanted: Json, place: str = "") -> list[str]:
    """Each leaf in which two JSON objects differ, with both values."""
    lines: list[str] = []
    for key in dict.fromkeys([*wanted, *found]):
        value, other = wanted.get(key), found.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            lines += differences(other, value, f"{place}{key}.")
        elif value != other:
            lines.append(f"{place}{key} is {other!r} there, {value!r} here")
    return lines
