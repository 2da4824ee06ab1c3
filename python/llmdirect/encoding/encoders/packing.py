"""Sequences side by side in one row, without padding: each token attends to its own sequence alone.

The model sees one row [1, T] and positions that start again with each sequence; the attention is ours, put in
place through the registry of transformers. Sequences of equal length stand together and are computed at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface, PreTrainedModel

PACKED = "llmdirect-packed"

# Models whose attention goes through the registry and knows of other tokens by nothing else; with them the
# tokens (left, right) that a sliding window of `w` reaches, which differs from model to model.
_REACH: dict[str, Callable[[int], tuple[int, int]] | None] = {
    "t5_gemma_module": lambda w: (w, w),
    "t5gemma2_text": lambda w: ((w + 1) // 2 - 1, w // 2),
    "bert": None,
    "roberta": None,
    "xlm-roberta": None,
}


@dataclass(frozen=True, eq=False)
class Packing:
    """Which tokens of a row belong together.

    `runs` are (first token, number of sequences, their length) of neighbours of equal length.
    """

    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_lengths(cls, lengths: Sequence[int]) -> "Packing":
        """Sequences of these lengths, one after the other."""
        runs, start = [], 0
        for length, equal in groupby(lengths):
            count = len(list(equal))
            runs.append((start, count, length))
            start += count * length
        return cls(tuple(runs))


def pack_attention(model: PreTrainedModel) -> bool:
    """Puts the packed attention in place; False where the model is not known to work with it."""
    modules = [getattr(module, "config", None) for module in model.modules()]
    if not any(getattr(config, "model_type", None) in _REACH for config in modules):
        return False
    AttentionInterface.register(PACKED, packed_attention)
    # No mask is registered under this name: transformers then makes none.
    model.set_attn_implementation(PACKED)
    return True


def first_position(model: PreTrainedModel) -> int:
    """The number of a sequence's first position: RoBERTa counts from its padding index + 1, others from 0."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def soft_capped(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The attention layers with a soft-cap: T5Gemma 1 has them, T5Gemma 2 only a setting without use."""
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
    """Attention [1, T, heads, size] of query [1, heads, T, size], key and value [1, key heads, T, size].

    Equal to the eager attention of the model on each sequence by itself.
    """
    reach_of = _REACH[str(module.config.model_type)]  # type: ignore[union-attr]  # transformers: no types
    reach = reach_of(sliding_window) if reach_of is not None and sliding_window is not None else None
    rows = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
    for start, count, length in packing.runs:
        tokens = slice(start, start + count * length)
        q, k, v = (
            each[0, :, tokens].view(each.shape[1], count, length, -1).transpose(0, 1)
            for each in (query, key, value)
        )
        mask = _window(length, reach, query.device)
        if softcap is None:
            found = _fused(q, k, v, mask, scaling)
        else:
            found = _capped(q, k, v, mask, scaling, softcap)
        rows[tokens].view(count, length, *rows.shape[1:]).copy_(found.transpose(1, 2))
    return rows[None], None


def _window(length: int, reach: tuple[int, int] | None, device: torch.device) -> torch.Tensor | None:
    """bool [length, length]: which key a query sees; None where that is all of them."""
    if reach is None or length - 1 <= min(reach):
        return None
    place = torch.arange(length, device=device)
    ahead = place[None, :] - place[:, None]
    return (ahead >= -reach[0]) & (ahead <= reach[1])


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """The fused kernel has no soft-cap: softmax(c tanh(q k / c)) v, the softmax in float32, as in T5Gemma."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)
    scores.div_(softcap).tanh_().mul_(softcap)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value)
