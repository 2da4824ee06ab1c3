"""The command line: one thin command a stage. Heavy imports live inside the commands."""

from llmdirect.cli.app import app
from llmdirect.cli.console import stderr


def main() -> None:
    """Entry point: exit code 0 done, 1 failed with a message, 2 bad usage."""
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C, which Typer has caught
            stderr().print("interrupted; complete parts are kept, and the same command resumes from them")
        raise
