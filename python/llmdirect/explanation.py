"""Why this item: every word's own term of the score, and what the score would be without the word.

    score = user + popularity + words everywhere + Σ words + collaboration

A word's `contribution` is its own term, less what a word of an average item gets; its `effect` is the score
with it less the score without it, in closed form (norms and mentions of the rest change too). Neither says
what re-encoding the text without the word would give. All sums are float64.
"""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect._core import passage_keys
from llmdirect.artefacts import Json
from llmdirect.content import word_spans, words_of_tokens
from llmdirect.dataset import KINDS, TRAIN, Dataset
from llmdirect.errors import DataError, MismatchError
from llmdirect.model import EPS, Direct, attention, unit
from llmdirect.progress import SILENT, Progress
from llmdirect.ranking import rank
from llmdirect.store import EmbeddingStore
from llmdirect.trained import Trained

_KEPT = 256
"""Documents kept as they were read: their words are the same for every user."""


def explain(
    run: Path | str,
    user_id: str,
    item_ids: list[str] | None = None,
    *,
    k: int = 3,
    dataset: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Explains the score of `item_ids` for a user, or of the user's `k` best items.

    dataset: where the run's dataset lies now, if it was moved.
    Returns {"explanations": […], "model": …, "dataset": …}; `Explainer.explain` documents an entry.
    Raises MissingError for an unknown user or item, MismatchError where dataset or store have changed.
    """
    explainer = Explainer.open(run, dataset)
    user = explainer.trained.user_idx(user_id)
    if item_ids is None:
        items = explainer.candidates(user)[:k].tolist()
    else:
        items = [explainer.trained.item_idx(item_id) for item_id in item_ids]
    entries = []
    with progress.task("Explaining", len(items), "items") as task:
        for item in items:
            entries.append(explainer.explain(user, item))
            task.advance()
    return explainer.result(entries)


@dataclass(frozen=True, eq=False)
class _Text:
    """An item's document word by word, in float64. W words, K = A * C, R passages."""

    said: Tensor
    """[W, K] Σ of a word's tokens of s_t m_t, each token with its weight."""
    mass: Tensor
    """[W, A] the same of m_t."""
    share: Tensor
    """[W] share of the document's weight that the word has; adds up to 1."""
    passage: Tensor
    """int64 [W] number of the passage the word stands in."""
    remaining: Tensor
    """[W] growth of the passage's other words when this one is gone; 1 where each token has a vote."""
    spans: NDArray[np.int64]
    """[W, 2] characters of the passage."""


@dataclass(frozen=True, eq=False)
class Explainer:
    """A run together with the texts and token embeddings that it was trained on."""

    trained: Trained
    dataset: Dataset
    store: EmbeddingStore

    @classmethod
    def open(cls, run: Path | str, dataset: Path | str | None = None) -> "Explainer":
        """Opens what the run names. MismatchError where one of them is not what the run was trained on."""
        trained = Trained.load(run)
        manifest = trained.run.manifest
        found = Dataset.open(dataset or manifest["dataset"]["path"])
        trained.check_dataset(found)
        place = Path(manifest["store"]["path"])
        moved = found.path / "stores" / place.name
        store = EmbeddingStore.open(moved if dataset is not None and moved.exists() else place)
        if store.hash != manifest["store"]["hash"]:
            raise MismatchError(
                f"{store.path}: is not the store that {trained.run.path} was trained on; "
                "run `llmdirect train` again"
            )
        return cls(trained, found, store)

    def about(self, trained: Trained) -> "Explainer":
        """The same texts for other users of the run, or other interests; what was read is shared."""
        other = replace(self, trained=trained)
        for name in ("_model", "_average_item", "_documents", "_ratings"):
            other.__dict__[name] = getattr(self, name)
        return other

    def result(self, entries: list[Json]) -> Json:
        """The explanations with what they come from: what `explain` returns, and the views show."""
        manifest = self.trained.run.manifest
        return {
            "explanations": entries,
            "model": {**manifest["config"]["model"], "encoder": manifest["store"]["encoder"].get("id")},
            "dataset": str(self.dataset.path),
        }

    def candidates(self, user: int) -> NDArray[np.int32]:
        """Items that the user has not seen in train, best first."""
        lists = rank(self.trained.scorer, [user], k=self.trained.scorer.num_items, seen=self.trained.seen)
        items: NDArray[np.int32] = lists.items[0]
        return items[items >= 0]

    def explain(self, user: int, item: int, candidates: NDArray[np.int32] | None = None) -> Json:
        """One explanation; `candidates` as the method of this name gives them, where they are known already.

        user_id, item_id, title; rank among the user's candidates (from 1; None for an item seen in train),
        num_candidates; score and its `terms` (they add up to it); `lead` over the user's median candidate;
        `aspects`; `passages` with their words; `history`, from which the interest was read.
        """
        trained = self.trained
        ids, titles = trained.item_ids, trained.titles
        candidates = self.candidates(user) if candidates is None else candidates
        place = np.flatnonzero(candidates == item)
        terms = self._terms(user, item)
        text = self._read(item)
        contributions, aspects = self._contributions(user, item, text)
        effects, passage_effects = self._effects(user, text)
        if not np.isclose(contributions.sum(), terms["words"], rtol=1e-5, atol=1e-5):
            raise DataError(
                f"{trained.run.path}: the words of item {ids[item]} add up to {contributions.sum():.6f}, the "
                f"score has {terms['words']:.6f} from words; the run is damaged, train it again"
            )
        return {
            "user_id": trained.user_ids[user],
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
            "history": self._history(user, item),
        }

    @cached_property
    def _model(self) -> Direct:
        return copy.deepcopy(self.trained.model).double()

    @cached_property
    def _average_item(self) -> Tensor:
        """float64 [K] mean of the item vectors."""
        return torch.from_numpy(np.mean(self.trained.scorer.item, 0, dtype=np.float64))

    @cached_property
    def _documents(self) -> dict[int, "_Text"]:
        """Documents that were read, the oldest first."""
        return {}

    @cached_property
    def _ratings(self) -> dict[int, float]:
        """Rating of the review in each row of the passages; NaN where it has none."""
        rows = self.dataset.interactions
        return dict(zip(rows.passage_idx.tolist(), rows.rating.tolist(), strict=True))

    def _item(self, item: int) -> Tensor:
        """float64 [K] its vector as ranking reads it."""
        return torch.from_numpy(np.asarray(self.trained.scorer.item[item], np.float64))

    def _query(self, user: int) -> Tensor:
        """float64 [K or A]; in the cosine form the temperature is in it."""
        return torch.from_numpy(np.asarray(self.trained.scorer.query[user], np.float64))

    def _text_of(self, user: int, item: int) -> Tensor:
        """float64 [A]: the text term of an item, by aspect."""
        query, scorer = self._query(user), self.trained.scorer
        products = (self._item(item) * query).view(self.trained.model.aspects, -1).sum(1)
        if scorer.form == "ratio":
            mass = torch.from_numpy(np.asarray(scorer.item_mass[item], np.float64))
            products = products / (mass @ query + EPS)
        return products

    def _average_text(self, user: int) -> Tensor:
        """float64 [A]: the mean of the items' text terms, by aspect."""
        query, scorer, aspects = self._query(user), self.trained.scorer, self.trained.model.aspects
        if scorer.form == "dot":
            return (self._average_item * query).view(aspects, -1).sum(1)
        items, masses = (torch.from_numpy(table).double() for table in (scorer.item, scorer.item_mass))
        products = (items * query).view(len(items), aspects, -1).sum(2)
        return (products / (masses @ query + EPS)[:, None]).mean(0)

    def _terms(self, user: int, item: int) -> dict[str, float]:
        """The parts of a score; they add up to it."""
        scorer = self.trained.scorer
        has_text = bool((self._item(item) != 0).any())
        everywhere = float(self._average_text(user).sum()) if has_text else 0.0
        pair = np.array([user], np.int32), np.array([item], np.int32)
        return {
            "user": 0.0 if scorer.user_bias is None else float(scorer.user_bias[user]),
            "popularity": float(scorer.item_bias[item]),
            "words_everywhere": everywhere,
            "words": float(self._text_of(user, item).sum()) - everywhere,
            "collaboration": float(scorer.collaborative_of_pairs(*pair)[0]),
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

    def _passages_of(self, item: int) -> NDArray[np.int64]:
        """Rows of the dataset's passages that make the item's document."""
        passages = self.dataset.passages
        return np.flatnonzero((passages.item_idx == item) & (passages.split == TRAIN))

    def _read(self, item: int) -> _Text:
        """An item's document word by word; the last ones read are kept."""
        if item not in self._documents:
            if len(self._documents) >= _KEPT:
                del self._documents[next(iter(self._documents))]
            self._documents[item] = self._sum_by_word(item)
        return self._documents[item]

    def _sum_by_word(self, item: int) -> _Text:
        """Reads the tokens of an item's document and sums them by word."""
        model, store = self._model, self.store
        rows = self._passages_of(item)
        texts = self.dataset.passages.text.gather(rows).to_list()
        said, mass, share, owner, scale, spans = [], [], [], [], [], []
        for number, (text, stored) in enumerate(
            zip(texts, store.lookup(passage_keys(texts)).tolist(), strict=True)
        ):
            token_spans, tokens = store.read(stored)
            tokens = self.trained.lexicon.beside(tokens, text, token_spans)
            words = word_spans(text)
            word = words_of_tokens(token_spans, words)
            kept = word >= 0
            used, word = np.unique(word[kept], return_inverse=True)
            if not len(used):
                continue
            terms, mentions = model.token_terms(model.standard(torch.from_numpy(tokens[kept]).double()))
            counts = torch.bincount(torch.from_numpy(word), minlength=len(used)).double()
            weight = 1 / counts.sum() if model.config.vote else 1.0
            index = torch.from_numpy(word)
            said.append(torch.zeros(len(used), terms.shape[1]).double().index_add_(0, index, terms) * weight)
            mass.append(
                torch.zeros(len(used), mentions.shape[1]).double().index_add_(0, index, mentions) * weight
            )
            share.append(counts * weight)
            owner.append(torch.full((len(used),), number))
            left = counts.sum() - counts
            grown = torch.where(left > 0, counts.sum() / left.clamp(min=1), 0.0)
            scale.append(grown if model.config.vote else torch.ones_like(counts))
            spans.append(words[used])
        if not said:
            empty = torch.zeros(0, dtype=torch.float64)
            width = model.aspects * model.channels
            return _Text(
                empty.view(0, width),
                empty.view(0, model.aspects),
                empty,
                empty.long(),
                empty,
                np.zeros((0, 2), np.int64),
            )
        whole = torch.cat(share)
        return _Text(
            torch.cat(said),
            torch.cat(mass),
            whole / whole.sum(),
            torch.cat(owner),
            torch.cat(scale),
            np.concatenate(spans),
        )

    def _text_term(self, query: Tensor, said: Tensor, mass: Tensor) -> Tensor:
        """float64 […]: the text term of documents with these sums."""
        if self.trained.model.config.form == "cosine":
            return unit(said) @ query
        return (said @ query) / (mass @ query + EPS)

    def _contributions(self, user: int, item: int, text: _Text) -> tuple[NDArray[np.float64], Tensor]:
        """[W] contributions; [W, A] the same by aspect. Centred on the catalogue, each adds up to `words`."""
        query, model = self._query(user), self.trained.model
        products = (text.said * query).view(len(text.said), model.aspects, model.channels).sum(2)
        if model.config.form == "cosine":
            products = products / text.said.sum(0).norm().clamp(min=1e-12)
        else:
            products = products / (text.mass.sum(0) @ query + EPS)
        average = self._average_text(user)
        by_aspect = products - text.share[:, None] * average
        return by_aspect.sum(1).numpy(), by_aspect

    def _effects(self, user: int, text: _Text) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[W] the score less the score without the word; [R] the same for whole passages."""
        query = self._query(user)
        said, mass = text.said.sum(0), text.mass.sum(0)
        now = self._text_term(query, said, mass)
        count = int(text.passage.max()) + 1 if len(text.passage) else 0
        passage_said = torch.zeros(count, text.said.shape[1]).double().index_add_(0, text.passage, text.said)
        passage_mass = torch.zeros(count, text.mass.shape[1]).double().index_add_(0, text.passage, text.mass)
        # Exactly nothing is left without the only passage, not a rounding residue.
        several = float(bool((text.passage != text.passage[:1]).any()))
        others_said, others_mass = (said - passage_said) * several, (mass - passage_mass) * several
        rest_said = (passage_said[text.passage] - text.said) * text.remaining[:, None]
        rest_mass = (passage_mass[text.passage] - text.mass) * text.remaining[:, None]
        without_word = self._text_term(
            query, others_said[text.passage] + rest_said, others_mass[text.passage] + rest_mass
        )
        without_passage = self._text_term(query, others_said, others_mass)
        return (now - without_word).numpy(), (now - without_passage).numpy()

    def _aspects(self, by_aspect: Tensor) -> list[Json]:
        names = self.trained.aspect_names
        sums = self.trained.edits.combined(by_aspect.sum(0).tolist())
        order = sorted(sums, key=lambda aspect: -abs(sums[aspect]))
        return [{"aspect": aspect, "name": names[aspect], "contribution": sums[aspect]} for aspect in order]

    def _passages(
        self,
        item: int,
        text: _Text,
        contributions: NDArray[np.float64],
        by_aspect: Tensor,
        effects: NDArray[np.float64],
        passage_effects: NDArray[np.float64],
    ) -> list[Json]:
        """Each passage with its words, the one that adds most first."""
        passages, rows = self.dataset.passages, self._passages_of(item)
        edits = self.trained.edits
        strongest = [edits.group(aspect)[0] for aspect in by_aspect.abs().argmax(1).tolist()]
        found: list[Json] = []
        for number, row in enumerate(rows.tolist()):
            words = np.flatnonzero(text.passage.numpy() == number)
            whole = str(passages.text[row])
            rating = self._ratings.get(row, float("nan"))
            author = int(passages.user_idx[row])
            found.append(
                {
                    "passage_idx": row,
                    "kind": KINDS[passages.kind[row]],
                    "user_id": self.dataset.user_ids[author] if author >= 0 else None,
                    "rating": None if np.isnan(rating) else rating,
                    "text": whole,
                    "contribution": float(contributions[words].sum()),
                    "effect": float(passage_effects[number]) if len(words) else 0.0,
                    "words": [
                        {
                            "start": int(start),
                            "end": int(end),
                            "text": whole[start:end],
                            "contribution": float(contributions[word]),
                            "effect": float(effects[word]),
                            "aspect": strongest[word],
                        }
                        for word, (start, end) in zip(words.tolist(), text.spans[words].tolist(), strict=True)
                    ],
                }
            )
        return sorted(found, key=lambda passage: -passage["contribution"])

    def _history(self, user: int, item: int) -> list[Json]:
        """The items, and texts of somebody new, from which the interest was read: their share of attention.

        Where the interest is nothing but their weighted sum (cosine form, history alone), also how much of
        the text term each of them brings.
        """
        trained, model = self.trained, self.trained.model
        if model.config.user == "text":
            return []
        recent = trained.recent.row(user)
        vectors = trained.profile[torch.from_numpy(recent.copy()).long()].double()
        sources: list[tuple[str | None, str | None]] = [
            (trained.item_ids[item], trained.titles[item]) for item in recent.tolist()
        ]
        if trained.written is not None and model.config.user == "history":
            texts, written = trained.written
            vectors = torch.cat([vectors, written.double()])
            sources += [(None, text) for text in texts]
        if not sources:
            return []
        everyone = torch.ones(1, len(sources), dtype=torch.bool)
        weights = attention(self._model.user.history_query, vectors[None], everyone)[0]
        exact = model.config.form == "cosine" and model.config.user == "history"
        parts: list[float | None] = [None] * len(sources)
        if exact:
            factors = torch.from_numpy(trained.factors(user)).repeat_interleave(model.channels)
            weighted = weights[:, None] * vectors
            scale = model.temperature().double() / weighted.sum(0).norm().clamp(min=1e-12)
            parts = list((weighted @ (factors * unit(self._item(item))) * scale).tolist())
        entries: list[dict[str, Any]] = [
            {
                "item_id": item_id,
                "title": title,
                "weight": weight,
                "contribution": part,
            }
            for (item_id, title), weight, part in zip(sources, weights.tolist(), parts, strict=True)
        ]
        return sorted(entries, key=lambda entry: -entry["weight"])
