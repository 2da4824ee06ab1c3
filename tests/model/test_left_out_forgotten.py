"""Mutation tests: the comparison of `test_left_out` detects each omitted leave-one-out correction."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from left_out_world import TOLERANCE, World, build, config
from llmdirect.collaborative.ease import Ease
from llmdirect.collaborative.random_walk import RandomWalkTerm
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.config import HISTORY
from llmdirect.model.direct import Direct
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.slots import Slots
from llmdirect.model.token_tables import PooledTable, TokenTable
from model_helpers import (
    random_model,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world") / "store")


Patch = Callable[[pytest.MonkeyPatch], None]


def forget(owner: type, name: str, broken: Callable[..., Any]) -> Patch:
    """Replace a method by `broken`, which takes the original as first argument."""
    original = getattr(owner, name)

    def replacement(*args: Any, **more: Any) -> Any:
        return broken(original, *args, **more)

    return lambda patch: patch.setattr(owner, name, replacement)


def keep_the_passage(original: Any, self: Any, items: Tensor, passages: Tensor) -> Any:
    return original(self, items, torch.full_like(passages, -1))


def in_float32(original: Any, self: ItemDocuments, *args: Any) -> Any:
    """Sums in float32, which leaves a rounding residue after subtracting large parts."""
    self.item_weight, kept = self.item_weight.float(), self.item_weight
    self.pooled, pooled = self.pooled.float(), self.pooled
    result = original(self, *args)
    self.item_weight, self.pooled = kept, pooled
    return result


BROKEN: dict[str, tuple[Patch, dict[str, Any], bool]] = {
    "popularity of the pair": (
        forget(
            Direct,
            "item_bias_of",
            lambda original, self, count, items=None: original(
                self, count if items is None else count + 1, items
            ),
        ),
        {},
        False,
    ),
    "learned bias of another item": (
        forget(
            Direct,
            "item_bias_of",
            lambda original, self, count, items=None: original(
                self, count, None if items is None else items - 1
            ),
        ),
        {"popularity": False},
        False,
    ),
    "own passage, pooled": (forget(PooledTable, "without", keep_the_passage), {}, False),
    "own passage, tokens": (forget(TokenTable, "without", keep_the_passage), {}, True),
    "own passage, ratio": (forget(TokenTable, "without", keep_the_passage), {"score_form": "ratio"}, True),
    "copies in the history": (
        forget(
            CatalogueScores,
            "_copies",
            lambda original, self, passages, out: torch.zeros_like(passages).bool(),
        ),
        {"user": "history"},
        False,
    ),
    "copies in the history, ratio": (
        forget(ItemDocuments, "without", keep_the_passage),
        {"user": "history", "score_form": "ratio"},
        True,
    ),
    "copies among the passages": (
        forget(
            CatalogueScores,
            "_copies",
            lambda original, self, passages, out: torch.zeros_like(passages).bool(),
        ),
        {"user": "text"},
        False,
    ),
    "copies of a candidate": (
        forget(ItemDocuments, "copies", lambda original, self, passages: original(self, passages[:0])),
        {},
        False,
    ),
    "interest without leaving out": (
        forget(
            CatalogueScores,
            "interests",
            lambda original, self, users, out=None, keep=None: original(self, users),
        ),
        {"user": "both"},
        False,
    ),
    "item that moves up in the history": (
        forget(Slots, "gather", lambda original, *args: [part[:, :HISTORY] for part in original(*args)]),
        {"user": "history"},
        False,
    ),
    "passages that move up": (
        forget(Slots, "gather", lambda original, *args: [part[:, : HISTORY + 1] for part in original(*args)]),
        {"user": "text"},
        False,
    ),
    **{
        f"{kind.__name__} of a history": (
            forget(kind, "left_out", lambda original, self, users, *_: self.score_users(users)),
            {"collaborative": True},
            False,
        )
        for kind in (Ease, RandomWalkTerm, TextNeighbourTerm)
    },
    "vectors of neighbours": (
        forget(
            TextNeighbourTerm,
            "left_out",
            lambda original, self, users, items, passages: original(
                self, users, items, torch.full_like(passages, -1)
            ),
        ),
        {"collaborative": True},
        False,
    ),
    "lengths of the walk": (
        forget(
            RandomWalkTerm,
            "left_out",
            lambda original, self, users, items, _: self.score_users(users) - self.table()[items],
        ),
        {"collaborative": True},
        False,
    ),
    **{
        f"{kind.__name__} of EASE": (
            forget(
                kind,
                "text_change",
                lambda original, self, *args: tuple(0 * part for part in original(self, *args)),
            ),
            {"collaborative": True},
            False,
        )
        for kind in (WordSimilarity, EmbeddingSimilarity)
    },
    "float64, pooled": (forget(ItemDocuments, "without", in_float32), {"equal_reviews": False}, False),
    "float64, tokens": (
        forget(
            ItemDocuments,
            "subtract",
            lambda original, self, sums, *args: original(self, sums.float(), *args),
        ),
        {"equal_reviews": False},
        True,
    ),
}


@pytest.mark.parametrize("forgotten", BROKEN)
def test_omitted_correction_is_detected(
    world: World, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    patch, settings, tokens = BROKEN[forgotten]
    model = random_model(config(**settings), world.view)
    assert world.differences(model, tokens).max() <= TOLERANCE
    patch(monkeypatch)
    assert world.differences(model, tokens).max() > (2 if "float64" in forgotten else 100) * TOLERANCE
