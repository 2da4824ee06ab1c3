"""The command line: one thin command a stage. Heavy imports live inside the commands."""

import logging
import sys

import typer
from rich.logging import RichHandler

from llmdirect.cli.console import stderr
from llmdirect.errors import LlmdirectError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recommendation from reviews with a large language model: full ranking, and word-by-word reasons.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from llmdirect import __version__

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


def main() -> None:
    """Entry point: exit code 0 done, 1 failed with a message, 2 bad usage."""
    try:
        app()
    except (LlmdirectError, OSError, ValueError) as error:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            stderr.print_exception()
        # A plain ValueError is an argument that makes no sense; everything else failed on the way.
        sys.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C, which Typer has caught
            stderr.print("interrupted; what is complete is kept, and the same command goes on from there")
        raise


# At the end: each of these modules registers its commands on `app`.
from llmdirect.cli import (  # noqa: E402
    aspect_list,  # noqa: F401
    board,  # noqa: F401
    data,  # noqa: F401
    demo,  # noqa: F401
    embed,  # noqa: F401
    embed_store,  # noqa: F401
    fit,  # noqa: F401
    judge,  # noqa: F401
    look,  # noqa: F401
    use,  # noqa: F401
)

_ORDER = (
    *("demo", "prepare", "audit", "precompute", "consolidate", "train", "test", "recommend", "explain"),
    *("aspects", "explore", "report", "faithfulness", "grid", "scoreboard", "cache-model", "download"),
)
"""As the work goes, which is how --help lists them."""
app.registered_commands.sort(
    key=lambda command: _ORDER.index(command.name or getattr(command.callback, "__name__", ""))
)
