"""The Typer application: global options, logging, and the commands in the order of --help."""

import typer

from llmdirect._core import __version__
from llmdirect.cli.command import COMMANDS, SETTINGS, Group
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

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    help="Recommendation from reviews with a large language model, explained word by word.",
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
    from llmdirect.cli.logs import configure_logging

    configure_logging(verbose)


# In the order of the work, which is how --help lists them.
COMMANDS.add("demo", demo.demo)
COMMANDS.add("prepare", prepare.prepare)
COMMANDS.add("audit", audit.audit)
COMMANDS.add("precompute", precompute.precompute, help=precompute.HELP)
COMMANDS.add("consolidate", consolidate.consolidate, epilog=consolidate.EPILOG)
COMMANDS.add("train", train.train)
COMMANDS.add("test", test.evaluate)
COMMANDS.add("recommend", recommend.recommend)
COMMANDS.add("explain", explain.explain)
COMMANDS.add("aspects", aspects.aspects)
COMMANDS.add("explore", explore.explore)
COMMANDS.add("report", report.report)
COMMANDS.add("faithfulness", faithfulness.faithfulness)
COMMANDS.add("grid", grid.grid)
COMMANDS.add("scoreboard", scoreboard.scoreboard)
COMMANDS.add("cache-model", cache_model.cache_model, help=cache_model.HELP)
COMMANDS.add("download", download.download)
