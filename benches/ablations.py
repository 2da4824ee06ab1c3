"""python benches/ablations.py DATASET [--splits N] [--only NAME,…] [--reviews FILE] [--out FOLDER]

Ablations: DIRECT with one setting changed, on the validation of random splits (seeds from 1); the test split
is not used. A killed run is resumed. Prints a table in Markdown: NDCG@10, its ratio to the default paired by
user, train pairs left out, bytes a token. --reviews: the raw file, for variants that are encoded again.
The dataset's store has the dtype bfloat16 (`precompute --dtype bfloat16`); smaller ones are quantised
from it.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmdirect.choices import Preset
from llmdirect.cli.console import Bars
from llmdirect.collaborative.ease import Ease
from llmdirect.config import configure
from llmdirect.data.dataset import VALID, Dataset
from llmdirect.data.prepare import open_or_prepare, prepare
from llmdirect.data.resplit import resplit
from llmdirect.encoding.calibrate import Moments
from llmdirect.encoding.precompute import precompute
from llmdirect.evaluation.protocol import evaluate_split, held_out_users
from llmdirect.evaluation.statistics import bootstrap_ratio
from llmdirect.model.item_documents import Pairs
from llmdirect.runs.trained import Trained
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.store.token_format import TokenFormat
from llmdirect.store.write import write_store
from llmdirect.text.words import content_token_mask, token_word_ids, word_spans
from llmdirect.training.train import train_on

METRIC = "ndcg@10"
FITTED_ON = 50_000
"""Tokens of train passages that a projection is fitted on."""

Rewrite = Callable[[EmbeddingStore, Dataset, Path], EmbeddingStore]
"""(store, dataset, folder of the new store)"""


@dataclass(frozen=True)
class Variant:
    """A changed setting of DIRECT, or changed token embeddings."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: Preset = "default"
    store: Rewrite | None = None
    form: TokenFormat | None = None
    """Token format of the store; its own if not given."""
    patch: Callable[[], Any] | None = None
    """Creates the context in which the variant is trained."""
    prepared: Mapping[str, Any] | None = None
    """Arguments of `prepare`, for variants that are encoded again."""
    dtype: str = "bfloat16"
    """Dtype of the tokens that are encoded again."""


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def review_left_in() -> Any:
    """Each pair's own review stays in the document of its item."""
    from_view = Pairs.from_view
    left_in = staticmethod(
        lambda view, rows: replace(from_view(view, rows), passage=torch.full_like(rows, -1))
    )
    return _patched(Pairs, "from_view", left_in)


def collaboration_left_in() -> Any:
    """The settings of the collaborative term are chosen on pairs that it was fitted on."""
    return _patched(Ease, "left_out", lambda self, users, *_: self.score_users(users))


def _like(store: EmbeddingStore, folder: Path, tokens: Any, spans: Any = None) -> EmbeddingStore:
    """A store of the same passages with other tokens."""
    return write_store(
        folder,
        tokens,
        store.offsets,
        texts=_TEXTS[str(store.path)],
        spans=store.spans if spans is None else spans,
        encoder=store.encoder,
    )


_TEXTS: dict[str, list[str]] = {}
"""Texts of each store's passages, by its path: a store has only their hashes."""


def _floats(store: EmbeddingStore) -> torch.Tensor:
    return store.tokens.float()


def round_trip(form: TokenFormat) -> Rewrite:
    """Tokens after a round trip through this format, fitted on tokens of train passages."""

    def rewrite(store: EmbeddingStore, dataset: Dataset, folder: Path) -> EmbeddingStore:
        numbers = store.lookup(dataset.passage_keys()[dataset.passages.split == 0])
        rows = np.concatenate([np.arange(store.offsets[n], store.offsets[n + 1]) for n in np.unique(numbers)])
        tokens, moments = _floats(store), Moments(store.dim)
        moments.add(tokens[torch.from_numpy(np.random.default_rng(0).permutation(rows)[:FITTED_ON])])
        calibration = moments.calibration(form)
        return _like(store, folder, calibration.dequantize(calibration.quantize(tokens, form.dtype)))

    return rewrite


