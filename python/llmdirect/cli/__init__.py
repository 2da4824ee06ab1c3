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


@app.callback()
def _configure(verbose: bool = typer.Option(False, "--verbose", help="Show debug messages.")) -> None:
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
        stderr.print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            stderr.print_exception()
        # A plain ValueError is an argument that makes no sense; everything else failed on the way.
        sys.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(130)


# At the end: each of these modules registers its commands on `app`.
from llmdirect.cli import board, data, demo, embed, embed_store, fit, use  # noqa: E402, F401
