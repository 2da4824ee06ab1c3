"""Settings in messages become options of the command line; former names of options are errors."""

import logging

import pytest
import typer
from typer.core import TyperGroup

from llmdirect.cli.app import app
from llmdirect.cli.flags import running, with_flags
from llmdirect.cli.logs import FlagFormatter


def context(command: str) -> typer.Context:
    """Context of a running command."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return typer.Context(group.commands[command], parent=typer.Context(group))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`k_core`: -1, expected 0 or more", "--k-core: -1, expected 0 or more"),
        ("choose `out`, or `overwrite=True`", "choose --out, or --overwrite"),
        ('use `split="random"`', "use --split random"),
        ('`split=leave-last-out` needs times', "--split leave-last-out needs times"),
        ("`fractions=(0.8, 0.1, 0.1)`", "--fractions 0.8,0.1,0.1"),
        ('name it with `columns={"time": "FIELD"}`', "name it with --columns time=FIELD"),
        ('`columns={"user": "a", "item": "b"}`', "--columns user=a,item=b"),
        ('`positive="rating>=4"`', "--positive rating>=4"),
        ("`device=\"cpu\"` of another command", "--device cpu of another command"),
        ("`source` is an argument", "REVIEWS is an argument"),
        ("`llmdirect prepare` and `rating` stay", "`llmdirect prepare` and `rating` stay"),
        ("", ""),
    ],
)  # fmt: skip
def test_settings_become_flags(message: str, expected: str) -> None:
    assert with_flags(message, context("prepare")) == expected


def test_negated_option() -> None:
    parameters = context("precompute").command.params
    negated = {p.name: p.secondary_opts[0] for p in parameters if p.secondary_opts}
    for name, flag in negated.items():
        assert with_flags(f"`{name}=False`", context("precompute")) == flag


def test_messages_are_unchanged_outside_commands() -> None:
    assert with_flags("`overwrite=True`") == "`overwrite=True`"


def test_log_messages_name_flags() -> None:
    record = logging.LogRecord("llmdirect", logging.WARNING, "", 0, "see `%s`", ("k_core",), None)
    token = running.set(context("prepare"))
    try:
        assert FlagFormatter("%(message)s").format(record) == "see --k-core"
    finally:
        running.reset(token)
