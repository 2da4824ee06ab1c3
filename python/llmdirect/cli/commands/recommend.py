"""`llmdirect recommend`."""

import csv
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from llmdirect.cli.console import JsonFlag, emit, literal, stdout
from llmdirect.cli.options import RunArgument


def recommend(
    run: RunArgument,
    user_ids: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="User of the dataset; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of items for each user.", min=1)] = 10,
    interests: Annotated[
        list[str] | None,
        typer.Option(
            "--interest",
            metavar="ASPECT=+50%",
            help=(
                "Change the user's interest in an aspect: by a percentage, or by a factor such "
                "as 1.5. May be repeated."
            ),
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="ITEM,…",
            help="Items of a new user, newest first. Put an id that contains a comma in double quotes.",
        ),
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="Text written by a new user; may be repeated.")
    ] = None,
    new_only: Annotated[
        bool,
        typer.Option("--new-only", help="Also exclude the user's items in the validation and test splits."),
    ] = False,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of the run's dataset, if it was moved.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder of the run, if it was moved: a local folder or an id of the Hub."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device of the encoder: auto, cpu or cuda.", show_default="auto"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Top-k items for users of the dataset, or for a new user, without retraining.

    The user's items in train are excluded; with --new-only also those in the validation and test splits.
    For a new user, the items of --history are excluded.

    Examples:

      llmdirect recommend run --user A2IBPI20UZIR0U -k 5

      llmdirect recommend run --user A2IBPI20UZIR0U --interest 3=+50% --interest 7=-100%

      llmdirect recommend run --history B0002E1G5C,B0002D0CEO --text "I want a warm sound and little noise"
    """
    from llmdirect.runs.recommend import recommend as recommend_known
    from llmdirect.runs.recommend import recommend_new

    new = history is not None or bool(texts)
    if new == bool(user_ids):
        raise typer.BadParameter(
            "give --user for one of the dataset, or --history or --text (or both) for a new user"
        )
    from llmdirect.common.conditions import check_conditions

    check_conditions(
        "recommend",
        {
            "user_ids": user_ids or None,
            "interests": interests or None,
            "history": history,
            "texts": texts or None,
            "new_only": new_only or None,
            "dataset": dataset,
            "encoder": encoder,
            "device": device,
        },
    )
    if user_ids:
        factors = _factors(interests or [])
        result = recommend_known(run, user_ids, k=k, interests=factors, new_only=new_only, dataset=dataset)
    else:
        items = _ids(history or "")
        result = recommend_new(run, history=items, texts=texts, k=k, encoder=encoder, device=device)
    if as_json:
        emit(result.to_json())
        return
    for entry in result.recommendations:
        titled = any(item.title for item in entry.items)
        whose = literal(entry.user_id) if entry.user_id else "a new user"
        table = Table(box=None, pad_edge=False, title=whose, title_justify="left")
        table.add_column("", justify="right", style="dim")
        table.add_column("item", style="bold")
        if titled:
            table.add_column("title")
        table.add_column("score", justify="right")
        for item in entry.items:
            name = [literal(item.title or "")] if titled else []
            table.add_row(str(item.rank), literal(item.item_id), *name, f"{item.score:.3f}")
        stdout().print(table)


def _ids(listed: str) -> list[str]:
    """["a", "b,c"] of 'a, "b,c"', as a line of a CSV file is read."""
    try:
        rows = list(csv.reader([listed.replace("\n", ",")], skipinitialspace=True))
    except csv.Error as error:
        raise typer.BadParameter(f"--history {listed}: {error}") from None
    return [item.strip() for row in rows for item in row if item.strip()]


def _factors(options: list[str]) -> dict[int, float]:
    """{3: 1.5} of "3=+50%" or "3=1.5"; several in one option are separated by commas."""
    factors: dict[int, float] = {}
    for option in (part.strip() for given in options for part in given.split(",")):
        name, _, amount = option.partition("=")
        aspect, amount = name.strip(), amount.strip()
        try:
            value, number = float(amount.removesuffix("%")), int(aspect)
        except ValueError:
            raise typer.BadParameter(f"--interest {option}: expected ASPECT=+50% or ASPECT=1.5") from None
        if amount.endswith("%") and amount[0] not in "+-":
            raise typer.BadParameter(
                f"--interest {option}: a percentage is a change and needs its sign: {aspect}=+{amount} "
                f"multiplies the interest by {1 + value / 100:g}, {aspect}=-{amount} by {1 - value / 100:g}; "
                f"for {amount} of the interest write {aspect}={value / 100:g}"
            )
        if number in factors:
            raise typer.BadParameter(f"--interest {option}: aspect {number} is given twice; give it once")
        factors[number] = 1 + value / 100 if amount.endswith("%") else value
    return factors
