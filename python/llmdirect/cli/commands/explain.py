"""`llmdirect explain`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import RunArgument


def explain(
    run: RunArgument,
    user_id: Annotated[str, typer.Option("--user", metavar="ID", help="A user of the dataset.")],
    item_ids: Annotated[
        list[str] | None,
        typer.Option(
            "--item",
            metavar="ID",
            help="Item to explain; may be repeated. (default: the user's -k best items)",
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", help="Number of the user's best items to explain.", min=1, show_default="3"),
    ] = None,
    than: Annotated[
        str | None,
        typer.Option("--than", metavar="ID", help="Explain why --item is ranked above or below this item."),
    ] = None,
    counterfactual: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Find words whose removal would move the item out of the user's K best.", min=1
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the explanations as an HTML page.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder of the run, if it was moved: a local folder or an id of the Hub."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device of the encoder: auto, cpu or cuda.", show_default="auto"),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of the run's dataset, if it was moved.")
    ] = None,
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
        user_id,
        item_ids,
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

        write_page(html, result, f"Recommendations for {user_id}")
    if as_json:
        emit({**result, "html": str(html) if html else None})
        return
    from llmdirect.cli.explanation_view import show

    show(result, stdout())
    if html is not None:
        print_text(f"page: {html.resolve()}")
