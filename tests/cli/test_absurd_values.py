"""Every option of every command refuses values that make no sense, and says what it expects."""

import json
from typing import Any

import pytest
from typer.core import TyperOption

import llmdirect.cli.app  # noqa: F401  # fills the table of commands
from command_line import CommandLine
from llmdirect.cli.command import COMMANDS
from run_helpers import fit, make_dataset
from tiny import build

pytestmark = pytest.mark.slow

VALUES = ("-1", "nan", "-inf", "1e308", "1" + "0" * 30, "", "nope", "\x00")
SENSIBLE = {
    ("prepare", "--k-core"): "the empty core is named, whatever its size",
    ("test", "--depth"): "a list is never longer than the catalogue",
    ("recommend", "-k"): "a list is never longer than the catalogue",
    ("explain", "-k"): "a list is never longer than the catalogue",
}
"""Options for which a huge number is an honest request."""
FREE_NAMES = (("precompute", "--store"),)
"""Options that take any name."""
FREE_TEXT = ("--text", "--item-text", "--out", "--html", "--lists-out", "--save", "--rename", "--name")
UNRUN = ("demo", "explore", "download", "cache-model")
"""Commands that take long, serve, or use the network; their options are tested without running them."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Arguments with which each command would run."""
    folder = tmp_path_factory.mktemp("absurd")
    data = make_dataset(folder / "data")
    run = folder / "run"
    fit(data, run, num_epochs=1)
    dataset, trained = str(data), ["--parameters", str(run)]
    return {
        "prepare": [str(data.with_suffix(".json")), "--out", str(folder / "prepared"), "--overwrite"],
        "audit": [dataset],
        "precompute": [dataset, "--encoder", str(build("bert", folder)[0]), "--estimate"],
        "consolidate": [dataset],
        "train": [dataset, "--out", str(folder / "again"), "--overwrite", "--num-epochs", "1"],
        "test": [dataset, *trained],
        "recommend": [str(run), "--user", "u1"],
        "explain": [str(run), "--user", "u1"],
        "aspects": [str(run)],
        "report": [str(run), "--out", str(folder / "report.html")],
        "faithfulness": [dataset, *trained, "--pairs", "1"],
        "grid": [dataset, "--out", str(folder / "grid"), "--param", "lr=1e-3"],
        "scoreboard": [dataset, "--out", str(folder / "board"), "--rows", "popularity", "--splits", "1"],
    }


def options() -> list[tuple[str, str]]:
    """Every option with a value: command and name."""
    return [
        (command, max(parameter.opts, key=len))
        for command in COMMANDS
        for parameter in COMMANDS[command].params
        if isinstance(parameter, TyperOption) and not parameter.is_flag and command not in UNRUN
    ]


@pytest.mark.parametrize("value", VALUES)
def test_absurd_values_are_refused(world: dict[str, list[str]], cli: CommandLine, value: str) -> None:
    accepted: list[Any] = []
    for command, option in options():
        if option in FREE_TEXT or (command, option) in FREE_NAMES:
            continue
        arguments = list(world[command])
        if option in arguments:
            del arguments[arguments.index(option) : arguments.index(option) + 2]
        result = cli(command, *arguments, option, value)
        assert result.code in (0, 1, 2), (command, option)
        assert "Traceback" not in result.err
        assert "InternalError" not in result.err
        if result.code == 0:
            accepted.append((command, option))
        else:
            assert "rror" in result.err, (command, option)
    huge = value in ("1" + "0" * 30,)
    assert [pair for pair in accepted if not (huge and pair in SENSIBLE)] == [], json.dumps(accepted)
