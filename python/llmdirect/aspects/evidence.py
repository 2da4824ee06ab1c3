"""Evidence for a run's aspects in the train texts: example sentences, agreement with ratings."""

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
from llmdirect.explanation.item_document import ReadPassage
from llmdirect.ranking.rating_metrics import disliked_to, liked_from, rating_metrics
from llmdirect.runs.inputs import check_dataset
from llmdirect.runs.trained import Trained
from llmdirect.text.sentences import sentence_spans

_MAX_REVIEWS: Final = 5000


def run_quality(run: Path | str, other_runs: Sequence[Path | str] = ()) -> Json:
    """Aspect quality of a run, with `stars` from `stars_auc`.

    Parameters
    ----------
    other_runs
        Runs of the same dataset, for the stability of aspects.

    Returns
    -------
    quality
        What `aspect_quality` returns, and "stars".

    Raises
    ------
    MismatchError
        If dataset or store are not those of the run, or another run is of another dataset.
    """
    explainer = Explainer.open(run)
    others = [Trained.load(other) for other in other_runs]
    for other in others:
        check_dataset(other.run, explainer.texts.dataset)
    quality = aspect_quality(explainer.trained, explainer.texts.dataset, others)
    return {**quality, "stars": stars_auc(explainer)}


def example_sentence(explainer: Explainer, group: Sequence[int], items: Sequence[int]) -> str | None:
    """Sentence in the train texts about some items that is most typical of aspects.

    It has the largest sum over its tokens of the excess of |s_t m_t| in these aspects over that in as many
    average ones; the first of equals.

    Parameters
    ----------
    group
        Aspects.
    items
        Item indices.

    Returns
    -------
    sentence
        None where the items have no text.
    """
    best: tuple[float, str | None] = (-np.inf, None)
    for item in items:
        for passage in explainer.texts.read_passages(explainer.texts.passages_of(item)):
            spans = sentence_spans(passage.text)
            excess = _excess_by_sentence(explainer, passage, group, [start for start, _ in spans])
            for (start, end), value in zip(spans, excess, strict=True):
                if value > best[0] and (text := " ".join(passage.text[start:end].split())):
                    best = value, text
    return best[1]


def stars_auc(explainer: Explainer) -> Json | None:
    """AUC with which the signed terms of reviews separate liked from disliked ones.

    Liked are 4 stars and more of 5, disliked 2 and less; on another scale, the same positions (`liked_from`).

    In the ratio form a review's score is Σ s_t m_t / Σ m_t over its tokens and all aspects. In the cosine
    form, where terms are vectors without a sign of their own, it is the text term of the review by itself for
    its author, whose interest is read from a history with this very item.

    Returns
    -------
    stars
        {"auc", "liked", "disliked", "liked_from", "disliked_to"}: the AUC, ties half; the numbers of reviews,
        together at most 5,000, evenly spread over train; and the ratings that divide them. None where either
        kind is missing.
    """
    trained, model = explainer.trained, explainer.texts.model
    rows = explainer.texts.dataset.interactions
    rating, split = np.asarray(rows.rating), explainer.texts.dataset.passages.split[rows.passage_idx]
    scale = rating[rows.split == TRAIN]
    highest_disliked, lowest_liked = disliked_to(scale), liked_from(scale)
    extreme = (rating >= lowest_liked) | (rating <= highest_disliked)
    rated = (rows.passage_idx >= 0) & (split == TRAIN) & extreme
    candidates = np.flatnonzero(rated)
    count = len(candidates)
    sample = candidates[np.unique(np.linspace(0, count - 1, min(count, _MAX_REVIEWS)).astype(np.int64))]
    scores, stars = [], []
    passages = explainer.texts.read_passages(rows.passage_idx[sample])
    authors = rows.user_idx[sample].tolist()
    for passage, author, stars_of_passage in zip(passages, authors, rating[sample].tolist(), strict=True):
        terms, mentions = passage.sums(model, trained.lexicon)
        if mentions.any():
            scores.append(float(model.form.review_score(explainer.query(author), terms, mentions)))
            stars.append(stars_of_passage)
    liked = sum(value >= lowest_liked for value in stars)
    if liked in (0, len(stars)):
        return None
    auc = rating_metrics(np.array(scores), np.array(stars), threshold=lowest_liked)["auc"]
    counts = {"liked": liked, "disliked": len(stars) - liked}
    return {"auc": auc, **counts, "liked_from": lowest_liked, "disliked_to": highest_disliked}


def _excess_by_sentence(
    explainer: Explainer, passage: ReadPassage, group: Sequence[int], borders: list[int]
) -> list[float]:
    """Size of the sentences' signed terms in some aspects minus that in as many average ones."""
    tokens, word, words = passage.inputs(explainer.trained.lexicon)
    sums = np.zeros(len(borders))
    if len(tokens):
        model = explainer.texts.model
        with torch.no_grad():
            terms, _ = model.token_terms(model.standard(tokens))
        size = terms.view(len(terms), model.aspects, -1).norm(dim=2).numpy()
        excess = size[:, list(group)].sum(1) - len(group) * size.mean(1)
        sentence = np.array([bisect_right(borders, start) - 1 for start in words[:, 0].tolist()])
        np.add.at(sums, sentence[word], excess)
    excesses: list[float] = sums.tolist()
    return excesses
