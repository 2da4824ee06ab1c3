"""In-memory datasets, their embeddings on disk, random models, and deletion of interactions."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llmdirect._core import passage_keys
from llmdirect.config import ModelConfig
from llmdirect.data.dataset import KINDS, NO_TIME, Dataset, Interactions, Passages
from llmdirect.model.direct import Direct
from llmdirect.model.initialise import initialise
from llmdirect.model.item_documents import ItemDocuments, Pairs
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.token_tables import PooledTable, Table, read_all
from llmdirect.model.train_view import TrainView
from llmdirect.store.store import EmbeddingStore
from store_helpers import Content, write_content

DIM = 6
USERS, ITEMS, COLD = 5, 7, 6
DESCRIPTION = "a description alone"


@dataclass(frozen=True)
class Row:
    """An interaction and its review."""

    user: int
    item: int
    text: str = "good"
    time: int | None = 0
    split: int = 0
    positive: bool = True
    rating: float = 5.0


def dataset_of(
    rows: Sequence[Row], num_users: int, num_items: int, descriptions: Mapping[int, str] | None = None
) -> Dataset:
    """Dataset as `prepare` writes it: rows by user and time, a passage per row, then descriptions."""
    rows = sorted(rows, key=lambda row: (row.user, NO_TIME if row.time is None else row.time))
    descriptions = descriptions or {}
    kinds = [KINDS.index("review")] * len(rows) + [KINDS.index("description")] * len(descriptions)
    return Dataset(
        path=Path("memory"),
        manifest={"options": {"unit": "review"}},
        base_hash="",
        user_ids=[f"u{user}" for user in range(num_users)],
        item_ids=[f"i{item}" for item in range(num_items)],
        item_titles=[None] * num_items,
        interactions=Interactions(
            user_idx=np.array([row.user for row in rows], np.int32),
            item_idx=np.array([row.item for row in rows], np.int32),
            passage_idx=np.arange(len(rows)),
            rating=np.array([row.rating for row in rows], np.float32),
            timestamp=np.array([NO_TIME if row.time is None else row.time for row in rows], np.int64),
            split=np.array([row.split for row in rows], np.uint8),
            positive=np.array([row.positive for row in rows], np.bool_),
        ),
        passages=Passages(
            text=pl.Series([*(row.text for row in rows), *descriptions.values()], dtype=pl.String),
            kind=np.array(kinds, np.uint8),
            user_idx=np.array([*(row.user for row in rows), *([-1] * len(descriptions))], np.int32),
            item_idx=np.array([*(row.item for row in rows), *descriptions], np.int32),
            split=np.array([*(row.split for row in rows), *([0] * len(descriptions))], np.uint8),
        ),
    )


def row_of(dataset: Dataset, user: int, item: int) -> int:
    """Row of an interaction."""
    rows = dataset.interactions
    (row,) = np.flatnonzero((rows.user_idx == user) & (rows.item_idx == item))
    return int(row)


def copies_of(dataset: Dataset, passage: int) -> list[int]:
    """Other passages of the same user with equal normalised text."""
    texts = [" ".join(text.casefold().split()) for text in dataset.passages.text.to_list()]
    return [
        other
        for other, text in enumerate(texts)
        if other != passage
        and text == texts[passage] != ""
        and dataset.passages.user_idx[other] == dataset.passages.user_idx[passage]
    ]


def delete(dataset: Dataset, row: int, *, drop_copies: bool = False) -> Dataset:
    """Dataset without this interaction and without same-user copies of its text.

    Interactions of copies remain; their texts become empty, or `drop_copies` removes their passages.
    """
    rows, passages = dataset.interactions, dataset.passages
    own = int(rows.passage_idx[row])
    copies = copies_of(dataset, own)
    deleted = {own, *copies} if drop_copies else {own}
    kept = np.array([passage not in deleted for passage in range(len(passages))])
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1)
    texts = ["" if passage in copies else text for passage, text in enumerate(passages.text.to_list())]
    fields = ("user_idx", "item_idx", "rating", "timestamp", "split", "positive")
    return replace(
        dataset,
        interactions=Interactions(
            passage_idx=np.delete(renumbered[rows.passage_idx], row),
            **{field: np.delete(getattr(rows, field), row) for field in fields},
        ),
        passages=Passages(
            text=pl.Series(texts, dtype=pl.String).filter(pl.Series(kept)),
            **{field: getattr(passages, field)[kept] for field in ("kind", "user_idx", "item_idx", "split")},
        ),
    )


def write_embeddings(folder: Path, texts: Iterable[str], dim: int = DIM, seed: int = 0) -> EmbeddingStore:
    """Write a store of random tokens: one per word, and special tokens at both ends of a non-empty text.

    Tokens of a text are correlated, as those of real texts, and have a non-zero mean.
    """
    distinct = sorted({"", *texts})
    rng = np.random.default_rng(seed)
    tokens, spans, counts = [], [], []
    for text in distinct:
        words = text.split()
        number = len(words) + 2 if words else 0
        counts.append(number)
        lean = rng.standard_normal(dim)
        tokens.append(0.5 + lean + 0.7 * rng.standard_normal((number, dim)))
        ends = np.cumsum([len(word) + 1 for word in words], dtype=np.int64)
        inner = [(end - len(word) - 1, end - 1) for word, end in zip(words, ends, strict=True)]
        spans += [(0, 0), *inner, (0, 0)] if words else []
    content = Content(
        np.concatenate(tokens).astype(np.float32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array(spans, np.uint32).reshape(-1, 2),
        passage_keys(distinct),
    )
    write_content(folder, content, "float32")
    return EmbeddingStore.open(folder)


def view_of(dataset: Dataset, folder: Path) -> TrainView:
    """Training view of the dataset, with random tokens in a store in the folder."""
    return TrainView.from_dataset(
        dataset, write_embeddings(folder / "store", dataset.passages.text.to_list())
    )


def random_model(config: ModelConfig, view: TrainView, seed: int = 0) -> Direct:
    """Model in evaluation mode, initialised from the view and with perturbed parameters."""
    generator = torch.Generator().manual_seed(seed)
    model = Direct(config, view.dim, view.num_users, view.num_items)
    written = view.lengths > 0
    tokens, mask = view.tokens(written.nonzero()[:, 0])
    initialise(model, view.pooled[written], view.pooled[written], tokens[mask], seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
        model.sharpness.fill_(2.0)
        model.collaboration.fill_(0.7)
    return model.eval()


def scores_of(model: Direct, view: TrainView, tokens: bool, collaboration: object = None) -> CatalogueScores:
    """CatalogueScores from the table of all tokens, or of pooled text.

    Tokens are processed in float64, as rounding residues of cancelling tokens depend on grouping.
    """
    documents = ItemDocuments(view, model.config.equal_reviews)
    table: Table = PooledTable(model, documents)
    if tokens:
        table = read_all(copy.deepcopy(model).double(), documents)
    return CatalogueScores(model, documents, table, collaboration)


def small_rows() -> list[Row]:
    """User 4 and item 6 have no train interaction, item 6 has a description, and one text is empty."""
    rng = np.random.default_rng(3)
    rows = []
    for user, count in enumerate((5, 4, 3, 1)):
        for item in rng.choice(COLD, count, replace=False).tolist():
            text = " ".join(f"w{number}" for number in rng.integers(0, 30, int(rng.integers(1, 9))))
            rows.append(Row(user, item, text, time=int(rng.integers(9)), rating=float(rng.integers(1, 6))))
    return [replace(rows[0], text=""), *rows[1:], Row(4, COLD, "held out", split=2)]


def small_dataset() -> Dataset:
    """The data set of `small_rows`."""
    return dataset_of(small_rows(), USERS, ITEMS, {COLD: DESCRIPTION})


def config(**settings: Any) -> ModelConfig:
    """Few aspects; one channel where the form or the sentiment allows no more."""
    single_channel = settings.get("score_form") == "ratio" or settings.get("sentiment") == "mlp"
    return ModelConfig(aspects=3, channels=1 if single_channel else 2, **settings)


def all_pairs(view: TrainView) -> Pairs:
    """Every train positive."""
    return Pairs.from_view(view, torch.arange(len(view.pair_user)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
