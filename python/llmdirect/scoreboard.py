"""DIRECT beside what a user could have instead: same splits, same full ranking, same metrics.

Settings are chosen on the validation of the first split and then fixed; the test split is looked at once.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect.artefacts import Json, canonical_json, digest, single_writer, write_atomic
from llmdirect.baselines import EASE_RIDGES, ease, ease_path, popularity
from llmdirect.config import ModelConfig, Preset, TrainConfig, to_json
from llmdirect.dataset import TEST, VALID, Dataset
from llmdirect.documents import open_or_prepare
from llmdirect.evaluation import by_user, held_out_users
from llmdirect.progress import SILENT, Progress
from llmdirect.ranking import Scorer, mean_metrics
from llmdirect.resplit import resplit
from llmdirect.store import EmbeddingStore, open_store
from llmdirect.trained import Trained
from llmdirect.training import train_on

METRICS = ("ndcg@10", "recall@20", "hit_rate@10", "mrr@10")
FIRST_SEED = 242
_TUNED_ON = "ndcg@10"
_RESAMPLES = 2000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Board:
    """What every row is measured on. `splits`: one dataset a seed."""

    splits: list[Dataset]
    store: EmbeddingStore
    out: Path
    progress: Progress


@dataclass(frozen=True, eq=False)
class _Fitted:
    scorer: Scorer
    trials: int
    details: Json


def scoreboard(
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    rows: Sequence[str] | None = None,
    splits: int = 3,
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Tunes, fits and ranks every row on `splits` random splits, the first of seed 242.

    out: where figures and runs are kept, by default DATASET/scoreboard; what is there already is not made
    again. rows: some of ROWS.

    Returns {"rows": [{"model", "metrics": {name: {"mean", "low", "high"}}, "ratio_direct", "validation",
    "train_left_out", "per_split", "trials", "seconds"}], …}: means over users of their means over splits,
    95 % intervals by bootstrap over users; `ratio_direct` is DIRECT's mean over the row's, paired.
    Raises ValueError for an unknown row.
    """
    wanted = list(rows or ROWS)
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise ValueError(f"--rows: {unknown[0]!r} is unknown; there are {', '.join(ROWS)}")
    if splits < 1:
        raise ValueError(f"--splits: {splits}, expected at least 1")
    found = open_or_prepare(dataset, progress)
    options = found.manifest["options"]
    seeded = [
        resplit(found, seed=FIRST_SEED + number, fractions=tuple(options["fractions"] or (0.7, 0.1, 0.2)))
        for number in range(splits)
    ]
    folder = Path(out) if out is not None else found.path / "scoreboard"
    board = _Board(seeded, open_store(found.path, store), folder, progress)
    with single_writer(folder):
        measured = {name: [_row(board, name, number) for number in range(splits)] for name in wanted}
    table = [_summary(name, measured) for name in wanted]
    result: Json = {
        "rows": table,
        "dataset": str(found.path),
        "encoder": board.store.encoder.get("id"),
        "splits": splits,
        "num_users": len({user for row in measured[wanted[0]] for user in row["users"]}),
        "num_items": found.num_items,
        "metrics": list(METRICS),
        "positive": options["positive"] or "every interaction",
        "out": str(folder),
        "markdown": str(folder / "scoreboard.md"),
    }
    result["caption"] = (
        f"{result['num_users']:,} users, {result['num_items']:,} items, full ranking of the test split, mean "
        f"of {splits} random splits (seeds from {FIRST_SEED}); embeddings of {result['encoder']}; positive: "
        f"{result['positive']}; ± and brackets: 95 % intervals over users. valid and train left out: "
        f"{_TUNED_ON} on validation, and on train pairs each scored as if it did not exist."
    )
    text = markdown(result).encode()
    write_atomic(folder / "scoreboard.md", lambda file: file.write(text))
    return result


