"""Rows of the scoreboard: hyper-parameter search on validation, and the fit on train."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from llmdirect.benchmark.baselines import BASELINES, TrainData
from llmdirect.choices import Preset
from llmdirect.common.files import digest, write_atomic
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json, canonical_json
from llmdirect.config import configure, to_json
from llmdirect.data.dataset import VALID, Dataset
from llmdirect.evaluation.protocol import evaluate_split
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables, add_item_item
from llmdirect.runs.trained import Trained
from llmdirect.store.store import EmbeddingStore, with_item_passages
from llmdirect.training.train import train_on

TUNING_METRIC = "ndcg@10"
"""Metric on validation that hyper-parameters are chosen by."""
NUM_TRIALS = 30
"""Trials of each row that has hyper-parameters, unless its share of the budget ends before."""
_LONGER = 1.5
"""A search that was cut short is repeated from this many times its former share of the budget on."""


@dataclass(eq=False)
class Budget:
    """Time for hyper-parameter search; time that one row does not use goes to the rows after it."""

    seconds: float
    """Seconds left."""
    shares: float
    """Sum of `Row.share` of the rows that are still to be tuned."""

    def __post_init__(self) -> None:
        self._seconds_per_share = self.seconds / self.shares if self.shares else 0.0

    def initial_seconds(self, share: float) -> float:
        """Seconds of a share of the whole budget, whatever has been spent."""
        return self._seconds_per_share * share

    def seconds_of(self, share: float) -> float:
        """Seconds that the next row, which has this share, may take."""
        return max(0.0, self.seconds) * share / max(share, self.shares)

    def spend(self, seconds: float, share: float) -> None:
        """Subtract a row with this share, which took so many seconds."""
        self.seconds -= seconds
        self.shares -= share


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Data, folder and budget that all rows of a scoreboard share."""

    splits: list[Dataset]
    """The same dataset, one split a seed."""
    store: EmbeddingStore
    out: Path
    """Folder of searches, results and runs."""
    progress: Progress
    budget: Budget
    cold_items: bool = False
    """Whether only items without a train interaction are candidates of the test."""
    tuning: dict[str, Json] = field(default_factory=dict)
    """Results of `tune` by row, so that each row takes its share of the budget once."""
    mix_parts: dict[int, tuple[ScoreTables, ScoreTables]] = field(default_factory=dict)
    """Fitted parts of the mix by split."""
    _train_data: dict[int, TrainData] = field(default_factory=dict)

    def train_data(self, split: int) -> TrainData:
        """Train data of a split (its number from 0), built once for all baselines."""
        if split not in self._train_data:
            self._train_data[split] = TrainData(
                with_item_passages(self.splits[split], self.store), self.store
            )
        return self._train_data[split]


@dataclass(frozen=True, eq=False)
class FittedRow:
    """A row fitted on one split."""

    tables: ScoreTables
    details: Json = field(default_factory=dict)
    """More entries of the row's result on this split."""


@dataclass(frozen=True)
class Row:
    """A model of the scoreboard with its search space."""

    fit: Callable[[Benchmark, int, Json], FittedRow]
    """(benchmark, number of the split, settings)"""
    space: Callable[[Any], Mapping[str, Any]] | None = None
    """Draws the settings of an Optuna trial; None: nothing to tune."""
    first_trial: Json | None = None
    """Settings of the first trial; drawn if not given."""
    parts: tuple[str, ...] = ()
    """Rows that it combines; each is tuned before it, in a share of the budget of its own."""
    share: float = 1.0
    """Share of the budget, relative to the other rows."""
    fixed_settings: Json = field(default_factory=dict)
    """Settings that are not tuned, as part of the row's identity."""


def tune(benchmark: Benchmark, name: str) -> Json:
    """Hyper-parameter search of a row on the validation of the first split; kept in a file.

    A search that was cut short is repeated where it would have much more time now, but not twice for one
    benchmark.

    Returns
    -------
    "settings" (the best ones), "trials", "seconds" and "share" (seconds that the budget gave the row).
    """
    if name not in benchmark.tuning:
        benchmark.tuning[name] = _tune(benchmark, name)
    return benchmark.tuning[name]


def _tune(benchmark: Benchmark, name: str) -> Json:
    row = ROWS[name]
    for part in row.parts:
        tune(benchmark, part)
    if row.space is None:
        return {"settings": {}, "trials": 1, "seconds": 0.0, "share": 0.0}
    budget, first = benchmark.budget, benchmark.splits[0]
    seconds, share = budget.seconds_of(row.share), budget.initial_seconds(row.share)
    identity = row_identity(benchmark, name)
    path_digest = digest(name, identity, first.hash, benchmark.store.hash, str(NUM_TRIALS))[:12]
    path = benchmark.out / f"{name}-tuned-{path_digest}.json"
    if path.exists():
        previous: Json = json.loads(path.read_bytes())
        if previous["trials"] == NUM_TRIALS or share <= _LONGER * previous["share"]:
            # A resumed benchmark has the shares that it had; a longer search takes no more than one.
            budget.spend(min(previous["seconds"], seconds), row.share)
            return previous
    result: Json = {**_search(benchmark, name, row, seconds), "share": share}
    write_json(path, result)
    return result


