"""A small world of headphone reviews in which everything is known: who likes what, and which words say so.

`demo` and the tests run on it. A user cares about a few aspects, an item is good or bad at each. Who
reviews what follows popularity and taste; what is written follows quality and taste.
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
from llmdirect.synthetic.sentences import ASPECTS, LEXICON, Said, Writer
from llmdirect.text.duplicates import normalize_text

CORE: Final = 5
"""Reviews that every user and every item has at least."""
REVIEWS_PER_USER: Final = (7, 10)
"""What a user is drawn before items that lack reviewers get some."""
TASTE: Final = 6.0
"""β: a user reviews an item with a probability proportional to popularity · exp(β · interest · quality)."""
_POPULARITY_EXPONENT: Final = 0.5
_POLARITY_SLOPE: Final = 6.0
_OFF_INTEREST: Final = 0.04
_MENTIONED_BY_CHANCE: Final = 0.15
_LEAST_QUALITY: Final = 0.2
_ASIDE: Final = 0.75
_RATING_NOISE: Final = 0.5
_INTEREST_SHARES: Final = ((1.0,), (0.6, 0.4), (0.42, 0.32, 0.26))
_FIRST_DAY: Final = 16_071  # 2014-01-01
_DAYS: Final = 1_000
_ID_LETTERS: Final = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True)
class Written:
    """One review of the corpus."""

    user_id: str
    item_id: str
    text: str
    summary: str
    rating: int
    time: int
    """Seconds since 1970, a full day."""
    planted: tuple[Said, ...]


@dataclass(frozen=True, eq=False)
class Corpus:
    """The files, and what was planted. U users, I items, A aspects."""

    reviews_path: Path
    items_path: Path
    truth_path: Path
    user_ids: list[str]
    item_ids: list[str]
    aspects: tuple[str, ...]
    words: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Aspect -> its positive and its negative words."""
    interests: NDArray[np.float64]
    """[U, A], rows sum to 1."""
    qualities: NDArray[np.float64]
    """[I, A] in [-1, 1]."""
    popularity: NDArray[np.float64]
    """[I], sums to 1."""
    taste: float
    """β of `preference`."""
    reviews: list[Written] = field(repr=False)

    @cached_property
    def aspect_of_word(self) -> dict[str, int]:
        """Planted word -> its aspect."""
        return {
            word: number
            for number, aspect in enumerate(self.aspects)
            for polarity in self.words[aspect]
            for word in polarity
        }

    @cached_property
    def user_rows(self) -> dict[str, int]:
        """User id -> row of `interests`."""
        return {user: row for row, user in enumerate(self.user_ids)}

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """Item id -> row of `qualities`."""
        return {item: row for row, item in enumerate(self.item_ids)}

    def cares_about(self, user_id: str) -> frozenset[int]:
        """Aspects in which the user's interest is above uniform. KeyError for an unknown user."""
        interest = self.interests[self.user_rows[user_id]]
        return frozenset(np.flatnonzero(interest > 1 / len(self.aspects)).tolist())

    def truth(self, user_id: str, item_id: str) -> frozenset[str]:
        """The words that carry why this user would like this item.

        Positive words, of the aspects that the user cares about and the item is good at (quality above 0),
        which some review of the item holds. Empty where there is no such reason. KeyError for unknown ids.
        """
        quality = self.qualities[self.item_rows[item_id]]
        reasons = {aspect for aspect in self.cares_about(user_id) if quality[aspect] > 0}
        return frozenset(
            said.word
            for review in self.reviews
            if review.item_id == item_id
            for said in review.planted
            if said.positive and said.aspect in reasons
        )

    def preference(self) -> NDArray[np.float64]:
        """log(popularity · exp(β · interest · quality)), what choices are drawn from: float64 [U, I]."""
        return np.log(self.popularity) + self.taste * self.interests @ self.qualities.T


