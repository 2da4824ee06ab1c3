"""A running mean of parameters: what single updates do at random cancels out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ParameterEma:
    """Exponential mean of a model's state, over fewer updates at first (Polyak and Juditsky 1992).

    decay: share of the old mean at every update; with 0 the mean is the model itself and costs nothing.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parameters: dict[str, Tensor] = _copy(model) if decay else {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Takes in the model after an update."""
        if not self.decay:
            return
        self.updates += 1
        decay = min(self.decay, 1 - 1 / (1 + self.updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.parameters[name].lerp_(value, 1 - decay)
            else:
                self.parameters[name].copy_(value)

    def load(self, parameters: dict[str, Tensor], updates: int) -> None:
        """Goes on from a mean that was kept."""
        self.updates = updates
        for name, value in self.parameters.items():
            value.copy_(parameters[name])

    @contextmanager
    def taken_by(self, model: nn.Module) -> Iterator[None]:
        """The model has the mean inside the block, and its own parameters again behind it."""
        if not self.decay:
            yield
            return
        own = _copy(model)
        model.load_state_dict(self.parameters)
        try:
            yield
        finally:
            model.load_state_dict(own)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
