"""python benches/new_users.py DATASET [--splits N] [--out FOLDER]

Users whom training never saw, known by the older four fifths of their items (or by what they wrote about
them) when they ask; the rest is what they should get. Each tenth of the users is held out in turn, N of ten
times. Prints NDCG@10 of DIRECT beside baselines that take a new history without a new fit, each tuned on the
validation of the users that remain.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmdirect.benchmark.rows import ROWS, Board, Budget, tuned
from llmdirect.cli.console import Bars
from llmdirect.common.csr import Csr
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import without_users
from llmdirect.encoding.encoders import load_encoder
from llmdirect.evaluation.statistics import interval, ratio
from llmdirect.ranking.metrics import metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained
from llmdirect.store.store import open_store
from llmdirect.training.train import train_on

BASELINES = ("popularity", "embedding-knn", "tfidf-knn", "ease", "ease-text", "ease-words")
FEWEST = 5
"""Positives of a user who is tested."""
SEED = 242


def split_reviews(dataset: Dataset, user: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Items of the user's history, newest first; items to find; texts about the history's items."""
    rows = dataset.interactions
    own = np.flatnonzero((rows.user_idx == user) & rows.positive)  # oldest first
    known = own[: len(own) * 4 // 5][::-1]
    texts = dataset.passages.text.gather(rows.passage_idx[known]).to_list()
    found = rows.item_idx[own[len(known) :]]
    return (
        rows.item_idx[known].astype(np.int64),
        found.astype(np.int64),
        [text for text in texts if text.strip()],
    )


def of_history(tables: ScoreTables, items: np.ndarray) -> ScoreTables:
    """A baseline's scorer with one user of this history."""
    if tables.item_item is not None:
        history = Csr.from_pairs(np.zeros(len(items), np.int64), items, 1)
        return replace(tables, query=np.zeros((1, 0)), user_bias=None, history=history)
    query = np.asarray(tables.item)[items].sum(0, keepdims=True)
    length = np.linalg.norm(query)
    return replace(tables, query=query / length if length > 0 else query, user_bias=None)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("new-users"))
    given = parser.parse_args()
    whole = open_or_prepare(given.dataset)
    store = open_store(whole.path)
    made_by = store.encoder
    encoder = load_encoder(made_by["id"], max_length=made_by["max_length"])
    tenths = np.random.default_rng(SEED).permutation(whole.num_users) % 10
    values: dict[str, list[float]] = {}
    for number in range(given.splits):
        held_out = tenths == number
        remaining = without_users(resplit(whole, seed=SEED, fractions=(0.9, 0.1, 0.0)), held_out)
        run = given.out / f"run-{number}"
        train_on(remaining, store, run, model=ModelConfig(), training=TrainConfig(), progress=Bars())
        trained = Trained.load(run)
        board = Board([remaining], store, given.out / f"board-{number}", Bars(), Budget(300, len(BASELINES)))
        board.out.mkdir(parents=True, exist_ok=True)
        fitted = {name: ROWS[name].fit(board, 0, tuned(board, name)["settings"]).tables for name in BASELINES}
        for user in np.flatnonzero(held_out):
            history, wanted, texts = split_reviews(whole, int(user))
            if len(history) + len(wanted) < FEWEST:
                continue
            read = read_texts(trained, texts, encoder) if texts else None
            one: dict[str, Any] = {name: of_history(tables, history) for name, tables in fitted.items()}
            one["direct, from the history"] = new_user(trained, history).tables
            if read is not None:
                one["direct, from the texts"] = new_user(trained, history[:0], read).tables
            seen = Csr.from_pairs(np.zeros(len(history), np.int64), history, 1)
            for name, tables in one.items():
                lists = rank(tables, [0], k=10, seen=seen).items
                relevant = Csr.from_pairs(np.zeros(len(wanted), np.int64), wanted, 1)
                values.setdefault(name, []).append(float(metrics(lists, relevant, ["ndcg@10"])["ndcg@10"][0]))
    direct = np.array(values["direct, from the history"])
    for name, found in values.items():
        row = interval(np.array(found))
        beside = ratio(direct, np.array(found)) if len(found) == len(direct) and found is not direct else None
        print(json.dumps({"model": name, "users": len(found), "ndcg@10": row, "ratio_direct": beside}))


if __name__ == "__main__":
    main()
