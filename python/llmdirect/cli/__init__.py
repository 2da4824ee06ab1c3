"""The command line: one thin command a stage. Heavy imports live inside the commands."""

import logging
import sys

from llmdirect.cli.app import app
from llmdirect.cli.console import stderr
from llmdirect.common.errors import LlmdirectError


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
