"""`llmdirect train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmdirect.choices import HistoryTermKind, ScoreFormName, UserSide
from llmdirect.cli.console import Bars, JsonFlag, emit, print_text
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

if TYPE_CHECKING:
    from llmdirect.training.results import TrainResult


def train(
    dataset: DatasetOrFile = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="Folder of the run to write, or to resume.")
    ] = Path("run"),
    preset: PresetOption = "default",
    objective: ObjectiveOption = None,
    score_form: Annotated[
        ScoreFormName | None,
        typer.Option(help="Formula of the text term: cosine, or ratio as in the published model."),
    ] = None,
    aspects: Annotated[
        int | None, typer.Option("--aspc-num", help="Number of aspects (learned topics).")
    ] = None,
    user: Annotated[
        UserSide | None,
        typer.Option(
            help="What a user's interest is computed from: items in the history, own texts, or both."
        ),
    ] = None,
    collaborative: Annotated[
        bool | None,
        typer.Option(help="Add a collaborative item-item term over the user's history to the score."),
    ] = None,
    history_term: Annotated[
        HistoryTermKind | None,
        typer.Option(help="Kind of the collaborative term; auto selects on validation."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    num_epochs: Annotated[int | None, typer.Option("--num-epochs", help="Maximum number of epochs.")] = None,
    token_epochs: Annotated[
        int | None, typer.Option(help="Epochs on single tokens, after those on mean embeddings of texts.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Training pairs (user and item) in a batch.")] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Sampled negatives per training pair; with softmax, 0 uses all items.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without improvement on validation before the learning rate drops."),
    ] = None,
    contrastive: Annotated[
        float | None,
        typer.Option(
            "--g1", help="Weight of the contrastive loss (item's texts and the user's review of it)."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--g2",
            help="Weight of the rate reduction loss on mentions. Preset default: needs --token-epochs.",
        ),
    ] = None,
    orthogonality: Annotated[
        float | None,
        typer.Option(
            "--g3",
            help="Weight of the loss that keeps aspects orthogonal. Preset default: needs --token-epochs.",
        ),
    ] = None,
    anchor: Annotated[
        float | None,
        typer.Option(help="Weight of the loss that fits the sentiment of words to star ratings."),
    ] = None,
    liked: Annotated[
        float | None,
        typer.Option(
            help="Ratings from this one on count as liked, in auc, accuracy and f1. (default: by the scale: "
            "4 of 5 stars, 75 of 0 to 100)"
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Validation metric for early stopping, such as ndcg@10.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of initial parameters and sampling.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the training: auto, cpu, cuda or cuda:1.")
    ] = None,
    amp: Annotated[bool | None, typer.Option(help="Use mixed precision on a GPU.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="Any other setting; may be repeated. An unknown name prints the list of settings.",
        ),
    ] = None,
    store: StoreOption = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard logs to RUN/tensorboard.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run with other settings in the folder.")
    ] = False,
    datafile: DatafileOption = None,
    setup: SetupOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train DIRECT on a dataset; the same command resumes an interrupted run.

    Examples:

      llmdirect train instruments --out run

      llmdirect train instruments --out published --preset paper
    """
    from llmdirect.config import configure
    from llmdirect.training.settings import parse_settings
    from llmdirect.training.train import train as work

    flags = dict(
        objective=objective_or_setup(objective, setup),
        score_form=score_form,
        aspects=aspects,
        user=user,
        collaborative=collaborative,
        history_term=history_term,
        lr=lr,
        num_epochs=num_epochs,
        token_epochs=token_epochs,
        batch_size=batch_size,
        negatives=negatives,
        patience=patience,
        contrastive=contrastive,
        rate=rate,
        orthogonality=orthogonality,
        anchor=anchor,
        liked=liked,
        metric=metric,
        seed=seed,
        device=device,
        amp=amp,
    )
    others = parse_settings(param or [])
    if twice := [name for name in others if flags.get(name) is not None]:
        raise typer.BadParameter(
            f"--param {twice[0]}: has its own option, which is given too; give the setting once"
        )
    shape, fit = configure(preset, **{**flags, **others})
    result = work(
        dataset_or_datafile(dataset, datafile),
        out,
        model=shape,
        training=fit,
        store=store,
        overwrite=overwrite,
        tensorboard=tensorboard,
        progress=Bars(),
    )
    if as_json:
        emit(result.to_json())
        return
    print_text(_summary(result))


def _summary(result: "TrainResult") -> str:
    best, metric = result.best, result.metric
    line = f"{result.run}: best epoch {result.best_epoch} of {result.epochs}, {metric}"
    if best.train_left_out:
        line += f" {best.train_left_out[metric]:.4f} on train left out and"
    line += f" {result.best_value:.4f} on validation; {result.seconds:.0f} s"
    term = best.collaboration
    if term is None:
        return line
    if not term.weight:
        return line + "\n  collaborative term: none, no weight is better on validation"
    without_term = result.history[result.best_epoch - 1].valid[metric]
    similarities = ", ".join(f"of {name} {weight:g}" for name, weight in term.similarity.items())
    line += (
        f"\n  collaborative term: {term.made_of}, weight {term.weight:.3g}; ridge {term.ridge:g}"
        f"{f', similarity {similarities}' if similarities else ''}; "
        f"without the term {without_term:.4f} on validation"
    )
    if metric != "mse" and without_term > result.best_value:
        line += " (the difference is below two standard errors, so it stays; --no-collaborative removes it)"
    return line
