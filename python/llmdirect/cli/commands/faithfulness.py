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
        Path, typer.Option("--parameters", metavar="RUN", help="Folder written by `train`.")
    ] = Path("run"),
    pairs: Annotated[
        int, typer.Option(help="Number of users to test, each with one recommended item.", min=2)
    ] = 200,
    words: Annotated[
        int, typer.Option(help="Maximum number of words of an item's texts to use; 0 uses all.", min=0)
    ] = 200,
    seed: Annotated[int, typer.Option(help="Random seed of the drawn users, items, texts and words.")] = 0,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder, if it was moved: a local folder or an id of the Hub.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the encoder: auto, cpu or cuda.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Measure how well explanations predict the change of a score when words are removed from the texts.

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