def generate(
    out: Path | str,
    *,
    seed: int = 0,
    num_users: int = 140,
    num_items: int = 100,
    reviews_per_user: tuple[int, int] = REVIEWS_PER_USER,
    taste: float = TASTE,
) -> Corpus:
    """Writes reviews.json.gz (Amazon 2014 layout), items.json.gz and truth.json into the folder `out`.

    The same arguments give the same bytes. Every user and every item has at least CORE reviews: an item
    that chance left with fewer gets the missing ones from those who would like it most, so a few users
    have more than the upper bound of `reviews_per_user`. No text is there twice.

    Raises ValueError, before anything is written, for sizes that cannot give such a corpus.
    """
    out = Path(out)
    _check(seed, num_users, num_items, reviews_per_user, taste)
    rng = np.random.default_rng(seed)
    interests = _interests(rng, num_users)
    qualities = _qualities(rng, num_items)
    popularity = _popularity(rng, num_items)
    user_ids, item_ids = _ids(rng, "A", 13, num_users), _ids(rng, "B0", 8, num_items)
    writer = Writer(rng)
    items = []
    for row, item in enumerate(item_ids):
        title, description = writer.item(100 + row)
        items.append({"asin": item, "title": title, "description": description})

    preference = np.log(popularity) + taste * interests @ qualities.T
    chosen = _choices(rng, preference, reviews_per_user)
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
    truth = json.dumps(_planted(corpus), indent=1).encode() + b"\n"
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
    """1 to 3 aspects share all but a little of each user's interest: [U, A]."""
    interests = np.full((num_users, len(ASPECTS)), _OFF_INTEREST / len(ASPECTS))
    for row in interests:
        shares = _INTEREST_SHARES[int(rng.integers(len(_INTEREST_SHARES)))]
        aspects = rng.choice(len(ASPECTS), len(shares), replace=False)
        row[aspects] += (1 - _OFF_INTEREST) * np.array(shares)
    return interests


def _qualities(rng: np.random.Generator, num_items: int) -> NDArray[np.float64]:
    """Each item is good at half of the aspects and bad at the others: [I, A].

    So no item is good for everybody, and taste does not hide in popularity.
    """
    half = len(ASPECTS) // 2
    signs = np.array([1.0] * half + [-1.0] * (len(ASPECTS) - half))
    size = rng.uniform(_LEAST_QUALITY, 1.0, (num_items, len(ASPECTS)))
    return rng.permuted(np.tile(signs, (num_items, 1)), axis=1) * size


def _popularity(rng: np.random.Generator, num_items: int) -> NDArray[np.float64]:
    """A power law of the rank, in random order: [I], sums to 1."""
    weight = np.arange(1.0, num_items + 1) ** -_POPULARITY_EXPONENT
    shares: NDArray[np.float64] = weight / weight.sum()
    return rng.permutation(shares)


def _ids(rng: np.random.Generator, prefix: str, length: int, count: int) -> list[str]:
    """Distinct, in random order, so that an id says nothing."""
    found: dict[str, None] = {}
    while len(found) < count:
        letters = rng.integers(len(_ID_LETTERS), size=length).tolist()
        found[prefix + "".join(_ID_LETTERS[letter] for letter in letters)] = None
    return list(found)


def _choices(
    rng: np.random.Generator, preference: NDArray[np.float64], reviews_per_user: tuple[int, int]
) -> NDArray[np.bool_]:
    """Who reviews what, drawn without replacement in proportion to exp(preference): bool [U, I]."""
    num_users, num_items = preference.shape
    low, high = reviews_per_user
    # The largest values of log-weight + Gumbel noise are a sample without replacement.
    keys = preference + rng.gumbel(size=preference.shape)
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
    writer: Writer,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    chosen: NDArray[np.bool_],
    interests: NDArray[np.float64],
    qualities: NDArray[np.float64],
) -> list[Written]:
    """The review of each chosen pair, ordered by time, then user and item."""
    reviews: list[Written] = []
    seen: set[str] = set()
    for user, item in np.argwhere(chosen).tolist():
        while True:
            opinions = _opinions(rng, interests[user], qualities[item])
            text, planted = writer.review(opinions, asides=int(rng.random() < _ASIDE))
            if normalize_text(text) not in seen:
                break
        seen.add(normalize_text(text))
        value = 2.8 + 2.2 * interests[user] @ qualities[item] + _RATING_NOISE * rng.standard_normal()
        day = _FIRST_DAY + int(rng.integers(_DAYS))
        reviews.append(
            Written(
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
    """2 or 3 pairs (aspect, positive): aspects by interest, polarity by quality, both by chance.

    Nobody praises and pans the same aspect in one text.
    """
    mentioned = (1 - _MENTIONED_BY_CHANCE) * interest + _MENTIONED_BY_CHANCE / len(interest)
    aspects = rng.choice(len(interest), int(rng.integers(2, 4)), p=mentioned).tolist()
    likely = 1 / (1 + np.exp(-_POLARITY_SLOPE * quality))
    positive = rng.random(len(interest)) < likely
    # What is said of one aspect stands together.
    return [(aspect, bool(positive[aspect])) for aspect in sorted(aspects, key=aspects.index)]


def _record(review: Written) -> dict[str, Any]:
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


def _planted(corpus: Corpus) -> dict[str, Any]:
    """What truth.json says."""

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
                    {"word": said.word, "aspect": corpus.aspects[said.aspect], "positive": said.positive}
                    for said in review.planted
                ],
            }
            for review in corpus.reviews
        ],
    }


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """JSON lines, gzip without a time or a name, so that equal records are equal bytes."""
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()

    def write(file: IO[bytes]) -> None:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            packed.write(lines)

    write_atomic(path, write)
