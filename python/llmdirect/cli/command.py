"""Base classes of the commands: errors with the names of options, former spellings, the list of commands."""

from typing import Any, Final

import typer
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from llmdirect.cli.console import stderr, stdout
from llmdirect.cli.flags import running, with_flags
from llmdirect.common.errors import LlmdirectError

SETTINGS: Final = {"token_normalize_func": lambda token: token.lower().replace("_", "-")}
"""Context settings: options and choices as the published scripts spell them (--num_epochs, BPR)."""
RENAMED: Final = {
    "--form": "--score-form",
    "--refine-epochs": "--token-epochs",
    "--run-out": "--lists-out",
    "--beside": "--other-runs",
    "--model": "--encoder",
    "--unit": "--passage-unit",
}
"""Former names of options."""


class Group(TyperGroup):
    """The list of commands, printed without what Typer imports for it (Markdown, Pygments)."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print usage, options and commands, in the look that Typer gives to the help of each command."""
        options = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        commands = [
            (name, command.get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        # Text in place of markup, for which Rich imports a table of all emoji.
        usage = Text.assemble(
            ("Usage: ", "yellow"), (ctx.command_path, "bold"), " ", " ".join(self.collect_usage_pieces(ctx))
        )
        for paragraph in (usage, Text(self.help or "")):
            stdout.print(Padding(paragraph, (1, 1, 0, 1)))
        stdout.print()
        for title, records in (("Options", options), ("Commands", commands)):
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(style="bold cyan", no_wrap=True)
            for name, text in filter(None, records):
                table.add_row(Text(name), Text(text))
            stdout.print(Panel(table, title=Text(title), title_align="left", border_style="dim"))


class Command(TyperCommand):
    """A command that reports errors in terms of its options: exit code 1 failed, 2 bad usage."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; a former name of an option is an error that gives the present one."""
        present = {option for parameter in self.params for option in parameter.opts}
        for argument in args:
            name = argument.partition("=")[0].lower().replace("_", "-")
            if name in RENAMED and name not in present and RENAMED[name] in present:
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
            import logging

            if logging.getLogger().isEnabledFor(logging.DEBUG):
                stderr.print_exception()
            # A plain ValueError is an argument that makes no sense; everything else failed on the way.
            ctx.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)
        finally:
            running.reset(token)
