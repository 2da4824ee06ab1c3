"""Exact full ranking with seen items masked, top-20, and metrics of the lists."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from harness import Job
from numpy.typing import NDArray
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from llmdirect.common.csr import Csr
from llmdirect.ranking.metrics import evaluate, metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank

DIM, ASPECTS, K, BLOCK = 64, 5, 20, 1024
METRICS = [f"{name}@{K}" for name in ("recall", "ndcg", "mrr", "map")]


@dataclass(frozen=True, eq=False)
class Data:
    """Interactions, and random vectors of users and items."""

    positives: Csr
    num_items: int
    rng: np.random.Generator
    users: NDArray[np.int32]
    query: NDArray[np.float32]
    item: NDArray[np.float32]

    @classmethod
    def random(cls, positives: Csr, num_items: int) -> "Data":
        """Draw vectors of 64 numbers."""
        rng = np.random.default_rng(3)
        users = np.arange(positives.num_rows, dtype=np.int32)
        query, item = normal(rng, len(users), DIM), normal(rng, num_items, DIM)
        return cls(positives, num_items, rng, users, query, item)

    def rank(self, tables: ScoreTables) -> NDArray[np.int32]:
        """Our lists of all users, seen items masked."""
        return rank(tables, self.users, k=K, seen=self.positives).items

    def rank_by_torch(self, scores_of: Callable[[slice], torch.Tensor]) -> NDArray[np.int64]:
        """The peer: blocks of 1,024 users with a mask by slices of the CSR, and topk."""
        indptr, seen = torch.tensor(self.positives.indptr), torch.tensor(self.positives.indices).long()
        lists = []
        for start in range(0, len(self.users), BLOCK):
            stop = min(start + BLOCK, len(self.users))
            scores = scores_of(slice(start, stop))
            row = torch.repeat_interleave(torch.arange(stop - start), indptr[start : stop + 1].diff())
            scores[row, seen[indptr[start] : indptr[stop]]] = -torch.inf
            lists.append(scores.topk(K, sorted=True).indices)
        return torch.cat(lists).numpy()

    def job(
        self,
        name: str,
        peer: str,
        ours: Callable[[], NDArray[np.integer]],
        theirs: Callable[[], NDArray[np.integer]],
        **options: int,
    ) -> Job:
        """A job of two functions that return lists, which must agree."""

        def agree() -> None:
            share = float((ours() == theirs()).mean())
            assert share > 0.999, f"only {share:.4%} of the lists agree"  # sums are rounded in another order

        return Job(name, peer, ours, theirs, agree, len(self.users), "users", **options)


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Standard normal numbers."""
    return rng.standard_normal(shape).astype(np.float32)


def jobs(positives: Csr, num_items: int) -> Iterator[Job]:
    """Peers: torch, faiss (which has no mask), SciPy and ranx."""
    data = Data.random(positives, num_items)
    yield from dot_jobs(data)
    yield ratio_job(data)
    yield item_item_job(data)
    yield from metric_jobs(data)


def dot_jobs(data: Data) -> Iterator[Job]:
    """Ranking by a dot product."""
    import faiss  # only here: negatives on two threads were slower where it was loaded before them

    left, right = torch.from_numpy(data.query), torch.from_numpy(data.item).T.contiguous()
    tables = ScoreTables(query=data.query, item=data.item)
    index = faiss.IndexFlatIP(DIM)
    index.add(data.item)
    faiss.omp_set_num_threads(2)

    def ours() -> NDArray[np.int32]:
        return data.rank(tables)

    def by_torch() -> NDArray[np.int64]:
        return data.rank_by_torch(lambda block: left[block] @ right)

    def by_faiss() -> NDArray[np.int64]:
        return index.search(data.query, K)[1]

    def faiss_agrees() -> None:
        share = float((rank(tables, data.users, k=K, seen=None).items == by_faiss()).mean())
        assert share > 0.999, f"only {share:.4%} of the lists agree"

    name = f"rank, dot of {DIM}, top-{K}, seen masked"
    yield data.job(name, "torch matmul, mask, topk", ours, by_torch)
    yield Job(name, "faiss IndexFlatIP, no mask", ours, by_faiss, faiss_agrees, len(data.users), "users")


