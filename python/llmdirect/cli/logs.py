"""Log messages on the terminal; imported once a command runs, since RichHandler needs Pygments."""

import logging

from rich.logging import RichHandler

from llmdirect.cli.console import stderr
from llmdirect.cli.flags import with_flags


class FlagFormatter(logging.Formatter):
    """Formatter of log messages that names settings as options of the command line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record."""
        return with_flags(super().format(record))


def configure_logging(verbose: bool) -> None:
    """Print log messages on stderr: from level INFO, or DEBUG where `verbose`."""
    handler = RichHandler(console=stderr(), show_path=False, show_time=False)
    handler.setFormatter(FlagFormatter("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
