"""SASRec: self-attention over the history, trained with a sampled softmax."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from llmdirect.benchmark.baselines.data import TrainData
from llmdirect.benchmark.models import FittedModel
from llmdirect.data.dataset import VALID
from llmdirect.evaluation.queries import Queries, build_queries
from llmdirect.ranking.metrics import metrics

_BATCH: Final = 256
"""Sequences of an optimiser step."""
_SLICES: Final = 16
"""Slices of the positions of a step, each with negatives of its own: with the same ones for all, the
gradients of few items are large, and training takes several times the epochs."""
_SCORED: Final = 512
"""Histories that are read at once when ranking."""
_MAX_EPOCHS: Final = 200
_MAX_POSITIONS: Final = 20_000_000
"""Train positions of a fit, all epochs together. A limit of seconds would make the result depend on what else
the machine does."""
_CHECK: Final = 3
"""Epochs between two looks at validation."""
_PATIENCE: Final = 5
"""Looks at validation without a better value after which training ends."""
_MAX_CHECKED: Final = 4096
"""Validation queries of a look, drawn once."""
_METRIC: Final = "ndcg@10"
_SHORTEST: Final = 4
"""Sequences up to this length are padded to one length; each further group is twice as long."""
_MASKED: Final = -1e9
"""Logit of what does not count; -inf has no gradient where all drawn items are hits."""
_START: Final = 0.02
"""Standard deviation of embeddings at the start."""


def sasrec(
    data: TrainData,
    dim: int,
    blocks: int,
    dropout: float,
    learning_rate: float,
    negatives: int,
    weight_decay: float,
    max_length: int,
) -> "SequenceModel":
    """SASRec (Kang and McAuley 2018) with a sampled softmax in place of binary cross-entropy.

    The state after each train item of a user is trained to tell the next item from uniformly drawn ones,
    which a slice of a batch shares. The epoch that ranks best on the validation of the split is kept. A fit
    has at most 200 epochs and 20 million train positions. Deterministic for a seed and a number of torch
    threads.

    Parameters
    ----------
    dim
        Numbers of an embedding, and of all layers.
    blocks
        Blocks of self-attention, with one head each.
    dropout
        Share of numbers set to 0 in training, of embeddings, attention weights and layers.
    negatives
        Items that each next item is told from.
    weight_decay
        Decoupled weight decay (AdamW).
    max_length
        Newest items of a history that are read.

    Raises
    ------
    DataError
        If no user has a positive in validation.

    References
    ----------
    Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018. Petrov and Macdonald, gSASRec,
    RecSys 2023, and arXiv 2508.06450 for the loss.
    """
    with _seeded(data.seed):
        network = _Network(data.num_items, dim, blocks, dropout, max_length)
        return _fit(data, network, learning_rate, negatives, weight_decay)


def sasrec_text(
    data: TrainData,
    dim: int,
    blocks: int,
    dropout: float,
    learning_rate: float,
    negatives: int,
    weight_decay: float,
    max_length: int,
    text_norm: float,
) -> "SequenceModel":
    """SASRec whose item embeddings start as principal components of the items' mean text embeddings.

    Numbers beyond the dimension of the text embeddings, and items without text, start as in `sasrec`.

    Parameters
    ----------
    text_norm
        Root mean square length of the embeddings at the start.
    """
    with _seeded(data.seed):
        network = _Network(data.num_items, dim, blocks, dropout, max_length)
        has_text = torch.from_numpy(data.directions.any(axis=1))
        start = torch.from_numpy(principal_components(data.directions, dim)).float() * text_norm
        with torch.no_grad():
            network.item[has_text, : start.shape[1]] = start[has_text]
        return _fit(data, network, learning_rate, negatives, weight_decay)


def principal_components(vectors: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """Projection on the directions of largest variance, rescaled to a root mean square length of 1.

    Rows of zeros stay zeros and do not count.

    Parameters
    ----------
    vectors
        float64 [I, D], centred.

    Returns
    -------
    float64 [I, min(dim, D)]
    """
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    projected: NDArray[np.float64] = vectors @ axes[:, ::-1][:, :dim]
    rows = max(int(vectors.any(axis=1).sum()), 1)
    return projected / max(float(np.sqrt((projected**2).sum() / rows)), 1e-12)


class SequenceModel(FittedModel):
    """Product of the state after the newest history item and the item embeddings."""

    def __init__(self, network: "_Network") -> None:
        self.network = network

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        self.network.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(queries), _SCORED):
                block = queries.select(np.arange(start, min(start + _SCORED, len(queries))))
                sequences = Sequences.newest(block.items, block.indptr, self.network.max_length)
                parts.append(self.network(sequences)[sequences.last] @ self.network.item.T)
        return torch.cat(parts).numpy() if parts else np.empty((0, queries.num_items), np.float32)


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of items one after the other, without padding. B sequences, N items."""

    items: Tensor
    """int64 [N]"""
    indptr: Tensor
    """int64 [B + 1], offsets of the sequences."""

    @classmethod
    def newest(cls, items: NDArray[np.int32], indptr: NDArray[np.int64], length: int) -> "Sequences":
        """The last items of each sequence, at most `length`."""
        counts = np.minimum(np.diff(indptr), length)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        position = np.repeat(indptr[1:] - offsets[1:], counts) + np.arange(offsets[-1])
        return cls(torch.from_numpy(items[position].astype(np.int64)), torch.from_numpy(offsets))

    @property
    def lengths(self) -> Tensor:
        """int64 [B]"""
        return self.indptr.diff()

    @property
    def last(self) -> Tensor:
        """Position of the last item of each sequence: int64 [B]."""
        return self.indptr[1:] - 1

    @property
    def ages(self) -> Tensor:
        """Age of each item in events, 0 for the newest of its sequence: int64 [N]."""
        return torch.repeat_interleave(self.last, self.lengths) - torch.arange(len(self.items))

    def select(self, rows: Tensor) -> "Sequences":
        """Some of the sequences, int64 [b]."""
        lengths = self.lengths[rows]
        indptr = F.pad(lengths.cumsum(0), (1, 0))
        position = torch.repeat_interleave(self.indptr[rows] - indptr[:-1], lengths)
        return Sequences(self.items[position + torch.arange(len(position))], indptr)

    def groups(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Sequences of similar length, padded at the end.

        Yields
        ------
        int64 [b, L], the positions in `items`, 0 in the padding; bool [b, L], what is no padding.
        """
        lengths, bound, below = self.lengths, _SHORTEST, 0
        longest = int(lengths.max())
        while below < longest:
            rows = torch.nonzero((lengths > below) & (lengths <= bound))[:, 0]
            if len(rows):
                places = torch.arange(int(lengths[rows].max()))
                is_item = places < lengths[rows][:, None]
                yield (self.indptr[rows][:, None] + places) * is_item, is_item
            below, bound = bound, 2 * bound


class _Network(nn.Module):
    """States after each item of sequences. I items, embeddings of d numbers.

    Positions count back from the newest item, as in the original, which pads at the start.
    """

    def __init__(self, num_items: int, dim: int, blocks: int, dropout: float, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.item = nn.Parameter(torch.randn(num_items, dim) * _START)
        self.position = nn.Parameter(torch.randn(max_length, dim) * _START)
        self.blocks = nn.ModuleList([_Block(dim, dropout) for _ in range(blocks)])
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, sequences: Sequences, embeddings: Tensor | None = None) -> Tensor:
        """float32 [N, d]; `embeddings` [N, d] are those of the items, looked up if not given."""
        if embeddings is None:
            embeddings = F.embedding(sequences.items, self.item)
        groups = list(sequences.groups())
        # F.embedding: the gradient of plain indexing is summed in the order of threads.
        x = embeddings * self.item.shape[1] ** 0.5 + F.embedding(sequences.ages, self.position)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, groups)
        states: Tensor = self.norm(x)
        return states


class _Block(nn.Module):
    """Block of causal self-attention and a layer for each position, with the norms of the original."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key_value, self.out = (nn.Linear(dim, size) for size in (dim, 2 * dim, dim))
        self.attention_norm, self.layer_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, groups: list[tuple[Tensor, Tensor]]) -> Tensor:
        """float32 [N, d]"""
        query = self.attention_norm(x)
        x = query + self.dropout(self.out(self._attend(query, x, groups)))
        x = self.layer_norm(x)
        output: Tensor = x + self.layer(x)
        return output

    def _attend(self, query: Tensor, x: Tensor, groups: list[tuple[Tensor, Tensor]]) -> Tensor:
        table = torch.cat([self.query(query), self.key_value(x)], 1)
        attended, positions = [], []
        for position, is_item in groups:
            # Padding comes after all items of a sequence, so that the causal mask alone keeps it out.
            q, k, v = F.embedding(position, table).chunk(3, -1)
            rate = self.dropout.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
            attended.append(out[is_item])
            positions.append(position[is_item])
        return F.embedding(torch.cat(positions).argsort(), torch.cat(attended))


