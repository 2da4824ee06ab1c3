"""`train`, `grid` and `test`: what needs the store, but no language model."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from llmdirect.cli import app
from llmdirect.cli.console import Bars, JsonFlag, emit, stdout
from llmdirect.config import Form, HistoryTermName, Preset, Setup, UserSide, configure

DatasetOption = Annotated[
    Path | None, typer.Option("--datafile", metavar="DATASET", help="The same as the argument.", hidden=True)
]
DatasetArgument = Annotated[
    Path | None, typer.Argument(metavar="DATASET", help="Folder that prepare wrote, or a raw file.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="NAME|FOLDER", help="Which embeddings, where there are several."),
]
PresetOption = Annotated[Preset, typer.Option("--preset", help="default, or paper (the published model).")]
SetupOption = Annotated[Setup | None, typer.Option("--setup", help="Loss; default is rating regression.")]


@app.command()
def train(
    dataset: DatasetArgument = None,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")] = Path("run"),
    preset: PresetOption = "default",
    setup: SetupOption = None,
    form: Annotated[Form | None, typer.Option(help="Of the text term.")] = None,
    aspects: Annotated[int | None, typer.Option("--aspc-num", help="Number of aspects K.")] = None,
    user: Annotated[UserSide | None, typer.Option(help="What the interest is read from.")] = None,
    collaborative: Annotated[
        bool | None, typer.Option(help="Add what the history's items say of others.")
    ] = None,
    history_term: Annotated[
        HistoryTermName | None, typer.Option(help="Its kind; found: the one that ranks best on validation.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    num_epochs: Annotated[int | None, typer.Option("--num-epochs", help="Epochs at most.")] = None,
    refine_epochs: Annotated[
        int | None, typer.Option(help="Epochs on tokens after those on pooled text.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Train pairs of an update on pooled text.")] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Negatives a pair; softmax: 0 is the whole catalogue.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without gain until the rate drops.")] = None,
    g1: Annotated[float | None, typer.Option("--g1", help="Weight of the contrastive loss.")] = None,
    g2: Annotated[float | None, typer.Option("--g2", help="Weight of the rate reduction.")] = None,
    g3: Annotated[float | None, typer.Option("--g3", help="Weight of the orthogonality loss.")] = None,
    anchor: Annotated[float | None, typer.Option(help="Weight of the loss that ties words to stars.")] = None,
    metric: Annotated[str | None, typer.Option(help="What validation watches, as ndcg@10.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of parameters and draws.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    amp: Annotated[bool | None, typer.Option(help="Mixed precision on a GPU.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="Any other setting; a wrong name lists all."),
    ] = None,
    store: StoreOption = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another run in the folder.")
    ] = False,
    datafile: DatasetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train DIRECT on a dataset; the same command again goes on where a killed run was.

    Examples:

      llmdirect train instruments --out run

      llmdirect train instruments --out published --preset paper
    """
    from llmdirect.parameters import parse_settings
    from llmdirect.training import train as work

    flags = dict(
        setup=setup,
        form=form,
        aspects=aspects,
        user=user,
        collaborative=collaborative,
        history_term=history_term,
        lr=lr,
        num_epochs=num_epochs,
        refine_epochs=refine_epochs,
        batch_size=batch_size,
        negatives=negatives,
        patience=patience,
        contrastive=g1,
        rate=g2,
        orthogonality=g3,
        anchor=anchor,
        metric=metric,
        seed=seed,
        device=device,
        amp=amp,
    )
    others = parse_settings(param or [])
    if twice := [name for name in others if flags.get(name) is not None]:
        raise typer.BadParameter(f"--param {twice[0]}: is given by its own flag too")
    shape, fit = configure(preset, **{**flags, **others})
    result = work(
        _one(dataset, datafile),
        out,
        model=shape,
        training=fit,
        store=store,
        overwrite=overwrite,
        tensorboard=tensorboard,
        progress=Bars(),
    )
    if as_json:
        emit(result)
        return
    best, metric_name = result["best"], result["metric"]
    line = f"{result['run']}: best epoch {result['best_epoch']} of {result['epochs']}, {metric_name}"
    if "train_left_out" in best:
        line += f" {best['train_left_out'][metric_name]:.4f} on train left out and"
    line += f" {result['best_value']:.4f} on validation; {result['seconds']:.0f} s"
    if "collaboration" in best:
        term, alone = best["collaboration"], result["history"][result["best_epoch"] - 1]["valid"]
        words, embeddings = term["likeness"]["words"], term["likeness"]["embeddings"]
        if term["weight"]:
            line += (
                f"\n  collaborative term: {term['made_of']}, weight {term['weight']:.3g}; "
                f"ridge {term['ridge']:g}, likeness of words {words:g}, of embeddings {embeddings:g}; "
                f"without the term {alone[metric_name]:.4f} on validation"
            )
            if metric_name != "mse" and alone[metric_name] > result["best_value"]:
                line += " (not by two standard errors, so it stays; --no-collaborative leaves it out)"
        else:
            line += "\n  collaborative term: none, no weight is better on validation"
    stdout.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("test")
