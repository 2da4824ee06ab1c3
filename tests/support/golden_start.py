"""Stored initial tensors of the golden losses; run as a script, it rewrites the file."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmdirect.model.direct import Direct
from llmdirect.model.initialise import initialise
from llmdirect.text.lexicon import Lexicon
from llmdirect.training.inputs import load_or_fit_lexicon
from repository import GOLDEN
from run_helpers import fit, make_dataset

SHAPES = ("default", "embeddings", "paper")
EPOCHS = 3
START = GOLDEN / "start.safetensors"

Start = dict[str, Tensor]
"""The model's tensors by their names, and the lexicon's behind `lexicon.`."""


def stored_start(shape: str) -> Start:
    """Initial tensors in the file."""
    tensors, prefix = load_file(START), f"{shape}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def losses(dataset: Path, run: Path, shape: str) -> list[float]:
    """Loss of each epoch of a run of this shape."""
    result = fit(dataset, run, shape, num_epochs=EPOCHS)
    return [record.losses["loss"] for record in result.history]


@contextmanager
def started_from(start: Start) -> Iterator[None]:
    """Context in which training starts from these tensors."""
    lexicon = {name: start[f"lexicon.{name}"] for name in ("vectors", "names")}
    model = {name: value for name, value in start.items() if not name.startswith("lexicon.")}
    with (
        patch("llmdirect.training.inputs.load_or_fit_lexicon", lambda *_: Lexicon.from_tensors(lexicon)),
        patch("llmdirect.training.state.initialise", lambda trained, *_: trained.load_state_dict(model)),
    ):
        yield


@contextmanager
def recorded() -> Iterator[Start]:
    """Context that records the initial tensors of a run."""
    start: Start = {}

    def fitted(*arguments: object) -> Lexicon:
        lexicon = load_or_fit_lexicon(*arguments)  # type: ignore[arg-type]
        start.update({f"lexicon.{name}": value.clone() for name, value in lexicon.to_tensors().items()})
        return lexicon

    def initialised(model: Direct, *arguments: object) -> None:
        initialise(model, *arguments)  # type: ignore[arg-type]
        start.update({name: value.clone() for name, value in model.state_dict().items()})

    with (
        patch("llmdirect.training.inputs.load_or_fit_lexicon", fitted),
        patch("llmdirect.training.state.initialise", initialised),
    ):
        yield start


def _write() -> None:
    tensors: Start = {}
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder) / "reviews")
        for shape in SHAPES:
            with recorded() as start:
                values = losses(dataset, Path(folder) / shape, shape)
            tensors |= {f"{shape}/{name}": value.contiguous() for name, value in start.items()}
            sys.stdout.write(f"{shape}: {[round(loss, 6) for loss in values]}\n")
    save_file(tensors, START)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _write()
