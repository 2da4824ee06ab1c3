"""The Typer application: global options, logging, and the commands in the order of --help."""

import logging

import typer
from rich.logging import RichHandler

from llmdirect._core import __version__
from llmdirect.cli.command import SETTINGS, Command
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
    context_settings=SETTINGS,
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
app.command(cls=Command)(demo.demo)
app.command(cls=Command)(prepare.prepare)
app.command(cls=Command)(audit.audit)
app.command(help=precompute.HELP, cls=Command)(precompute.precompute)
app.command(epilog=consolidate.EPILOG, cls=Command)(consolidate.consolidate)
app.command(cls=Command)(train.train)
app.command("test", cls=Command)(test.evaluate)
app.command(cls=Command)(recommend.recommend)
app.command(cls=Command)(explain.explain)
app.command(cls=Command)(aspects.aspects)
app.command(cls=Command)(explore.explore)
app.command(cls=Command)(report.report)
app.command(cls=Command)(faithfulness.faithfulness)
app.command(cls=Command)(grid.grid)
app.command(cls=Command)(scoreboard.scoreboard)
app.command("cache-model", help=cache_model.HELP, cls=Command)(cache_model.cache_model)
app.command(cls=Command)(download.download)
