"""python benches/new_users.py DATASET [--splits N] [--out FOLDER]

NDCG@10 for users without interactions in train. Their history is the older four fifths of their items (or
the texts about these); the newest fifth is relevant. A tenth of the users is held out at a time, N times.
Prints DIRECT and baselines that accept a new history without a new fit, each tuned on the validation of the
remaining users.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmdirect.benchmark.rows import ROWS, Benchmark, Budget, tune
from llmdirect.cli.console import Bars
from llmdirect.common.csr import Csr
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import without_users
from llmdirect.encoding.encoders import load_encoder
from llmdirect.evaluation.statistics import bootstrap_mean, bootstrap_ratio
from llmdirect.ranking.metrics import metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained
from llmdirect.store.store import open_store
from llmdirect.training.train import train_on

BASELINES = ("popularity", "embedding-knn", "tfidf-knn", "ease", "ease-text", "ease-words")
FEWEST = 5
"""Minimum number of positives of a user who is tested."""
SEED = 242


def split_reviews(dataset: Dataset, user: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Items of the user's history, newest first; relevant items; texts about the history's items."""
    rows = dataset.interactions
    own = np.flatnonzero((rows.user_idx == user) & rows.positive)  # oldest first
    history = own[: len(own) * 4 // 5][::-1]
    texts = dataset.passages.text.gather(rows.passage_idx[history]).to_list()
    return (
        rows.item_idx[history].astype(np.int64),
        rows.item_idx[own[len(history) :]].astype(np.int64),
        [text for text in texts if text.strip()],
    )


def for_history(tables: ScoreTables, items: np.ndarray) -> ScoreTables:
    """A baseline's score tables for one user with this history."""
    if tables.item_item is not None:
        history = Csr.from_pairs(np.zeros(len(items), np.int64), items, 1)
        return replace(tables, query=np.zeros((1, 0)), user_bias=None, history=history)
    query = np.asarray(tables.item)[items].sum(0, keepdims=True)
    length = np.linalg.norm(query)
    return replace(tables, query=query / length if length > 0 else query, user_bias=None)


def main() -> None:
    """Measure and print a JSON line a model."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("new-users"))
    args = parser.parse_args()
    full = open_or_prepare(args.dataset)
    store = open_store(full.path)
    encoder = load_encoder(store.encoder["id"], max_length=store.encoder["max_length"])
    tenth_of_user = np.random.default_rng(SEED).permutation(full.num_users) % 10
    values: dict[str, list[float]] = {}
    for number in range(args.splits):
        held_out = tenth_of_user == number
        remaining = without_users(resplit(full, seed=SEED, fractions=(0.9, 0.1, 0.0)), held_out)
        run = args.out / f"run-{number}"
        train_on(remaining, store, run, model=ModelConfig(), training=TrainConfig(), progress=Bars())
        trained = Trained.load(run)
        board = Benchmark(
            [remaining], store, args.out / f"board-{number}", Bars(), Budget(300, len(BASELINES))
        )
        board.out.mkdir(parents=True, exist_ok=True)
        fitted = {name: ROWS[name].fit(board, 0, tune(board, name)["settings"]).tables for name in BASELINES}
        for user in np.flatnonzero(held_out):
            history, relevant_items, texts = split_reviews(full, int(user))
            if len(history) + len(relevant_items) < FEWEST:
                continue
            models: dict[str, Any] = {name: for_history(tables, history) for name, tables in fitted.items()}
            models["direct, from the history"] = new_user(trained, history).tables
            if texts:
                user_texts = read_texts(trained, texts, encoder)
                models["direct, from the texts"] = new_user(trained, history[:0], user_texts).tables
            seen = Csr.from_pairs(np.zeros(len(history), np.int64), history, 1)
            relevant = Csr.from_pairs(np.zeros(len(relevant_items), np.int64), relevant_items, 1)
            for name, tables in models.items():
                lists = rank(tables, [0], k=10, seen=seen).items
                values.setdefault(name, []).append(float(metrics(lists, relevant, ["ndcg@10"])["ndcg@10"][0]))
    direct = np.array(values["direct, from the history"])
    for name, gains in values.items():
        mean = bootstrap_mean(np.array(gains))
        ratio = bootstrap_ratio(direct, np.array(gains)) if len(gains) == len(direct) else None
        print(json.dumps({"model": name, "users": len(gains), "ndcg@10": mean, "ratio_direct": ratio}))


if __name__ == "__main__":
    main()
