"""Demo: all stages on a synthetic corpus or on given reviews."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmdirect.common.conditions import check_conditions
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result
from llmdirect.config import TrainConfig
from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.evaluation.protocol import evaluate_split, held_out_users, seen_items
from llmdirect.explanation.explainer import Explainer
from llmdirect.model.train_view import TrainView
from llmdirect.model.word_types import WordTypes
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.reports.explanation_page import write_page
from llmdirect.runs.trained import Trained
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from llmdirect.synthetic.corpus import Corpus, generate
from llmdirect.synthetic.recovery import aspect_recovery, oracle, planted_word_precision
from llmdirect.training.train import train

METRICS = ("ndcg@10", "recall@10", "hit_rate@10")
_NUM_EXPLAINED = 3
_NUM_MEASURED = 60
"""Users whose best item is explained to measure the recovery of planted words."""


@dataclass(frozen=True)
class DemoResult(Result):
    """Metrics and explanations of a demo."""

    synthetic: bool
    """Whether the reviews are a synthetic corpus."""
    table: list[Json]
    """[{"model", "metrics"}] on test: popularity, DIRECT and, for a synthetic corpus, the oracle."""
    validation: float
    """ndcg@10 of DIRECT on validation."""
    train_left_out: float
    """ndcg@10 of DIRECT on train pairs, each left out."""
    num_users: int
    """Users with a positive in the test split."""
    num_items: int
    run: Path
    dataset: Path
    recovery: Json | None
    """Keys "words" (`planted_word_precision`) and "aspects" (`aspect_recovery`); None for given reviews."""
    explanations: Json
    """Explained recommendations, as of `explain`."""
    page: Path
    """The explanations as an HTML page."""

    def to_json(self) -> Json:
        """Field names and values; "recovery" only where there is one."""
        values = super().to_json()
        return values if self.recovery is not None else {k: v for k, v in values.items() if k != "recovery"}


def demo(
    out: Path | str,
    *,
    data: Path | str | None = None,
    encoder: str = "minilm",
    num_users: int | None = None,
    num_items: int | None = None,
    progress: Progress = SILENT,
) -> DemoResult:
    """Run all stages in a folder: prepare, encode, train, rank and explain; complete stages are kept.

    Parameters
    ----------
    out
        Folder of the dataset, the run and the page.
    data
        File of reviews; by default a synthetic corpus is generated.
    model
        Encoder: "minilm", an id of the Hub or a folder.
    num_users, num_items
        Size of the synthetic corpus, by default 140 and 100.

    Raises
    ------
    ValueError
        If `num_users` or `num_items` is given together with `data`.
    LlmdirectError, OSError
        As the stages do.
    """
    out = Path(out)
    corpus: Corpus | None = None
    sizes = {"num_users": num_users, "num_items": num_items}
    check_conditions("demo", {"data": data, **sizes})
    given_sizes: dict[str, Any] = {name: number for name, number in sizes.items() if number is not None}
    if data is None:
        corpus = generate(out / "raw", **given_sizes)
        prepare(corpus.reviews_path, out / "dataset", items=corpus.items_path, progress=progress)
    else:
        prepare(data, out / "dataset", progress=progress)
    precompute(out / "dataset", encoder=encoder, progress=progress)
    consolidate(out / "dataset", progress=progress)
    run = out / "run"
    training_result = train(out / "dataset", run, training=TrainConfig(), progress=progress)
    dataset, trained = Dataset.open(out / "dataset"), Trained.load(run)
    tables_by_name = {"popularity": _by_popularity(dataset), "direct": trained.tables}
    if corpus is not None:
        tables_by_name["oracle"] = oracle(corpus, dataset.user_ids, dataset.item_ids)
    explainer = Explainer.open(run)
    entries = [
        explainer.explain(user, int(explainer.candidates(user)[0]))
        for user in _ordered_users(trained, dataset)[: _NUM_MEASURED if corpus else _NUM_EXPLAINED]
        if len(explainer.candidates(user))
    ]
    explanations = explainer.result(entries[:_NUM_EXPLAINED])
    page = out / "explanations.html"
    write_page(page, explanations, "Three explained recommendations")
    return DemoResult(
        synthetic=corpus is not None,
        table=[_row(name, tables, dataset) for name, tables in tables_by_name.items()],
        validation=training_result.best_value,
        train_left_out=training_result.best.train_left_out[training_result.metric],
        num_users=len(held_out_users(dataset, TEST)),
        num_items=dataset.num_items,
        run=run,
        dataset=dataset.path,
        recovery=_recovery(corpus, entries, trained, dataset, explainer.texts.store) if corpus else None,
        explanations=explanations,
        page=page.resolve(),
    )


def _by_popularity(dataset: Dataset) -> ScoreTables:
    empty = np.zeros((dataset.num_users, 0)), np.zeros((dataset.num_items, 0))
    return ScoreTables(query=empty[0], item=empty[1], item_bias=dataset.popularity(TRAIN))


def _row(name: str, tables: ScoreTables, dataset: Dataset) -> Json:
    return {"model": name, "metrics": mean_metrics(evaluate_split(tables, dataset, TEST, list(METRICS)))}


def _ordered_users(trained: Trained, dataset: Dataset) -> list[int]:
    """Held-out users, those first whose best item is relevant in test: easiest to judge."""
    users = held_out_users(dataset, TEST)
    best = rank(trained.tables, users, k=1, seen=seen_items(dataset, TEST)).items[:, 0]
    relevant = dataset.csr(TEST)
    hit = np.array(
        [item in relevant.row(user) for user, item in zip(users.tolist(), best.tolist(), strict=True)]
    )
    return [*users[hit].tolist(), *users[~hit].tolist()]


def _recovery(
    corpus: Corpus, explanations: list[Json], trained: Trained, dataset: Dataset, store: EmbeddingStore
) -> Json:
    """Recovery of planted words by the explanations, and of planted aspects by the model."""
    words: dict[str, Any] = planted_word_precision(explanations, corpus, k=10)
    view = TrainView.from_dataset(dataset, store)
    texts = dataset.passages.text.gather(view.passage_idx)
    types = WordTypes.from_view(view.with_lexicon(trained.lexicon, texts), texts)
    with torch.no_grad():
        preference, _ = trained.model.token_terms(trained.model.standard(types.vectors))
        norms = preference.view(len(preference), trained.model.aspects, -1).norm(dim=2).numpy()
    mention = dict(zip(types.names, norms, strict=True))
    return {"words": words, "aspects": aspect_recovery(mention, corpus)}
