"""python benches/dense_reviews.py INTERACTIONS OUT.json [NOISE]    real interactions with generated texts.

Many interactions a user and little text. The interactions (a line a user: its id, then its items; .gz) are
reduced to the core in which users have 15 items and items 10 users. Items are clustered into 50 groups by the
interactions of all other users. Of a review's six to ten words a share NOISE (.75) carries no information;
the others name the item's group (seven of ten) or the item. Needs the extra `baselines`.
"""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, diags_array
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD

USERS, ITEMS = 15, 10
GROUPS, GROUP_WORDS, ITEM_WORDS, PLAIN_WORDS = 50, 12, 2, 300
NOISE, GROUP_SHARE = 0.75, 0.7
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def main() -> None:
    """Write the reviews."""
    noise = float(sys.argv[3]) if len(sys.argv) > 3 else NOISE
    with gzip.open(sys.argv[1], "rt") as file:
        pairs = [(line.split()[0], item) for line in file for item in line.split()[1:]]
    kept = core(pairs)
    items = sorted({item for _, item in kept})
    rng = np.random.default_rng(0)
    words = random_words(rng, PLAIN_WORDS + GROUPS * GROUP_WORDS + len(items) * ITEM_WORDS)
    plain, of_groups, of_items = np.split(words, [PLAIN_WORDS, PLAIN_WORDS + GROUPS * GROUP_WORDS])
    of_group = of_groups.reshape(GROUPS, -1)[groups(pairs, kept, items)]
    words_of = dict(zip(items, zip(of_group, of_items.reshape(len(items), -1), strict=True), strict=True))
    often = 1 / np.arange(1, PLAIN_WORDS + 1)
    often /= often.sum()
    with Path(sys.argv[2]).open("w") as out:
        for time, (user, item) in enumerate(kept):
            of_kind, of_item = words_of[item]
            text = []
            for _ in range(int(rng.integers(6, 11))):
                if rng.random() < noise:
                    text.append(rng.choice(plain, p=often))
                else:
                    text.append(rng.choice(of_kind if rng.random() < GROUP_SHARE else of_item))
            review = {"reviewerID": user, "asin": item, "reviewText": " ".join(text).capitalize() + "."}
            out.write(json.dumps(review | {"overall": 5.0, "unixReviewTime": 1_300_000_000 + time}) + "\n")


def core(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Core of the interactions: users with few items and items with few users are removed repeatedly."""
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        left = [(user, item) for user, item in pairs if users[user] >= USERS and items[item] >= ITEMS]
        if len(left) == len(pairs):
            return left
        pairs = left


def groups(pairs: list[tuple[str, str]], kept: list[tuple[str, str]], items: list[str]) -> list[int]:
    """Group of each item: k-means of its interactions with users outside of the core."""
    inside, index = {user for user, _ in kept}, {item: n for n, item in enumerate(items)}
    others = [(user, index[item]) for user, item in pairs if user not in inside and item in index]
    users = {user: n for n, user in enumerate(sorted({user for user, _ in others}))}
    columns, rows = [users[user] for user, _ in others], [item for _, item in others]
    chosen = csr_array((np.ones(len(others)), (rows, columns)), shape=(len(items), len(users)))
    scaled = diags_array(chosen.sum(1).clip(1) ** -0.5) @ chosen
    reduced = TruncatedSVD(40, random_state=0).fit_transform(scaled)
    reduced /= np.linalg.norm(reduced, axis=1, keepdims=True).clip(1e-9)
    return KMeans(GROUPS, n_init=3, random_state=0).fit_predict(reduced).tolist()


def random_words(rng: np.random.Generator, count: int) -> np.ndarray:
    """Distinct random words of three syllables."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = zip(rng.choice(list(_CONSONANTS), 3), rng.choice(list(_VOWELS), 3), strict=True)
        words["".join(consonant + vowel for consonant, vowel in syllables)] = None
    return np.array(list(words))


if __name__ == "__main__":
    main()
