"""Baselines with vectors or neighbours of users, and those that read."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import Baseline, TrainData
from llmdirect.ranking.scorer import ScoreTables


def popularity(data: TrainData) -> ScoreTables:
    """Ranks by how often items were chosen in train; equal numbers by item index."""
    return ScoreTables(
        query=np.zeros((data.num_users, 0)), item=np.zeros((data.num_items, 0)), item_bias=data.popularity
    )


def userknn(data: TrainData, neighbours: int, shrink: float, item_power: float) -> ScoreTables:
    """What the nearest users have: cosine of users, items of n positives counting n^-item_power.

    Memory: users * users and users * items.
    """
    rows = data.rows()
    weighted = rows.multiply((data.popularity.clip(1) ** (-item_power / 2))[None, :]).tocsr()
    common = (weighted @ weighted.T).toarray()
    lengths = np.sqrt(np.diag(common))
    likeness = common / (np.outer(lengths, lengths) + shrink)
    np.fill_diagonal(likeness, 0.0)
    if neighbours < len(likeness):
        cut = np.partition(likeness, -neighbours, axis=1)[:, -neighbours]
        likeness = np.where(likeness >= cut[:, None], likeness, 0.0)
    return ScoreTables(query=likeness @ rows, item=np.eye(data.num_items, dtype=np.float32))


def ials(data: TrainData, factors: int, regularisation: float, alpha: float, iterations: int) -> ScoreTables:
    """Implicit alternating least squares (Hu et al. 2008), by the implicit library."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors,
        regularization=regularisation,
        alpha=alpha,
        iterations=iterations,
        random_state=data.seed,
        num_threads=1,  # beside BLAS threads of its own it is slower with more
    )
    return _of_implicit(data, model)


def bpr_mf(
    data: TrainData, factors: int, learning_rate: float, regularisation: float, epochs: int
) -> ScoreTables:
    """Matrix factorisation with the BPR loss (Rendle et al. 2009), by the implicit library."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularisation,
        iterations=epochs,
        random_state=data.seed,
        num_threads=1,  # more draw in no fixed order
    )
    return _of_implicit(data, model)


def _of_implicit(data: TrainData, model: Any) -> ScoreTables:
    from scipy.sparse import csr_matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that BLAS has too
        model.fit(csr_matrix(data.rows(), dtype=np.float32), show_progress=False)
    return ScoreTables(query=model.user_factors, item=model.item_factors)


def lightgcn(
    data: TrainData, factors: int, layers: int, learning_rate: float, regularisation: float, epochs: int
) -> ScoreTables:
    """LightGCN (He et al. 2020): vectors smoothed over the graph, BPR with one negative a pair and epoch."""
    from llmdirect.training.negatives import sample_negatives

    generator = torch.Generator().manual_seed(data.seed)
    users, items = torch.from_numpy(data.users), torch.from_numpy(data.positives.indices.astype(np.int64))
    size = data.num_users + data.num_items
    degree = torch.from_numpy(np.concatenate([data.counts, data.popularity.clip(1)])).float()
    ends = torch.stack(
        [torch.cat([users, items + data.num_users]), torch.cat([items + data.num_users, users])]
    )
    weights = (degree[ends[0]] * degree[ends[1]]).rsqrt()
    graph = torch.sparse_coo_tensor(ends, weights, (size, size), check_invariants=False).coalesce()
    vectors = (torch.randn(size, factors, generator=generator) * 0.1).requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=learning_rate)

    def smoothed() -> torch.Tensor:
        total = layer = vectors
        for _ in range(layers):
            layer = torch.sparse.mm(graph, layer)
            total = total + layer
        return total / (layers + 1)

    for epoch in range(epochs):
        drawn = sample_negatives(users, data.positives, data.num_items, 1, seed=data.seed, draw=epoch)
        negatives = torch.from_numpy(drawn[:, 0]).long()
        for rows in torch.split(torch.randperm(len(users), generator=generator), 2048):
            out = smoothed()
            user, item = out[users[rows]], out[items[rows] + data.num_users]
            other = out[negatives[rows] + data.num_users]
            loss = -torch.nn.functional.logsigmoid((user * (item - other)).sum(1)).mean()
            own = vectors[users[rows]], vectors[items[rows] + data.num_users]
            norms = sum(part.square().sum() for part in (*own, vectors[negatives[rows] + data.num_users]))
            loss = loss + regularisation * norms / len(rows)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
            optimiser.step()
    with torch.no_grad():
        out = smoothed()
    return ScoreTables(query=out[: data.num_users], item=out[data.num_users :])


def embedding_knn(data: TrainData, popularity_weight: float) -> ScoreTables:
    """Cosine of the user's mean item text and each item's, plus popularity."""
    return _of_vectors(data, data.directions, popularity_weight)


def tfidf_knn(data: TrainData, popularity_weight: float, min_df: int, sublinear: bool) -> ScoreTables:
    """The same with TF-IDF vectors of the train texts (scikit-learn), reduced to 256 numbers."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    view = data.view
    texts = data.dataset.passages.text.to_list()
    documents: list[list[str]] = [[] for _ in range(data.num_items)]
    for passage, item in zip(view.passage_idx.tolist(), view.passage_item.tolist(), strict=True):
        if item >= 0:
            documents[item].append(texts[passage])
    vectorizer = TfidfVectorizer(min_df=min_df, sublinear_tf=sublinear, stop_words="english")
    vectors = vectorizer.fit_transform([" ".join(document) for document in documents])
    size = min(256, min(vectors.shape) - 1)
    reduced = TruncatedSVD(size, random_state=data.seed).fit_transform(vectors)
    return _of_vectors(data, reduced, popularity_weight)


