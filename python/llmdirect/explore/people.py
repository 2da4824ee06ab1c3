"""Users and new users of the pages, with changed interests, and their rankings."""

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
from llmdirect.encoding.encoders import PassageEncoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.wording import PARTS
from llmdirect.runs.aspect_edits import MAX_FACTOR
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained

TERMS = ("popularity", "collaboration")
"""Terms that can be excluded from the score."""
MAX_TEXT = 20_000
"""Characters that a text of a new user may have; reading it takes a CPU some seconds."""
_SAMPLE = 2_000
_GUESTS = 256


def whole_number(name: str, value: str) -> int:
    """Number of a field of a request: an aspect, say.

    Raises
    ------
    ValueError
        With the name of the field, for anything else.
    """
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise ValueError(f"{name}={value[:40]}: expected a whole number, 0 or above")
    return int(value)


@dataclass(frozen=True)
class WhatIf:
    """Changes of a user: factors of interests by aspect (other than 1), and excluded terms."""

    interests: Mapping[int, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, fields: list[tuple[str, str]]) -> "WhatIf":
        """Changes from query parameters such as a3=1.5, without=popularity.

        Raises
        ------
        ValueError
            For an unknown term, and a factor that is not a number from 0 to `MAX_FACTOR`.
        """
        interests, without = {}, set()
        for name, value in fields:
            if name == "without":
                if value not in TERMS:
                    raise ValueError(f"without={value}: expected {' or '.join(TERMS)}")
                without.add(value)
            elif name[:1] == "a" and name[1:].isdecimal():
                aspect = whole_number("a", name[1:])
                try:
                    factor = float(value)
                except ValueError:
                    raise ValueError(f"{name}={value[:40]}: expected a number, such as 1.5") from None
                if not 0 <= factor <= MAX_FACTOR:
                    raise ValueError(f"{name}={value[:40]}: a factor is 0 or above, {MAX_FACTOR} at most")
                interests[aspect] = factor
        changed = {aspect: factor for aspect, factor in sorted(interests.items()) if factor != 1}
        return cls(changed, tuple(sorted(without)))

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Query parameters that `from_fields` reads."""
        factors = [(f"a{aspect}", f"{factor:g}") for aspect, factor in self.interests.items()]
        return factors + [("without", term) for term in self.without]

    def applied(self, trained: Trained) -> Trained:
        """The run with one user, as if."""
        changed = trained.with_interests(0, self.interests) if self.interests else trained
        if not self.without:
            return changed
        flags = {term: term in self.without for term in TERMS}
        return changed.without(**flags)


@dataclass(frozen=True, eq=False)
class Person:
    """A user of the dataset or a new user, as the only user of a run."""

    who: tuple[str, str]
    """Query parameter that identifies the user: ("user", ID) or ("guest", KEY)."""
    explainer: Explainer
    what_if: WhatIf
    plain: Trained
    """The run with this user, without changes."""

    @classmethod
    def from_run(
        cls, explainer: Explainer, plain: Trained, who: tuple[str, str], what_if: WhatIf
    ) -> "Person":
        """Person from a run with one user, `plain`, and changes."""
        return cls(who, explainer.for_users(what_if.applied(plain)), what_if, plain)

    @property
    def trained(self) -> Trained:
        """The run with this user and the changes."""
        return self.explainer.trained

    def address(self, page: str, *fields: tuple[str, str]) -> str:
        """URL of a page about this person, with the changes."""
        return f"{page}?{urlencode([self.who, *fields, *self.what_if.fields])}"

    @cached_property
    def order(self) -> NDArray[np.int32]:
        """int32 [candidates]: item indices, best first."""
        return _order(self.trained)

    @cached_property
    def order_before(self) -> NDArray[np.int32]:
        """The order without changes."""
        return self.order if self.what_if == WhatIf() else _order(self.plain)

    @cached_property
    def places_before(self) -> NDArray[np.int32]:
        """int32 [I]: position of each candidate in `order_before`, from 0; undefined for other items."""
        places = np.zeros(self.plain.tables.num_items, np.int32)
        places[self.order_before] = np.arange(len(self.order_before))
        return places

    def explain(self, item: int) -> Json:
        """Explanation of an item (`Explainer.explain`)."""
        return self.explainer.explain(0, item, self.order)

    def leads(self, items: NDArray[np.int32]) -> list[dict[str, float]]:
        """Lead of each item over the median candidate, by part."""
        if not len(self.order):
            return []
        tables = self.trained.tables
        with_median = np.append(items, self.order[len(self.order) // 2])
        users = np.zeros(len(with_median), np.int32)
        popularity = np.asarray(tables.item_bias[with_median], np.float64)
        collaboration = tables.score_collaborative_pairs(users, with_median)
        words = tables.score_pairs(users, with_median) - popularity - collaboration
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
    """The last 256 new users, kept in memory."""

    trained: Trained
    encoder: Callable[[], PassageEncoder]
    kept: OrderedDict[str, Trained] = field(default_factory=OrderedDict)

    def add(self, text: str, items: list[int]) -> str:
        """Add a new user with a text, items (newest first), or both.

        Returns
        -------
        str
            Key of the user.

        Raises
        ------
        ValueError
            If the input is empty, too long or unusable by the model, with a message for the user.
        """
        text = text.strip()
        if len(text) > MAX_TEXT:
            raise ValueError(f"your text has {len(text):,} characters, {MAX_TEXT:,} at most; shorten it")
        if text and not any(map(str.isalnum, text)):
            raise ValueError("your text has no words; write what you look for, or what you liked and why")
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
        """The run with the new user of this key; MissingError if there is none."""
        try:
            return self.kept[key]
        except KeyError:
            raise MissingError(
                "the server no longer has the text or items of this page, since it was restarted or has had "
                "many new users; write it once more"
            ) from None