def sampled_softmax(
    states: Tensor, targets: Tensor, drawn: Tensor, positives: Tensor, negatives: Tensor
) -> Tensor:
    """Mean cross-entropy of the next item among itself and the items drawn for its slice of the positions.

    Parameters
    ----------
    states
        float32 [N, d]
    targets
        int64 [N], the next items.
    drawn
        int64 [S, K], items drawn for each of S slices; where one is the next item itself, it does not count.
    positives
        float32 [N, d], embeddings of the next items.
    negatives
        float32 [S, K, d], embeddings of the drawn items.
    """
    size = -(-len(states) // len(drawn))
    padding = size * len(drawn) - len(states)
    sliced = F.pad(states, (0, 0, 0, padding)).view(len(drawn), size, -1)
    is_hit = F.pad(targets, (0, padding)).view(len(drawn), size, 1) == drawn[:, None]
    logits = (sliced @ negatives.mT).masked_fill(is_hit, _MASKED)
    negative = logits.logsumexp(2).flatten()[: len(states)]
    return F.softplus(negative - (states * positives).sum(1)).mean()


def _fit(
    data: TrainData, network: _Network, learning_rate: float, negatives: int, weight_decay: float
) -> SequenceModel:
    """Train until validation gets no better, and keep the best epoch."""
    queries = _checked_queries(data)
    model = SequenceModel(network)
    inputs, targets = _train_sequences(data, network.max_length)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True
    )
    best, best_epoch, state = -1.0, 0, network.state_dict()
    epochs = min(_MAX_EPOCHS, max(1, _MAX_POSITIONS // max(1, len(inputs.items))))
    for epoch in range(1, epochs + 1):
        network.train()
        for rows in torch.split(torch.randperm(len(inputs.lengths)), _BATCH):
            loss = batch_loss(network, inputs.select(rows), targets.select(rows).items, negatives)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
            optimiser.step()
        if epoch % _CHECK and epoch < epochs:
            continue
        value = float(np.nanmean(metrics(model.top(queries, 10), queries.relevant, [_METRIC])[_METRIC]))
        if value > best:
            best, best_epoch, state = value, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= _PATIENCE * _CHECK:
            break
    network.load_state_dict(state)
    return model


def batch_loss(network: _Network, inputs: Sequences, targets: Tensor, negatives: int) -> Tensor:
    """Sampled softmax of a batch.

    Embeddings are dropped out on the side of the candidates, too: without it, training overfits early.

    Parameters
    ----------
    targets
        int64 [N], the item after each input item.
    negatives
        Number of items drawn for each slice of the positions.
    """
    drawn = torch.randint(len(network.item), (_SLICES, negatives))
    parts = [len(targets), len(targets), drawn.numel()]
    # One lookup, since its gradient is as large as the table.
    embeddings = F.embedding(torch.cat([inputs.items, targets, drawn.flatten()]), network.item)
    before, after, other = torch.split(embeddings, parts)
    after, other = network.dropout(after), network.dropout(other).view(*drawn.shape, -1)
    return sampled_softmax(network(inputs, before), targets, drawn, after, other)


def _train_sequences(data: TrainData, max_length: int) -> tuple[Sequences, Sequences]:
    """Train items of each user but the last, and the item after each of them."""
    users, items = data.sequence
    counts = np.bincount(users, minlength=data.num_users)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    has_next = np.ones(len(items), bool)
    has_next[indptr[1:][counts > 0] - 1] = False
    offsets = np.concatenate([[0], np.cumsum((counts - 1).clip(0)[counts > 1])])
    inputs = Sequences.newest(items[has_next], offsets, max_length)
    return inputs, Sequences.newest(items[1:][has_next[:-1]], offsets, max_length)


def _checked_queries(data: TrainData) -> Queries:
    queries = build_queries(data.dataset, VALID)
    if len(queries) <= _MAX_CHECKED:
        return queries
    chosen = np.random.default_rng(data.seed).choice(len(queries), _MAX_CHECKED, replace=False)
    return queries.select(np.sort(chosen))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch from a seed, those of the caller left as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
