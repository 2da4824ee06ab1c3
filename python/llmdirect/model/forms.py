"""Score forms: how preference P, mentions Q and a user's interests make the text term of the score.

Axes: B batch, I items, D embedding, A aspects, C channels, K = A * C, M mention space.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from llmdirect.config import PROJECTION, ModelConfig
from llmdirect.model.vectors import normalize
from llmdirect.ranking.scorer import EPS

_Source = TypeVar("_Source")


class ScoreForm(ABC):
    """Base class of the score forms: everything in which cosine and ratio differ.

    During training a form is given the sums P and Q and the temperature (1 / tau). The exported query of the
    cosine form has the temperature in it, and exported items of the cosine form are unit vectors: `divisor`
    is for sums P and Q, `item_products` for the exported tables.
    """

    kernel: ClassVar[Literal["dot", "ratio"]]
    """Kernel of the exported score tables."""
    unit_vectors: ClassVar[bool]
    """Whether items are unit vectors, whose cosines do not change under a rotation of all channels."""
    additive_interests: ClassVar[bool]
    """Whether the query of a user without texts is, up to its length, a weighted sum of the profiles read."""
    profiles_in_mention_space: ClassVar[bool]
    """Whether users are read in mention space, so that pooled text trains the mention projection."""

    @abstractmethod
    def user_width(self, width: int) -> int:
        """Size of profiles and user vectors; width: K."""

    @abstractmethod
    def interest_norm(self, aspects: int, batch_norm: bool) -> nn.Module | None:
        """Normalisation layer of the interests; None where the form has none."""

    @abstractmethod
    def interests(self, user: Tensor, aspect: Tensor, norm: nn.Module | None) -> Tensor:
        """Query of each user: unit vectors [B, K] (cosine), interests in (0, 1) [B, A] (ratio).

        Parameters
        ----------
        user
            [B, K] or [B, M], as `user_width` says.
        aspect
            [A, M] aspect embeddings without the background.
        norm
            What `interest_norm` returned.
        """

    @abstractmethod
    def profile_source(self, terms: _Source, text: _Source) -> _Source:
        """The one of the two that profiles are made of: terms (P and Q), or embeddings and their weight."""

    @abstractmethod
    def profile(self, sums: Tensor, weight: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        """Vectors that interests are read from, [..., K] (cosine) or [..., M] (ratio).

        Parameters
        ----------
        sums
            [..., K] P or [..., D] weighted sums of token embeddings, as `profile_source` says.
        weight
            [..., A] Q or [...] weight of the tokens in each sum.
        project
            Maps embeddings [..., D] to mention space [..., M].
        """

    @abstractmethod
    def item_profiles(
        self, items: Tensor, text: Callable[[], tuple[Tensor, Tensor]], project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`profile` of all items, shared with the item vectors [I, K] where it is the same."""

    @abstractmethod
    def item_vectors(self, preference: Tensor) -> Tensor:
        """Item vectors [I, K] of the score tables, computed from the preferences P [I, K]."""

    @abstractmethod
    def score_catalogue(self, query: Tensor, items: Tensor, mentions: Tensor, temperature: Tensor) -> Tensor:
        """Text term [B, I] of queries [B, K or A] with item vectors [I, K] and mentions Q [I, A]."""

    @abstractmethod
    def score_documents(
        self, query: Tensor, preference: Tensor, mentions: Tensor, temperature: Tensor
    ) -> Tensor:
        """Text term [B] of query b with the document of sums P [B, K] and Q [B, A]."""

    @abstractmethod
    def export_query(self, query: Tensor, temperature: Tensor) -> Tensor:
        """Queries as score tables keep them."""

    @abstractmethod
    def export_mentions(self, mentions: Tensor) -> Tensor | None:
        """Mentions [I, A] as score tables keep them; None where the kernel takes none."""

    @abstractmethod
    def divisor(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        """[...] what P·q is divided by in the text term of sums P [..., K] and Q [..., A]."""

    def text_term(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        """Text term [...] of an exported query [K or A] with documents of sums P [..., K] and Q [..., A]."""
        return (preference @ query) / self.divisor(query, preference, mentions)

    @abstractmethod
    def item_products(self, query: Tensor, item: Tensor, mentions: Tensor | None, aspects: int) -> Tensor:
        """Text term by aspect [..., A] of an exported query and exported item vectors [..., K].

        mentions: exported mentions [..., A], None where the form exports none.
        """

    @abstractmethod
    def mean_products(
        self, items: Tensor, mentions: Tensor | None, aspects: int
    ) -> Callable[[Tensor], Tensor]:
        """Function of an exported query: mean over all items of `item_products`, float64 [A]."""

    @abstractmethod
    def review_score(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        """How favourable a single review is, from its sums P [K] and Q [A]; query: of its author."""

    @abstractmethod
    def item_query(self, item: Tensor, temperature: Tensor, aspects: int) -> Tensor:
        """Exported query [1, K or A] of a reader interested in what the item's texts are about, no more."""

    @abstractmethod
    def item_sizes(self, items: ArrayLike, mentions: ArrayLike | None, aspects: int) -> NDArray[np.float64]:
        """[I, A] size of each aspect in exported items: squared length (cosine), mentions (ratio)."""

    @abstractmethod
    def user_sizes(self, query: ArrayLike, aspects: int) -> NDArray[np.float64]:
        """[U, A] size of each aspect in exported queries: squared length (cosine), interest (ratio)."""


class CosineForm(ScoreForm):
    """Cosine of query and preference over a temperature: q·P / (|q| |P| tau)."""

    kernel = "dot"
    unit_vectors = True
    additive_interests = True
    profiles_in_mention_space = False

    def user_width(self, width: int) -> int:
        return width

    def interest_norm(self, aspects: int, batch_norm: bool) -> nn.Module | None:
        return None

    def interests(self, user: Tensor, aspect: Tensor, norm: nn.Module | None) -> Tensor:
        return normalize(user)

    def profile_source(self, terms: _Source, text: _Source) -> _Source:
        return terms

    def profile(self, sums: Tensor, weight: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        return normalize(sums)

    def item_profiles(
        self, items: Tensor, text: Callable[[], tuple[Tensor, Tensor]], project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return items

    def item_vectors(self, preference: Tensor) -> Tensor:
        return normalize(preference)

    def score_catalogue(self, query: Tensor, items: Tensor, mentions: Tensor, temperature: Tensor) -> Tensor:
        return temperature * (query @ items.T)

    def score_documents(
        self, query: Tensor, preference: Tensor, mentions: Tensor, temperature: Tensor
    ) -> Tensor:
        return temperature * (query * normalize(preference)).sum(-1)

    def export_query(self, query: Tensor, temperature: Tensor) -> Tensor:
        return query * temperature

    def export_mentions(self, mentions: Tensor) -> Tensor | None:
        return None

    def divisor(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        lengths: Tensor = preference.norm(dim=-1)
        return torch.where(lengths > 0, lengths, 1.0)

    def item_products(self, query: Tensor, item: Tensor, mentions: Tensor | None, aspects: int) -> Tensor:
        return aspect_products(query, item, aspects)

    def mean_products(
        self, items: Tensor, mentions: Tensor | None, aspects: int
    ) -> Callable[[Tensor], Tensor]:
        mean = items.mean(0, dtype=torch.float64)
        return lambda query: aspect_products(query, mean, aspects)

    def review_score(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        return self.text_term(query, preference, mentions)

    def item_query(self, item: Tensor, temperature: Tensor, aspects: int) -> Tensor:
        return item[None] * temperature

    def item_sizes(self, items: ArrayLike, mentions: ArrayLike | None, aspects: int) -> NDArray[np.float64]:
        return squared_lengths(items, aspects)

    def user_sizes(self, query: ArrayLike, aspects: int) -> NDArray[np.float64]:
        return squared_lengths(query, aspects)


class RatioForm(ScoreForm):
    """Interest-weighted mean of the sentiment: q·P / (q·Q + eps), interests in (0, 1); one channel."""

    kernel = "ratio"
    unit_vectors = False
    additive_interests = False
    profiles_in_mention_space = True

    def user_width(self, width: int) -> int:
        return PROJECTION

    def interest_norm(self, aspects: int, batch_norm: bool) -> nn.Module | None:
        return nn.BatchNorm1d(aspects) if batch_norm else nn.LayerNorm(aspects)

    def interests(self, user: Tensor, aspect: Tensor, norm: nn.Module | None) -> Tensor:
        assert norm is not None
        interests = user @ aspect.T
        if isinstance(norm, nn.BatchNorm1d) and len(interests) == 1:
            # One row has no statistics of its own: the running ones stand in, in training too.
            interests = F.batch_norm(
                interests, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        else:
            interests = norm(interests)
        return torch.sigmoid(interests)

    def profile_source(self, terms: _Source, text: _Source) -> _Source:
        return text

    def profile(self, sums: Tensor, weight: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        mean = (sums / weight.clamp(min=1)[..., None]).float()
        return project(mean) * (weight > 0)[..., None]

    def item_profiles(
        self, items: Tensor, text: Callable[[], tuple[Tensor, Tensor]], project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return self.profile(*text(), project)

    def item_vectors(self, preference: Tensor) -> Tensor:
        return preference

    def score_catalogue(self, query: Tensor, items: Tensor, mentions: Tensor, temperature: Tensor) -> Tensor:
        return query @ items.T / (query @ mentions.T + EPS)

    def score_documents(
        self, query: Tensor, preference: Tensor, mentions: Tensor, temperature: Tensor
    ) -> Tensor:
        return (query * preference).sum(-1) / ((query * mentions).sum(-1) + EPS)

    def export_query(self, query: Tensor, temperature: Tensor) -> Tensor:
        return query

    def export_mentions(self, mentions: Tensor) -> Tensor | None:
        return mentions.contiguous()

    def divisor(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        return mentions @ query + EPS

    def item_products(self, query: Tensor, item: Tensor, mentions: Tensor | None, aspects: int) -> Tensor:
        assert mentions is not None
        return aspect_products(query, item, aspects) / (mentions @ query + EPS)[..., None]

    def mean_products(
        self, items: Tensor, mentions: Tensor | None, aspects: int
    ) -> Callable[[Tensor], Tensor]:
        assert mentions is not None
        table = mentions  # float32: the float64 copies live as long as a call
        return lambda query: self.item_products(query, items.double(), table.double(), aspects).mean(0)

    def review_score(self, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
        return preference.sum() / mentions.sum()

    def item_query(self, item: Tensor, temperature: Tensor, aspects: int) -> Tensor:
        return torch.ones(1, aspects)

    def item_sizes(self, items: ArrayLike, mentions: ArrayLike | None, aspects: int) -> NDArray[np.float64]:
        return np.asarray(mentions, np.float64)

    def user_sizes(self, query: ArrayLike, aspects: int) -> NDArray[np.float64]:
        return np.asarray(query, np.float64)


_FORMS: dict[str, ScoreForm] = {"cosine": CosineForm(), "ratio": RatioForm()}


def score_form(config: ModelConfig) -> ScoreForm:
    """Score form of a model configuration: the one place that reads `score_form`."""
    return _FORMS[config.score_form]


def aspect_products(query: Tensor, vectors: Tensor, aspects: int) -> Tensor:
    """[..., A] products of a query [K] and vectors [..., K], summed over the channels of each aspect."""
    channels = vectors.shape[-1] // aspects
    return (vectors * query).reshape(*vectors.shape[:-1], aspects, channels).sum(-1)


def squared_lengths(vectors: ArrayLike, aspects: int) -> NDArray[np.float64]:
    """[n, A] squared length of each aspect's channels in vectors [n, K]."""
    rows = np.asarray(vectors, np.float64)
    sizes: NDArray[np.float64] = np.square(rows).reshape(len(rows), aspects, -1).sum(2)
    return sizes
