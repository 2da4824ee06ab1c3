"""Scoreboard: the default model and what a user could pick instead, under the same protocols.

Settings are chosen on validation; the test split of each is ranked once.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, get_args

from llmdirect.benchmark.benchmark import (
    MIN_INTERACTIONS,
    OWN,
    PROTOCOLS,
    Benchmark,
    Row,
    default_protocols,
    make_split,
    num_splits,
)
from llmdirect.benchmark.external_run import external_row
from llmdirect.benchmark.measure import measure_row
from llmdirect.benchmark.rows import ROWS
from llmdirect.benchmark.summary import summarise
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ranges import Range, check_range
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.data.subsets import active_users
from llmdirect.evaluation.development import UserHalf
from llmdirect.evaluation.queries import QueryTime
from llmdirect.store.no_text import open_or_write_store

DEFAULT_SPLITS: Final = 3
DEFAULT_MINUTES: Final = 10.0
_BUDGET: Final = Range(0, 1e6, above=True)

logger = logging.getLogger(__name__)


def scoreboard(
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    rows: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    splits: int | None = None,
    budget_minutes: float | None = None,
    users: UserHalf = "report",
    query_time: QueryTime = "last",
    runs: Sequence[Path | str] = (),
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Tune, fit and measure the default model and its alternatives on several splits of a dataset.

    Parameters
    ----------
    dataset
        A prepared dataset, or a file of reviews.
    out
        Folder of results and runs, by default DATASET/scoreboard. What is complete there is not computed
        again, unless code, libraries or data changed.
    rows
        Names in ROWS; all by default. A row that needs times or texts that the dataset lacks is left empty.
    protocols
        Names in PROTOCOLS, how interactions are split; by default random, leave-last-out and global-time
        where every interaction has a time, else random; "own" is the dataset's split.
    splits
        Number of random splits, by default 3. leave-last-out has one split, global-time five cuts.
    budget_minutes
        Time for the hyper-parameter search of one row in all protocols, by default 10.
    users
        Users whose test interactions are measured: "report" (by default), "development" or "all".
    query_time
        As in `build_queries`: "event" is for leave-last-out alone.
    runs
        Files of ranked lists (TREC or Parquet) of other models for the dataset's own test split; the
        protocol is "own" then.
    store
        Name or folder of the embeddings; the dataset's only store by default.

    Returns
    -------
    {"rows": [{"model", "kind", "protocols": {protocol: figures}}], "protocols": {protocol: {"splits",
    "num_users", "verdict", …}}, …}; docs/metrics.md has every key. A row that failed in a protocol has its
    reason in "failed" there, and nothing else.

    Raises
    ------
    ValueError
        If a row or protocol is unknown, or an option is out of range or has no effect.
    """
    opened = open_or_prepare(dataset, progress)
    external = {f"run:{Path(path).stem}": Path(path) for path in runs}
    if runs and protocols is not None and list(protocols) != [OWN]:
        raise ValueError('`runs`: ranked lists are of the dataset\'s own split; set `protocols=["own"]`')
    names = list(rows or ROWS)
    chosen = [OWN] if runs else list(protocols or default_protocols(opened))
    _check(names, chosen, users)
    random_splits = number_of_splits(splits, chosen)
    if budget_minutes is not None:
        check_range("budget_minutes", budget_minutes, _BUDGET, float)
    if query_time not in get_args(QueryTime):
        raise ValueError(
            f"`query_time`: {query_time!r} is unknown; there are {', '.join(get_args(QueryTime))}"
        )
    if query_time == "event" and chosen != ["leave-last-out"]:
        raise ValueError(
            '`query_time="event"`: belongs to leave-last-out; set `protocols=["leave-last-out"]`'
        )
    all_rows: dict[str, Row] = {
        **ROWS,
        **{name: external_row(path, opened) for name, path in external.items()},
    }
    seconds = 60 * (DEFAULT_MINUTES if budget_minutes is None else budget_minutes) / len(chosen)
    folder = Path(out) if out is not None else opened.path / "scoreboard"
    embeddings = open_or_write_store(opened, store)
    benchmarks: dict[str, Benchmark] = {}
    results: dict[str, Mapping[str, list[Json] | str]] = {}
    with single_writer(folder):
        for protocol in chosen:
            full = active_users(opened, MIN_INTERACTIONS.get(protocol, 1))
            benchmarks[protocol] = Benchmark(
                protocol=protocol,
                dataset=full,
                splits=splits_of(full, protocol, random_splits),
                store=embeddings,
                out=folder,
                progress=progress,
                rows=all_rows,
                tuning_seconds=seconds,
                users=users,
                query_time=query_time,
            )
            measured = [*names, *external]
            results[protocol] = {name: measure_row(benchmarks[protocol], name) for name in measured}
    return summarise(opened, benchmarks, results)


def splits_of(dataset: Dataset, protocol: str, random_splits: int) -> list[Dataset]:
    """Splits of a protocol, where it makes so many random ones."""
    return [
        make_split(dataset, protocol, number)
        for number in range(num_splits(protocol, dataset, random_splits))
    ]


def _check(names: list[str], protocols: list[str], users: str) -> None:
    if unknown := [name for name in names if name not in ROWS]:
        raise ValueError(f"`rows`: {unknown[0]!r} is unknown; there are {', '.join(ROWS)}")
    check_protocols(protocols)
    if users not in get_args(UserHalf):
        raise ValueError(f"`users`: {users!r} is unknown; there are {', '.join(get_args(UserHalf))}")


def check_protocols(protocols: list[str]) -> None:
    """ValueError if a protocol is unknown."""
    if unknown := [name for name in protocols if name not in PROTOCOLS]:
        raise ValueError(f"`protocols`: {unknown[0]!r} is unknown; there are {', '.join(PROTOCOLS)}")


def number_of_splits(splits: int | None, protocols: list[str]) -> int:
    """Number of random splits; ValueError if it is out of range, or no protocol has random splits."""
    if splits is None:
        return DEFAULT_SPLITS
    check_range("splits", splits, Range(1, 100))
    fixed = {"leave-last-out", "global-time", OWN}
    if splits > 1 and fixed >= set(protocols):
        raise ValueError(f"`splits`: {splits}, but {' and '.join(protocols)} have no random splits")
    return splits
