"""What a user's history does to one item's score: by item of the history, and by word of its texts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.explanation.item_document import ReadPassage
from llmdirect.model.direct import Direct, attention
from llmdirect.model.vectors import normalize, tokens_per_vote
from llmdirect.runs.trained import Trained


def is_weighted_sum(model: Direct) -> bool:
    """Whether an interest is a weighted sum of what the items of the history say, which can be shared out."""
    return model.form.additive_interests and model.config.user == "history"


def interest_by_item(trained: Trained, model: Direct, user: int, item: int) -> list[Json]:
    """The items, and texts of somebody new, from which the interest was read: their share of attention.

    model: the run's, in float64. Where the interest is nothing but their weighted sum (cosine form, history
    alone), also how much of the text term each of them brings; they add up to it.
    """
    vectors = _vectors(trained, model, user)
    if model.config.user == "text" or not len(vectors):
        return []
    sources: list[tuple[str | None, str | None]] = [
        (trained.item_ids[index], trained.titles[index]) for index in trained.users.recent.row(user).tolist()
    ]
    if len(sources) < len(vectors) and trained.users.texts is not None:
        sources += [(None, text) for text in trained.users.texts.texts]
    weights, shares = _shares(model, vectors)
    parts: list[float | None] = [None] * len(sources)
    if is_weighted_sum(model):
        parts = list((vectors @ _direction(trained, model, user, item) * shares).tolist())
    entries: list[Json] = [
        {"item_id": item_id, "title": title, "weight": weight, "contribution": part}
        for (item_id, title), weight, part in zip(sources, weights.tolist(), parts, strict=True)
    ]
    return sorted(entries, key=lambda entry: -entry["weight"])


def _vectors(trained: Trained, model: Direct, user: int) -> Tensor:
    """float64 [n, K or M]: items of the history, then what somebody new wrote, where it is read so."""
    recent = trained.users.recent.row(user)
    vectors = trained.profile[torch.from_numpy(recent.copy()).long()].double()
    if trained.users.texts is not None and model.config.user == "history":
        vectors = torch.cat([vectors, trained.users.texts.profiles.double()])
    return vectors


def _shares(model: Direct, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Attention [n], and the same times temperature over length [n]: what each vector is in the query."""
    everyone = torch.ones(1, len(vectors), dtype=torch.bool)
    weights = attention(model.user.history_query, vectors[None], everyone)[0]
    length = (weights[:, None] * vectors).sum(0).norm().clamp(min=1e-12)
    return weights, weights * model.temperature() / length


def _direction(trained: Trained, model: Direct, user: int, item: int) -> Tensor:
    """float64 [K]: the item's vector, each aspect times what the user's interest in it is multiplied by."""
    factors = torch.from_numpy(trained.factors(user)).repeat_interleave(model.channels)
    return factors * normalize(torch.from_numpy(np.asarray(trained.tables.item[item], np.float64)))


def interest_by_word(
    trained: Trained,
    model: Direct,
    dataset: Dataset,
    user: int,
    item: int,
    source: int,
    passages: Sequence[ReadPassage],
    rows: Sequence[int],
) -> tuple[list[Json], list[Json]]:
    """What each word about an item of the history, `source`, brings to the text term of `item`.

    passages: the source's document, rows: their numbers in the dataset. Returns
    - {"text", "count", "contribution"} of each word type, in lower case, the strongest first: they add up to
      the source's contribution;
    - the passages among them that the user wrote: {"passage_idx", "text", "contribution", "words"}, their
      words with characters and contribution, as those of an explanation.
    """
    _, shares = _shares(model, _vectors(trained, model, user))
    direction = _direction(trained, model, user, item)
    preference = torch.zeros(len(direction), dtype=torch.float64)
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for passage in passages:
        tokens, word, spans = passage.inputs(trained.lexicon)
        if not len(spans):
            found.append((spans, np.zeros(0)))
            continue
        weight = 1 / float(tokens_per_vote(torch.tensor(len(tokens)), model.config.equal_reviews))
        whole, _ = model.passages(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
        preference = preference + whole[0]  # a vote is already in it
        along = model.project_terms(model.standard(tokens), direction).numpy() * weight
        found.append((spans, np.bincount(word, along, minlength=len(spans)).astype(np.float64)))
    place = trained.users.recent.row(user).tolist().index(source)
    share = float(shares[place] / preference.norm().clamp(min=1e-12))
    author = _row_of(dataset, trained.users.ids[user], user)
    types: dict[str, list[float]] = {}
    own: list[Json] = []
    for passage, row, (spans, values) in zip(passages, rows, found, strict=True):
        words = [
            {"start": start, "end": end, "text": passage.text[start:end], "contribution": value * share}
            for (start, end), value in zip(spans.tolist(), values.tolist(), strict=True)
        ]
        for one in words:
            entry = types.setdefault(str(one["text"]).casefold(), [0, 0.0])
            entry[0] += 1
            entry[1] += one["contribution"]
        if dataset.passages.user_idx[row] == author:
            total = float(values.sum()) * share
            own.append({"passage_idx": row, "text": passage.text, "contribution": total, "words": words})
    ordered = sorted(types.items(), key=lambda entry: -abs(entry[1][1]))
    listed = [{"text": text, "count": int(count), "contribution": value} for text, (count, value) in ordered]
    return listed, own


def _row_of(dataset: Dataset, user_id: str, user: int) -> int:
    """The user's number in the dataset, which is `user` unless the run has other users."""
    if user < dataset.num_users and dataset.user_ids[user] == user_id:
        return user
    return dataset.user_ids.index(user_id) if user_id in dataset.user_ids else -2


def collaboration_by_item(trained: Trained, user: int, item: int) -> list[Json]:
    """What each item that the user has adds to the collaborative term: they add up to it."""
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
