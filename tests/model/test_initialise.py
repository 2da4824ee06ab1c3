"""Initialisation of parameters, and optimiser parameter groups."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmdirect.common.errors import DataError
from llmdirect.config import ModelConfig
from llmdirect.model.direct import Direct
from llmdirect.model.initialise import initialise, topic_rotation
from llmdirect.model.train_view import TrainView
from llmdirect.training.optimiser import parameter_groups
from model_helpers import (
    DIM,
    ITEMS,
    USERS,
    config,
    normal,
    small_dataset,
    view_of,
)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TrainView:
    return view_of(small_dataset(), tmp_path_factory.mktemp("model"))


def pooled_texts(view: TrainView) -> tuple[Tensor, Tensor]:
    written = view.lengths > 0
    tokens, mask = view.tokens(written.nonzero()[:, 0])
    return view.pooled[written], tokens[mask]


def test_initialise_centre_scale_and_projection(view: TrainView) -> None:
    pooled, tokens = pooled_texts(view)
    models = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = Direct(config(), DIM, USERS, ITEMS)
        state = torch.get_rng_state()
        initialise(model, pooled, pooled, tokens, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        models.append(model)
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name
    standard = models[0].standard(pooled)
    torch.testing.assert_close(standard.mean(0), torch.zeros(DIM), rtol=0, atol=1e-6)
    assert standard.square().sum(1).mean().item() == pytest.approx(1, rel=1e-5)
    directions = models[0].sentiment.detach()
    variances, principal = torch.linalg.eigh(torch.cov(standard.T.double()))
    # Half whitened, and rotated; the rotation cancels in W Wᵀ.
    relative = (variances / variances.max()).clamp(min=1e-3) ** -0.5
    expected = principal @ torch.diag(relative) @ principal.T
    torch.testing.assert_close((directions @ directions.T).double(), expected, rtol=1e-4, atol=1e-4)


def test_topic_rotation_recovers_planes_of_topics() -> None:
    """Topics in separate planes, hidden by a rotation, are recovered."""
    generator = torch.Generator().manual_seed(0)
    hidden, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    topic = torch.arange(600) % 3
    vectors = torch.zeros(600, 6)
    for aspect in range(3):
        vectors[topic == aspect, 2 * aspect : 2 * aspect + 2] = torch.randn(200, 2, generator=generator)
    vectors, hidden = vectors.double(), hidden.double()
    rotation = topic_rotation(vectors @ hidden.T, topic, 3)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(6).double(), rtol=0, atol=1e-5)
    shares = (vectors @ hidden.T @ rotation).view(600, 3, 2).square().sum(2)
    torch.testing.assert_close(
        shares[torch.arange(600), topic], vectors.square().sum(1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("items", [3, 40])
def test_initialise_independent_of_eigenbasis(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer items than dimensions, null directions have arbitrary eigenbases."""
    pooled, tokens, eigh = normal(50, DIM), normal(300, DIM, seed=1), torch.linalg.eigh

    def initialised(seed: int) -> Direct:
        rng = np.random.default_rng(seed)

        def another_basis(matrix: Tensor) -> tuple[Tensor, Tensor]:
            values, vectors = eigh(matrix)
            vectors = vectors * torch.from_numpy(rng.choice([-1.0, 1.0], len(values)))
            none = values.abs() < 1e-12
            rotation = torch.from_numpy(rng.standard_normal((int(none.sum()), int(none.sum()))))
            vectors[:, none] = vectors[:, none] @ torch.linalg.qr(rotation)[0]
            return values, vectors

        monkeypatch.setattr(torch.linalg, "eigh", another_basis)
        torch.manual_seed(0)
        model = Direct(config(), DIM, USERS, ITEMS)
        initialise(model, pooled, pooled[:items], tokens, seed=1)
        return model

    first, second = initialised(0).state_dict(), initialised(1).state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6, msg=name)


def test_initialise_with_identical_texts() -> None:
    model = Direct(config(), DIM, USERS, ITEMS)
    same = torch.full((4, DIM), 0.37)
    initialise(model, same, same, same, seed=0)
    for name, value in model.state_dict().items():
        assert torch.isfinite(value).all(), name
    assert model.scale == 1.0


def test_initialise_without_text_or_with_nan_embeddings() -> None:
    model = Direct(config(), DIM, USERS, ITEMS)
    nothing = torch.zeros(0, DIM)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, nothing, nothing, nothing, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    damaged = normal(4, DIM)
    damaged[2, 1] = torch.nan
    with pytest.raises(DataError, match=r"not finite.*llmdirect precompute"):
        initialise(model, damaged, damaged, damaged, seed=0)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_parameter_groups_partition_parameters(preset: Any) -> None:
    model = Direct(ModelConfig.for_preset(preset), 32, USERS, ITEMS)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.5)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
            assert group["lr"] == pytest.approx(1.0 if parameter.ndim == 0 else 0.1)
