"""Additive explanation of a score by words, with the closed-form effect of removing each word.

    score = user + popularity + words everywhere + Σ words + collaboration

A word's `contribution` is its own term minus that of a word of an average item; its `effect` is the score
with it minus the score without it, in closed form (norms and mentions of the rest change, too). Neither is
what encoding the text again without the word would give. All sums are float64.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.errors import DataError
from llmdirect.common.types import Json
from llmdirect.data.dataset import KINDS
from llmdirect.explanation.history import (
    collaboration_by_item,
    has_additive_interests,
    interest_by_item,
    interest_by_word,
)
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.item_texts import ItemTexts
from llmdirect.ranking.top_k import rank
from llmdirect.runs.inputs import open_run_dataset, open_run_store
from llmdirect.runs.trained import Trained
from llmdirect.store.lexical import is_lexical
from llmdirect.store.store import with_item_passages


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explanations of a run's scores from the texts that it was trained on."""

    trained: Trained
    texts: ItemTexts

    @classmethod
    def open(cls, run: Path | str, dataset: Path | str | None = None) -> "Explainer":
        """Open a run with its dataset and store.

        Parameters
        ----------
        dataset
            Present location of the dataset, where it was moved.

        Raises
        ------
        MismatchError
            If dataset or store are not those that the run was trained on.
        """
        trained = Trained.load(run)
        opened = open_run_dataset(trained.run, dataset)
        store = open_run_store(trained.run, None if dataset is None else opened.path)
        return cls(trained, ItemTexts(trained, with_item_passages(opened, store), store))

    def for_users(self, trained: Trained) -> "Explainer":
        """The same texts for other users of the run, or with other interests."""
        return replace(self, trained=trained)

    def result(self, entries: list[Json]) -> Json:
        """Explanations with their model and dataset, as `explain` returns them."""
        manifest = self.trained.run.manifest
        encoder = manifest["store"]["encoder"]
        vectors = {"vectors": encoder["vectors"]} if self.texts.has_whole_texts else {}
        if is_lexical(encoder):
            vectors = {"static": True}
        return {
            "explanations": entries,
            "model": {**manifest["config"]["model"], "encoder": encoder.get("id"), **vectors},
            "dataset": str(self.texts.dataset.path),
        }

    def details(self, item: int) -> Json:
        """Price and image address of an item, {"price", "image"}, those that the dataset has."""
        table = self.texts.dataset.item_details
        if table is None:
            return {}
        row = table.row(item, named=True)
        return {name: row[name] for name in ("price", "image") if row.get(name)}

    def candidates(self, user: int) -> NDArray[np.int32]:
        """Items int32 [n] that the user has not seen in train, best first."""
        lists = rank(
            self.trained.tables, [user], k=self.trained.tables.num_items, seen=self.trained.users.seen
        )
        items: NDArray[np.int32] = lists.items[0]
        return items[items >= 0]

    def explain(
        self,
        user: int,
        item: int,
        candidates: NDArray[np.int32] | None = None,
        history_words: bool = False,
    ) -> Json:
        """Explain the score of an item for a user.

        Parameters
        ----------
        candidates
            What the method of this name returned, to save its time.
        history_words
            Whether to attribute the score to the words about each item of the history, too.

        Returns
        -------
        explanation
            user_id, item_id, title; rank among the user's candidates (from 1; None for an item seen in
            train), num_candidates; score and its `terms`, which add up to it; `lead` over the user's median
            candidate; `aspects`; `passages` with their words; `history`, from which the interest was read;
            `collaboration`, contributions of the user's items to the term of that name.

        Raises
        ------
        DataError
            If the words do not add up to the score.
        """
        trained = self.trained
        ids, titles = trained.item_ids, trained.titles
        candidates = self.candidates(user) if candidates is None else candidates
        position = np.flatnonzero(candidates == item)
        terms = self._terms(user, item)
        text = self.texts.read(item)
        contributions, aspects = self.contributions(user, text)
        effects, passage_effects = text.effects(self.query(user), self.trained.model)
        if not np.isclose(contributions.sum(), terms["words"], rtol=1e-5, atol=1e-5):
            raise DataError(
                f"{trained.run.path}: the words of item {ids[item]} add up to {contributions.sum():.6f}, the "
                f"score has {terms['words']:.6f} from words; the run is damaged, train it again"
            )
        passages = self._passages(item, text, contributions, aspects, effects, passage_effects)
        if self.texts.store.keyed_by == "item" and len(text):
            passages = [self._as_item(item, passages, terms["words"] + terms["words_everywhere"])]
        return {
            "user_id": trained.users.ids[user],
            "item_id": ids[item],
            "title": titles[item],
            **({"details": details} if (details := self.details(item)) else {}),
            "rank": int(position[0]) + 1 if len(position) else None,
            "num_candidates": len(candidates),
            "score": sum(terms.values()),
            "terms": terms,
            "lead": self._lead(user, terms, int(candidates[len(candidates) // 2]))
            if len(candidates)
            else None,
            "aspects": self._aspects(aspects),
            "passages": passages,
            "history": self._history(user, item, history_words),
            "collaboration": collaboration_by_item(trained, user, item),
        }

    def _item_vector(self, item: int) -> Tensor:
        """float64 [K] exported item vector."""
        return torch.from_numpy(np.asarray(self.trained.tables.item[item], np.float64))

    def query(self, user: int) -> Tensor:
        """float64 [K or A] exported query of a user; in the cosine form the temperature is in it."""
        return torch.from_numpy(np.asarray(self.trained.tables.query[user], np.float64))

    def text_term_by_aspect(self, user: int, item: int) -> Tensor:
        """float64 [A] text term of an item by aspect."""
        model, tables = self.trained.model, self.trained.tables
        mentions = None
        if tables.item_mentions is not None:
            mentions = torch.from_numpy(np.asarray(tables.item_mentions[item], np.float64))
        return model.form.item_products(self.query(user), self._item_vector(item), mentions, model.aspects)

    def _terms(self, user: int, item: int) -> dict[str, float]:
        """Terms of a score, which add up to it."""
        tables = self.trained.tables
        has_text = bool((self._item_vector(item) != 0).any())
        everywhere = float(self.texts.mean_products(self.query(user)).sum()) if has_text else 0.0
        pair = np.array([user], np.int32), np.array([item], np.int32)
        return {
            "user": 0.0 if tables.user_bias is None else float(tables.user_bias[user]),
            "popularity": float(tables.item_bias[item]),
            "words_everywhere": everywhere,
            "words": float(self.text_term_by_aspect(user, item).sum()) - everywhere,
            "collaboration": float(tables.score_collaborative_pairs(*pair)[0]),
        }

    def _lead(self, user: int, terms: dict[str, float], median: int) -> Json:
        other = self._terms(user, median)
        words = terms["words"] + terms["words_everywhere"] - other["words"] - other["words_everywhere"]
        popularity = terms["popularity"] - other["popularity"]
        collaboration = terms["collaboration"] - other["collaboration"]
        return {
            "item_id": self.trained.item_ids[median],
            "total": words + popularity + collaboration,
            "words": words,
            "popularity": popularity,
            "collaboration": collaboration,
        }

    def contributions(self, user: int, text: ItemText) -> tuple[NDArray[np.float64], Tensor]:
        """Contributions of words float64 [W], and the same by aspect [W, A].

        Centred on the catalogue: they add up to the term `words`.
        """
        average = self.texts.mean_products(self.query(user))
        by_aspect = text.products(self.query(user), self.trained.model) - text.share[:, None] * average
        return by_aspect.sum(1).numpy(), by_aspect

    def _aspects(self, by_aspect: Tensor) -> list[Json]:
        names = self.trained.aspect_names
        sums = self.trained.edits.combined(by_aspect.sum(0).tolist())
        order = sorted(sums, key=lambda aspect: -abs(sums[aspect]))
        return [{"aspect": aspect, "name": names[aspect], "contribution": sums[aspect]} for aspect in order]

    def _passages(
        self,
        item: int,
        text: ItemText,
        contributions: NDArray[np.float64],
        by_aspect: Tensor,
        effects: Tensor,
        passage_effects: Tensor,
    ) -> list[Json]:
        """Passages with their words, the largest contribution first."""
        passages, rows = self.texts.dataset.passages, self.texts.passages_of(item)
        edits = self.trained.edits
        strongest = [edits.group(aspect)[0] for aspect in by_aspect.abs().argmax(1).tolist()]
        word_contributions, word_effects = contributions.tolist(), effects.tolist()
        spans, entries = text.spans.tolist(), list[Json]()
        for number, row in enumerate(rows.tolist()):
            words = np.flatnonzero(text.passage.numpy() == number)
            passage_text = str(passages.text[row])
            rating = float(self.texts.ratings[row])
            author = int(passages.user_idx[row])
            listed = [] if self.texts.has_whole_texts else words.tolist()
            entries.append(
                {
                    "passage_idx": row,
                    "kind": KINDS[passages.kind[row]],
                    "user_id": self.texts.dataset.user_ids[author] if author >= 0 else None,
                    "rating": None if np.isnan(rating) else rating,
                    "text": passage_text,
                    "contribution": float(contributions[words].sum()),
                    "effect": float(passage_effects[number]) if len(words) else 0.0,
                    "words": [
                        {
                            "start": start,
                            "end": end,
                            "text": passage_text[start:end],
                            "contribution": word_contributions[word],
                            "effect": word_effects[word],
                            "aspect": strongest[word],
                        }
                        for word in listed
                        for start, end in [spans[word]]
                    ],
                }
            )
        return sorted(entries, key=lambda passage: -passage["contribution"])

    def _as_item(self, item: int, entries: list[Json], effect: float) -> Json:
        """One entry for an item whose passages all have the vector of the item."""
        described = [entry for entry in entries if entry["kind"] == KINDS[1]]
        total = sum(entry["contribution"] for entry in entries)
        return {
            **(described or entries)[0],
            "kind": "item",
            "user_id": None,
            "rating": None,
            "text": described[0]["text"] if described else str(self.trained.titles[item] or ""),
            "contribution": total,
            "effect": effect,
        }

    def _history(self, user: int, item: int, words: bool) -> list[Json]:
        """Items from which the interest was read, with their words where they can be attributed."""
        trained, model = self.trained, self.texts.model
        entries = interest_by_item(trained, model, user, item)
        for entry in entries:
            entry |= {"words": None, "own": None}
            words = words and not self.texts.has_whole_texts
            if words and has_additive_interests(model) and entry["item_id"] is not None:
                source = trained.item_ids.index(entry["item_id"])
                entry["words"], entry["own"] = interest_by_word(trained, self.texts, user, item, source)
        return entries
