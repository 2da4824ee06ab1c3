"""`llmdirect faithfulness`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import DatasetArgument


def faithfulness(
    dataset: DatasetArgument,
    parameters: Annotated[
        Path, typer.Option("--parameters", metavar="RUN", help="Folder that train wrote.")
    ] = Path("run"),
    pairs: Annotated[int, typer.Option(help="Users, each with one recommended item.", min=2)] = 200,
    words: Annotated[
        int, typer.Option(help="Largest number of words of an item's document; 0: all.", min=0)
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed of users, items, passages and random words.")] = 0,
    encoder: Annotated[str | None, typer.Option(help="Location of the run's encoder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Remove words, encode the texts again, and compare the change of the score with explanations.

    Examples:

      llmdirect faithfulness instruments --parameters run

      llmdirect faithfulness instruments --parameters run --pairs 500 --words 0 --json
    """
    from llmdirect.explanation.faithfulness import faithfulness as work

    result = work(
        dataset,
        parameters,
        pairs=pairs,
        words=words,
        seed=seed,
        encoder=encoder,
        device=device,
        progress=Bars(),
    )
    if as_json:
        emit(result)
        return
    from llmdirect.explanation.faithfulness import SHARES

    for measure, better in (("comprehensiveness", "larger"), ("sufficiency", "smaller")):
        table = Table(box=None, pad_edge=False, title=f"{measure} ({better} is better)", title_justify="left")
        table.add_column("words by", style="bold")
        for name in ("mean", *(f"{share:.0%}" for share in SHARES)):
            table.add_column(name, justify="right")
        for method, values in result[measure].items():
            means = [f"{values['at'][f'{share:g}']['mean']:.3f}" for share in SHARES]
            table.add_row(method.replace("_", " "), _interval(values), *means)
        stdout().print(table)
    table = Table(box=None, pad_edge=False, title="rank correlation with the change", title_justify="left")
    table.add_column("of single words", style="bold")
    table.add_column("mean", justify="right")
    for name, correlation in result["correlation"].items():
        table.add_row(name.replace("_", " "), _interval(correlation) if correlation else "")
    stdout().print(table)
    print_text(
        f"direct minus gradient x input: comprehensiveness {_interval(result['direct_minus_gradient'])}, "
        f"sufficiency {_interval(result['direct_minus_gradient_sufficiency'])} (above 0: direct is better); "
        f"{result['pairs']} pairs, {result['mean_words']:.0f} words each, "
        f"mean text term {result['mean_text_term']:.3f}"
    )


def _interval(values: dict[str, Any]) -> str:
    return f"{values['mean']:.3f} ({values['low']:.3f} to {values['high']:.3f})"
