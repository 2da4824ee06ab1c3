"""Small prepared dataset with a store of random embeddings, and runs trained on it."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.runs.folder import RunFolder
from llmdirect.training.results import TrainResult
from llmdirect.training.train import train
from model_helpers import write_embeddings

WORDS = ["warm", "sound", "strings", "bright", "cheap", "strap", "noise", "cable", "sturdy", "pick", "tone"]


def write_reviews(path: Path, num_users: int = 24, num_items: int = 14, seed: int = 0) -> Path:
    """Amazon 2014 layout; users like one half of the items, whose words differ."""
    rng = random.Random(seed)
    lines = []
    for user in range(num_users):
        half = [item for item in range(num_items) if item % 2 == user % 2]
        other = [item for item in range(num_items) if item % 2 != user % 2]
        for item in rng.sample(half, 5) + rng.sample(other, 2):
            words = rng.choices(WORDS[:6] if item % 2 else WORDS[5:], k=rng.randint(3, 9))
            lines.append(
                {
                    "reviewerID": f"u{user}",
                    "asin": f"i{item}",
                    "reviewText": " ".join(words) + f" {user} {item}.",
                    "overall": rng.randint(1, 5),
                    "unixReviewTime": 1_300_000_000 + rng.randint(0, 10**6),
                }
            )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def make_dataset(folder: Path, **options: object) -> Path:
    """A dataset folder with a consolidated store of random tokens."""
    raw = write_reviews(folder.with_suffix(".json"))
    prepare(raw, folder, **options)  # type: ignore[arg-type]
    write_embeddings(folder / "stores" / "random", Dataset.open(folder).passages.text.to_list(), dim=12)
    return folder


SHAPES = {
    "default": ModelConfig(aspects=3),
    "embeddings": ModelConfig(aspects=3, lexicon=0),
    "vote": ModelConfig(aspects=3, equal_reviews=True),
    "both": ModelConfig(aspects=3, user="both", popularity=False),
    "collaborative": ModelConfig(aspects=3, collaborative=True, ridge=5.0),
    "ratio": ModelConfig.for_preset("default", score_form="ratio", aspects=3, channels=1),
    "paper": ModelConfig.for_preset("paper", aspects=3),
}


def fit(dataset: Path, run: Path, shape: str = "default", **options: Any) -> TrainResult:
    """Train for a few epochs."""
    training = TrainConfig.for_preset(
        "paper" if shape == "paper" else "default",
        **{"num_epochs": 3, "batch_size": 32, "token_budget": 200, **options},
    )
    return train(dataset, run, model=SHAPES[shape], training=training)


def fit_each(dataset: Path, folder: Path, shapes: Iterable[str]) -> dict[str, Path]:
    """One run per shape, each in a folder of its name."""
    for shape in shapes:
        fit(dataset, folder / shape, shape)
    return {shape: folder / shape for shape in shapes}


def content(run: Path) -> dict[str, Any]:
    """History without times, and the parameters of best and last."""
    folder = RunFolder.open(run)
    history = folder.values("last/state")["history"]
    return {
        "history": [{key: value for key, value in entry.items() if key != "seconds"} for entry in history],
        "best": {name: value.tolist() for name, value in folder.tensors("best/model").items()},
        "last": {name: value.tolist() for name, value in folder.tensors("last/model").items()},
        "lexicon": {name: value.tolist() for name, value in folder.tensors("best/lexicon").items()},
        "tables": {name: value.tolist() for name, value in folder.tensors("best/tables").items()},
    }
