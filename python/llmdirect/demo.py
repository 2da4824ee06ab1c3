"""Every stage in a row, on a corpus that the package makes, or on somebody's reviews."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmdirect.benchmark.baselines import BASELINES, TrainData
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.config import TrainConfig
from llmdirect.data.dataset import TEST, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.evaluation.protocol import by_user, held_out_users, seen_before
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
_EXPLAINED = 3
_MEASURED = 60
"""Users whose best item is explained to measure how many planted words are found."""


def demo(
    out: Path | str,
    *,
    data: Path | str | None = None,
    model: str = "minilm",
    num_users: int | None = None,
    num_items: int | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Prepares, encodes, trains, ranks and explains in the folder `out`; a stage that is complete is kept.

    data: a file of reviews; by default a synthetic corpus in which the words that matter are known, of
    `num_users` (140) and `num_items` (100).

    Returns {"table": [{"model", "metrics"}], "explanations", "recovery" (synthetic corpus alone), "page",
    …}. Raises what its stages raise.
    """
    out = Path(out)
    corpus: Corpus | None = None
    size = {"num_users": num_users, "num_items": num_items}
    given: dict[str, Any] = {name: number for name, number in size.items() if number is not None}
    if data is not None and given:
        raise ValueError(f"{' and '.join(given)}: belong to the synthetic corpus, not to {data}")
    if data is None:
        with progress.task("Writing the synthetic corpus", None, "reviews"):
            corpus = generate(out / "raw", **given)
        prepare(corpus.reviews_path, out / "dataset", items=corpus.items_path, progress=progress)
    else:
        prepare(data, out / "dataset", progress=progress)
    precompute(out / "dataset", model=model, progress=progress)
    consolidate(out / "dataset", progress=progress)
    run = out / "run"
    fitted = train(out / "dataset", run, training=TrainConfig(), progress=progress)
    dataset, trained = Dataset.open(out / "dataset"), Trained.load(run)
    tables_by_name = {"popularity": BASELINES["popularity"].fit(TrainData(dataset)), "direct": trained.tables}
    if corpus is not None:
        tables_by_name["oracle"] = oracle(corpus, dataset.user_ids, dataset.item_ids)
    result: Json = {
        "synthetic": corpus is not None,
        "table": [_row(name, tables, dataset) for name, tables in tables_by_name.items()],
        "validation": fitted["best_value"],
        "train_left_out": fitted["best"]["train_left_out"][fitted["metric"]],
        "num_users": len(held_out_users(dataset, TEST)),
        "num_items": dataset.num_items,
        "run": str(run),
        "dataset": str(dataset.path),
    }
    users = _users(trained, dataset)
    explainer = Explainer.open(run)
    entries = [
        explainer.explain(user, int(explainer.candidates(user)[0]))
        for user in users[: _MEASURED if corpus else _EXPLAINED]
        if len(explainer.candidates(user))
    ]
    shown = explainer.result(entries[:_EXPLAINED])
    if corpus is not None:
        result["recovery"] = _recovery(corpus, entries, trained, dataset, explainer.texts.store)
    page = out / "explanations.html"
    write_page(page, shown, "Three explained recommendations")
    return {**result, "explanations": shown, "page": str(page.resolve())}


def _row(name: str, tables: ScoreTables, dataset: Dataset) -> Json:
    return {"model": name, "metrics": mean_metrics(by_user(tables, dataset, TEST, list(METRICS)))}


def _users(trained: Trained, dataset: Dataset) -> list[int]:
    """Held-out users, those first whose best item is one that they chose in test: easiest to judge."""
    users = held_out_users(dataset, TEST)
    best = rank(trained.tables, users, k=1, seen=seen_before(dataset, TEST)).items[:, 0]
    relevant = dataset.csr(TEST)
    hit = np.array(
        [item in relevant.row(user) for user, item in zip(users.tolist(), best.tolist(), strict=True)]
    )
    return [*users[hit].tolist(), *users[~hit].tolist()]


def _recovery(
    corpus: Corpus, explained: list[Json], trained: Trained, dataset: Dataset, store: EmbeddingStore
) -> Json:
    """How much of what was planted is found again."""
    words: dict[str, Any] = planted_word_precision(explained, corpus, k=10)
    view = TrainView.from_dataset(dataset, store)
    texts = dataset.passages.text.gather(view.passage_idx)
    types = WordTypes.from_view(view.with_lexicon(trained.lexicon, texts), texts)
    with torch.no_grad():
        said, _ = trained.model.token_terms(trained.model.standard(types.vectors))
        size = said.view(len(said), trained.model.aspects, -1).norm(dim=2).numpy()
    mention = dict(zip(types.names, size, strict=True))
    return {"words": words, "aspects": aspect_recovery(mention, corpus)}
