"""The rows of the scoreboard: how each is tuned on validation, and fitted on the train of a split."""

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
from llmdirect.evaluation.protocol import by_user
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables, add_item_item
from llmdirect.runs.trained import Trained
from llmdirect.store.store import EmbeddingStore
from llmdirect.training.train import train_on

TUNED_ON = "ndcg@10"
TRIALS = 30
"""Of each baseline that has settings, unless its share of the budget ends before."""
_LONGER = 1.5
"""Times the share that a search had, from which on it is worth making again."""


@dataclass(eq=False)
class Budget:
    """Time to tune in: what one row leaves goes to those after it."""

    seconds: float
    shares: float
    """Of all rows that are still to be tuned (`Row.share`)."""

    def __post_init__(self) -> None:
        self._at_first = self.seconds / self.shares if self.shares else 0.0

    def unique_text_pairs(self, share: float) -> float:
        """What the command gives this share, whatever the rows before it take or leave."""
        return self._at_first * share

    def seconds_of(self, share: float) -> float:
        """What the next row may take, of this share."""
        return max(0.0, self.seconds) * share / max(share, self.shares)

    def spend(self, seconds: float, share: float) -> None:
        """A row of this share is tuned."""
        self.seconds -= seconds
        self.shares -= share


@dataclass(frozen=True, eq=False)
class Board:
    """What every row is measured on. `splits`: one dataset a seed."""

    splits: list[Dataset]
    store: EmbeddingStore
    out: Path
    progress: Progress
    budget: Budget
    cold: bool = False
    """Whether items without a train interaction alone are candidates of the test."""
    data: dict[int, TrainData] = field(default_factory=dict)
    parts: dict[int, tuple[ScoreTables, ScoreTables]] = field(default_factory=dict)
    """Of the mix, by split."""
    found: dict[str, Json] = field(default_factory=dict)
    """What `tuned` has found, by row: each has its share of the budget once."""

    def for_split(self, number: int) -> TrainData:
        """What baselines are fitted from, made once."""
        if number not in self.data:
            self.data[number] = TrainData(self.splits[number], self.store)
        return self.data[number]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A row on one split."""

    tables: ScoreTables
    details: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """How a row comes about."""

    fit: Callable[[Board, int, Json], Fitted]
    """(board, number of the split, settings)"""
    space: Callable[[Any], Mapping[str, Any]] | None = None
    """The settings of one trial; `None`: there is nothing to tune."""
    start: Json | None = None
    """Those of the first trial; else drawn."""
    parts: tuple[str, ...] = ()
    """Rows that it is made of, each tuned before it, in a share of the budget of its own."""
    share: float = 1.0
    """Of the budget, beside those of the other rows."""
    made_of: Json = field(default_factory=dict)
    """What its figures depend on, beside the data and the settings found."""


def tuned(board: Board, name: str) -> Json:
    """{"settings", "trials", "seconds", "share"}: the best on the validation of the first split; kept.

    "share": seconds that the command gave the row. A search that was cut short is made again where they are
    many more now, and never by the same command.
    """
    if name not in board.found:
        board.found[name] = _tune(board, name)
    return board.found[name]


def _tune(board: Board, name: str) -> Json:
    row = ROWS[name]
    for part in row.parts:
        tuned(board, part)
    if row.space is None:
        return {"settings": {}, "trials": 1, "seconds": 0.0, "share": 0.0}
    first, allowed = board.splits[0], board.budget.seconds_of(row.share)
    identity = digest(name, made_of(board, name), first.hash, board.store.hash, str(TRIALS))[:12]
    path = board.out / f"{name}-tuned-{identity}.json"
    if path.exists():
        kept: Json = json.loads(path.read_bytes())
        if kept["trials"] == TRIALS or board.budget.unique_text_pairs(row.share) <= _LONGER * kept["share"]:
            # A board that goes on has the shares that it had; a longer search takes no more than one.
            board.budget.spend(min(kept["seconds"], allowed), row.share)
            return kept
    space = row.space
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    with board.progress.task(f"Tuning {name}", TRIALS, "trials") as task:

        def objective(trial: optuna.Trial) -> float:
            settings = dict(space(trial))
            trial.set_user_attr("settings", settings)
            value = validation(row.fit(board, 0, settings).tables, first)
            task.advance()
            return value

        started = time.monotonic()
        if row.start is not None:
            study.enqueue_trial(row.start)
        until = started + allowed
        try:
            for number in range(TRIALS):
                if number and time.monotonic() >= until:  # the first one runs whatever the budget
                    break
                study.optimize(objective, n_trials=1)
        finally:
            board.budget.spend(time.monotonic() - started, row.share)
    found: Json = {
        "settings": study.best_trial.user_attrs["settings"],
        "trials": len(study.trials),
        "seconds": round(time.monotonic() - started, 2),
        "share": board.budget.unique_text_pairs(row.share),
    }
    text = canonical_json(found).encode() + b"\n"
    write_atomic(path, lambda file: file.write(text))
    return found


def made_of(board: Board, name: str) -> str:
    """What the figures of a row depend on, beside the data and its own settings: those of its parts too."""
    row = ROWS[name]
    parts = {part: tuned(board, part)["settings"] for part in row.parts}
    return canonical_json({"row": row.made_of, "parts": parts} if parts else {"row": row.made_of})


def validation(tables: ScoreTables, dataset: Dataset) -> float:
    """The figure that all rows are tuned on."""
    return mean_metrics(by_user(tables, dataset, VALID, [TUNED_ON]))[TUNED_ON]


def _baseline(name: str) -> Row:
    baseline = BASELINES[name]

    def fit(board: Board, number: int, settings: Json) -> Fitted:
        return Fitted(baseline.fit(board.for_split(number), **settings))

    return Row(fit, None if name == "popularity" else baseline.space)


def _direct(preset: Preset, **changes: Any) -> Callable[[Board, int, Json], Fitted]:
    """A run of DIRECT with some settings changed, and those that were found."""

    def fit(board: Board, number: int, settings: Json) -> Fitted:
        dataset = board.splits[number]
        model, training = configure(preset, **changes, **settings)
        config = canonical_json({"model": to_json(model), "training": to_json(training)})
        identity = digest(config, dataset.hash, board.store.hash)[:12]
        run = board.out / "runs" / f"{preset}-{dataset.manifest['options']['seed']}-{identity}"
        result = train_on(dataset, board.store, run, model=model, training=training, progress=board.progress)
        left_out = result["best"]["train_left_out"][TUNED_ON]
        return Fitted(Trained.load(run).tables, {"train_left_out": left_out, "epoch": result["best_epoch"]})

    return fit


def _linear_map(trial: Any) -> Json:
    return {
        "lr": trial.suggest_float("lr", 3e-4, 3e-3, log=True),
        "history_dropout": trial.suggest_float("history_dropout", 0.0, 0.9),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1.0, log=True),
    }


_LINEAR: Mapping[str, Any] = {"aspects": 1, "collaborative": False, "lexicon": 0, "train_on_duplicates": True}
_LINEAR_TEXT = _direct("default", **_LINEAR)
"""AlphaRec's idea (Sheng et al. 2025): linear map of mean-pooled text, cosine, softmax, popularity prior."""