def content(store: EmbeddingStore, dataset: Dataset, folder: Path) -> EmbeddingStore:
    """Function words and punctuation get empty spans: no model reads them."""
    spans = store.spans.copy()
    for number, text in enumerate(_TEXTS[str(store.path)]):
        own = slice(store.offsets[number], store.offsets[number + 1])
        spans[own][~content_token_mask(text, spans[own])] = 0
    return _like(store, folder, _floats(store), spans)


def static(store: EmbeddingStore, dataset: Dataset, folder: Path) -> EmbeddingStore:
    """Each token as the mean embedding of its word over train."""
    word_ids: dict[str, int] = {}
    types = np.zeros(store.num_rows, np.int64)
    for number, text in enumerate(_TEXTS[str(store.path)]):
        words = word_spans(text)
        own = slice(store.offsets[number], store.offsets[number + 1])
        owner = token_word_ids(store.spans[own], words)
        names = [text[a:b].casefold() for a, b in words.tolist()] + [""]
        ids = np.array([word_ids.setdefault(name, len(word_ids)) for name in names])
        types[own] = ids[owner]
    used = np.zeros(store.num_rows, bool)
    for number in store.lookup(dataset.passage_keys()[dataset.passages.split == 0]):
        used[store.offsets[number] : store.offsets[number + 1]] = True
    tokens, kind, train = _floats(store), torch.from_numpy(types), torch.from_numpy(used)
    sums = torch.zeros(len(word_ids), store.dim).index_add_(0, kind[train], tokens[train])
    means = sums / torch.bincount(kind[train], minlength=len(word_ids)).clamp(min=1)[:, None]
    return _like(store, folder, means[kind])


VARIANTS: Mapping[str, Variant] = {
    "default": Variant(),
    "document unit": Variant(prepared={"passage_unit": "document"}),
    "summary before the text": Variant(prepared={"with_summary": True}),
    "float32": Variant(prepared={}, dtype="float32"),
    "own review left in": Variant(patch=review_left_in),
    "copied texts trained on": Variant({"train_on_duplicates": True}),
    "collaborative term left in": Variant(patch=collaboration_left_in),
    "without the collaborative term": Variant({"collaborative": False}),
    "EASE alone": Variant({"history_term": "ease"}),
    "EASE with a walk": Variant({"history_term": "ease+walk"}),
    "EASE with neighbours": Variant({"history_term": "ease+neighbours"}),
    "collaborative term without words": Variant({"word_similarity": 0.0}),
    "collaborative term without embeddings": Variant({"embedding_similarity": 0.0}),
    "without the lexicon": Variant({"lexicon": 0}),
    "lexicon of 256": Variant({"lexicon": 256}),
    "4 channels an aspect": Variant({"channels": 4}),
    "64 aspects": Variant({"aspects": 64}),
    "ratio form": Variant({"score_form": "ratio"}),
    "preset paper": Variant(preset="paper"),
    "64 sampled negatives": Variant({"negatives": 64}),
    "bpr with one negative": Variant({"objective": "bpr", "negatives": 1}),
    "contrastive loss": Variant({"contrastive": 5e-3}),
    "rating anchor": Variant({"anchor": 0.1}),
    "each review one vote": Variant({"equal_reviews": True}),
    "history and texts of the user": Variant({"user": "both"}),
    "texts of the user": Variant({"user": "text"}),
    "without popularity": Variant({"popularity": False}),
    "without ema_decay": Variant({"ema_decay": 0.0}),
    "whole histories in training": Variant({"history_dropout": 0.0}),
    "5 epochs on tokens": Variant({"token_epochs": 5}),
    "5 epochs on tokens with rate reduction": Variant({"token_epochs": 5, "rate": 1e-6}),
    "5 epochs on tokens with orthogonality": Variant({"token_epochs": 5, "orthogonality": 2.5}),
    "content tokens": Variant(store=content),
    "bfloat16": Variant(form=TokenFormat("bfloat16")),
    "int8": Variant(form=TokenFormat("int8")),
    "256 dimensions": Variant(form=TokenFormat("bfloat16", project=256)),
    "128 dimensions": Variant(form=TokenFormat("bfloat16", project=128)),
    "64 dimensions": Variant(form=TokenFormat("bfloat16", project=64)),
    "static embeddings": Variant(store=static),
}


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--reviews", type=Path)
    parser.add_argument("--out", type=Path, default=Path("ablations"))
    args = parser.parse_args()
    full = open_or_prepare(args.dataset)
    store = open_store(full.path)
    texts = dict(zip(map(bytes, full.passage_keys()), full.passages.text.to_list(), strict=True))
    _TEXTS[str(store.path)] = [texts[bytes(key)] for key in store.keys]
    names = args.only.split(",") if args.only else list(VARIANTS)
    base: dict[str, float] = {}
    print("| setting | ndcg@10 | to the default | train left out | bytes a token |")
    print("|---|---:|---:|---:|---:|")
    for name in dict.fromkeys(["default", *names]):
        if VARIANTS[name].prepared is not None and args.reviews is None:
            continue
        splits = [_measure(name, full, store, seed, args) for seed in range(1, args.splits + 1)]
        users = sorted({user for split in splits for user in split["values"]})
        means = {
            user: float(np.mean([s["values"][user] for s in splits if user in s["values"]])) for user in users
        }
        base = base or means
        print(_row(name, means, base, splits), flush=True)