def ratio_job(data: Data) -> Job:
    """Ranking by a ratio of two dot products."""
    rng, num_items = data.rng, data.num_items
    mentions = rng.dirichlet([0.3] * ASPECTS, num_items) * rng.integers(20, 2000, (num_items, 1))
    mentions = mentions.astype(np.float32)
    tables = ScoreTables(
        kernel="ratio",
        query=1 / (1 + np.exp(-2 * normal(rng, len(data.users), ASPECTS))),
        item=mentions * np.tanh(normal(rng, num_items, ASPECTS) / 2),
        item_mentions=mentions,
        item_bias=normal(rng, num_items) / 10,
    )
    query, item_bias = (torch.from_numpy(np.asarray(part)) for part in (tables.query, tables.item_bias))
    above, below = (
        torch.from_numpy(np.asarray(part)).T.contiguous() for part in (tables.item, tables.item_mentions)
    )

    def by_torch() -> NDArray[np.int64]:
        return data.rank_by_torch(
            lambda block: (query[block] @ above).div_((query[block] @ below).add_(tables.eps)).add_(item_bias)
        )

    name = f"rank, ratio of {ASPECTS}, top-{K}, seen masked"
    return data.job(name, "torch, two products and a division", lambda: data.rank(tables), by_torch)


def item_item_job(data: Data) -> Job:
    """Ranking by a dot product, an item bias and an item-item term with 100 neighbours an item."""
    rng, num_items = data.rng, data.num_items
    neighbours = min(100, num_items - 1)
    columns = np.argpartition(rng.random((num_items, num_items), np.float32), neighbours)[:, :neighbours]
    columns = np.sort(columns, axis=1)
    weights = sp.csr_matrix(
        (rng.random(columns.size, np.float32) * 5, columns.ravel(), np.arange(num_items + 1) * neighbours),
        shape=(num_items, num_items),
    )
    positives = data.positives
    values = np.ones(len(positives.indices), np.float32)
    history = sp.csr_matrix((values, positives.indices, positives.indptr), (len(data.users), num_items))
    item_bias = normal(rng, num_items)
    tables = ScoreTables(
        query=data.query,
        item=data.item,
        item_bias=item_bias,
        history=positives,
        item_item=(weights.indptr, weights.indices, weights.data),
    )
    left, right = torch.from_numpy(data.query), torch.from_numpy(data.item).T.contiguous()

    def scores(block: slice) -> torch.Tensor:
        item_item = torch.from_numpy((history[block] @ weights).toarray())
        return (left[block] @ right).add_(torch.from_numpy(item_bias)).add_(item_item)

    name = "rank, dot + bias + history x item-item"
    return data.job(
        name, "torch and SciPy", lambda: data.rank(tables), lambda: data.rank_by_torch(scores), rounds=5
    )


def metric_jobs(data: Data) -> Iterator[Job]:
    """Metrics with the ranking, and of given lists."""
    users, num_users = data.users, len(data.users)
    left, right = torch.from_numpy(data.query), torch.from_numpy(data.item).T.contiguous()
    tables = ScoreTables(query=data.query, item=data.item)
    test = Csr.from_pairs(np.repeat(users, 2), data.rng.integers(0, data.num_items, 2 * num_users), num_users)

    def rank_and_evaluate() -> dict[str, NDArray[np.float64]]:
        return evaluate(tables, users, names=METRICS, seen=data.positives, relevant=test)

    def lists_by_torch() -> NDArray[np.int64]:
        return data.rank_by_torch(lambda block: left[block] @ right)

    name = f"rank and {len(METRICS)} metrics"
    peer = "torch, lists alone"
    yield Job(name, peer, rank_and_evaluate, lists_by_torch, lambda: None, num_users, "users")

    relevant = test.without(data.positives)
    kept = np.flatnonzero(np.diff(relevant.indptr))
    lists, kept_relevant = data.rank(tables)[kept], relevant.rows(kept)
    qrels = Qrels({str(u): {str(i): 1 for i in relevant.row(u)} for u in kept.tolist()})
    run = Run(
        {
            str(user): {str(item): float(K - position) for position, item in enumerate(items)}
            for user, items in zip(kept.tolist(), lists, strict=True)
        }
    )

    def ours() -> dict[str, NDArray[np.float64]]:
        return metrics(lists, kept_relevant, METRICS)

    def by_ranx() -> dict[str, float]:
        return ranx_evaluate(qrels, run, METRICS)

    def agree() -> None:
        theirs = by_ranx()
        for name, values in ours().items():
            assert abs(values.mean() - theirs[name]) < 1e-9, name

    yield Job(
        f"{len(METRICS)} metrics of given lists", "ranx evaluate", ours, by_ranx, agree, len(kept), "users"
    )
