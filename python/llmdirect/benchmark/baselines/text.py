"""Baselines that compare mean texts of items."""

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.baselines.data import TrainData
from llmdirect.benchmark.models import FactorModel


def embedding_knn(data: TrainData, popularity_weight: float) -> FactorModel:
    """Cosine similarity of mean text embeddings of the history and of each item, plus log popularity."""
    return _cosine_model(data, data.directions, popularity_weight)


def tfidf_knn(data: TrainData, popularity_weight: float, min_df: int, sublinear: bool) -> FactorModel:
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
    return _cosine_model(data, reduced, popularity_weight)


def _cosine_model(data: TrainData, vectors: NDArray[np.float64], popularity_weight: float) -> FactorModel:
    """Model of content vectors of the items [I, D] and a weighted log popularity."""
    item = _normalize(vectors)
    bias = popularity_weight * np.log1p(data.popularity)
    return FactorModel(lambda queries: _normalize(queries.history() @ item), item, bias)


def _normalize(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
