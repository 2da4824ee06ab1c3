"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.config import Preset, Setup

DatasetArgument = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder that prepare wrote.")]
DatasetOrFile = Annotated[
    Path | None, typer.Argument(metavar="DATASET", help="Folder that prepare wrote, or a raw file.")
]
DatafileOption = Annotated[
    Path | None, typer.Option("--datafile", metavar="DATASET", help="The same as the argument.", hidden=True)
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="NAME|FOLDER", help="Which embeddings, where there are several."),
]
PresetOption = Annotated[Preset, typer.Option("--preset", help="default, or paper (the published model).")]
SetupOption = Annotated[Setup | None, typer.Option("--setup", help="Loss; default is rating regression.")]


def dataset_or_datafile(dataset: Path | None, datafile: Path | None) -> Path:
    """The dataset, which is given once: as the argument or with --datafile."""
    if (dataset is None) == (datafile is None):
        raise typer.BadParameter("give the dataset once: as the argument, or with --datafile")
    return dataset if dataset is not None else datafile  # type: ignore[return-value]  # one of them is there