def _search(benchmark: Benchmark, name: str, row: Row, seconds: float) -> Json:
    """TPE search with Optuna, for so many seconds: "settings", "trials" and "seconds"."""
    assert row.space is not None
    space = row.space
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    with benchmark.progress.task(f"Tuning {name}", NUM_TRIALS, "trials") as task:

        def objective(trial: optuna.Trial) -> float:
            settings = dict(space(trial))
            trial.set_user_attr("settings", settings)
            value = validation_metric(row.fit(benchmark, 0, settings).tables, benchmark.splits[0])
            task.advance()
            return value

        started = time.monotonic()
        if row.first_trial is not None:
            study.enqueue_trial(row.first_trial)
        try:
            for number in range(NUM_TRIALS):
                if number and time.monotonic() >= started + seconds:  # the first trial always runs
                    break
                study.optimize(objective, n_trials=1)
        finally:
            benchmark.budget.spend(time.monotonic() - started, row.share)
    return {
        "settings": study.best_trial.user_attrs["settings"],
        "trials": len(study.trials),
        "seconds": round(time.monotonic() - started, 2),
    }


def write_json(path: Path, value: Json) -> None:
    """Write a line of canonical JSON, atomically."""
    text = canonical_json(value).encode() + b"\n"
    write_atomic(path, lambda file: file.write(text))


def row_identity(benchmark: Benchmark, name: str) -> str:
    """Canonical JSON of a row's fixed settings and its parts' tuned ones, for digests."""
    row = ROWS[name]
    parts = {part: tune(benchmark, part)["settings"] for part in row.parts}
    return canonical_json({"row": row.fixed_settings, **({"parts": parts} if parts else {})})


def validation_metric(tables: ScoreTables, dataset: Dataset) -> float:
    """Mean of the tuning metric on the validation split."""
    return mean_metrics(evaluate_split(tables, dataset, VALID, [TUNING_METRIC]))[TUNING_METRIC]


def _baseline(name: str) -> Row:
    baseline = BASELINES[name]

    def fit(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
        return FittedRow(baseline.fit(benchmark.train_data(split), **settings))

    return Row(fit, None if name == "popularity" else baseline.space)


def _direct(preset: Preset, **changes: Any) -> Callable[[Benchmark, int, Json], FittedRow]:
    """Fit of DIRECT with some settings of a preset changed, in a run folder of its own."""

    def fit(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
        dataset = benchmark.splits[split]
        model, training = configure(preset, **changes, **settings)
        config = canonical_json(_config(preset, **changes, **settings))
        identity = digest(config, dataset.hash, benchmark.store.hash)[:12]
        run = benchmark.out / "runs" / f"{preset}-{dataset.manifest['options']['seed']}-{identity}"
        result = train_on(
            dataset, benchmark.store, run, model=model, training=training, progress=benchmark.progress
        )
        left_out = result.best.train_left_out[TUNING_METRIC]
        return FittedRow(Trained.load(run).tables, {"train_left_out": left_out, "epoch": result.best_epoch})

    return fit


def _linear_map(trial: Any) -> Json:
    return {
        "lr": trial.suggest_float("lr", 3e-4, 3e-3, log=True),
        "history_dropout": trial.suggest_float("history_dropout", 0.0, 0.9),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1.0, log=True),
    }


_LINEAR: Mapping[str, Any] = {"aspects": 1, "collaborative": False, "lexicon": 0, "train_on_duplicates": True}
_LINEAR_TEXT = _direct("default", **_LINEAR)
"""AlphaRec-like linear map of mean-pooled text (Sheng et al. 2025): cosine, softmax, popularity prior."""
_MIX = ("linear-text", "ease-text")


def _mix(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
    """Weighted sum of the tuned linear map of text and the tuned EASE with text."""
    if split not in benchmark.mix_parts:
        text, ease = (ROWS[part].fit(benchmark, split, tune(benchmark, part)["settings"]) for part in _MIX)
        benchmark.mix_parts[split] = text.tables, ease.tables
    text_tables, ease_tables = benchmark.mix_parts[split]
    assert ease_tables.history is not None
    assert ease_tables.item_item is not None
    weight = settings["weight"] / max(float(np.std(ease_tables.item_item[2])), 1e-12)
    return FittedRow(add_item_item(text_tables, ease_tables.history, ease_tables.item_item).weighted(weight))


def _config(preset: Preset, **changes: Any) -> Json:
    model, training = configure(preset, **changes)
    return {"model": to_json(model), "training": to_json(training)}


ROWS: Mapping[str, Row] = {
    **{
        name: _baseline(name)
        for name in (
            "popularity",
            "itemknn",
            "userknn",
            "rp3beta",
            "slim",
            "ease",
            "ease-user",
            "ials",
            "bpr-mf",
            "lightgcn",
            "embedding-knn",
            "tfidf-knn",
            "ease-text",
            "ease-words",
            "l3ae",
        )
    },
    "linear-text": Row(
        _LINEAR_TEXT,
        _linear_map,
        first_trial={"lr": 1e-3, "history_dropout": 0.7, "weight_decay": 1e-6},
        fixed_settings=_config("default", **_LINEAR),
    ),
    "linear-text+ease-text": Row(
        _mix,
        lambda trial: {"weight": trial.suggest_float("weight", 1e-3, 10, log=True)},
        fixed_settings=_config("default", **_LINEAR),
        parts=_MIX,
        share=0.1,  # its trials only rank: the parts are fitted once
    ),
    "direct-paper": Row(_direct("paper"), fixed_settings=_config("paper")),
    "direct": Row(_direct("default"), fixed_settings=_config("default")),
}
"""Rows by name, in the order of the table."""
