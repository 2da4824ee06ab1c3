"""Parameter groups of AdamW and serialisation of its state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llmdirect.model.direct import Direct


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of the optimiser as flat tensors, "<parameter index>.<name>"."""
    return {
        f"{index}.{name}": value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that `optimiser_tensors` returned."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def parameter_groups(model: Direct, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices only, ten times the learning rate for scalars."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    scalars = [p for p in model.parameters() if p.ndim == 0]
    return [
        {"params": matrices, "lr": lr, "weight_decay": weight_decay},
        {"params": vectors, "lr": lr, "weight_decay": 0.0},
        {"params": scalars, "lr": lr * 10, "weight_decay": 0.0},
    ]
