"""Base classes of the commands: errors with the names of options, former spellings, the list of commands."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup, TyperOption

from llmdirect.cli.console import stderr
from llmdirect.cli.flags import flags_of, running, with_flags
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
    "--protocol": "--protocols",
}
"""Former names of options."""


class CommandTable(Mapping[str, TyperCommand]):
    """Commands by name, each built from its function on first use; Typer would build all at every start."""

    def __init__(self) -> None:
        self._functions: dict[str, tuple[Callable[..., None], dict[str, str]]] = {}
        self._built: dict[str, TyperCommand] = {}

    def add(self, name: str, function: Callable[..., None], **texts: str) -> None:
        """Add a command; `texts` are `help` and `epilog` of `typer.Typer.command`."""
        self._functions[name] = function, texts

    def short_help(self, name: str) -> str:
        """First paragraph of a command's help."""
        function, texts = self._functions[name]
        paragraph, *_ = inspect.cleandoc(texts.get("help") or function.__doc__ or "").split("\n\n")
        return " ".join(paragraph.split())

    def __getitem__(self, name: str) -> TyperCommand:
        function, texts = self._functions[name]
        if name not in self._built:
            app = typer.Typer(add_completion=False)
            app.command(name, cls=Command, help=texts.get("help"), epilog=texts.get("epilog"))(function)
            command = typer.main.get_command(app)
            assert isinstance(command, TyperCommand)
            _add_conditions(command)
            self._built[name] = command
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


COMMANDS: Final = CommandTable()
"""All commands, in the order of --help; app.py fills it."""


def _add_conditions(command: TyperCommand) -> None:
    """Add to the help of each option under which conditions it has an effect."""
    from llmdirect.common.conditions import condition_note

    for option in command.params:
        note = condition_note(command.name or "", option.name or "")
        if note and isinstance(option, TyperOption):
            option.help = f"{option.help} {flags_of(note, [command])}"


class Group(TyperGroup):
    """The group of all commands; its help is plain text, without what Typer imports for a rich one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = COMMANDS  # type: ignore[assignment]  # only read

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, options and commands."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        options = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        commands = [(name, COMMANDS.short_help(name)) for name in COMMANDS]
        for title, records in (("Options", options), ("Commands", commands)):
            with formatter.section(title):
                formatter.write_dl(list(filter(None, records)))


class Command(TyperCommand):
    """A command that reports errors in terms of its options: exit code 1 failed, 2 bad usage."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; an empty value, or a former name of an option, is an error."""
        present = {option for parameter in self.params for option in parameter.opts}
        for argument in args:
            name = argument.partition("=")[0].lower().replace("_", "-")
            if name in RENAMED and name not in present and RENAMED[name] in present:
                raise typer.BadParameter(f"{name} is called {RENAMED[name]} now", ctx)
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            values = ctx.params.get(parameter.name or "")
            if "" in (values if isinstance(values, list | tuple) else [values]):
                raise typer.BadParameter(f"{max(parameter.opts, key=len)}: the value is empty", ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error is printed, with the flags of the settings that it names."""
        token = running.set(ctx)
        try:
            return super().invoke(ctx)
        except (LlmdirectError, OSError, ValueError) as error:
            stderr().print("[bold red]error:[/]", end=" ")
            stderr().print(with_flags(str(error), ctx), markup=False, highlight=False, soft_wrap=True)
            import logging

            if logging.getLogger().isEnabledFor(logging.DEBUG):
                stderr().print_exception()
            # A plain ValueError is an argument that makes no sense; everything else failed on the way.
            ctx.exit(1 if isinstance(error, LlmdirectError | OSError) else 2)
        finally:
            running.reset(token)
