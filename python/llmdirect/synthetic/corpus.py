"""Synthetic review corpus with planted user interests, item qualities and opinion words.

`demo` and the tests run on it. A user is interested in a few aspects; an item is good or bad at each. Users
choose items by popularity and taste; the opinions that they write follow quality and interest.
"""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.files import write_atomic
from llmdirect.synthetic.sentences import ASPECTS, LEXICON, PlantedWord, ReviewWriter
from llmdirect.text.duplicates import normalize_text

CORE: Final = 5
"""Minimum number of reviews of every user and every item."""
REVIEWS_PER_USER: Final = (7, 10)
"""Least and most reviews of a user, before items with too few reviews get more."""
TASTE: Final = 6.0
"""β: choice probabilities are proportional to popularity · exp(β · interest · quality)."""
_POPULARITY_EXPONENT: Final = 0.5
_POLARITY_SLOPE: Final = 6.0
_OFF_INTEREST: Final = 0.04
_OFF_INTEREST_MENTIONS: Final = 0.15
_MIN_QUALITY: Final = 0.2
_ASIDE_PROBABILITY: Final = 0.75
_RATING_NOISE: Final = 0.5
_INTEREST_SHARES: Final = ((1.0,), (0.6, 0.4), (0.42, 0.32, 0.26))
_FIRST_DAY: Final = 16_071  # 2014-01-01
_DAYS: Final = 1_000
_ID_LETTERS: Final = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True)
class SyntheticReview:
    """Review of the corpus with its planted words."""

    user_id: str
    item_id: str
    text: str
    summary: str
    rating: int
    time: int
    """Seconds since 1970, at midnight UTC."""
    planted: tuple[PlantedWord, ...]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Files of a synthetic corpus and their ground truth. U users, I items, A aspects."""

    reviews_path: Path
    items_path: Path
    truth_path: Path
    user_ids: list[str]
    item_ids: list[str]
    aspects: tuple[str, ...]
    words: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Positive and negative words of each aspect."""
    interests: NDArray[np.float64]
    """[U, A] shares of the aspects in a user's interest; rows sum to 1."""
    qualities: NDArray[np.float64]
    """[I, A] quality of each aspect, in [-1, 1]."""
    popularity: NDArray[np.float64]
    """[I] shares; sums to 1."""
    taste: float
    """β of `utilities`."""
    reviews: list[SyntheticReview] = field(repr=False)

    @cached_property
    def aspect_of_word(self) -> dict[str, int]:
        """Index of the aspect of each planted word."""
        return {
            word: number
            for number, aspect in enumerate(self.aspects)
            for polarity in self.words[aspect]
            for word in polarity
        }

    @cached_property
    def user_rows(self) -> dict[str, int]:
        """Row of `interests` of each user id."""
        return {user: row for row, user in enumerate(self.user_ids)}

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """Row of `qualities` of each item id."""
        return {item: row for row, item in enumerate(self.item_ids)}

    def aspects_of_interest(self, user_id: str) -> frozenset[int]:
        """Aspects whose share in the user's interest is above uniform.

        Raises
        ------
        KeyError
            If the user is unknown.
        """
        interest = self.interests[self.user_rows[user_id]]
        return frozenset(np.flatnonzero(interest > 1 / len(self.aspects)).tolist())


def utilities(
    interests: NDArray[np.float64],
    qualities: NDArray[np.float64],
    popularity: NDArray[np.float64],
    taste: float,
) -> NDArray[np.float64]:
    """Log choice weights of a multinomial logit: log popularity + β · interest · quality.

    Parameters
    ----------
    interests
        [U, A]
    qualities
        [I, A]
    popularity
        [I]
    taste
        β, from 0 on.

    Returns
    -------
    float64 [U, I]
    """
    return np.log(popularity) + taste * interests @ qualities.T


