"""`llmdirect demo`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, stdout


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where it goes. (default: in ./demo/)")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="REVIEWS", help="Your reviews. (default: a synthetic corpus)")
    ] = None,
    model: Annotated[str, typer.Option(help="Encoder: minilm, an id of the Hub, a folder.")] = "minilm",
    users: Annotated[
        int | None, typer.Option(help="Users of the synthetic corpus, about 8 reviews each. (default: 140)")
    ] = None,
    items: Annotated[int | None, typer.Option(help="Items of the synthetic corpus. (default: 100)")] = None,
    as_json: JsonFlag = False,
) -> None:
    """All stages, from reviews to explained recommendations; killed, it goes on.

    Examples:

      llmdirect demo

      llmdirect demo --data reviews_Musical_Instruments_5.json.gz --out instruments
    """
    from llmdirect.data.readers.raw_files import base_name
    from llmdirect.demo import demo as work

    size = [f"{count}-{name}" for name, count in (("users", users), ("items", items)) if count is not None]
    folder = out or Path("demo") / (base_name(data) if data else "-".join(["synthetic", *size]))
    result = work(folder, data=data, model=model, num_users=users, num_items=items, progress=Bars())
    if as_json:
        emit(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from llmdirect.cli.explanation_view import show

    def say(text: str) -> None:
        stdout.print(text, highlight=False, markup=False)

    if result["synthetic"]:
        say(
            "Synthetic corpus: made by this package, so that interests, qualities and the words that carry "
            "them are known. `oracle` ranks by what was planted: no model can do better than by luck.\n"
        )
    show(result["explanations"], stdout)
    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold")
    names = list(result["table"][0]["metrics"])
    for name in names:
        table.add_column(name, justify="right")
    for row in result["table"]:
        table.add_row(row["model"], *(f"{row['metrics'][name]:.4f}" for name in names))
    stdout.print()
    stdout.print(table)
    say(
        f"test split, {result['num_users']:,} users, full ranking of {result['num_items']:,} items; ndcg@10 "
        f"on validation {result['validation']:.4f}, on train pairs left out {result['train_left_out']:.4f}"
    )
    if recovery := result.get("recovery"):
        words, aspects = recovery["words"], recovery["aspects"]
        say(
            f"Of the ten strongest words {words['planted']:.0%} were planted (by chance "
            f"{words['planted_by_chance']:.0%}), {words['of_interest']:.0%} for the user's own interests (by "
            f"chance {words['of_interest_by_chance']:.0%}); {words['sentence_of_interest']:.0%} stand in a "
            f"sentence with such a word (by chance {words['sentence_of_interest_by_chance']:.0%}). Aspects "
            f"agree with the planted ones by {aspects['nmi']:.2f} NMI (by chance "
            f"{aspects['nmi_by_chance']:.2f})."
        )
    stdout.print(f"page: {result['page']}", highlight=False, markup=False, soft_wrap=True)
