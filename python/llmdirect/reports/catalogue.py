"""Search and descriptions of the items, users and aspects of a run."""

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
from llmdirect.text.words import counted_words, is_function_word

_SAMPLE = 20_000
"""Passages in which words are counted: enough to find the common ones."""
_KEYWORDS = 3
_MAX_TEXTS, _MAX_CHARACTERS = 16, 1200
"""Texts of an item, and characters of a text, that are searched for keywords."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items, users and aspects of a run: search, keywords, counts, similar items.

    Parameters
    ----------
    explainer
        The opened run.
    """

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
        """Users or items whose id or title contains all words of the query.

        Parameters
        ----------
        what
            "users" or "items".
        query
            Words, in any case.
        limit
            Largest number of matches.

        Returns
        -------
        list of int
            Indices; names that start with the first word come first.
        """
        words = query.casefold().split()
        if not words:
            return []
        names = self._folded[what]
        matches = [index for index, name in enumerate(names) if all(word in name for word in words)]
        return sorted(matches, key=lambda index: not names[index].startswith(words[0]))[:limit]

    def name(self, item: int) -> str:
        """Title of an item, or its id."""
        trained = self.explainer.trained
        return trained.titles[item] or trained.item_ids[item]

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """int64 [I]: number of train interactions of each item."""
        trained = self.explainer.trained
        return np.bincount(trained.users.seen.indices, minlength=len(trained.item_ids))

    @cached_property
    def _document_frequency(self) -> tuple[Counter[str], int]:
        """Document frequency of words in a sample of passages, and the size of the sample."""
        rows = np.sort(self.explainer.texts.item_passages.indices)
        sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64))]
        counts: Counter[str] = Counter()
        for text in self.explainer.texts.dataset.passages.text.gather(sample).to_list():
            counts.update(_words(text))
        return counts, len(sample)

    @cached_property
    def _keywords(self) -> dict[int, list[str]]:
        return {}

    def keywords(self, item: int) -> list[str]:
        """At most three words with the highest TF-IDF over the texts of an item.

        Of an item with many texts the first 16 are read.
        """
        if item not in self._keywords:
            frequency, total = self._document_frequency
            rows = self.explainer.texts.item_passages.row(item)[:_MAX_TEXTS]
            texts = self.explainer.texts.dataset.passages.text.gather(rows).to_list()
            counts = Counter(word for text in texts for word in _words(text[:_MAX_CHARACTERS]))
            # A word of one text alone is often a misspelling.
            min_count = 2 if len(texts) > 2 else 1
            weight = {
                word: count * log((total + 1) / (frequency[word] + 0.5))
                for word, count in counts.items()
                if count >= min_count
            }
            selected: list[str] = []
            for word in sorted(weight, key=lambda word: (-weight[word], word)):
                if len(selected) == _KEYWORDS:
                    break
                if not is_function_word(word) and not any(word.startswith(other[:4]) for other in selected):
                    selected.append(word)
            self._keywords[item] = selected
        return self._keywords[item]

    def facts(self, item: int) -> Json:
        """Counts of an item.

        Returns
        -------
        dict
            "reviews" and "others": numbers of texts, "stars": mean rating or None, "positives": number of
            train interactions, "rank": rank by it, from 1.
        """
        dataset, rows = self.explainer.texts.dataset, self.explainer.texts.item_passages.row(item)
        reviews = rows[dataset.passages.kind[rows] == KINDS.index("review")]
        others = dataset.passages.text.gather(np.setdiff1d(rows, reviews))
        stars = self.explainer.texts.ratings[reviews]
        stars = stars[~np.isnan(stars)]
        return {
            "reviews": len(reviews),
            "others": int((others.str.strip_chars() != "").sum()),
            "stars": float(stars.mean()) if len(stars) else None,
            "positives": int(self.positives[item]),
            "rank": int((self.positives > self.positives[item]).sum()) + 1,
        }

    @cached_property
    def aspects(self) -> list[int]:
        """Visible aspects: the first of each merged group, without those that are switched off."""
        edits, count = self.explainer.trained.edits, self.explainer.trained.model.aspects
        factors = edits.factors(count)
        return [aspect for aspect in range(count) if edits.group(aspect)[0] == aspect and factors[aspect]]

    def short(self, aspect: int) -> str:
        """The first three words of an aspect's name."""
        return ", ".join(self.explainer.trained.aspect_names[aspect].split(", ")[:3])

    def _shares(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, A]: shares of the visible aspects from sizes [n, A]."""
        combined = self.explainer.trained.edits.combined(list(sizes.T))
        shown = np.zeros(sizes.shape)
        for aspect in self.aspects:
            shown[:, aspect] = combined[aspect]
        shares: NDArray[np.float64] = shown / np.maximum(shown.sum(1, keepdims=True), 1e-12)
        return shares

    @cached_property
    def item_shares(self) -> NDArray[np.float64]:
        """float64 [I, A]: share of each aspect in an item's texts; rows add up to 1, or are 0."""
        return self._shares(item_sizes(self.explainer.trained))

    @cached_property
    def user_shares(self) -> NDArray[np.float64]:
        """float64 [U, A]: share of each aspect in a user's interest; rows add up to 1, or are 0."""
        trained = self.explainer.trained
        return self._shares(user_sizes(trained, trained.tables.query))

    def similar(self, item: int, count: int) -> list[tuple[int, float]]:
        """Items with the most similar texts and their cosines; none in the ratio form."""
        tables = self.explainer.trained.tables
        if not self.explainer.texts.model.form.unit_vectors or not tables.item[item].any():
            return []
        return _best(tables.item @ tables.item[item], item, count)

    def related(self, item: int, count: int) -> list[tuple[int, float]]:
        """Items with the largest positive entries in the item's row of the item-item table."""
        tables = self.explainer.trained.tables
        if tables.item_item is None or tables.item_item_rows is None:
            return []
        table = tables.item_item_rows
        values = np.full(tables.num_items, -np.inf, np.float32)
        values[table.row(item)] = tables.item_item[2][table.indptr[item] : table.indptr[item + 1]]
        return [(other, value) for other, value in _best(values, item, count) if value > 0]

    def reading(self, item: int) -> Json:
        """Explanation of an item for a hypothetical user with the item's own interest.

        The interest is the item's vector (cosine form) or uniform (ratio form), so that words are marked that
        distinguish its texts from those of an average item.
        """
        trained = self.explainer.trained
        model, items = trained.model, trained.item_tables.item
        query = model.form.item_query(torch.from_numpy(items[item]), model.temperature(), model.aspects)
        reader = UserRows.new_user("reader", query, np.zeros(0, np.int64))
        other = trained.without(popularity=True, collaboration=True).with_users(reader)
        return self.explainer.for_users(other).explain(0, item, np.zeros(0, np.int32))


def _words(text: str) -> set[str]:
    """Words that may be keywords: without digits, of three letters where they are of the Latin alphabet."""
    words = (word for word in counted_words(text)[0] if len(word) >= 3 or not word.isascii())
    return {word for word in words if not any(letter.isdigit() or letter == "_" for letter in word)}


def _best(values: NDArray[np.float32], without: int, count: int) -> list[tuple[int, float]]:
    order = np.argsort(-values, kind="stable")
    return [(int(item), float(values[item])) for item in order[: count + 1] if item != without][:count]