def generate(
    out: Path | str,
    *,
    seed: int = 0,
    num_users: int = 140,
    num_items: int = 100,
    reviews_per_user: tuple[int, int] = REVIEWS_PER_USER,
    taste: float = TASTE,
) -> Corpus:
    """Generate a synthetic corpus: reviews.json.gz (Amazon 2014 layout), items.json.gz and truth.json.

    The same arguments give the same bytes. Every user and every item has at least CORE reviews: an item
    that was drawn too rarely gets the missing ones from the users with the largest utility, so a few users
    have more than the upper bound of `reviews_per_user`. All texts are distinct.

    Parameters
    ----------
    out
        Folder of the three files.
    seed
        Seed of all draws, from 0 on.
    reviews_per_user
        Least and most reviews of a user.
    taste
        β: 0 for choices by popularity only.

    Raises
    ------
    ValueError
        Before anything is written, if the sizes do not admit such a corpus.
    """
    out = Path(out)
    _check(seed, num_users, num_items, reviews_per_user, taste)
    rng = np.random.default_rng(seed)
    interests = _interests(rng, num_users)
    qualities = _qualities(rng, num_items)
    popularity = _popularity(rng, num_items)
    user_ids, item_ids = _ids(rng, "A", 13, num_users), _ids(rng, "B0", 8, num_items)
    writer = ReviewWriter(rng)
    items = []
    for row, item in enumerate(item_ids):
        title, description = writer.item(100 + row)
        items.append({"asin": item, "title": title, "description": description})

    utility = utilities(interests, qualities, popularity, taste)
    chosen = _choices(rng, utility, reviews_per_user)
    reviews = _reviews(rng, writer, user_ids, item_ids, chosen, interests, qualities)
    corpus = Corpus(
        reviews_path=out / "reviews.json.gz",
        items_path=out / "items.json.gz",
        truth_path=out / "truth.json",
        user_ids=user_ids,
        item_ids=item_ids,
        aspects=ASPECTS,
        words=dict(LEXICON),
        interests=interests,
        qualities=qualities,
        popularity=np.asarray(popularity, np.float64),
        taste=taste,
        reviews=reviews,
    )
    out.mkdir(parents=True, exist_ok=True)
    _write_lines(corpus.reviews_path, [_record(review) for review in reviews])
    _write_lines(corpus.items_path, items)
    truth = json.dumps(_ground_truth(corpus), indent=1).encode() + b"\n"
    write_atomic(corpus.truth_path, lambda file: file.write(truth))
    return corpus


def _check(
    seed: int, num_users: int, num_items: int, reviews_per_user: tuple[int, int], taste: float
) -> None:
    low, high = reviews_per_user
    if seed < 0:
        raise ValueError(f"seed is {seed}, below 0")
    if not CORE <= low <= high:
        raise ValueError(f"reviews_per_user is {reviews_per_user}, expected {CORE} <= low <= high")
    if num_items < 2 * high:
        raise ValueError(f"num_items is {num_items}; users who review {high} items need at least {2 * high}")
    if num_users * low < CORE * num_items:
        raise ValueError(
            f"num_users is {num_users}; {num_items} items with {CORE} reviews each need at least "
            f"{-(-CORE * num_items // low)} users who write {low}"
        )
    if not 0 <= taste < np.inf:
        raise ValueError(f"taste is {taste}, expected a finite number from 0 on")


def _interests(rng: np.random.Generator, num_users: int) -> NDArray[np.float64]:
    """Interests [U, A], concentrated on 1 to 3 aspects a user."""
    interests = np.full((num_users, len(ASPECTS)), _OFF_INTEREST / len(ASPECTS))
    for row in interests:
        shares = _INTEREST_SHARES[int(rng.integers(len(_INTEREST_SHARES)))]
        aspects = rng.choice(len(ASPECTS), len(shares), replace=False)
        row[aspects] += (1 - _OFF_INTEREST) * np.array(shares)
    return interests


def _qualities(rng: np.random.Generator, num_items: int) -> NDArray[np.float64]:
    """Qualities [I, A]: each item is good at half of the aspects and bad at the others.

    So no item is good for all users, and taste is not confounded with popularity.
    """
    half = len(ASPECTS) // 2
    signs = np.array([1.0] * half + [-1.0] * (len(ASPECTS) - half))
    size = rng.uniform(_MIN_QUALITY, 1.0, (num_items, len(ASPECTS)))
    return rng.permuted(np.tile(signs, (num_items, 1)), axis=1) * size


def _popularity(rng: np.random.Generator, num_items: int) -> NDArray[np.float64]:
    """Popularity [I]: a power law of the rank, in random order; sums to 1."""
    weight = np.arange(1.0, num_items + 1) ** -_POPULARITY_EXPONENT
    shares: NDArray[np.float64] = weight / weight.sum()
    return rng.permutation(shares)


def _ids(rng: np.random.Generator, prefix: str, length: int, count: int) -> list[str]:
    """Distinct ids in random order, which carry no information."""
    ids: dict[str, None] = {}
    while len(ids) < count:
        letters = rng.integers(len(_ID_LETTERS), size=length).tolist()
        ids[prefix + "".join(_ID_LETTERS[letter] for letter in letters)] = None
    return list(ids)


