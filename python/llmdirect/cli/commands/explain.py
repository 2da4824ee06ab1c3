"""`llmdirect explain`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import RunArgument


def explain(
    run: RunArgument,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="A user of the dataset.")],
    item: Annotated[
        list[str] | None,
        typer.Option("--item", metavar="ID", help="May be repeated. (default: the user's best -k)"),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of items without --item.", min=1)] = 3,
    than: Annotated[
        str | None, typer.Option("--than", metavar="ID", help="Compare with this other item.")
    ] = None,
    counterfactual: Annotated[
        int | None,
        typer.Option(metavar="K", help="Words without which it would not be among the K best.", min=1),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Location of the run's encoder (for --counterfactual).")
    ] = None,
    device: Annotated[str, typer.Option(help="For --counterfactual: auto, cpu, cuda.")] = "auto",
    dataset: Annotated[Path | None, typer.Option(help="Location of the run's dataset, if moved.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Explain word by word why an item is recommended.

    Examples:

      llmdirect explain run --user A2IBPI20UZIR0U

      llmdirect explain run --user A2IBPI20UZIR0U --item B0002E1G5C --html why.html

      llmdirect explain run --user A2IBPI20UZIR0U --item B0002E1G5C --than B0002D0CEO --counterfactual 10
    """
    from llmdirect.common.files import check_writable
    from llmdirect.explanation.explain import explain as work

    if html is not None:
        check_writable(html)
    result = work(
        run,
        user,
        item,
        k=k,
        than=than,
        counterfactual=counterfactual,
        dataset=dataset,
        encoder=encoder,
        device=device,
        progress=Bars(),
    )
    if html is not None:
        from llmdirect.reports.explanation_page import write_page

        write_page(html, result, f"Recommendations for {user}")
    if as_json:
        emit({**result, "html": str(html) if html else None})
        return
    from llmdirect.cli.explanation_view import show

    show(result, stdout())
    if html is not None:
        print_text(f"page: {html.resolve()}")