def markdown(result: Json) -> str:
    """The whole table as Markdown, with its caption below."""
    names = ["model", *result["metrics"], "direct / row", "valid", "train left out", "trials", "seconds"]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for row in result["rows"]:
        cells = [f"{row['metrics'][metric]['mean']:.4f}" for metric in result["metrics"]]
        interval = row["metrics"][result["metrics"][0]]
        cells[0] += f" ({interval['low']:.4f}-{interval['high']:.4f})"
        ratio, left_out = row["ratio_direct"], row["train_left_out"]
        cells.append(f"{ratio['mean']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "")
        cells += [f"{row['validation']:.4f}", "" if left_out is None else f"{left_out:.4f}"]
        cells += [str(row["trials"]), f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join([row["model"], *cells]) + " |")
    return "\n".join(lines) + f"\n\n{result['caption']}\n"


def _row(board: _Board, name: str, number: int) -> Json:
    """The row's figures on one split, read where they are kept, else made and kept."""
    dataset = board.splits[number]
    fit, settings = ROWS[name]
    identity = digest(name, canonical_json(settings), dataset.hash, board.store.hash, *METRICS)[:12]
    path = board.out / f"{name}-{dataset.manifest['options']['seed']}-{identity}.json"
    if path.exists():
        kept: Json = json.loads(path.read_bytes())
        return kept
    started = time.monotonic()
    fitted = fit(board, number)
    seconds = time.monotonic() - started
    per_user = by_user(fitted.scorer, dataset, TEST, list(METRICS))
    entry: Json = {
        "users": held_out_users(dataset, TEST).tolist(),
        "metrics": {metric: values.tolist() for metric, values in per_user.items()},
        "trials": fitted.trials,
        "seconds": round(seconds, 2),
        "validation": mean_metrics(by_user(fitted.scorer, dataset, VALID, [_TUNED_ON]))[_TUNED_ON],
        **fitted.details,
    }
    text = canonical_json(entry).encode() + b"\n"
    write_atomic(path, lambda file: file.write(text))
    return entry


def _popularity(board: _Board, number: int) -> _Fitted:
    return _Fitted(popularity(board.splits[number]), 1, {})


def _ease(board: _Board, number: int) -> _Fitted:
    """Tuned on the first split's validation; the other splits take its ridge."""
    if number:
        ridge = _row(board, "ease", 0)["settings"]["ridge"]
        return _Fitted(ease(board.splits[number], ridge), len(EASE_RIDGES), {"settings": {"ridge": ridge}})
    first = board.splits[0]
    scorers = zip(EASE_RIDGES, ease_path(first, list(EASE_RIDGES)), strict=True)
    values = {
        ridge: mean_metrics(by_user(scorer, first, VALID, [_TUNED_ON]))[_TUNED_ON]
        for ridge, scorer in scorers
    }
    ridge = max(values, key=lambda ridge: values[ridge])
    return _Fitted(ease(board.splits[number], ridge), len(values), {"settings": {"ridge": ridge}})


def _direct(preset: Preset) -> Callable[[_Board, int], _Fitted]:
    def fit(board: _Board, number: int) -> _Fitted:
        dataset = board.splits[number]
        made_of = digest(canonical_json(_settings(preset)), dataset.hash, board.store.hash)[:12]
        run = board.out / "runs" / f"{preset}-{dataset.manifest['options']['seed']}-{made_of}"
        result = train_on(
            dataset,
            board.store,
            run,
            model=ModelConfig.for_preset(preset),
            training=TrainConfig.for_preset(preset),
            progress=board.progress,
        )
        left_out = result["best"]["train_left_out"][_TUNED_ON]
        return _Fitted(
            Trained.load(run).scorer, 1, {"train_left_out": left_out, "epoch": result["best_epoch"]}
        )

    return fit


def _settings(preset: Preset) -> Json:
    return {
        "model": to_json(ModelConfig.for_preset(preset)),
        "training": to_json(TrainConfig.for_preset(preset)),
    }


ROWS: Mapping[str, tuple[Callable[[_Board, int], _Fitted], Json]] = {
    "popularity": (_popularity, {}),
    "ease": (_ease, {"ridges": list(EASE_RIDGES)}),
    "direct-paper": (_direct("paper"), _settings("paper")),
    "direct": (_direct("default"), _settings("default")),
}
"""Each row: how it is fitted, and what its figures depend on beside the data."""


def _summary(name: str, measured: Mapping[str, list[Json]]) -> Json:
    entries = measured[name]
    row: Json = {
        "model": name,
        "metrics": {metric: _interval(_user_means(entries, metric)) for metric in METRICS},
        "validation": float(np.mean([entry["validation"] for entry in entries])),
        "per_split": [float(np.mean(entry["metrics"][_TUNED_ON])) for entry in entries],
        "trials": entries[0]["trials"],
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
        "train_left_out": None,
        "ratio_direct": None,
    }
    if "train_left_out" in entries[0]:
        row["train_left_out"] = float(np.mean([entry["train_left_out"] for entry in entries]))
    if "direct" in measured and name != "direct":
        row["ratio_direct"] = _ratio(
            _user_means(measured["direct"], _TUNED_ON), _user_means(entries, _TUNED_ON)
        )
    return row


def _user_means(entries: Sequence[Json], metric: str) -> NDArray[np.float64]:
    """float64 [users held out in any split], by user index: the user's mean over splits."""
    sums: dict[int, list[float]] = {}
    for entry in entries:
        for user, value in zip(entry["users"], entry["metrics"][metric], strict=True):
            sums.setdefault(user, []).append(value)
    return np.array([np.mean(sums[user]) for user in sorted(sums)])


def _resampled(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Means [resamples] of each column over the same resampled users."""
    generator = np.random.default_rng(0)
    users = len(columns[0])
    means: list[Any] = [[] for _ in columns]
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, users, users)
        for column, into in zip(columns, means, strict=True):
            into.append(column[drawn].mean())
    return [np.array(into) for into in means]


def _interval(values: NDArray[np.float64]) -> dict[str, float]:
    (means,) = _resampled(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> dict[str, float] | None:
    """Ratio of two means over the same users, with its interval; None where the second may be 0."""
    tops, bottoms = _resampled(over, under)
    if not (bottoms > 0).all():
        return None
    low, high = np.percentile(tops / bottoms, [2.5, 97.5])
    return {"mean": float(over.mean() / under.mean()), "low": float(low), "high": float(high)}