def measure(
    dataset: DatasetArgument = None,
    parameters: Annotated[
        Path, typer.Option("--parameters", metavar="RUN", help="Folder that train wrote.")
    ] = Path("run"),
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Such as ndcg@10,recall@20,auc; see docs/metrics.md.")
    ] = None,
    split: Annotated[Literal["valid", "test"], typer.Option(help="What is ranked.")] = "test",
    run_out: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Ranked lists; FILE.trec beside it.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Items a user in the ranked lists.", min=1)] = 100,
    datafile: DatasetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank the full catalogue for every held-out user, and measure.

    Examples:

      llmdirect test instruments --parameters run

      llmdirect test instruments --parameters run --metrics ndcg@10,auc --run-out lists.parquet
    """
    from llmdirect.testing import measure as work

    result = work(
        _one(dataset, datafile),
        parameters,
        metrics=[name.strip() for name in metrics.split(",")] if metrics else None,
        split=split,
        run_out=run_out,
        depth=depth,
        progress=Bars(),
    )
    if as_json:
        emit(result)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", style="bold")
    table.add_column(split, justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    stdout.print(table)
    ranked = "mse" not in result["metrics"]
    lines = [
        f"{result['num_users']:,} users, {result['num_items']:,} items, "
        f"{'full ranking; ' if ranked else ''}split {result['split']}, seed {result['seed']}"
        + (f"; positive: {result['positive']}" if ranked else "")
    ]
    if result["aspects_off"]:
        off = ", ".join(map(str, result["aspects_off"]))
        lines.append(f"without the aspects that are switched off: {off} (llmdirect aspects {result['run']})")
    if result["run_out"]:
        lines.append(f"lists: {result['run_out']}")
    stdout.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


@app.command()
def grid(
    dataset: DatasetArgument = None,
    out: Annotated[Path, typer.Option("--out", metavar="RUNS", help="Folder of all runs.")] = Path("runs"),
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=V1,V2", help="What to vary; may be given often."),
    ] = None,
    preset: PresetOption = "default",
    setup: SetupOption = None,
    num_epochs: Annotated[int | None, typer.Option("--num-epochs", help="Epochs of a run at most.")] = None,
    sampler: Annotated[
        Literal["grid", "tpe"], typer.Option(help="grid: every combination. tpe: --trials of them.")
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="Runs in all (tpe). (default: 20)")] = None,
    store: StoreOption = None,
    datafile: DatasetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Search over settings on validation; killed, the same command goes on.

    Without --param: over lr and history_dropout; with --preset paper the published search, over lr, g2 and
    aspc_num.

    Examples:

      llmdirect grid instruments --out runs --param lr=1e-3,3e-4 --param history_dropout=0.5,0.7

      llmdirect grid instruments --out runs --param lr=1e-4,1e-3,1e-2 --sampler tpe --trials 10
    """
    from llmdirect.grid import grid as work
    from llmdirect.parameters import parse_params

    result = work(
        _one(dataset, datafile),
        out,
        params=parse_params(param) if param else None,
        preset=preset,
        settings={"setup": setup, "num_epochs": num_epochs},
        sampler=sampler,
        trials=trials,
        store=store,
        progress=Bars(),
    )
    if as_json:
        emit(result)
        return
    names = list(result["best"]["params"])
    table = Table(box=None, pad_edge=False)
    for name in (*names, "validation", "epoch", "seconds"):
        table.add_column(name, justify="right")
    for row in result["trials"]:
        values = [str(row["params"][name]) for name in names]
        table.add_row(*values, f"{row['value']:.4f}", str(row["epoch"]), f"{row['seconds']:.0f}")
    stdout.print(table)
    for chosen in result["failed"]:
        stdout.print(f"failed: {chosen}", highlight=False, markup=False)
    stdout.print(f"best: {result['best']['run']}", highlight=False, markup=False, soft_wrap=True)


def _one(dataset: Path | None, datafile: Path | None) -> Path:
    if (dataset is None) == (datafile is None):
        raise typer.BadParameter("give the dataset once: as the argument, or with --datafile")
    return dataset if dataset is not None else datafile  # type: ignore[return-value]  # one of them is there