def _choices(
    rng: np.random.Generator, utility: NDArray[np.float64], reviews_per_user: tuple[int, int]
) -> NDArray[np.bool_]:
    """Items of each user, drawn without replacement in proportion to exp(utility): bool [U, I]."""
    num_users, num_items = utility.shape
    low, high = reviews_per_user
    # Gumbel top-k trick: the largest keys are a sample without replacement.
    keys = utility + rng.gumbel(size=utility.shape)
    order: NDArray[np.int64] = np.argsort(-keys, axis=1, kind="stable")
    counts: list[int] = np.asarray(rng.integers(low, high + 1, num_users)).tolist()
    chosen = np.zeros((num_users, num_items), np.bool_)
    for user in range(num_users):
        chosen[user, order[user, : counts[user]]] = True
    for item in np.flatnonzero(chosen.sum(0) < CORE).tolist():
        missing = CORE - int(chosen[:, item].sum())
        others = np.where(chosen[:, item], -np.inf, keys[:, item])
        chosen[np.argsort(-others, kind="stable")[:missing], item] = True
    return chosen


def _reviews(
    rng: np.random.Generator,
    writer: ReviewWriter,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    chosen: NDArray[np.bool_],
    interests: NDArray[np.float64],
    qualities: NDArray[np.float64],
) -> list[SyntheticReview]:
    """Reviews of all chosen pairs, ordered by time, then user and item."""
    reviews: list[SyntheticReview] = []
    seen: set[str] = set()
    for user, item in np.argwhere(chosen).tolist():
        while True:
            opinions = _opinions(rng, interests[user], qualities[item])
            text, planted = writer.review(opinions, asides=int(rng.random() < _ASIDE_PROBABILITY))
            if normalize_text(text) not in seen:
                break
        seen.add(normalize_text(text))
        value = 2.8 + 2.2 * interests[user] @ qualities[item] + _RATING_NOISE * rng.standard_normal()
        day = _FIRST_DAY + int(rng.integers(_DAYS))
        reviews.append(
            SyntheticReview(
                user_id=user_ids[user],
                item_id=item_ids[item],
                text=text,
                summary=writer.headline(),
                rating=int(np.clip(np.rint(value), 1, 5)),
                time=86_400 * day,
                planted=tuple(planted),
            )
        )
    return sorted(reviews, key=lambda review: (review.time, review.user_id, review.item_id))


def _opinions(
    rng: np.random.Generator, interest: NDArray[np.float64], quality: NDArray[np.float64]
) -> list[tuple[int, bool]]:
    """2 or 3 pairs (aspect, positive), drawn by interest and by quality.

    An aspect has one polarity within a text.
    """
    mentioned = (1 - _OFF_INTEREST_MENTIONS) * interest + _OFF_INTEREST_MENTIONS / len(interest)
    aspects = rng.choice(len(interest), int(rng.integers(2, 4)), p=mentioned).tolist()
    probability = 1 / (1 + np.exp(-_POLARITY_SLOPE * quality))
    positive = rng.random(len(interest)) < probability
    # Opinions on the same aspect are consecutive.
    return [(aspect, bool(positive[aspect])) for aspect in sorted(aspects, key=aspects.index)]


def _record(review: SyntheticReview) -> dict[str, Any]:
    """A line of the Amazon 2014 layout."""
    time = datetime.fromtimestamp(review.time, UTC)
    return {
        "reviewerID": review.user_id,
        "asin": review.item_id,
        "reviewText": review.text,
        "overall": float(review.rating),
        "summary": review.summary,
        "unixReviewTime": review.time,
        "reviewTime": f"{time:%m} {time.day}, {time.year}",
    }


def _ground_truth(corpus: Corpus) -> dict[str, Any]:
    """Content of truth.json."""

    def by_aspect(row: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(corpus.aspects, row.tolist(), strict=True))

    counts = Counter(review.item_id for review in corpus.reviews)
    return {
        "aspects": {
            aspect: {"positive": list(positive), "negative": list(negative)}
            for aspect, (positive, negative) in corpus.words.items()
        },
        "taste": corpus.taste,
        "users": {user: by_aspect(row) for user, row in zip(corpus.user_ids, corpus.interests, strict=True)},
        "items": {
            item: {"popularity": popularity, "reviews": counts[item], "quality": by_aspect(row)}
            for item, popularity, row in zip(
                corpus.item_ids, corpus.popularity.tolist(), corpus.qualities, strict=True
            )
        },
        "reviews": [
            {
                "user_id": review.user_id,
                "item_id": review.item_id,
                "words": [
                    {"word": word.word, "aspect": corpus.aspects[word.aspect], "positive": word.positive}
                    for word in review.planted
                ],
            }
            for review in corpus.reviews
        ],
    }


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write gzipped JSON lines, without time and name in the header: equal records give equal bytes."""
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()

    def write(file: IO[bytes]) -> None:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
            compressed.write(lines)

    write_atomic(path, write)
