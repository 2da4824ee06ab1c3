"""What can be said of items and aspects without a user: names, words, counts, likeness."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import log

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.aspects.quality import item_sizes, user_sizes
from llmdirect.common.types import Json
from llmdirect.data.dataset import KINDS
from llmdirect.explanation.explainer import Explainer
from llmdirect.runs.user_rows import UserRows
from llmdirect.text.words import is_function_word

_WORD = re.compile(r"[^\W\d_]{3,}")
_SAMPLE = 20_000
"""Passages in which words are counted; more would not change which ones are common."""
_KEYWORDS = 3
_READ, _LONGEST = 16, 1200
"""Texts of an item, and characters of a text, in which its words are looked for."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items, users and aspects of a run, to be found and described."""

    explainer: Explainer

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        trained = self.explainer.trained
        items = [
            f"{title or ''} {item_id}".casefold()
            for title, item_id in zip(trained.titles, trained.item_ids, strict=True)
        ]
        return {"users": [user_id.casefold() for user_id in trained.users.ids], "items": items}

    def find(self, what: str, query: str, limit: int = 8) -> list[int]:
        """Users or items (`what`) whose id or title holds all words of the query.

        Those that start with the first word come first.
        """
        words = query.casefold().split()
        if not words:
            return []
        names = self._folded[what]
        found = [index for index, name in enumerate(names) if all(word in name for word in words)]
        return sorted(found, key=lambda index: not names[index].startswith(words[0]))[:limit]

    def name(self, item: int) -> str:
        """Title, or id where there is none."""
        trained = self.explainer.trained
        return trained.titles[item] or trained.item_ids[item]

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """int64 [I]: how many users have the item in train."""
        trained = self.explainer.trained
        return np.bincount(trained.users.seen.indices, minlength=len(trained.item_ids))

    @cached_property
    def _commonness(self) -> tuple[Counter[str], int]:
        """In how many of a sample of passages each word stands, and of how many."""
        rows = np.sort(self.explainer.texts.item_passages.indices)
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64))]
        counts: Counter[str] = Counter()
        for text in self.explainer.texts.dataset.passages.text.gather(chosen).to_list():
            counts.update(_words(text))
        return counts, len(chosen)

    @cached_property
    def _keywords(self) -> dict[int, list[str]]:
        return {}

    def keywords(self, item: int) -> list[str]:
        """The words that most of its texts use and few others do (TF-IDF over texts): at most three.

        Of an item with many texts the first 16 are looked at.
        """
        if item not in self._keywords:
            common, total = self._commonness
            rows = self.explainer.texts.item_passages.row(item)[:_READ]
            texts = self.explainer.texts.dataset.passages.text.gather(rows).to_list()
            counts = Counter(word for text in texts for word in _words(text[:_LONGEST]))
            # A word of one text alone is as often a slip of the pen as a name.
            fewest = 2 if len(texts) > 2 else 1
            weight = {
                word: count * log((total + 1) / (common[word] + 0.5))
                for word, count in counts.items()
                if count >= fewest
            }
            chosen: list[str] = []
            for word in sorted(weight, key=lambda word: (-weight[word], word)):
                if len(chosen) == _KEYWORDS:
                    break
                if not is_function_word(word) and not any(word.startswith(other[:4]) for other in chosen):
                    chosen.append(word)
            self._keywords[item] = chosen
        return self._keywords[item]

    def facts(self, item: int) -> Json:
        """Numbers of reviews and of other texts, mean rating (None without), positives, place by them."""
        dataset, rows = self.explainer.texts.dataset, self.explainer.texts.item_passages.row(item)
        reviews = rows[dataset.passages.kind[rows] == KINDS.index("review")]
        stars = self.explainer.texts.ratings[reviews]
        stars = stars[~np.isnan(stars)]
        return {
            "reviews": len(reviews),
            "others": len(rows) - len(reviews),
            "stars": float(stars.mean()) if len(stars) else None,
            "positives": int(self.positives[item]),
            "place": int((self.positives > self.positives[item]).sum()) + 1,
        }

    @cached_property
    def aspects(self) -> list[int]:
        """Aspects to show: the first of each group, without those that are off."""
        edits, count = self.explainer.trained.edits, self.explainer.trained.model.aspects
        factors = edits.factors(count)
        return [aspect for aspect in range(count) if edits.group(aspect)[0] == aspect and factors[aspect]]

    def short(self, aspect: int) -> str:
        """The first three words of an aspect's name."""
        return ", ".join(self.explainer.trained.aspect_names[aspect].split(", ")[:3])

    def _shares(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, A] share of each aspect that is shown in rows of sizes [n, A]."""
        combined = self.explainer.trained.edits.combined(list(sizes.T))
        shown = np.zeros(sizes.shape)
        for aspect in self.aspects:
            shown[:, aspect] = combined[aspect]
        shares: NDArray[np.float64] = shown / np.maximum(shown.sum(1, keepdims=True), 1e-12)
        return shares

    @cached_property
    def item_shares(self) -> NDArray[np.float64]:
        """[I, A] how much of what an item's texts say is about each aspect; rows add up to 1, or are 0."""
        return self._shares(item_sizes(self.explainer.trained))

    @cached_property
    def user_shares(self) -> NDArray[np.float64]:
        """[U, A] how much of a user's interest is in each aspect; rows add up to 1, or are 0."""
        trained = self.explainer.trained
        return self._shares(user_sizes(trained, trained.tables.query))

    def alike(self, item: int, count: int) -> list[tuple[int, float]]:
        """Items whose texts say the most similar things, with the cosine; none in the ratio form."""
        tables = self.explainer.trained.tables
        if not self.explainer.texts.model.form.unit_vectors or not tables.item[item].any():
            return []
        return _best(tables.item @ tables.item[item], item, count)

    def together(self, item: int, count: int) -> list[tuple[int, float]]:
        """Items to which the collaborative term adds most for somebody who has this one."""
        tables = self.explainer.trained.tables
        if tables.item_item is None or tables.item_item_rows is None:
            return []
        table = tables.item_item_rows
        values = np.full(tables.num_items, -np.inf, np.float32)
        values[table.row(item)] = tables.item_item[2][table.indptr[item] : table.indptr[item + 1]]
        return [(other, value) for other, value in _best(values, item, count) if value > 0]

    def reading(self, item: int) -> Json:
        """An explanation of the item for a reader who looks for nothing else than what its texts say.

        Interest: the item's own vector (cosine form), all aspects alike (ratio form). So words are marked
        that set its texts apart from those of an average item.
        """
        trained = self.explainer.trained
        model, items = trained.model, trained.item_tables.item
        query = model.form.item_query(torch.from_numpy(items[item]), model.temperature(), model.aspects)
        reader = UserRows.new_user("reader", query, np.zeros(0, np.int64))
        other = trained.without(popularity=True, collaboration=True).with_users(reader)
        return self.explainer.for_users(other).explain(0, item, np.zeros(0, np.int32))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _best(values: NDArray[np.float32], without: int, count: int) -> list[tuple[int, float]]:
    order = np.argsort(-values, kind="stable")
    return [(int(item), float(values[item])) for item in order[: count + 1] if item != without][:count]