def _mix(board: Board, number: int, settings: Json) -> Fitted:
    """Both at their best, added with a weight: what anybody would try first."""
    if number not in board.parts:
        text = _LINEAR_TEXT(board, number, tuned(board, "linear-text")["settings"]).tables
        graph = _baseline("ease-text").fit(board, number, tuned(board, "ease-text")["settings"]).tables
        board.parts[number] = text, graph
    text, graph = board.parts[number]
    assert graph.history is not None
    assert graph.item_item is not None
    weight = settings["weight"] / max(float(np.std(graph.item_item[2])), 1e-12)
    return Fitted(add_item_item(text, graph.history, graph.item_item).weighted(weight))


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
        start={"lr": 1e-3, "history_dropout": 0.7, "weight_decay": 1e-6},
        made_of=_config("default", **_LINEAR),
    ),
    "linear-text+ease-text": Row(
        _mix,
        lambda trial: {"weight": trial.suggest_float("weight", 1e-3, 10, log=True)},
        made_of=_config("default", **_LINEAR),
        parts=("linear-text", "ease-text"),
        share=0.1,  # its trials rank what is fitted already
    ),
    "direct-paper": Row(_direct("paper"), made_of=_config("paper")),
    "direct": Row(_direct("default"), made_of=_config("default")),
}
"""In the order of the table."""
