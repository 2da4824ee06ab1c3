"""Arguments and options that several commands share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from llmdirect.choices import ObjectiveName, Preset

DatasetArgument = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder written by `prepare`.")]
DatasetOrFile = Annotated[
    Path | None,
    typer.Argument(metavar="DATASET", help="Folder written by `prepare`, or a file of raw reviews."),
]
DatafileOption = Annotated[
    Path | None, typer.Option("--datafile", metavar="DATASET", help="The same as the argument.", hidden=True)
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder written by `train`.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="NAME|FOLDER", help="Store of token embeddings, if the dataset has several."
    ),
]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="All settings at once. paper: as in the published model.")
]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    typer.Option("--objective", help="Training loss. rating: predict ratings instead of ranking."),
]
SetupOption = Annotated[
    str | None, typer.Option("--setup", help="Published name of --objective.", hidden=True)
]
_PUBLISHED_OBJECTIVES: Mapping[str, ObjectiveName] = {"softmax": "softmax", "bpr": "bpr", "default": "rating"}


def objective_or_setup(objective: ObjectiveName | None, setup: str | None) -> ObjectiveName | None:
    """The objective, also under its published name: --setup BPR, or default for ratings."""
    if setup is None:
        return objective
    if objective is not None:
        raise typer.BadParameter("give the objective once: with --objective, or with --setup")
    if setup.lower() not in _PUBLISHED_OBJECTIVES:
        raise typer.BadParameter(f"--setup {setup!r}: expected one of {', '.join(_PUBLISHED_OBJECTIVES)}")
    return _PUBLISHED_OBJECTIVES[setup.lower()]


def dataset_or_datafile(dataset: Path | None, datafile: Path | None) -> Path:
    """The dataset, which is given once: as the argument or with --datafile."""
    if (dataset is None) == (datafile is None):
        raise typer.BadParameter("give the dataset once: as the argument, or with --datafile")
    return dataset if dataset is not None else datafile  # type: ignore[return-value]  # one of them is there
