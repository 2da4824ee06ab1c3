"""The Typer application: global options, logging, and the commands in the order of --help."""

import logging

import typer
from rich.logging import RichHandler

from llmdirect._core import __version__
from llmdirect.cli.commands import (
    aspects,
    audit,
    cache_model,
    consolidate,
    demo,
    download,
    explain,
    explore,
    faithfulness,
    grid,
    precompute,
    prepare,
    recommend,
    report,
    scoreboard,
    test,
    train,
)
from llmdirect.cli.console import stderr

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recommendation from reviews with a large language model: full ranking, and word-by-word reasons.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmdirect {__version__}")
        raise typer.Exit()


@app.callback()
def _configure(
    verbose: bool = typer.Option(False, "--verbose", help="Show debug messages."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=stderr, show_path=False, show_time=False)],
    )
    for noisy in ("httpx", "httpcore", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


# In the order of the work, which is how --help lists them.
app.command()(demo.demo)
app.command()(prepare.prepare)
app.command()(audit.audit)
app.command(help=precompute.HELP)(precompute.precompute)
app.command(epilog=consolidate.EPILOG)(consolidate.consolidate)
app.command()(train.train)
app.command("test")(test.measure)
app.command()(recommend.recommend)
app.command()(explain.explain)
app.command()(aspects.aspects)
app.command()(explore.explore)
app.command()(report.report)
app.command()(faithfulness.faithfulness)
app.command()(grid.grid)
app.command()(scoreboard.scoreboard)
app.command("cache-model", help=cache_model.HELP)(cache_model.cache_model)
app.command()(download.download)
