"""Fits DIRECT: epochs on pooled text, then (where asked for) on tokens; best and last state are kept."""

import logging
from pathlib import Path

import numpy as np

from llmdirect.collaborative.ease import MAX_ITEMS
from llmdirect.common.devices import find_device
from llmdirect.common.errors import DataError
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig, to_json
from llmdirect.data.dataset import TRAIN, VALID, Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.model.forms import score_form
from llmdirect.ranking.metrics import parse_metric
from llmdirect.runs.folder import RunFolder
from llmdirect.store.store import EmbeddingStore, open_store
from llmdirect.training.tensorboard import scalars
from llmdirect.training.trainer import Trainer

logger = logging.getLogger(__name__)


def train(
    dataset: Path | str,
    out: Path | str,
    *,
    model: ModelConfig | None = None,
    training: TrainConfig | None = None,
    store: Path | str | None = None,
    overwrite: bool = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Json:
    """Trains on the dataset's train split into the run folder `out`; a killed run goes on where it was.

    Validation ranks the full catalogue after every epoch. Without a better value for `patience` epochs the
    learning rate drops to a tenth, from the best state; after `decays` drops training ends.
    store: name of one of the dataset's stores, or the folder of another one that holds its passages.

    Returns metric, best value, best epoch, the train-left-out value beside it, and the history.
    Raises MismatchError where `out` holds another run, MissingError for a device that is not there, DataError
    for a dataset without what the setup needs (ratings, a validation split), BusyError beside another writer.
    """
    found = open_or_prepare(dataset, progress)
    return train_on(
        found,
        open_store(found.path, store),
        Path(out),
        model=model or ModelConfig(),
        training=training or TrainConfig(),
        overwrite=overwrite,
        tensorboard=tensorboard,
        progress=progress,
    )


def train_on(
    dataset: Dataset,
    store: EmbeddingStore,
    out: Path,
    *,
    model: ModelConfig,
    training: TrainConfig,
    overwrite: bool = False,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> Json:
    """As `train`, for an open dataset and store."""
    device = find_device(training.device)
    if device.type == "mps":
        raise ValueError("--device mps: training sums in float64, which Metal lacks; take --device cpu")
    check_setup(dataset, model, training)
    if model.collaborative and dataset.num_items > MAX_ITEMS:
        logger.warning(
            "%s: has %s items; the collaborative term is of the %s most popular ones",
            dataset.path,
            f"{dataset.num_items:,}",
            f"{MAX_ITEMS:,}",
        )
    identity: Json = {
        "config": {"model": to_json(model), "training": to_json(training)},
        "dataset": {"path": str(dataset.path.resolve()), "hash": dataset.hash},
        "store": {
            "path": str(store.path.resolve()),
            "hash": store.hash,
            "encoder": store.encoder,
            "dtype": store.dtype,
            "form": store.manifest.get("form"),
        },
    }
    with single_writer(out):
        run = RunFolder.open_or_create(out, identity, overwrite)
        run.clean()
        with scalars(out / "tensorboard" if tensorboard else None) as writer:
            trainer = Trainer(dataset, store, run, model, training, device, progress)
            trainer.fit(writer)
        return {**trainer.result(), "run": str(out)}


def check_setup(dataset: Dataset, model: ModelConfig, training: TrainConfig) -> None:
    """ValueError for settings that do not go together, DataError for a dataset without what they need."""
    rows = dataset.interactions
    parse_metric(training.metric)
    if idle := _shaping_nothing(model, training):
        raise ValueError(
            f"{' and '.join(idle)}: shapes what tokens mention, which rests without epochs on tokens; give "
            "--param token_epochs=5 too"
        )
    if model.sentiment == "mlp" and training.token_epochs:
        raise ValueError("token_epochs: every epoch of the mlp sentiment is on tokens; leave it at 0")
    if not ((rows.split == VALID) & rows.positive).any():
        fractions = dataset.manifest["options"]["fractions"]
        cure = "prepare it with --fractions 0.7,0.1,0.2"
        if fractions is None or fractions[1]:
            cure = (
                "users have one from three reviews on (liked ones, with --positive): prepare with --k-core 3"
            )
        raise DataError(f"{dataset.path}: no positive in the validation split; {cure}")
    if training.objective == "rating" or training.anchor:
        if np.isnan(rows.rating).all():
            raise DataError(f"{dataset.path}: has no ratings, which --setup default and the anchor need")
        for split, name in ((TRAIN, "train"), (VALID, "valid")):
            if not (~np.isnan(rows.rating) & (rows.split == split)).any():
                raise DataError(f"{dataset.path}: no rating in {name}, so ratings cannot be learned")
    if training.objective == "rating" and not rows.positive.all():
        raise DataError(
            f"{dataset.path}: was prepared with --positive {dataset.manifest['options']['positive']}, but "
            "--setup default learns all ratings, low ones too; prepare it without --positive"
        )


def _shaping_nothing(model: ModelConfig, training: TrainConfig) -> list[str]:
    """Auxiliary losses with a weight, of parameters that no score reads."""
    if model.sentiment != "linear" or training.token_epochs:
        return []
    pooled_trains_mentions = score_form(model).profiles_in_mention_space
    losses = ["orthogonality"] if pooled_trains_mentions else ["rate", "orthogonality"]
    return [name for name in losses if getattr(training, name)]
