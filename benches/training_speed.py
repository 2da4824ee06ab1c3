"""python benches/training_speed.py DATASET    Training time of DIRECT, and how it grows with the data.

Prints JSON lines: seconds from the store to the best NDCG of the linear map, and to DIRECT's own; an epoch
of ours and of the published method on the same data (documents padded to 512 tokens of float32, read again
for each pair and its one negative); then an epoch at 1, 4 and 16 times the reviews of a generated corpus,
each in a process of its own. Start it with OMP_NUM_THREADS=2 for two cores.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from llmdirect.config import configure
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare, prepare
from llmdirect.model.direct import Direct
from llmdirect.model.initialise import initialise
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.scorer import EPS
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.store.write import write_store
from llmdirect.synthetic.corpus import generate
from llmdirect.training.losses import bpr_loss
from llmdirect.training.results import TrainResult
from llmdirect.training.train import train_on

LONGEST, PAIRS, STEPS = 512, 64, 12
"""Tokens of a document, pairs of an update and timed updates of the published method."""
USERS, ITEMS, DIM = 500, 400, 384
LINEAR = {"aspects": 1, "collaborative": False, "lexicon": 0}


@dataclass(frozen=True)
class Timed:
    """A training and its wall time."""

    result: TrainResult
    wall: float
    """Seconds."""


def main() -> None:
    """Measure and print JSON lines."""
    dataset = open_or_prepare(Path(sys.argv[1]))
    store = open_store(dataset.path)
    with TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        linear = _train(dataset, store, Path(folder) / "linear", LINEAR)
        direct = _train(dataset, store, Path(folder) / "direct", {})
    print_line(job="linear map", seconds=linear.wall, best=linear.result.best_value)
    reached = _seconds_to(direct, linear.result.best_value)
    print_line(job="direct to the linear map's NDCG", seconds=reached, best=linear.result.best_value)
    print_line(job="direct", seconds=direct.wall, best=direct.result.best_value)
    ours = float(np.median([record.seconds for record in direct.result.history]))
    theirs = published_epoch(dataset, store)
    print_line(job="epoch, ours and the published method", ours=ours, theirs=theirs, ratio=theirs / ours)
    for times in (1, 4, 16):
        command = [sys.executable, __file__, "--grown", str(times)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="", flush=True)


def print_line(**line: Any) -> None:
    """Print a JSON line."""
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()}
    print(json.dumps(rounded), flush=True)


def _train(dataset: Dataset, store: EmbeddingStore, out: Path, settings: dict[str, Any]) -> Timed:
    model, training = configure(**settings)
    started = time.perf_counter()
    result = train_on(dataset, store, out, model=model, training=training)
    return Timed(result, time.perf_counter() - started)


def _seconds_to(timed: Timed, value: float) -> float | None:
    """Seconds until validation was at `value`, preparation included; the whole run where only its end is."""
    before = timed.wall - timed.result.seconds  # what no epoch accounts for comes first, all of it
    for record in timed.result.history:
        before += record.seconds
        if record.valid["ndcg@10"] >= value:
            return before
    return timed.wall if timed.result.best_value >= value else None


def published_epoch(dataset: Dataset, store: EmbeddingStore) -> float:
    """Seconds of an epoch of the published method, extrapolated from some updates.

    Three documents are read for each pair.
    """
    view = TrainView.from_dataset(dataset, store)
    user_of = dataset.passages.user_idx[view.passage_idx]
    item_of = view.passage_item.numpy()
    documents = [
        _padded_documents(view, of, count)
        for of, count in ((user_of, view.num_users), (item_of, view.num_items))
    ]
    config, training = configure("paper")
    model = Direct(config, store.dim, view.num_users, view.num_items)
    tokens, mask = view.tokens(torch.arange(min(200, len(view.pooled))))
    initialise(model, view.pooled, view.pooled, tokens[mask], 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=training.lr)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(view.pair_user), generator=generator)
    seconds = []
    for rows in torch.split(order, PAIRS)[: STEPS + 2]:
        started = time.perf_counter()
        negatives = torch.randint(view.num_items, (len(rows),), generator=generator)
        chosen = (0, view.pair_user[rows]), (1, view.pair_item[rows]), (1, negatives)
        user, positive, negative = (
            model.passages(*_documents_of(documents[side], numbers)) for side, numbers in chosen
        )
        interest = torch.sigmoid(user[0])
        scores = [
            (interest * preference).sum(1) / ((interest * mentions).sum(1) + EPS)
            for preference, mentions in (positive, negative)
        ]
        optimiser.zero_grad()
        bpr_loss(scores[0], scores[1][:, None]).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:])) * len(order) / PAIRS


def _padded_documents(view: TrainView, owner: np.ndarray, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents of the passages' owners, float32 [count, 512, D], and their lengths."""
    tokens = torch.zeros(count, LONGEST, view.store.dim)
    lengths = torch.zeros(count, dtype=torch.int64)
    for passage, number in enumerate(owner.tolist()):
        if number >= 0 and (left := LONGEST - int(lengths[number])) > 0:
            own = view.tokens(torch.tensor([passage]))[0][0][:left]
            tokens[number, lengths[number] : lengths[number] + len(own)] = own
            lengths[number] += len(own)
    return tokens, lengths


def _documents_of(
    documents: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return documents[0][rows], torch.arange(LONGEST) < documents[1][rows, None]


def grown(times: int) -> None:
    """Train two epochs on a corpus with so many times the users, with random token embeddings."""
    with TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        corpus = generate(Path(folder) / "raw", num_users=USERS * times, num_items=ITEMS)
        prepare(corpus.reviews_path, Path(folder) / "dataset")
        dataset = Dataset.open(Path(folder) / "dataset")
        store = _random_store(dataset, Path(folder) / "store")
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before = _peak()
        started = time.perf_counter()
        model, training = configure(num_epochs=2)
        result = train_on(dataset, store, Path(folder) / "run", model=model, training=training)
        print_line(
            job=f"{times} times the reviews",
            pairs=int((dataset.interactions.split == 0).sum()),
            tokens=store.num_rows,
            epoch=result.history[1].seconds,
            all=time.perf_counter() - started,
            megabytes=_peak() - before,
        )


def _peak() -> float:
    """Peak memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _random_store(dataset: Dataset, folder: Path) -> EmbeddingStore:
    texts = dataset.passages.text.to_list()
    rng = np.random.default_rng(0)
    spans, counts = [], []
    for text in texts:
        start, own = 0, []
        for word in text.split(" "):
            own.append((start, start + len(word)))
            start += len(word) + 1
        spans += own
        counts.append(len(own))
    tokens = rng.standard_normal((sum(counts), DIM), np.float32).astype(np.float16)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return write_store(folder, tokens, offsets, texts=texts, spans=np.array(spans, np.uint32))


if __name__ == "__main__":
    if sys.argv[1] == "--grown":
        grown(int(sys.argv[2]))
    else:
        main()
