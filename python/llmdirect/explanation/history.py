"""Attribution of one item's score to a user's history: to its items, and to the words of their texts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.explanation.item_document import ReadPassage
from llmdirect.explanation.item_texts import ItemTexts
from llmdirect.model.direct import Direct, attention
from llmdirect.model.vectors import normalize, tokens_per_vote
from llmdirect.runs.trained import Trained


def has_additive_interests(model: Direct) -> bool:
    """Whether interests are weighted sums of the history's item vectors, which can be attributed to items."""
    return model.form.additive_interests and model.config.user == "history"


def interest_by_item(trained: Trained, model: Direct, user: int, item: int) -> list[Json]:
    """Items of the history, and texts of a new user, by their attention weight.

    Parameters
    ----------
    model
        The run's model in float64.

    Returns
    -------
    entries
        {"item_id", "title", "weight", "contribution"}, largest weight first. Contributions add up to the text
        term; None unless `has_additive_interests`. A text has item_id None and itself as title.
    """
    vectors = _history_vectors(trained, model, user)
    if model.config.user == "text" or not len(vectors):
        return []
    sources: list[tuple[str | None, str | None]] = [
        (trained.item_ids[index], trained.titles[index]) for index in trained.users.recent.row(user).tolist()
    ]
    if len(sources) < len(vectors) and trained.users.texts is not None:
        sources += [(None, text) for text in trained.users.texts.texts]
    weights, shares = _query_shares(model, vectors)
    contributions: list[float | None] = [None] * len(sources)
    if has_additive_interests(model):
        contributions = list((vectors @ _item_direction(trained, model, user, item) * shares).tolist())
    entries: list[Json] = [
        {"item_id": item_id, "title": title, "weight": weight, "contribution": contribution}
        for (item_id, title), weight, contribution in zip(
            sources, weights.tolist(), contributions, strict=True
        )
    ]
    return sorted(entries, key=lambda entry: -entry["weight"])


def _history_vectors(trained: Trained, model: Direct, user: int) -> Tensor:
    """float64 [n, K or M] profiles of the history's items, then of a new user's texts read as history."""
    recent, texts = trained.users.recent.row(user), trained.users.texts
    vectors = trained.profile[torch.from_numpy(recent.copy()).long()].double()
    if texts is not None and model.config.user == "history":
        vectors = torch.cat([vectors, texts.profiles.double()])
    return vectors


def _query_shares(model: Direct, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Attention weights [n], and coefficients [n] of the vectors in the exported query."""
    mask = torch.ones(1, len(vectors), dtype=torch.bool)
    weights = attention(model.user.history_query, vectors[None], mask)[0]
    length = (weights[:, None] * vectors).sum(0).norm().clamp(min=1e-12)
    return weights, weights * model.temperature() / length


def _item_direction(trained: Trained, model: Direct, user: int, item: int) -> Tensor:
    """float64 [K] item vector, each aspect times the user's factor."""
    factors = torch.from_numpy(trained.factors(user)).repeat_interleave(model.channels)
    return factors * normalize(torch.from_numpy(np.asarray(trained.tables.item[item], np.float64)))


def interest_by_word(
    trained: Trained, texts: ItemTexts, user: int, item: int, source: int
) -> tuple[list[Json], list[Json]]:
    """Contributions of the words about an item of the history to the text term of another item.

    Parameters
    ----------
    item
        Item that is explained.
    source
        Item of the history.

    Returns
    -------
    words
        {"text", "count", "contribution"} of each word type in lower case, the strongest first; they add up to
        the contribution of the source.
    own
        Passages among them that the user wrote: {"passage_idx", "text", "contribution", "words"}, their words
        with characters and contributions, as in an explanation.
    """
    rows = texts.passages_of(source)
    passages = texts.read_passages(rows)
    direction = _item_direction(trained, texts.model, user, item)
    products, length = _word_products(passages, texts, direction)
    _, shares = _query_shares(texts.model, _history_vectors(trained, texts.model, user))
    position = trained.users.recent.row(user).tolist().index(source)
    share = float(shares[position]) / length
    author = _dataset_user(texts.dataset, trained.users.ids[user], user)
    types: dict[str, tuple[int, float]] = {}
    own: list[Json] = []
    for passage, row, (spans, values) in zip(passages, rows.tolist(), products, strict=True):
        words = [
            {"start": start, "end": end, "text": passage.text[start:end], "contribution": value * share}
            for (start, end), value in zip(spans.tolist(), values.tolist(), strict=True)
        ]
        for word in words:
            count, total = types.get(name := word["text"].casefold(), (0, 0.0))
            types[name] = count + 1, total + word["contribution"]
        if texts.dataset.passages.user_idx[row] == author:
            contribution = float(values.sum()) * share
            own.append(
                {"passage_idx": row, "text": passage.text, "contribution": contribution, "words": words}
            )
    ordered = sorted(types.items(), key=lambda entry: -abs(entry[1][1]))
    return [{"text": text, "count": count, "contribution": total} for text, (count, total) in ordered], own


def _word_products(
    passages: Sequence[ReadPassage], texts: ItemTexts, direction: Tensor
) -> tuple[list[tuple[NDArray[np.int64], NDArray[np.float64]]], float]:
    """Spans [W, 2] and products [W] with a direction [K] of each passage's words, and the length of P."""
    model = texts.model
    preference = torch.zeros(len(direction), dtype=torch.float64)
    products: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for passage in passages:
        tokens, word, spans = passage.inputs(texts.lexicon)
        if not len(spans):
            products.append((spans, np.zeros(0)))
            continue
        weight = 1 / float(tokens_per_vote(torch.tensor(len(tokens)), model.config.equal_reviews))
        own, _ = model.passages(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
        preference = preference + own[0]  # the weight is already in it
        along = model.project_terms(model.standard(tokens), direction).numpy() * weight
        products.append((spans, np.bincount(word, along, minlength=len(spans)).astype(np.float64)))
    return products, float(preference.norm().clamp(min=1e-12))


def _dataset_user(dataset: Dataset, user_id: str, user: int) -> int:
    """Index of the user in the dataset, which is `user` unless rows were selected; -2 for a new user."""
    if user < dataset.num_users and dataset.user_ids[user] == user_id:
        return user
    return dataset.user_ids.index(user_id) if user_id in dataset.user_ids else -2


def collaboration_by_item(trained: Trained, user: int, item: int) -> list[Json]:
    """Contributions of the user's items to the collaborative term of an item, the strongest first.

    Entries are {"item_id", "title", "contribution"} and add up to the term.
    """
    sources, values = trained.tables.collaborative_parts(user, item)
    order = sorted(range(len(sources)), key=lambda n: -abs(values[n]))
    return [
        {
            "item_id": trained.item_ids[sources[n]],
            "title": trained.titles[sources[n]],
            "contribution": float(values[n]),
        }
        for n in order
    ]
