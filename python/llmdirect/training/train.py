"""Training of DIRECT: epochs with validation, an exact resume, and the collaborative term at the end."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmdirect.collaborative.ease import MAX_ITEMS
from llmdirect.common.devices import find_device
from llmdirect.common.errors import DataError
from llmdirect.common.files import disk_full_hint
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig, to_json
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.model.token_tables import Table
from llmdirect.runs.folder import RunFolder
from llmdirect.store.no_text import open_or_write_store
from llmdirect.store.store import EmbeddingStore, with_item_passages
from llmdirect.training.epoch import EpochRunner, read_table
from llmdirect.training.finish import finish
from llmdirect.training.inputs import TrainInputs, build_inputs
from llmdirect.training.objective import Objective
from llmdirect.training.requirements import check_setup
from llmdirect.training.results import EpochRecord, TermFigures, TrainResult
from llmdirect.training.schedule import Schedule
from llmdirect.training.state import TrainState
from llmdirect.training.tensorboard import flat, scalars
from llmdirect.training.validation import Validator

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
) -> TrainResult:
    """Train DIRECT on the train split of a dataset; an interrupted run is resumed.

    Validation ranks the full catalogue after every epoch. Without a better value for `patience` epochs the
    learning rate drops to a tenth, from the best epoch; after `max_lr_drops` drops training ends.

    Parameters
    ----------
    dataset
        Folder that `prepare` wrote, or a raw file.
    out
        Run folder.
    model, training
        Settings; the defaults if not given.
    store
        Name of one of the dataset's stores, or folder of another one that holds its passages.
    overwrite
        Whether another run in `out` is replaced.
    tensorboard
        Whether the figures of each epoch go to `out`/tensorboard too.

    Raises
    ------
    MismatchError
        If `out` holds another run.
    MissingError
        If the device is not available.
    DataError
        If the dataset lacks what the objective needs: ratings, a validation split.
    BusyError
        If another process writes to `out`.

    Examples
    --------
    >>> result = train("instruments", "run", training=TrainConfig(num_epochs=5))  # doctest: +SKIP
    >>> result.best_epoch, result.best.valid["ndcg@10"]  # doctest: +SKIP
    (5, 0.0714)
    """
    opened = open_or_prepare(dataset, progress)
    return train_on(
        opened,
        open_or_write_store(opened, store),
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
) -> TrainResult:
    """Train on an open dataset and store, as `train` does."""
    device = find_device(training.device)
    if device.type == "mps":
        raise ValueError("`device=mps`: training sums in float64, which Metal lacks; choose `device=cpu`")
    check_setup(dataset, model, training)
    dataset = with_item_passages(dataset, store)
    if model.collaborative and dataset.num_items > MAX_ITEMS:
        logger.warning(
            "%s: has %s items; the collaborative term is of the %s most popular ones",
            dataset.path,
            f"{dataset.num_items:,}",
            f"{MAX_ITEMS:,}",
        )
    with disk_full_hint(out, "make room and run again"), single_writer(out):
        run = RunFolder.open_or_create(out, _identity(dataset, store, model, training), overwrite)
        run.clean()
        new_log = tensorboard and not (out / "tensorboard").exists()
        with scalars(out / "tensorboard" if tensorboard else None) as writer:
            inputs = build_inputs(dataset, store, run, model, training, device, progress)
            if run.manifest["files"]:
                state = TrainState.load(run, inputs, model, training)
            else:
                state = TrainState.new(inputs, model, training)
            for record in state.schedule.state.history if new_log else ():
                _add_scalars(writer, record)  # epochs before this call
            fit(run, state, inputs, writer, progress)
        if not (run.finished and run.is_complete("best/tables", "best/catalogue")):
            finish(run, state, inputs, progress)
        return _result(run, state.schedule)


def fit(run: RunFolder, state: TrainState, inputs: TrainInputs, writer: Any, progress: Progress) -> None:
    """Run the epochs that are left and commit the state after each one.

    Parameters
    ----------
    writer
        TensorBoard writer, or its substitute.

    Raises
    ------
    DataError
        If the loss is not finite.
    """
    model, documents, training = state.model, inputs.documents, state.training
    words = inputs.word_types(progress) if training.rate else None
    objective = Objective(training, state.generator, words, inputs.biases)
    runner = EpochRunner(model, documents, objective, training, state.generator)
    validator = Validator(inputs.dataset, training)
    schedule, progressed = state.schedule, state.schedule.state
    phase = progressed.phase
    table: Table | None = None  # of the present parameters, where validation has read it already
    with progress.task("Training", schedule.max_epochs, "epochs") as task:
        task.advance(progressed.epoch)
        while schedule.has_next_epoch():
            if progressed.phase != phase:
                state.restore_best(run)
                phase, table = progressed.phase, None
            started = time.monotonic()
            progressed.epoch += 1
            table = table or read_table(model, documents, phase)
            losses = runner.run(progressed.epoch, table, state.optimiser, state.ema)
            if not np.isfinite(losses["loss"]):
                raise DataError(
                    f"{run.path}: the loss is {losses['loss']} in epoch {progressed.epoch}; lower `lr` "
                    f"(now {training.lr})"
                )
            with state.ema.applied_to(model):
                validated = read_table(model, documents, phase)
                train_left_out, valid = _validate(validator, state, inputs, validated)
                parameters = {name: value.clone() for name, value in model.state_dict().items()}
            table = None if training.ema_decay else validated
            record = EpochRecord(
                epoch=progressed.epoch,
                phase=phase,
                lr=state.optimiser.param_groups[0]["lr"],
                losses=losses,
                train_left_out=train_left_out,
                valid=valid,
                seconds=round(time.monotonic() - started, 3),
            )
            lr_drops = progressed.lr_drops
            improved = schedule.record(record)
            if progressed.lr_drops > lr_drops:
                state.restore_best(run)
                table = None
            state.save(run, inputs.view.lexicon, parameters if improved else None)
            task.note(f"{training.watched} {schedule.value(record):.4f}")
            task.advance()
            _add_scalars(writer, record)


def _add_scalars(writer: Any, record: EpochRecord) -> None:
    for name, value in flat(record.to_json()):
        writer.add_scalar(name, value, record.epoch)


def _validate(
    validator: Validator, state: TrainState, inputs: TrainInputs, table: Table
) -> tuple[dict[str, float], dict[str, float]]:
    """Left-out train pairs and validation, of text and biases alone."""
    state.model.eval()
    with torch.no_grad():
        scores = CatalogueScores(state.model, inputs.documents, table, None)
        tables = export_tables(scores)
        return validator.train_left_out(scores), validator.valid(tables)


def _identity(dataset: Dataset, store: EmbeddingStore, model: ModelConfig, training: TrainConfig) -> Json:
    return {
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


def _result(run: RunFolder, schedule: Schedule) -> TrainResult:
    history, best = schedule.state.history, schedule.best
    seconds = sum(record.seconds for record in history)
    ended = "best/catalogue" in run.manifest["files"]
    if ended and (figures := run.values("best/catalogue")["balanced"]):
        best = best.with_term(TermFigures.from_json(figures))
        seconds += figures["collaboration"]["seconds"]
    return TrainResult(
        metric=schedule.training.watched,
        best_value=schedule.value(best),
        best_epoch=schedule.state.best_epoch,
        epochs=schedule.state.epoch,
        best=best,
        history=history,
        seconds=round(seconds, 1),
        run=run.path,
    )
