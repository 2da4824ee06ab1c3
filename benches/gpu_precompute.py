"""python benches/gpu_precompute.py [--tiny]    Throughput of T5Gemma on a GPU, in real tokens a second.

The encoder of T5Gemma 2B with random weights in bfloat16: nothing is downloaded. Texts have lengths as
reviews have, of mean 60, 180 and 512. Prints a table: packed rows as `precompute` encodes them, with the copy
to pinned memory, and transformers' padded loop on the same device, with 32 texts a batch, sorted by length
and in order of arrival. MFU (model FLOPs utilisation) counts real tokens only. --tiny: a small configuration
that runs on a CPU too, in float32 there, to check that the benchmark works.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import T5GemmaConfig, T5GemmaEncoderModel, T5GemmaModuleConfig

from llmdirect.common.devices import find_device
from llmdirect.encoding.encoders import Encoder, Source, Tokens
from llmdirect.encoding.encoders.flops import peak_rate
from llmdirect.encoding.encoders.packing import PACKED
from llmdirect.store.batch_plan import make_plan

MEANS, LONGEST = (60, 180, 512), 2048
BATCH = 32
VOCABULARY = 512
"""Ids that texts are drawn from: the lookups cost time, not the size of the table."""
SIZES = {
    **{"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8},
    **{"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "vocab_size": 256_000},
    **{"sliding_window": 4096},
}
TINY = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 32, "query_pre_attn_scalar": 32, "vocab_size": VOCABULARY},
    **{"sliding_window": 64},
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, help="tokens a measurement (default: 400,000; --tiny: 1,000)")
    parser.add_argument("--budget", type=int, default=32768, help="tokens of a packed row")
    args = parser.parse_args()
    device = find_device(args.device)
    if device.type == "cpu" and not args.tiny:
        parser.error("no GPU found: --tiny checks that the benchmark runs")
    encoder = build(args.tiny, device)
    rate, source = peak_rate(device, encoder.dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    described = encoder.describe()
    print(
        f"{name}: {rate / 1e12:.3g} TFLOP/s in {described['compute_dtype']} ({source}); "
        f"attention {described['attention']}"
    )
    print(f"{'mean':>6} {'way':<24} {'tokens/s':>12} {'MFU':>7} {'to packed':>14}")
    rows: list[dict[str, Any]] = []
    for mean in MEANS:
        texts = random_texts(mean, args.tokens or (1_000 if args.tiny else 400_000))
        lengths = [len(text) for text in texts]
        ways: dict[str, Callable[[], None]] = {
            "packed": lambda texts=texts: packed(encoder, texts, args.budget),
            "padded, sorted": lambda texts=texts: padded(encoder, sorted(texts, key=len)),
            "padded": lambda texts=texts: padded(encoder, texts),
        }
        for way, function in ways.items():
            encoder._model.set_attn_implementation(PACKED if way == "packed" else "eager")
            seconds = timed(function, device)
            speed = sum(lengths) / seconds
            share = encoder.operations(lengths) / seconds / rate
            rows.append({"mean": mean, "way": way, "tokens_per_second": speed, "mfu": share})
            ratio = speed / rows[-1 - list(ways).index(way)]["tokens_per_second"]
            print(f"{np.mean(lengths):6.0f} {way:<24} {speed:12,.0f} {share:7.1%} {ratio:14.2f}", flush=True)
    print(json.dumps({"device": name, "tiny": args.tiny, "rows": rows}))


def build(tiny: bool, device: torch.device) -> Encoder:
    """Encoder with random weights; its tokenizer has one word, as texts are drawn as ids."""
    part = T5GemmaModuleConfig(**(TINY if tiny else SIZES))
    config = T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False, attn_implementation="eager")
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        network = T5GemmaEncoderModel(config)
    finally:
        torch.set_default_dtype(before)
    return Encoder(
        Source("t5gemma-2b-random", Path(), None),
        network.eval().requires_grad_(False),
        Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?")),
        max_length=LONGEST,
        model_limit=LONGEST,
        pad_id=0,
        device=device,
    )


def random_texts(mean: int, tokens: int) -> list[Tokens]:
    """Random texts with gamma-distributed lengths, as of reviews, with at least so many tokens in total."""
    rng = np.random.default_rng(mean)
    texts, total = [], 0
    while total < tokens:
        length = int(np.clip(rng.gamma(1.5, mean / 1.5), 4, LONGEST))
        ids = rng.integers(3, VOCABULARY, length).astype(np.int32)
        texts.append(Tokens(ids, np.zeros((length, 2), np.uint32)))
        total += length
    return texts


def timed(function: Callable[[], None], device: torch.device) -> float:
    """Seconds of the second of two calls; the first one compiles and warms up."""
    for _ in range(2):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return seconds


def packed(encoder: Encoder, texts: list[Tokens], budget: int) -> None:
    """Encode as `precompute` does: sorted by length, packed to the budget, copied to two pinned buffers."""
    rows = np.array([len(text) for text in texts], np.int32)
    plan = make_plan(
        rows, {}, max_length=encoder.max_length, cost=encoder.cost, token_budget=budget, shard_tokens=1 << 40
    )
    on_cuda = encoder.device.type == "cuda"
    buffers = [
        torch.empty(budget + LONGEST, encoder.dim, dtype=encoder.dtype, pin_memory=on_cuda) for _ in range(2)
    ]
    for number, low, high in plan.batches(0):
        tokens = encoder.embed([texts[text] for text in plan.text_idx[low:high]], token_budget=budget)
        buffers[number % 2][: len(tokens)].copy_(tokens, non_blocking=on_cuda)


def padded(encoder: Encoder, texts: list[Tokens]) -> None:
    """Encode with transformers in batches of 32 texts, padded to the longest, one copy a batch."""
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(part):
            ids[row, : len(text)] = torch.from_numpy(text.ids)
            mask[row, : len(text)] = 1
        with torch.inference_mode():
            inputs = {"input_ids": ids.to(encoder.device), "attention_mask": mask.to(encoder.device)}
            encoder._model(**inputs).last_hidden_state.cpu()


if __name__ == "__main__":
    main()
