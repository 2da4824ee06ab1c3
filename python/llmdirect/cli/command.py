"""Base class of the commands: errors with the names of options, published and former spellings."""

import ast
import logging
import re
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from llmdirect.cli.console import stderr
from llmdirect.common.errors import LlmdirectError

SETTINGS: Final = {"token_normalize_func": lambda token: token.lower().replace("_", "-")}
"""Context settings: options and choices as the published scripts spell them (--num_epochs, BPR)."""
RENAMED: Final = {
    "--form": "--score-form",
    "--refine-epochs": "--token-epochs",
    "--run-out": "--lists-out",
    "--beside": "--other-runs",
    "--model": "--encoder",
}
"""Former names of options."""
_SETTING: Final = re.compile(r"`(\w+)(?:=([^`]+))?`")


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
        try:
            return super().invoke(ctx)
        except (LlmdirectError, OSError, ValueError) as error:
            stderr.print("[bold red]error:[/]", end=" ")
            stderr.print(with_flags(str(error), ctx), markup=False, highlight=False, soft_wrap=True)
            if logging.getLogger().isEnabledFor(logging.DEBUG):
                stderr.print_exception()
            # A plain ValueError is an argument that makes no sense; everything else failed on the way.
            ctx.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)


def with_flags(message: str, ctx: typer.Context) -> str:
    """The message of the library with `setting` and `setting=value` as options of the command line.

    A name is looked up in the running command, then in the others; one that no command has stays as it is.
    """
    group = ctx.parent.command if ctx.parent is not None else None
    commands = [*(group.commands.values() if isinstance(group, TyperGroup) else ()), ctx.command]
    parameters = {each.name: each for command in commands for each in command.params}

    def flag(found: re.Match[str]) -> str:
        parameter, value = parameters.get(found[1]), found[2]
        if isinstance(parameter, TyperArgument):
            return parameter.metavar or found[1].upper()
        if not isinstance(parameter, TyperOption):
            return found[0]
        name = max(parameter.opts, key=len)
        if value is None or value == "True":
            return name
        if value == "False":
            return max(parameter.secondary_opts or [name], key=len)
        return f"{name} {_plain(value)}"

    return _SETTING.sub(flag, message)


def _plain(value: str) -> str:
    """A Python literal as it is typed on the command line."""
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return ",".join(map(str, found)) if isinstance(found, tuple | list) else str(found)
