"""python benches/new_users.py DATASET [--splits N] [--out FOLDER]

NDCG@10 of DIRECT for users without interactions in train, known by their items or by what they wrote about
them: the older four fifths of what they did; the newest fifth is relevant. A tenth of the users is held out
at a time, N times. What baselines do with the same histories: `llmdirect scoreboard --protocols new-users`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from llmdirect.benchmark.benchmark import make_split, new_users
from llmdirect.cli.console import Bars
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.encoding.encoders import load_encoder
from llmdirect.evaluation.queries import new_user_queries
from llmdirect.evaluation.statistics import bootstrap_mean, bootstrap_ratio
from llmdirect.ranking.metrics import metrics
from llmdirect.ranking.top_k import rank, rank_scores
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained
from llmdirect.store.store import open_store
from llmdirect.training.train import train_on


def texts_about(dataset: Dataset, user: int, items: np.ndarray) -> list[str]:
    """Texts of a user about some items, the newest first."""
    rows = dataset.interactions
    own = np.flatnonzero((rows.user_idx == user) & np.isin(rows.item_idx, items))[::-1]
    return [text for text in dataset.passages.text.gather(rows.passage_idx[own]) if text.strip()]


def main() -> None:
    """Measure and print a JSON line a way of knowing the user."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("new-users"))
    args = parser.parse_args()
    full = open_or_prepare(args.dataset)
    store = open_store(full.path)
    encoder = load_encoder(store.encoder["id"], max_length=store.encoder["max_length"])
    values: dict[str, list[float]] = {}
    for number in range(args.splits):
        remaining = make_split(full, "new-users", number)
        run = args.out / f"run-{number}"
        train_on(remaining, store, run, model=ModelConfig(), training=TrainConfig(), progress=Bars())
        trained, popularity = Trained.load(run), remaining.popularity(TRAIN).astype(np.float32)
        queries = new_user_queries(full, new_users(full, number))
        for row, user in enumerate(queries.users.tolist()):
            query = queries.select(np.array([row]))
            history = query.items[::-1].astype(np.int64)
            lists = {
                "popularity": rank_scores(popularity[None].copy(), k=10, seen=query.seen),
                "history": rank(new_user(trained, history).tables, [0], k=10, seen=query.seen).items,
            }
            if texts := texts_about(full, user, history):
                by_text = new_user(trained, history[:0], read_texts(trained, texts, encoder))
                lists["texts"] = rank(by_text.tables, [0], k=10, seen=query.seen).items
            for name, top in lists.items():
                gain = metrics(top, query.relevant, ["ndcg@10"])["ndcg@10"][0]
                values.setdefault(name, []).append(float(gain))
    by_history = np.array(values["history"])
    for name, gains in values.items():
        mean = bootstrap_mean(np.array(gains))
        ratio = bootstrap_ratio(by_history, np.array(gains)) if len(gains) == len(by_history) else None
        print(json.dumps({"known by": name, "users": len(gains), "ndcg@10": mean, "ratio_history": ratio}))


if __name__ == "__main__":
    main()
