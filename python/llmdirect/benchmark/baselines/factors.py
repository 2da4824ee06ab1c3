"""Baselines with a vector or a neighbourhood of each user."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import TrainData, largest_neighbours
from llmdirect.benchmark.models import FactorModel, FittedModel, FunctionModel
from llmdirect.common.csr import Csr
from llmdirect.evaluation.queries import Queries


def userknn(data: TrainData, neighbours: int, shrink: float, item_power: float) -> FittedModel:
    """User-based nearest neighbours (Resnick et al. 1994) with shrunk cosine similarity.

    The neighbours of a query are train users, without the one who asks. Memory: U * U and U * I.

    Parameters
    ----------
    neighbours
        Neighbours of each user.
    shrink
        Added to the denominator: lowers the similarity of users with few items.
    item_power
        Exponent p of the item weight n**-p, n the popularity of an item.
    """
    matrix, weights = data.matrix(), data.popularity.clip(1) ** -item_power
    lengths = np.sqrt(np.asarray(matrix.multiply(weights[None, :]).sum(axis=1)).ravel())

    def query(queries: Queries) -> NDArray[np.float64]:
        history = queries.history().astype(np.float64).multiply(weights[None, :]).tocsr()
        own = np.sqrt(np.asarray(history.sum(axis=1)).ravel())
        similarity = (history @ matrix.T).toarray() / (np.outer(own, lengths) + shrink)
        similarity[np.arange(len(queries)), queries.users] = 0.0
        nearest: NDArray[np.float64] = largest_neighbours(similarity, neighbours, axis=1) @ matrix
        return nearest

    return FunctionModel(query)


def ials(data: TrainData, factors: int, regularisation: float, alpha: float, iterations: int) -> FactorModel:
    """iALS: implicit-feedback alternating least squares (Hu et al. 2008), of the library implicit.

    The vector of a query is solved from its history, the items held fixed.
    """
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(
        factors=factors,
        regularization=regularisation,
        alpha=alpha,
        iterations=iterations,
        random_state=data.seed,
        num_threads=1,  # it is slower with more, next to the threads of BLAS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads of BLAS
        model.fit(csr_matrix(data.matrix(), dtype=np.float32), show_progress=False)

    def query(queries: Queries) -> NDArray[np.floating]:
        vectors: NDArray[np.floating] = model.recalculate_user(
            np.arange(len(queries)), csr_matrix(queries.history())
        )
        return np.atleast_2d(vectors)

    return FactorModel(query, model.item_factors)


def bpr_mf(
    data: TrainData, factors: int, learning_rate: float, regularisation: float, epochs: int
) -> "GraphModel":
    """BPR-MF: matrix factorisation with the BPR loss (Rendle et al. 2009), negatives from all items.

    It is LightGCN without a layer.
    """
    return GraphModel(data, factors, 0, learning_rate, regularisation, epochs)


def lightgcn(
    data: TrainData, factors: int, layers: int, learning_rate: float, regularisation: float, epochs: int
) -> "GraphModel":
    """LightGCN (He et al. 2020), trained with BPR and one negative a pair and epoch."""
    return GraphModel(data, factors, layers, learning_rate, regularisation, epochs)


class GraphModel(FittedModel):
    """Vectors of users and items, averaged over the layers of their graph.

    Has no way to add an event to a user: where the queries know more than train does, it is fitted again on
    all input events, with the same settings.
    """

    def __init__(
        self,
        data: TrainData,
        factors: int,
        layers: int,
        learning_rate: float,
        regularisation: float,
        epochs: int,
    ) -> None:
        self._data, self._factors, self._layers = data, factors, layers
        self._learning_rate, self._regularisation, self._epochs = learning_rate, regularisation, epochs
        self._positives = data.positives
        self._user, self._item = self._fit()

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """float32 [B, I]"""
        self._add_input(queries)
        scores: NDArray[np.float32] = self._user[queries.users] @ self._item.T
        return scores

    def top(self, queries: Queries, k: int, candidates: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
        """Exact top-k lists of all queries after one fit."""
        self._add_input(queries)
        return super().top(queries, k, candidates)

    def _add_input(self, queries: Queries) -> None:
        events = queries.events
        if events is None:
            users, items = np.repeat(queries.users, np.diff(queries.indptr)), queries.items
        else:
            users, items = events.user, events.item
        positives = self._data.positives.union(Csr.from_pairs(users, items, self._data.num_users))
        if len(positives.indices) > len(self._positives.indices):
            self._positives = positives
            self._user, self._item = self._fit()

    def _fit(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        from llmdirect.training.negatives import sample_negatives

        data, positives = self._data, self._positives
        generator = torch.Generator().manual_seed(data.seed)
        counts = np.diff(positives.indptr)
        users = torch.from_numpy(np.repeat(np.arange(data.num_users), counts))
        items = torch.from_numpy(positives.indices.astype(np.int64))
        size, item_nodes = data.num_users + data.num_items, items + data.num_users
        popularity = torch.bincount(items, minlength=data.num_items).clamp(min=1)
        degree = torch.cat([torch.from_numpy(counts).clamp(min=1), popularity]).float()
        edges = torch.stack([torch.cat([users, item_nodes]), torch.cat([item_nodes, users])])
        weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
        graph = torch.sparse_coo_tensor(edges, weights, (size, size), check_invariants=False).coalesce()
        start = torch.randn(size, self._factors, generator=generator, dtype=torch.float64)
        vectors = (start.float() * 0.1).requires_grad_()
        optimiser = torch.optim.Adam([vectors], lr=self._learning_rate)

        def propagated() -> torch.Tensor:
            total = layer = vectors
            for _ in range(self._layers):
                layer = torch.sparse.mm(graph, layer)
                total = total + layer
            return total / (self._layers + 1)

        for epoch in range(self._epochs):
            drawn = sample_negatives(users, positives, data.num_items, 1, seed=data.seed, draw=epoch)
            negatives = torch.from_numpy(drawn[:, 0]).long() + data.num_users
            for rows in torch.split(torch.randperm(len(users), generator=generator), 2048):
                nodes = users[rows], item_nodes[rows], negatives[rows]
                out = propagated()
                user, positive, negative = (out[node] for node in nodes)
                loss = -torch.nn.functional.logsigmoid((user * (positive - negative)).sum(1)).mean()
                norms = sum(vectors[node].square().sum() for node in nodes)
                loss = loss + self._regularisation * norms / len(rows)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
                optimiser.step()
        with torch.no_grad():
            out = propagated()
        return out[: data.num_users].numpy(), out[data.num_users :].numpy()
