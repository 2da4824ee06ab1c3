"""Pairs of an epoch."""

import pytest
import torch
from torch import Tensor

from llmdirect.config import TrainConfig
from llmdirect.model.item_documents import ItemDocuments, Pairs
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.token_tables import PooledTable
from llmdirect.model.train_view import TrainView
from llmdirect.training.ema import ParameterEma
from llmdirect.training.epoch import EpochRunner
from llmdirect.training.objective import Objective
from model_helpers import Row, config, dataset_of, random_model, view_of


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TrainView:
    rows = [Row(user, item, f"user {user} on {item}") for user in range(3) for item in range(4)]
    rows += [Row(0, 4, "both"), Row(0, 5, "both")]
    return view_of(dataset_of(rows, 3, 6), tmp_path_factory.mktemp("view"))


@pytest.mark.parametrize(("copies", "expected"), [(True, 14), (False, 12)])
def test_epoch_contains_each_pair_without_copied_text_once(
    view: TrainView, monkeypatch: pytest.MonkeyPatch, copies: bool, expected: int
) -> None:
    """They remain in the history, and each loss is a mean over the trained pairs."""
    training = TrainConfig(train_on_duplicates=copies, batch_size=5)
    seen: list[tuple[int, int]] = []

    def objective(
        self: Objective, scores: CatalogueScores, pairs: Pairs, negatives: Tensor | None
    ) -> dict[str, Tensor]:
        seen.extend(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))
        return {"loss": scores.model.prior * 0 + 1.5}

    monkeypatch.setattr(Objective, "__call__", objective)
    model, documents, generator = random_model(config(), view), ItemDocuments(view, False), torch.Generator()
    runner = EpochRunner(model, documents, Objective(training, generator), training, generator)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    losses = runner.run(1, PooledTable(model, documents), optimiser, ParameterEma(model, 0.0))
    assert losses == {"loss": 1.5}
    assert len(seen) == len(set(seen)) == expected
    assert ({(0, 4), (0, 5)} <= set(seen)) == copies
    assert len(view.history.entries) == 14
