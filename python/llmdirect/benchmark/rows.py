"""Rows of the scoreboard: how each is fitted on a split, and what is tuned."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.baselines import BASELINES, Baseline, Need, TrainData
from llmdirect.benchmark.benchmark import METRIC, Benchmark, FittedRow, Kind, Row
from llmdirect.benchmark.models import FittedModel, FunctionModel, ItemItemModel, SumModel, TablesModel
from llmdirect.benchmark.spaces import Number, Space
from llmdirect.choices import Preset
from llmdirect.common.files import digest
from llmdirect.common.types import Json, canonical_json
from llmdirect.config import configure, to_json
from llmdirect.data.dataset import VALID, Dataset
from llmdirect.evaluation.queries import Queries
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.runs.queries import tables_for
from llmdirect.runs.trained import Trained
from llmdirect.store.store import EmbeddingStore
from llmdirect.training.epoch import read_table
from llmdirect.training.results import Phase
from llmdirect.training.train import train_on

OURS: Final = "llmdirect"
"""Row of the default model."""


def register_baseline(
    name: str,
    fit: Callable[..., FittedModel | Callable[[Queries], NDArray[np.floating]]],
    space: Space | None = None,
    needs: Collection[Need] = (),
) -> None:
    """Add a model of one's own to the rows of the scoreboard, tuned and measured as the others are.

    Parameters
    ----------
    name
        Name of its row.
    fit
        Function of `TrainData` and the settings: fits the model on the train split. It returns a function of
        `Queries` (B users with their histories, `queries.history()`) that gives the scores of all items,
        float [B, I]; or a `FittedModel`.
    space
        Settings by name, each a `Number` or a tuple of choices; nothing is tuned without one.
    needs
        What it reads that a dataset may lack: "order", "times", "text".

    Raises
    ------
    ValueError
        If there is a row of that name.

    Examples
    --------
    >>> def fit(data, power):
    ...     popularity = data.popularity**power
    ...     return lambda queries: np.tile(popularity, (len(queries), 1))
    >>> register_baseline("my-popularity", fit, {"power": Number(0.1, 2.0)})
    """
    if name in ROWS:
        raise ValueError(f"`name`: there is a row {name!r} already; choose another name")

    def fitted(data: TrainData, **settings: Any) -> FittedModel:
        model = fit(data, **settings)
        return model if isinstance(model, FittedModel) else FunctionModel(model)

    ROWS[name] = _baseline(Baseline(fitted, space or {}, frozenset(needs)))


def _baseline(baseline: Baseline) -> Row:
    def fit(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
        return FittedRow(baseline.fit(benchmark.train_data(split), **settings))

    return Row(
        fit,
        baseline.space,
        needs=baseline.needs,
        first_trial=baseline.first_trial,
        finalists=baseline.finalists,
    )


def _direct(preset: Preset, kind: Kind = "other", **changes: Any) -> Row:
    """DIRECT with some settings of a preset changed, in a run folder of its own; nothing is tuned."""

    def fit(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
        dataset, store = benchmark.splits[split], benchmark.store_of(split)
        model, training = configure(preset, **changes, **settings)
        config = canonical_json(_config(preset, **changes, **settings))
        run = benchmark.out / "runs" / f"{preset}-{digest(config, dataset.hash, store.hash)[:12]}"
        result = train_on(dataset, store, run, model=model, training=training, progress=benchmark.progress)
        tables = partial(_tables, Trained.load(run), dataset, store, result.best.phase)
        details: Json = {"epoch": result.best_epoch, "run": run.name}
        if METRIC in result.best.train_left_out:
            details["train_left_out"] = result.best.train_left_out[METRIC]
        return FittedRow(TablesModel(tables), details)

    return Row(fit, kind=kind, finalists=1, fixed_settings=_config(preset, **changes))


def _tables(
    trained: Trained, dataset: Dataset, store: EmbeddingStore, phase: Phase, queries: Queries
) -> ScoreTables:
    """Score tables of the queries' users; a model of users' own texts reads all their input as train."""
    if trained.model.config.user == "history" or queries.protocol == "random":
        return tables_for(trained, queries)
    rows = dataset.interactions
    known = np.isin(rows.user_idx, queries.users) & (rows.split == VALID)
    known &= np.isin(_pairs(rows.user_idx, rows.item_idx), _history_pairs(queries))
    view = TrainView.from_dataset(dataset.with_split(np.where(known, 0, rows.split)), store)
    view = view.with_lexicon(trained.lexicon, dataset.passages.text.gather(view.passage_idx))
    documents = ItemDocuments(view, trained.model.config.equal_reviews)
    scores = CatalogueScores(trained.model, documents, read_table(trained.model, documents, phase), None)
    tables, bias = export_tables(scores), trained.tables.user_bias
    users = queries.users
    return tables.for_users(tables.query[users], None, None if bias is None else bias[users])


def _pairs(users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int64]:
    pairs: NDArray[np.int64] = users.astype(np.int64) << 32 | items
    return pairs


def _history_pairs(queries: Queries) -> NDArray[np.int64]:
    return _pairs(np.repeat(queries.users, np.diff(queries.indptr)), queries.items)


_LINEAR: Final[Mapping[str, Any]] = {
    "aspects": 1,
    "collaborative": False,
    "lexicon": 0,
    "train_on_duplicates": True,
}
_LINEAR_SPACE: Final[Space] = {
    "lr": Number(3e-4, 1e-2, log=True),
    "history_dropout": Number(0.0, 0.9, floor=0.0, ceiling=0.95),
    "weight_decay": Number(1e-6, 1.0, log=True),
}
_PAPER_SPACE: Final[Space] = {
    "lr": Number(3e-5, 3e-2, log=True),
    "objective": ("bpr", "softmax"),
    "aspects": Number(2, 20, log=True, integer=True, floor=1, ceiling=64),
}
_MIX: Final = ("linear-text", "ease-words")


def _mix(benchmark: Benchmark, split: int, settings: Json) -> FittedRow:
    """Weighted sum of the tuned linear map of text and the tuned EASE with words."""
    text, ease = (_fitted_part(benchmark, name, split) for name in _MIX)
    assert isinstance(ease, ItemItemModel)
    weight = settings["weight"] / max(float(np.std(ease.weights)), 1e-12)
    return FittedRow(SumModel(text, ease, weight))


def _fitted_part(benchmark: Benchmark, name: str, split: int) -> FittedModel:
    key = f"{name}-{split}"
    if key not in benchmark.fitted:
        settings = benchmark.tuning[name]["trials"][0]["settings"]
        benchmark.fitted[key] = benchmark.rows[name].fit(benchmark, split, settings).model
    return benchmark.fitted[key]


def _config(preset: Preset, **changes: Any) -> Json:
    model, training = configure(preset, **changes)
    return {"model": to_json(model), "training": to_json(training)}


def _tuned(row: Row, space: Space, first_trial: Json) -> Row:
    return Row(
        row.fit,
        space,
        row.kind,
        needs=frozenset({"text"}),
        first_trial=first_trial,
        finalists=1,  # the validation of each split has chosen the epoch already
        fixed_settings=row.fixed_settings,
    )


ROWS: dict[str, Row] = {
    **{name: _baseline(baseline) for name, baseline in BASELINES.items()},
    # AlphaRec-like linear map of mean-pooled text (Sheng et al. 2025): cosine, softmax, popularity prior.
    "linear-text": _tuned(
        _direct("default", **_LINEAR),
        _LINEAR_SPACE,
        {"lr": 1e-3, "history_dropout": 0.7, "weight_decay": 1e-6},
    ),
    "linear-text+ease-words": Row(
        _mix,
        {"weight": Number(1e-3, 10.0, log=True)},
        parts=_MIX,
        needs=frozenset({"text"}),
        fixed_settings=_config("default", **_LINEAR),
    ),
    "direct-paper": _tuned(_direct("paper"), _PAPER_SPACE, {"lr": 1e-4, "objective": "bpr", "aspects": 5}),
    OURS: _direct("default", "ours"),
    "llmdirect-text": _direct("default", "ablation", collaborative=False),
    "llmdirect-ease": _direct("default", "ablation", history_term="ease"),
}
"""Rows by name, in the order of the table."""
