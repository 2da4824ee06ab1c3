"""Base class of the commands: errors with the names of options, published and former spellings."""

import logging
from typing import Any, Final

import typer
from typer.core import TyperCommand

from llmdirect.cli.console import stderr
from llmdirect.cli.flags import running, with_flags
from llmdirect.common.errors import LlmdirectError

SETTINGS: Final = {"token_normalize_func": lambda token: token.lower().replace("_", "-")}
"""Context settings: options and choices as the published scripts spell them (--num_epochs, BPR)."""
RENAMED: Final = {
    "--form": "--score-form",
    "--refine-epochs": "--token-epochs",
    "--unit": "--passage-unit",
}
"""Former names of options."""


class Command(TyperCommand):
    """A command that reports errors in terms of its options: exit code 1 failed, 2 bad usage."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; a former name of an option is an error that gives the present one."""
        for argument in args:
            name = argument.partition("=")[0].lower().replace("_", "-")
            if name in RENAMED:
                raise typer.BadParameter(f"{name} is called {RENAMED[name]} now", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error is printed, with the flags of the settings that it names."""
        token = running.set(ctx)
        try:
            return super().invoke(ctx)
        except (LlmdirectError, OSError, ValueError) as error:
            stderr.print("[bold red]error:[/]", end=" ")
            stderr.print(with_flags(str(error), ctx), markup=False, highlight=False, soft_wrap=True)
            if logging.getLogger().isEnabledFor(logging.DEBUG):
                stderr.print_exception()
            # A plain ValueError is an argument that makes no sense; everything else failed on the way.
            ctx.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)
        finally:
            running.reset(token)
