"""Baselines with vectors: popularity, user neighbours, latent factors, texts."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import Baseline, TrainData, largest_neighbours, shrunk_cosine
from llmdirect.ranking.scorer import ScoreTables


def popularity(data: TrainData) -> ScoreTables:
    """Items by their number of train positives."""
    return ScoreTables(
        query=np.zeros((data.num_users, 0)), item=np.zeros((data.num_items, 0)), item_bias=data.popularity
    )


def userknn(data: TrainData, neighbours: int, shrink: float, item_power: float) -> ScoreTables:
    """User-based nearest neighbours (Resnick et al. 1994) with shrunk cosine similarity.

    Memory: U * U and U * I.

    Parameters
    ----------
    neighbours
        Neighbours of each user.
    shrink
        Added to the denominator: lowers the similarity of users with few items.
    item_power
        Exponent p of the item weight n**-p, n the popularity of an item.
    """
    matrix = data.matrix()
    weighted = matrix.multiply((data.popularity.clip(1) ** (-item_power / 2))[None, :]).tocsr()
    similarity = shrunk_cosine((weighted @ weighted.T).toarray(), shrink)
    query = largest_neighbours(similarity, neighbours, axis=1) @ matrix
    return ScoreTables(query=query, item=np.eye(data.num_items, dtype=np.float32))


def ials(data: TrainData, factors: int, regularisation: float, alpha: float, iterations: int) -> ScoreTables:
    """iALS: implicit-feedback alternating least squares (Hu et al. 2008), of the library implicit."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors,
        regularization=regularisation,
        alpha=alpha,
        iterations=iterations,
        random_state=data.seed,
        num_threads=1,  # it is slower with more, next to the threads of BLAS
    )
    return _fit_implicit(data, model)


def bpr_mf(
    data: TrainData, factors: int, learning_rate: float, regularisation: float, epochs: int
) -> ScoreTables:
    """BPR-MF: matrix factorisation with the BPR loss (Rendle et al. 2009), of the library implicit."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularisation,
        iterations=epochs,
        random_state=data.seed,
        num_threads=1,  # with more, the order of the draws is not fixed
    )
    return _fit_implicit(data, model)


def _fit_implicit(data: TrainData, model: Any) -> ScoreTables:
    from scipy.sparse import csr_matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads of BLAS
        model.fit(csr_matrix(data.matrix(), dtype=np.float32), show_progress=False)
    return ScoreTables(query=model.user_factors, item=model.item_factors)


def lightgcn(
    data: TrainData, factors: int, layers: int, learning_rate: float, regularisation: float, epochs: int
) -> ScoreTables:
    """LightGCN (He et al. 2020), trained with BPR and one negative a pair and epoch."""
    from llmdirect.training.negatives import sample_negatives

    generator = torch.Generator().manual_seed(data.seed)
    users, items = torch.from_numpy(data.users), torch.from_numpy(data.positives.indices.astype(np.int64))
    size = data.num_users + data.num_items
    degree = torch.from_numpy(np.concatenate([data.counts, data.popularity.clip(1)])).float()
    item_nodes = items + data.num_users
    edges = torch.stack([torch.cat([users, item_nodes]), torch.cat([item_nodes, users])])
    weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
    graph = torch.sparse_coo_tensor(edges, weights, (size, size), check_invariants=False).coalesce()
    vectors = (torch.randn(size, factors, generator=generator) * 0.1).requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=learning_rate)

    def propagated() -> torch.Tensor:
        total = layer = vectors
        for _ in range(layers):
            layer = torch.sparse.mm(graph, layer)
            total = total + layer
        return total / (layers + 1)

    for epoch in range(epochs):
        drawn = sample_negatives(users, data.positives, data.num_items, 1, seed=data.seed, draw=epoch)
        negatives = torch.from_numpy(drawn[:, 0]).long()
        for rows in torch.split(torch.randperm(len(users), generator=generator), 2048):
            nodes = users[rows], item_nodes[rows], negatives[rows] + data.num_users
            out = propagated()
            user, positive, negative = (out[node] for node in nodes)
            loss = -torch.nn.functional.logsigmoid((user * (positive - negative)).sum(1)).mean()
            norms = sum(vectors[node].square().sum() for node in nodes)
            loss = loss + regularisation * norms / len(rows)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
            optimiser.step()
    with torch.no_grad():
        out = propagated()
    return ScoreTables(query=out[: data.num_users], item=out[data.num_users :])


def embedding_knn(data: TrainData, popularity_weight: float) -> ScoreTables:
    """Cosine similarity of mean text embeddings of the history and of each item, plus popularity."""
    return _cosine_tables(data, data.directions, popularity_weight)


def tfidf_knn(data: TrainData, popularity_weight: float, min_df: int, sublinear: bool) -> ScoreTables:
    """Cosine similarity of TF-IDF vectors reduced to 256 numbers (LSA, Deerwester et al. 1990)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    view = data.view
    texts = data.dataset.passages.text.to_list()
    item_texts: list[list[str]] = [[] for _ in range(data.num_items)]
    for passage, item in zip(view.passage_idx.tolist(), view.passage_item.tolist(), strict=True):
        if item >= 0:
            item_texts[item].append(texts[passage])
    vectorizer = TfidfVectorizer(min_df=min_df, sublinear_tf=sublinear, stop_words="english")
    vectors = vectorizer.fit_transform([" ".join(passages) for passages in item_texts])
    dim = min(256, min(vectors.shape) - 1)
    reduced = TruncatedSVD(dim, random_state=data.seed).fit_transform(vectors)
    return _cosine_tables(data, reduced, popularity_weight)


def _cosine_tables(data: TrainData, vectors: NDArray[np.float64], popularity_weight: float) -> ScoreTables:
    """Score tables of content vectors of the items [I, D] and a weighted log popularity."""
    item = _normalize(vectors)
    query = _normalize(data.matrix() @ item)
    return ScoreTables(query=query, item=item, item_bias=popularity_weight * np.log1p(data.popularity))


def _normalize(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
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
"""Baselines whose scores are products of a user and an item vector, by row name."""