def _of_vectors(data: TrainData, vectors: NDArray[np.float64], popularity_weight: float) -> ScoreTables:
    unit = _unit(vectors)
    query = _unit(data.rows() @ unit)
    return ScoreTables(query=query, item=unit, item_bias=popularity_weight * np.log1p(data.popularity))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


OTHERS = {
    "popularity": Baseline(popularity),
    "userknn": Baseline(
        userknn,
        lambda trial: {
            "neighbours": trial.suggest_int("neighbours", 5, 1000, log=True),
            "shrink": trial.suggest_float("shrink", 0.1, 100, log=True),
            "item_power": trial.suggest_float("item_power", 0, 1),
        },
    ),
    "ials": Baseline(
        ials,
        lambda trial: {
            "factors": trial.suggest_int("factors", 8, 256, log=True),
            "regularisation": trial.suggest_float("regularisation", 1e-3, 100, log=True),
            "alpha": trial.suggest_float("alpha", 1, 100, log=True),
            "iterations": trial.suggest_int("iterations", 5, 30),
        },
    ),
    "bpr-mf": Baseline(
        bpr_mf,
        lambda trial: {
            "factors": trial.suggest_int("factors", 8, 256, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 0.2, log=True),
            "regularisation": trial.suggest_float("regularisation", 1e-4, 0.3, log=True),
            "epochs": trial.suggest_int("epochs", 10, 300, log=True),
        },
    ),
    "lightgcn": Baseline(
        lightgcn,
        lambda trial: {
            "factors": 64,
            "layers": trial.suggest_int("layers", 1, 4),
            "learning_rate": trial.suggest_float("learning_rate", 1e-3, 0.03, log=True),
            "regularisation": trial.suggest_float("regularisation", 1e-5, 1e-1, log=True),
            "epochs": trial.suggest_int("epochs", 10, 100, log=True),
        },
    ),
    "embedding-knn": Baseline(
        embedding_knn,
        lambda trial: {"popularity_weight": trial.suggest_float("popularity_weight", 1e-3, 1, log=True)},
    ),
    "tfidf-knn": Baseline(
        tfidf_knn,
        lambda trial: {
            "popularity_weight": trial.suggest_float("popularity_weight", 1e-3, 1, log=True),
            "min_df": trial.suggest_int("min_df", 1, 5),
            "sublinear": trial.suggest_categorical("sublinear", [True, False]),
        },
    ),
}
"""All that are no sum over an item-item table."""
