"""Settings that messages of the library name, as options of the command line."""

import ast
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

running: Final[ContextVar[typer.Context | None]] = ContextVar("running", default=None)
"""Context of the running command."""
_SETTING: Final = re.compile(r"`([a-z]\w*)(?:=([^`]+))?`")


def with_flags(message: str, ctx: typer.Context | None = None) -> str:
    """Message of the library with each `setting` and `setting=value` as an option of the command line.

    Parameters
    ----------
    message
        Text with names of settings in backticks, and values as Python writes them. A name is looked up in
        the running command, in the settings of its --param, then in the other commands; one that no command
        has stays as it is.
    ctx
        Context of the command; by default of the running one.

    Examples
    --------
    "replace it with `overwrite=True`" becomes "replace it with --overwrite", and
    "name it with `columns={"time": "FIELD"}`" becomes "name it with --columns time=FIELD".
    """
    ctx = ctx or running.get()
    if ctx is None:
        return message
    group = ctx.parent.command if ctx.parent is not None else None
    others = group.commands.values() if isinstance(group, TyperGroup) else ()
    return flags_of(message, [*others, ctx.command])


def flags_of(message: str, commands: Sequence[Any]) -> str:
    """As `with_flags`, of the last of these commands, or else of the others."""
    from llmdirect.config import setting_names

    parameters = {parameter.name: parameter for command in commands for parameter in command.params}
    own = {parameter.name for parameter in commands[-1].params}
    others = setting_names() - own if "param" in own else set()

    def flag(match: re.Match[str]) -> str:
        parameter, value = parameters.get(match[1]), match[2]
        if match[1] in others:
            return f"--param {match[1]}" + (f"={_typed(value).lower()}" if value is not None else "")
        if isinstance(parameter, TyperArgument):
            return parameter.metavar or match[1].upper()
        if not isinstance(parameter, TyperOption):
            return match[0]
        name = max(parameter.opts, key=len)
        if value is None or value == "True":
            return name
        if value == "False":
            return max(parameter.secondary_opts or [name], key=len)
        return f"{name} {_typed(value)}"

    return _SETTING.sub(flag, message)


def _typed(value: str) -> str:
    """A Python literal as it is typed on the command line."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    if isinstance(literal, dict):
        return ",".join(f"{key}={item}" for key, item in literal.items())
    return ",".join(map(str, literal)) if isinstance(literal, tuple | list) else str(literal)
