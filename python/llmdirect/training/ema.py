"""Exponential moving average of parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ParameterEma:
    """Exponential moving average of a model's state, over fewer updates at first.

    Parameters
    ----------
    decay
        Weight of the old average at every update, from 0 to below 1; with 0 the average is the model itself.

    References
    ----------
    Polyak, B. and Juditsky, A. (1992). Acceleration of Stochastic Approximation by Averaging.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parameters: dict[str, Tensor] = _copy(model) if decay else {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Add the parameters of the model after an update."""
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
        """Resume from a stored average of so many updates."""
        self.updates = updates
        for name, value in self.parameters.items():
            value.copy_(parameters[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Replace the parameters of the model by the average inside the block."""
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
