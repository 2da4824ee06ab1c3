"""Why this item: every word's own term of the score, and what the score would be without the word.

    score = user + popularity + words everywhere + Σ words + collaboration

A word's `contribution` is its own term, less what a word of an average item gets; its `effect` is the score
with it less the score without it, in closed form (norms and mentions of the rest change too). Neither says
what re-encoding the text without the word would give. All sums are float64.
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
    interest_by_item,
    interest_by_word,
    is_weighted_sum,
)
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.item_texts import ItemTexts
from llmdirect.ranking.top_k import rank
from llmdirect.runs.inputs import open_run_dataset, open_run_store
from llmdirect.runs.trained import Trained


@dataclass(frozen=True, eq=False)
class Explainer:
    """A run together with the texts and token embeddings that it was trained on."""

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
        return cls(trained, ItemTexts(trained, opened, store))

    def for_users(self, trained: Trained) -> "Explainer":
        """The same texts for other users of the run, or with other interests."""
        return replace(self, trained=trained)

    def result(self, entries: list[Json]) -> Json:
        """The explanations with what they come from: what `explain` returns, and the views show."""
        manifest = self.trained.run.manifest
        return {
            "explanations": entries,
            "model": {**manifest["config"]["model"], "encoder": manifest["store"]["encoder"].get("id")},
            "dataset": str(self.texts.dataset.path),
        }

    def candidates(self, user: int) -> NDArray[np.int32]:
        """Items that the user has not seen in train, best first."""
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
        """One explanation; `candidates` as the method of this name gives them, where they are known already.

        user_id, item_id, title; rank among the user's candidates (from 1; None for an item seen in train),
        num_candidates; score and its `terms` (they add up to it); `lead` over the user's median candidate;
        `aspects`; `passages` with their words; `history`, from which the interest was read; `collaboration`,
        what each item that the user has adds to the term of that name. history_words: read also what is said
        of each item of the history, and give each word its share.
        """
        trained = self.trained
        ids, titles = trained.item_ids, trained.titles
        candidates = self.candidates(user) if candidates is None else candidates
        place = np.flatnonzero(candidates == item)
        terms = self._terms(user, item)
        text = self.texts.read(item)
        contributions, aspects = self.contributions(user, text)
        effects, passage_effects = text.effects(self.query(user), self.trained.model)
        if not np.isclose(contributions.sum(), terms["words"], rtol=1e-5, atol=1e-5):
            raise DataError(
                f"{trained.run.path}: the words of item {ids[item]} add up to {contributions.sum():.6f}, the "
                f"score has {terms['words']:.6f} from words; the run is damaged, train it again"
            )
        return {
            "user_id": trained.users.ids[user],
            "item_id": ids[item],
            "title": titles[item],
            "rank": int(place[0]) + 1 if len(place) else None,
            "num_candidates": len(candidates),
            "score": sum(terms.values()),
            "terms": terms,
            "lead": self._lead(user, terms, int(candidates[len(candidates) // 2]))
            if len(candidates)
            else None,
            "aspects": self._aspects(aspects),
            "passages": self._passages(item, text, contributions, aspects, effects, passage_effects),
            "history": self._history(user, item, history_words),
            "collaboration": collaboration_by_item(trained, user, item),
        }

    def _item(self, item: int) -> Tensor:
        """float64 [K] its vector as ranking reads it."""
        return torch.from_numpy(np.asarray(self.trained.tables.item[item], np.float64))

    def query(self, user: int) -> Tensor:
        """float64 [K or A]; in the cosine form the temperature is in it."""
        return torch.from_numpy(np.asarray(self.trained.tables.query[user], np.float64))

    def text_of(self, user: int, item: int) -> Tensor:
        """float64 [A]: the text term of an item, by aspect."""
        model, tables = self.trained.model, self.trained.tables
        mentions = None
        if tables.item_mentions is not None:
            mentions = torch.from_numpy(np.asarray(tables.item_mentions[item], np.float64))
        return model.form.item_products(self.query(user), self._item(item), mentions, model.aspects)

    def _average_text(self, user: int) -> Tensor:
        """float64 [A]: the mean of the items' text terms, by aspect."""
        return self.texts.mean_products(self.query(user))

    def _terms(self, user: int, item: int) -> dict[str, float]:
        """The parts of a score; they add up to it."""
        tables = self.trained.tables
        has_text = bool((self._item(item) != 0).any())
        everywhere = float(self._average_text(user).sum()) if has_text else 0.0
        pair = np.array([user], np.int32), np.array([item], np.int32)
        return {
            "user": 0.0 if tables.user_bias is None else float(tables.user_bias[user]),
            "popularity": float(tables.item_bias[item]),
            "words_everywhere": everywhere,
            "words": float(self.text_of(user, item).sum()) - everywhere,
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
        """[W] contributions; [W, A] the same by aspect. Centred on the catalogue, each adds up to `words`."""
        average = self._average_text(user)
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
        """Each passage with its words, the one that adds most first."""
        passages, rows = self.texts.dataset.passages, self.texts.passages_of(item)
        edits = self.trained.edits
        strongest = [edits.group(aspect)[0] for aspect in by_aspect.abs().argmax(1).tolist()]
        adds, changes, spans = contributions.tolist(), effects.tolist(), text.spans.tolist()
        found: list[Json] = []
        for number, row in enumerate(rows.tolist()):
            words = np.flatnonzero(text.passage.numpy() == number)
            whole = str(passages.text[row])
            rating = float(self.texts.ratings[row])
            author = int(passages.user_idx[row])
            found.append(
                {
                    "passage_idx": row,
                    "kind": KINDS[passages.kind[row]],
                    "user_id": self.texts.dataset.user_ids[author] if author >= 0 else None,
                    "rating": None if np.isnan(rating) else rating,
                    "text": whole,
                    "contribution": float(contributions[words].sum()),
                    "effect": float(passage_effects[number]) if len(words) else 0.0,
                    "words": [
                        {
                            "start": start,
                            "end": end,
                            "text": whole[start:end],
                            "contribution": adds[word],
                            "effect": changes[word],
                            "aspect": strongest[word],
                        }
                        for word in words.tolist()
                        for start, end in [spans[word]]
                    ],
                }
            )
        return sorted(found, key=lambda passage: -passage["contribution"])

    def _history(self, user: int, item: int, words: bool) -> list[Json]:
        """Items from which the interest was read; with their words, where asked and where they add up."""
        trained, model = self.trained, self.texts.model
        entries = interest_by_item(trained, model, user, item)
        for entry in entries:
            entry |= {"words": None, "own": None}
            if words and is_weighted_sum(model) and entry["item_id"] is not None:
                source = trained.item_ids.index(entry["item_id"])
                rows = self.texts.passages_of(source)
                read = self.texts.read_passages(rows)
                entry["words"], entry["own"] = interest_by_word(
                    trained, model, self.texts.dataset, user, item, source, read, rows.tolist()
                )
        return entries