def _measure(
    name: str, full: Dataset, store: EmbeddingStore, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """{"values": NDCG@10 by user id, "left_out", "bytes"} on one split, from its file if there is one."""
    variant = VARIANTS[name]
    folder = args.out / f"{name.replace(' ', '-')}-{seed}"
    path = folder / "result.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    dataset, used = resplit(full, seed=seed), store
    if variant.prepared is not None:
        dataset = _encode_again(args, name, full, seed, store)
        used = open_store(dataset.path)
    elif rewrite := round_trip(variant.form) if variant.form else variant.store:
        shutil.rmtree(folder / "store", ignore_errors=True)
        used = rewrite(store, dataset, folder / "store")
    model, training = configure(variant.preset, **variant.settings)
    with variant.patch() if variant.patch else nullcontext():
        result = train_on(dataset, used, folder / "run", model=model, training=training, progress=Bars())
    values = evaluate_split(Trained.load(folder / "run").tables, dataset, VALID, [METRIC])[METRIC].tolist()
    ids = [dataset.user_ids[user] for user in held_out_users(dataset, VALID)]
    # The size is that of the format, not of the store that is written for the experiment.
    form = variant.form or (store if variant.prepared is None else used).form
    size = form.row_bytes(form.dim(store.dim))
    result_on_split = {
        "values": dict(zip(ids, values, strict=True)),
        "left_out": result.best.train_left_out[METRIC],
        "bytes": size,
    }
    path.write_text(json.dumps(result_on_split))
    shutil.rmtree(folder / "store", ignore_errors=True)  # as large as the store itself
    return result_on_split


def _encode_again(
    args: argparse.Namespace, name: str, full: Dataset, seed: int, store: EmbeddingStore
) -> Dataset:
    """The split of the same reviews with the variant's options of `prepare`, by the encoder of the store."""
    variant = VARIANTS[name]
    assert variant.prepared is not None
    # Documents are of one split's texts; anything else is encoded once.
    by_split = variant.prepared.get("passage_unit") == "document"
    folder = args.out / f"{name.replace(' ', '-')}-data{f'-{seed}' if by_split else ''}"
    if not (folder / "manifest.json").exists():
        options = full.manifest["options"]
        columns, k_core = options.get("columns"), options.get("k_core", 0)
        prepare(args.reviews, folder, seed=seed, columns=columns, k_core=k_core, **variant.prepared)
    precompute(folder, encoder=store.encoder["id"], dtype=variant.dtype, progress=Bars())
    consolidate(folder, progress=Bars())
    prepared = Dataset.open(folder)
    return prepared if by_split else resplit(prepared, seed=seed)


def _row(
    name: str, means: Mapping[str, float], base: Mapping[str, float], splits: Sequence[Mapping[str, Any]]
) -> str:
    ratio = ""
    if means is not base:
        users = sorted(means.keys() & base.keys())
        interval = bootstrap_ratio(
            np.array([means[user] for user in users]), np.array([base[user] for user in users])
        )
        assert interval is not None
        ratio = f"{interval['mean']:.3f} ({interval['low']:.3f}-{interval['high']:.3f})"
    left_out = np.mean([split["left_out"] for split in splits])
    value = np.mean(list(means.values()))
    return f"| {name} | {value:.4f} | {ratio} | {left_out:.4f} | {splits[0]['bytes']:.0f} |"


if __name__ == "__main__":
    main()
