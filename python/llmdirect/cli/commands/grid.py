"""`llmdirect grid`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import (
    DatafileOption,
    DatasetOrFile,
    ObjectiveOption,
    PresetOption,
    SetupOption,
    StoreOption,
    dataset_or_datafile,
    objective_or_setup,
)


def grid(
    dataset: DatasetOrFile = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="RUNS", help="Folder of the search; each run is a subfolder.")
    ] = Path("runs"),
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=V1,V2", help="Setting and the values to try. May be repeated."),
    ] = None,
    preset: PresetOption = "default",
    objective: ObjectiveOption = None,
    num_epochs: Annotated[
        int | None, typer.Option("--num-epochs", help="Maximum number of epochs of each run.")
    ] = None,
    sampler: Annotated[
        Literal["grid", "tpe"],
        typer.Option(
            help="grid: all combinations. tpe: as many as --trials, chosen by Optuna's TPE sampler."
        ),
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="Number of runs.", show_default="20")] = None,
    store: StoreOption = None,
    datafile: DatafileOption = None,
    setup: SetupOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search over settings on validation; interrupted, the same command resumes it.

    If --param is not given, lr and history_dropout are searched; with --preset paper, the settings of the
    published search: lr, g2 and aspc_num.

    Examples:

      llmdirect grid instruments --out runs --param lr=1e-3,3e-4 --param history_dropout=0.5,0.7

      llmdirect grid instruments --out runs --param lr=1e-4,1e-3,1e-2 --sampler tpe --trials 10
    """
    from llmdirect.training.search import grid as work
    from llmdirect.training.settings import parse_params

    result = work(
        dataset_or_datafile(dataset, datafile),
        out,
        params=parse_params(param) if param else None,
        preset=preset,
        settings={"objective": objective_or_setup(objective, setup), "num_epochs": num_epochs},
        sampler=sampler,
        trials=trials,
        store=store,
        progress=Bars(),
    )
    if as_json:
        emit(result.to_json())
        return
    names = list(result.best.params)
    table = Table(box=None, pad_edge=False)
    for name in (*names, "validation", "epoch", "seconds"):
        table.add_column(name, justify="right")
    for trial in result.trials:
        values = [str(trial.params[name]) for name in names]
        table.add_row(*values, f"{trial.value:.4f}", str(trial.epoch), f"{trial.seconds:.0f}")
    stdout().print(table)
    for params in result.failed:
        print_text(f"failed: {params}")
    print_text(f"best: {result.best.run}")
