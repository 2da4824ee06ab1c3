"""What the train texts show of a run's aspects: a sentence about each, and whether words tell stars."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from llmdirect.aspects.quality import aspect_quality
from llmdirect.common.types import Json
from llmdirect.data.dataset import TRAIN
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ReadPassage, text_term
from llmdirect.ranking.rating_metrics import rating_metrics
from llmdirect.runs.trained import Trained
from llmdirect.text.sentences import sentence_spans

_MOST_TEXTS: Final = 5000
_LIKED, _DISLIKED = 4.0, 2.0


def run_quality(run: Path | str, beside: Sequence[Path | str] = ()) -> Json:
    """`aspect_quality` of a run beside others of the same dataset, and `stars`: `stars_auc`.

    Raises MismatchError where dataset or store are not what the run was trained on, or another run was
    trained on another dataset.
    """
    explainer = Explainer.open(run)
    others = [Trained.load(other) for other in beside]
    for other in others:
        other.check_dataset(explainer.dataset)
    quality = aspect_quality(explainer.trained, explainer.dataset, others)
    return {**quality, "stars": stars_auc(explainer)}


def example_sentence(explainer: Explainer, group: Sequence[int], items: Sequence[int]) -> str | None:
    """The sentence, of the train texts about these items, that says most of the aspects `group`.

    The largest sum over its tokens of the excess of |s_t m_t| in these aspects over that in as many average
    ones; the earlier of equals. None where the items have no text.
    """
    best: tuple[float, str | None] = (-np.inf, None)
    for item in items:
        for passage in explainer.read_passages(explainer.passages_of(item)):
            spans = sentence_spans(passage.text)
            excess = _excess_by_sentence(explainer, passage, group, [start for start, _ in spans])
            for (start, end), value in zip(spans, excess, strict=True):
                if value > best[0] and (text := " ".join(passage.text[start:end].split())):
                    best = value, text
    return best[1]


def stars_auc(explainer: Explainer) -> Json | None:
    """How well what words say of an item tells its reviews of 4 stars and more from those of 2 and less.

    auc: share of such pairs in which the better review says the more, ties half (0.5: no better than chance).
    In the ratio form that is Σ s_t m_t / Σ m_t over its tokens and all aspects. In the cosine form, where a
    word says a vector, for or against an item beside a user's interest alone, it is the text term of the
    review by itself for its author, whose interest is read from a history with this very item. `liked` and
    `disliked`: how many reviews of each were read, at most 5,000 in all, evenly spread over train. None where
    either kind is missing.
    """
    trained, model = explainer.trained, explainer.model
    rows = explainer.dataset.interactions
    rating, split = np.asarray(rows.rating), explainer.dataset.passages.split[rows.passage_idx]
    rated = (rows.passage_idx >= 0) & (split == TRAIN) & ((rating >= _LIKED) | (rating <= _DISLIKED))
    chosen = np.flatnonzero(rated)
    chosen = chosen[
        np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_TEXTS)).astype(np.int64))
    ]
    said, stars = [], []
    passages = explainer.read_passages(rows.passage_idx[chosen])
    authors = rows.user_idx[chosen].tolist()
    for passage, author, stars_of_passage in zip(passages, authors, rating[chosen].tolist(), strict=True):
        terms, mentions = passage.sums(model, trained.lexicon)
        if mentions.any():
            if model.config.score_form == "cosine":
                said.append(float(text_term(model, explainer.query(author), terms, mentions)))
            else:
                said.append(float(terms.sum() / mentions.sum()))
            stars.append(stars_of_passage)
    liked = sum(value >= _LIKED for value in stars)
    if liked in (0, len(stars)):
        return None
    auc = rating_metrics(np.array(said), np.array(stars), threshold=_LIKED)["auc"]
    return {"auc": auc, "liked": liked, "disliked": len(stars) - liked}


def _excess_by_sentence(
    explainer: Explainer, passage: ReadPassage, group: Sequence[int], borders: list[int]
) -> list[float]:
    """By how much more the tokens of each sentence say of these aspects than of as many average ones."""
    tokens, word, words = passage.inputs(explainer.trained.lexicon)
    sums = np.zeros(len(borders))
    if len(tokens):
        model = explainer.model
        with torch.no_grad():
            said, _ = model.token_terms(model.standard(tokens))
        size = said.view(len(said), model.aspects, -1).norm(dim=2).numpy()
        excess = size[:, list(group)].sum(1) - len(group) * size.mean(1)
        sentence = np.array([bisect_right(borders, start) - 1 for start in words[:, 0].tolist()])
        np.add.at(sums, sentence[word], excess)
    found: list[float] = sums.tolist()
    return found
