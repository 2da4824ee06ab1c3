"""Whose list it is, what if their interests were others, and the order that follows."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlencode

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.common.errors import MissingError
from llmdirect.common.types import Json
from llmdirect.encoding.encoders import Encoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.wording import PARTS
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained

TERMS = ("popularity", "collaboration")
"""What a list can be made without, beside the interests."""
_SAMPLE = 2_000
_GUESTS = 256


@dataclass(frozen=True)
class WhatIf:
    """Factors of interests by aspect (1 is left out), and terms that do not count."""

    interests: Mapping[int, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: list[tuple[str, str]]) -> "WhatIf":
        """From the fields of an address: a3=1.5, without=popularity. ValueError for what is none of these."""
        interests, without = {}, set()
        for name, value in fields:
            if name == "without":
                if value not in TERMS:
                    raise ValueError(f"without={value}: there are {' and '.join(TERMS)}")
                without.add(value)
            elif name[:1] == "a" and name[1:].isdecimal():
                try:
                    interests[int(name[1:])] = float(value)
                except ValueError:
                    raise ValueError(f"{name}={value}: expected a number, such as 1.5") from None
        changed = {aspect: factor for aspect, factor in sorted(interests.items()) if factor != 1}
        return cls(changed, tuple(sorted(without)))

    @property
    def fields(self) -> list[tuple[str, str]]:
        """What `read` reads."""
        moved = [(f"a{aspect}", f"{factor:g}") for aspect, factor in self.interests.items()]
        return moved + [("without", term) for term in self.without]

    def applied(self, trained: Trained) -> Trained:
        """The run with one user, as if."""
        changed = trained.with_interests(0, self.interests) if self.interests else trained
        if not self.without:
            return changed
        flags = {term: term in self.without for term in TERMS}
        return changed.without(**flags)


@dataclass(frozen=True, eq=False)
class Person:
    """A user of the dataset or somebody new, as the one user of a run."""

    who: tuple[str, str]
    """The field of an address that names them: ("user", ID) or ("guest", KEY)."""
    explainer: Explainer
    what_if: WhatIf
    plain: Trained
    """As the model has them, nothing changed."""

    @classmethod
    def from_run(
        cls, explainer: Explainer, plain: Trained, who: tuple[str, str], what_if: WhatIf
    ) -> "Person":
        """`plain`: a run with one user."""
        return cls(who, explainer.for_users(what_if.applied(plain)), what_if, plain)

    @property
    def trained(self) -> Trained:
        """The run with this one user, as if."""
        return self.explainer.trained

    def address(self, page: str, *fields: tuple[str, str]) -> str:
        """Of a page about this person, as if."""
        return f"{page}?{urlencode([self.who, *fields, *self.what_if.fields])}"

    @cached_property
    def order(self) -> NDArray[np.int32]:
        """Candidates, best first."""
        return _order(self.trained)

    @cached_property
    def order_before(self) -> NDArray[np.int32]:
        """The same if nothing were changed."""
        return self.order if self.what_if == WhatIf() else _order(self.plain)

    @cached_property
    def places_before(self) -> NDArray[np.int32]:
        """int32 [I]: place of each candidate in `order_before`, from 0; of other items nothing."""
        places = np.zeros(self.plain.tables.num_items, np.int32)
        places[self.order_before] = np.arange(len(self.order_before))
        return places

    def explain(self, item: int) -> Json:
        """As `Explainer.explain`."""
        return self.explainer.explain(0, item, self.order)

    def leads(self, items: NDArray[np.int32]) -> list[dict[str, float]]:
        """What sets each item apart from the median candidate, by part."""
        if not len(self.order):
            return []
        tables = self.trained.tables
        both = np.append(items, self.order[len(self.order) // 2])
        nobody = np.zeros(len(both), np.int32)
        popularity = np.asarray(tables.item_bias[both], np.float64)
        collaboration = tables.score_collaborative_pairs(nobody, both)
        words = tables.score_pairs(nobody, both) - popularity - collaboration
        values = np.stack([words, popularity, collaboration])
        values = values[:, :-1] - values[:, -1:]
        return [dict(zip(PARTS, column, strict=True)) for column in values.T.tolist()]

    def spread(self) -> dict[int, float]:
        """By aspect: standard deviation over the catalogue of what it adds to a score, nothing changed.

        How much of this person's order it decides. At most 2,000 items are looked at, evenly spread.
        """
        tables, model = self.plain.tables, self.plain.model
        chosen = np.unique(np.linspace(0, tables.num_items - 1, min(tables.num_items, _SAMPLE)).astype(int))
        query, items = torch.tensor(tables.query[0]), torch.tensor(tables.item[chosen])
        mentions = None if tables.item_mentions is None else torch.tensor(tables.item_mentions[chosen])
        products = model.form.item_products(query, items, mentions, model.aspects).numpy()
        combined = self.plain.edits.combined(list(products.T))
        return {aspect: float(np.std(values)) for aspect, values in combined.items()}


def _order(trained: Trained) -> NDArray[np.int32]:
    scores = trained.tables.score_user(0)
    unseen = np.ones(len(scores), np.bool_)
    unseen[trained.users.seen.row(0)] = False
    candidates = np.flatnonzero(unseen).astype(np.int32)
    order: NDArray[np.int32] = candidates[np.argsort(-scores[candidates], kind="stable")]
    return order


@dataclass(eq=False)
class Guests:
    """People who are not in the dataset; they live as long as the server, the last 256 of them."""

    trained: Trained
    encoder: Callable[[], Encoder]
    kept: OrderedDict[str, Trained] = field(default_factory=OrderedDict)

    def add(self, text: str, items: list[int]) -> str:
        """Key of somebody who wrote this text, or none, and has these items, newest first.

        Raises ValueError, in words for them, where nothing is known or the model reads texts alone.
        """
        text = text.strip()
        if text and not any(map(str.isalnum, text)):
            raise ValueError("your text holds no words; write what you look for, or what you liked and why")
        if not text and not items:
            raise ValueError("write a text, or pick an item you liked; one of them is needed")
        if not text and self.trained.model.config.user == "text":
            raise ValueError("this model reads interests from texts alone; write one")
        key = hashlib.blake2b(repr((text, items)).encode(), digest_size=8).hexdigest()
        if key not in self.kept:
            texts = [text] if text else []
            with torch.inference_mode():
                read = read_texts(self.trained, texts, self.encoder()) if texts else None
            while len(self.kept) >= _GUESTS:
                self.kept.popitem(last=False)
            self.kept[key] = new_user(self.trained, np.array(items, np.int64), read)
        return key

    def find(self, key: str) -> Trained:
        """MissingError where nobody has this key."""
        try:
            return self.kept[key]
        except KeyError:
            raise MissingError(
                "this page was made from a text or from items that the server no longer has, since it was "
                "started again; write it once more"
            ) from None
