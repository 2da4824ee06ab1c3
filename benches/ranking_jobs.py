"""Full ranking with seen items masked, top-20, and metrics of the lists."""

from collections.abc import Callable, Iterator

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
NAMES = [f"{name}@{K}" for name in ("recall", "ndcg", "mrr", "map")]


def jobs(positives: Csr, num_items: int) -> Iterator[Job]:
    """torch in blocks of 1,024 users: scores, a mask by slices of the CSR, topk; faiss, which has no mask."""
    import faiss  # only here: negatives on two threads were slower where it was loaded before them

    rng = np.random.default_rng(3)
    num_users = positives.num_rows
    users = np.arange(num_users, dtype=np.int32)
    borders, seen = torch.tensor(positives.indptr), torch.tensor(positives.indices).long()

    def by_torch(scores_of: Callable[[slice], torch.Tensor]) -> NDArray[np.int64]:
        lists = []
        for start in range(0, num_users, BLOCK):
            stop = min(start + BLOCK, num_users)
            scores = scores_of(slice(start, stop))
            row = torch.repeat_interleave(torch.arange(stop - start), borders[start : stop + 1].diff())
            scores[row, seen[borders[start] : borders[stop]]] = -torch.inf
            lists.append(scores.topk(K, sorted=True).indices)
        return torch.cat(lists).numpy()

    def same(ours: Callable[[], NDArray[np.integer]], theirs: Callable[[], NDArray[np.integer]]) -> None:
        share = float((ours() == theirs()).mean())
        assert share > 0.999, f"only {share:.4%} of the lists agree"  # sums are rounded in another order

    def vectors(count: int, dim: int) -> NDArray[np.float32]:
        return rng.standard_normal((count, dim)).astype(np.float32)

    query, item = vectors(num_users, DIM), vectors(num_items, DIM)
    left, right = torch.from_numpy(query), torch.from_numpy(item).T.contiguous()
    dot = ScoreTables(query=query, item=item)
    index = faiss.IndexFlatIP(DIM)
    index.add(item)
    faiss.omp_set_num_threads(2)

    def rank_dot() -> NDArray[np.int32]:
        return rank(dot, users, k=K, seen=positives).items

    def rank_unmasked() -> NDArray[np.int32]:
        return rank(dot, users, k=K, seen=None).items

    def torch_dot() -> NDArray[np.int64]:
        return by_torch(lambda part: left[part] @ right)

    def faiss_dot() -> NDArray[np.int64]:
        return index.search(query, K)[1]

    name = f"rank, dot of {DIM}, top-{K}, seen masked"
    agree = lambda: same(rank_dot, torch_dot)  # noqa: E731
    yield Job(name, "torch matmul, mask, topk", rank_dot, torch_dot, agree, num_users, "users")
    agree = lambda: same(rank_unmasked, faiss_dot)  # noqa: E731
    yield Job(name, "faiss IndexFlatIP, no mask", rank_dot, faiss_dot, agree, num_users, "users")

    test = Csr.from_pairs(np.repeat(users, 2), rng.integers(0, num_items, 2 * num_users), num_users)
    relevant = test.without(positives)
    qrels = Qrels({str(u): {str(i): 1 for i in relevant.row(u)} for u in users if len(relevant.row(u))})

    def all_metrics() -> dict[str, NDArray[np.float64]]:
        return evaluate(dot, users, names=NAMES, seen=positives, relevant=test)

    yield Job(
        f"rank and {len(NAMES)} metrics", "torch, lists alone", all_metrics, torch_dot, lambda: None,
        num_users, "users",
    )  # fmt: skip

    mass = (rng.dirichlet([0.3] * ASPECTS, num_items) * rng.integers(20, 2000, (num_items, 1))).astype(
        np.float32
    )
    ratio = ScoreTables(
        kernel="ratio",
        query=1 / (1 + np.exp(-2 * vectors(num_users, ASPECTS))),
        item=mass * np.tanh(vectors(num_items, ASPECTS) / 2),
        item_mentions=mass,
        item_bias=vectors(num_items, 1)[:, 0] / 10,
    )
    interest = torch.from_numpy(np.asarray(ratio.query))
    above, below = (
        torch.from_numpy(np.asarray(part)).T.contiguous() for part in (ratio.item, ratio.item_mentions)
    )
    bias = torch.from_numpy(np.asarray(ratio.item_bias))

    def rank_ratio() -> NDArray[np.int32]:
        return rank(ratio, users, k=K, seen=positives).items

    def torch_ratio() -> NDArray[np.int64]:
        return by_torch(
            lambda part: (interest[part] @ above).div_((interest[part] @ below).add_(ratio.eps)).add_(bias)
        )

    name, agree = f"rank, ratio of {ASPECTS}, top-{K}, seen masked", lambda: same(rank_ratio, torch_ratio)
    yield Job(name, "torch, two products and a division", rank_ratio, torch_ratio, agree, num_users, "users")

    # 100 neighbours an item, as of a pruned item-item table.
    near = np.sort(np.argpartition(rng.random((num_items, num_items), np.float32), 100)[:, :100], axis=1)
    table = sp.csr_matrix(
        (rng.random(near.size, np.float32) * 5, near.ravel(), np.arange(num_items + 1) * 100),
        shape=(num_items, num_items),
    )
    history = sp.csr_matrix((np.ones(len(seen), np.float32), positives.indices, positives.indptr))
    history.resize(num_users, num_items)
    item_bias = vectors(num_items, 1)[:, 0]
    both = ScoreTables(
        query=query, item=item, item_bias=item_bias, history=positives,
        item_item=(table.indptr, table.indices, table.data),
    )  # fmt: skip

    def rank_both() -> NDArray[np.int32]:
        return rank(both, users, k=K, seen=positives).items

    def torch_both() -> NDArray[np.int64]:
        def scores(part: slice) -> torch.Tensor:
            added = torch.from_numpy((history[part] @ table).toarray())
            return (left[part] @ right).add_(torch.from_numpy(item_bias)).add_(added)

        return by_torch(scores)

    name, agree = "rank, dot + bias + history x item-item", lambda: same(rank_both, torch_both)
    yield Job(name, "torch and SciPy", rank_both, torch_both, agree, num_users, "users", rounds=5)

    lists = rank_dot()
    kept = [u for u in users if len(relevant.row(u))]
    run = Run({str(u): {str(i): float(K - place) for place, i in enumerate(lists[u])} for u in kept})
    few, few_relevant = lists[kept], relevant.rows(kept)

    def our_metrics() -> dict[str, NDArray[np.float64]]:
        return metrics(few, few_relevant, NAMES)

    def by_ranx() -> dict[str, float]:
        return ranx_evaluate(qrels, run, NAMES)

    def equal() -> None:
        theirs = by_ranx()
        for name, values in our_metrics().items():
            assert abs(values.mean() - theirs[name]) < 1e-9, name

    yield Job(
        f"{len(NAMES)} metrics of given lists",
        "ranx evaluate",
        our_metrics,
        by_ranx,
        equal,
        len(kept),
        "users",
    )
