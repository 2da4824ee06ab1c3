"""Packed attention: sequences in one row without padding, each token attending to its own sequence.

The model gets one row [1, T] and positions that restart with each sequence; the attention is registered in
transformers. Neighbours of equal length are computed at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface, PreTrainedModel

PACKED = "llmdirect-packed"

# Models in which tokens interact by the registered attention alone, with the tokens (left, right) that a
# sliding window of `w` covers, which differs from model to model.
_WINDOW_REACH: dict[str, Callable[[int], tuple[int, int]] | None] = {
    "t5_gemma_module": lambda w: (w, w),
    "t5gemma2_text": lambda w: ((w + 1) // 2 - 1, w // 2),
    "bert": None,
    "roberta": None,
    "xlm-roberta": None,
}


@dataclass(frozen=True, eq=False)
class Packing:
    """Sequences of a packed row."""

    groups: tuple[tuple[int, int, int], ...]
    """(first token, number of sequences, their length) of neighbours of equal length."""

    @classmethod
    def from_lengths(cls, lengths: Sequence[int]) -> "Packing":
        """Packing of sequences of these lengths, one after another."""
        groups, start = [], 0
        for length, equal in groupby(lengths):
            count = len(list(equal))
            groups.append((start, count, length))
            start += count * length
        return cls(tuple(groups))


def pack_attention(model: PreTrainedModel) -> bool:
    """Replace the attention by the packed one; False where the model is not known to support it."""
    modules = [getattr(module, "config", None) for module in model.modules()]
    if not any(getattr(config, "model_type", None) in _WINDOW_REACH for config in modules):
        return False
    AttentionInterface.register(PACKED, packed_attention)
    # No mask is registered under this name, so transformers creates none.
    model.set_attn_implementation(PACKED)
    return True


def first_position(model: PreTrainedModel) -> int:
    """Position of the first token of a sequence: RoBERTa counts from its padding index + 1, others from 0."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def soft_capped(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Attention layers with a soft-cap: T5Gemma 1 has them, T5Gemma 2 only an unused setting."""
    return [
        module
        for module in model.modules()
        if getattr(getattr(module, "config", None), "model_type", None) == "t5_gemma_module"
        and getattr(module, "attn_logit_softcapping", None) is not None
    ]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within the sequences of a packed row, equal to eager attention on each sequence alone.

    Parameters
    ----------
    module
        Attention layer of the model.
    query
        [1, heads, T, size].
    key, value
        [1, key heads, T, size].
    attention_mask
        Ignored.
    packing
        Sequences of the row.
    scaling
        Factor of the products of query and key.
    softcap
        c of the soft-cap c · tanh(x / c), if the model has one.
    sliding_window
        Window of the layer, if it has one.

    Returns
    -------
    Tensor
        [1, T, heads, size].
    None
        Attention weights are not returned.
    """
    reach_of = _WINDOW_REACH[str(module.config.model_type)]  # type: ignore[union-attr]  # transformers: no types
    reach = reach_of(sliding_window) if reach_of is not None and sliding_window is not None else None
    rows = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
    for start, count, length in packing.groups:
        tokens = slice(start, start + count * length)
        q, k, v = (
            tensor[0, :, tokens].view(tensor.shape[1], count, length, -1).transpose(0, 1)
            for tensor in (query, key, value)
        )
        mask = _window_mask(length, reach, query.device)
        if softcap is None:
            output = _fused_attention(q, k, v, mask, scaling)
        else:
            output = _soft_capped_attention(q, k, v, mask, scaling, softcap)
        rows[tokens].view(count, length, *rows.shape[1:]).copy_(output.transpose(1, 2))
    return rows[None], None


def _window_mask(length: int, reach: tuple[int, int] | None, device: torch.device) -> torch.Tensor | None:
    """bool [length, length] keys that each query attends to; None where these are all."""
    if reach is None or length - 1 <= min(reach):
        return None
    position = torch.arange(length, device=device)
    distance = position[None, :] - position[:, None]
    return (distance >= -reach[0]) & (distance <= reach[1])


def _fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)


def _soft_capped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """softmax(c tanh(q k / c)) v, the softmax in float32 as in T5Gemma; no fused kernel has a soft-cap."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)
    scores.div_(softcap).tanh_().mul_(softcap)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value)
