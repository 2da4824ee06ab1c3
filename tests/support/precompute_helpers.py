"""Small dataset, tiny checkpoints, and `precompute` in many small shards."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import tiny
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.encoding.results import PrecomputeResult

LONG = " ".join(tiny.CORPUS[:5] * 5)
TEXTS = [*tiny.CORPUS[:5], "great", "Thé strings 😀 are ﬁne", LONG, "no noise", "warm sound, bright strings"]
COPIES = [3, 5]  # texts that occur twice


class Checkpoint(NamedTuple):
    """A checkpoint's folder and the whole model that it was saved from."""

    path: Path
    model: Any


def build_checkpoints(folder: Path, *names: str) -> dict[str, Checkpoint]:
    return {name: Checkpoint(*tiny.build(name, folder)) for name in names}


def make_dataset(folder: Path, texts: list[str]) -> Path:
    rows = [
        {"user": f"u{number % 4}", "item": f"i{number}", "text": text, "rating": 4, "time": number}
        for number, text in enumerate(texts)
    ]
    raw = folder / "reviews.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepare(raw, folder / "dataset")
    return folder / "dataset"


def make_usual_dataset(folder: Path) -> Path:
    """TEXTS, some of them twice, and two without a token."""
    return make_dataset(folder, [*TEXTS, *(TEXTS[index] for index in COPIES), "", " "])


def run_all(dataset: Path, checkpoint: Checkpoint, **options: Any) -> PrecomputeResult:
    """`precompute` in many small shards."""
    return precompute(
        dataset, **{"encoder": str(checkpoint.path), "shard_tokens": 20, "token_budget": 15, **options}
    )


def store_of(dataset: Path) -> Path:
    [folder] = (dataset / "stores").iterdir()
    return folder
