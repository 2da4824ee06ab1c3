"""Rating biases: normal equations, and leave-one-out changes against refits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmdirect.model.train_view import TrainView
from llmdirect.training.rating_bias import RatingBiases
from model_helpers import Row, all_pairs, dataset_of, write_embeddings

USERS, ITEMS = 40, 12


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TrainView:
    rng = np.random.default_rng(0)
    strict, good = rng.standard_normal(USERS) * 0.8, rng.standard_normal(ITEMS) * 0.5
    rows = [
        Row(user, item, f"u{user} i{item}", rating=float(np.clip(3.5 + strict[user] + good[item], 1, 5)))
        for user in range(USERS)
        for item in rng.choice(ITEMS, 6, replace=False).tolist()
    ]
    rows[5] = replace(rows[5], rating=float("nan"))
    dataset = dataset_of(rows, USERS, ITEMS)
    folder: Path = tmp_path_factory.mktemp("biases") / "store"
    return TrainView.from_dataset(dataset, write_embeddings(folder, dataset.passages.text.to_list()))


def test_biases_are_damped_means_of_residuals(view: TrainView) -> None:
    biases, pairs = RatingBiases.fit(view), all_pairs(view)
    rated = ~torch.isnan(pairs.rating)
    assert (~rated).sum() == 1
    assert biases.mean == pytest.approx(float(pairs.rating[rated].mean()))
    centred = pairs.rating - biases.mean
    for user in range(USERS):
        own = rated & (pairs.user == user)
        left = centred[own] - biases.item[pairs.item[own]]
        ridge = 1 / float(biases.leverage_of_user[user]) - int(own.sum())
        assert ridge == pytest.approx(
            1 / float(biases.leverage_of_user[0]) - int((rated & (pairs.user == 0)).sum())
        )
        assert float(biases.user[user]) == pytest.approx(float(left.sum() / (own.sum() + ridge)), abs=1e-5)
    for item in range(ITEMS):
        own = rated & (pairs.item == item)
        left = centred[own] - biases.user[pairs.user[own]]
        assert float(biases.item[item]) == pytest.approx(
            float(left.sum() * biases.leverage_of_item[item]), abs=1e-3
        )


def test_leave_one_out_change_matches_refit(view: TrainView) -> None:
    """Exact if only one side has biases, whose formula both sides share."""
    pairs = all_pairs(view)
    rated = ~torch.isnan(pairs.rating)
    mean, ridge = 3.0, 2.0
    counts = torch.bincount(pairs.user[rated], minlength=USERS)
    sums = torch.zeros(USERS).index_add_(0, pairs.user[rated], pairs.rating[rated] - mean)
    alone = RatingBiases(
        mean, sums / (counts + ridge), torch.zeros(ITEMS), 1 / (counts + ridge), torch.zeros(ITEMS)
    )
    user = pairs.user
    refitted = (sums[user] - (pairs.rating - mean)) / (counts[user] - 1 + ridge)
    torch.testing.assert_close(alone.change(pairs)[rated], (refitted - alone.user[user])[rated])
    assert torch.isnan(alone.change(pairs)[~rated]).all()


def test_leave_one_out_error_exceeds_fitted_error(view: TrainView) -> None:
    biases, pairs = RatingBiases.fit(view), all_pairs(view)
    fitted = biases.mean + biases.user[pairs.user] + biases.item[pairs.item]
    rated = ~torch.isnan(pairs.rating)
    missed = (pairs.rating - fitted)[rated].square().mean()
    left_out = (pairs.rating - fitted - biases.change(pairs))[rated].square().mean()
    assert missed < left_out < (pairs.rating - biases.mean)[rated].square().mean()
