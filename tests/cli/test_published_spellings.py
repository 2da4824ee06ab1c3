"""Spellings of the published scripts, former names of options, and flags in the errors of the library."""

from pathlib import Path
from typing import Any

import pytest
import typer.main

from command_line import CommandLine
from llmdirect.cli.app import app
from llmdirect.cli.command import RENAMED


def group() -> Any:
    """Click group of all commands."""
    return typer.main.get_command(app)


def options_of(command: str) -> set[str]:
    return {name for option in group().commands[command].params for name in option.opts}


def test_train_and_test_take_the_published_spellings(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def train(dataset: Path, out: Path, **settings: object) -> None:
        calls.append((dataset, out, settings["model"], settings["training"]))
        raise ValueError("seen")

    def evaluate(dataset: Path, run: Path, **settings: object) -> None:
        calls.append((dataset, run))
        raise ValueError("seen")

    monkeypatch.setattr("llmdirect.training.train.train", train)
    monkeypatch.setattr("llmdirect.runs.evaluate.evaluate", evaluate)
    published = ("--setup", "BPR", "--aspc_num", 3, "--num_epochs", 2, "--datafile", tmp_path / "data")
    assert "seen" in cli("train", *published, "--out", tmp_path / "run").err
    [(dataset, out, model, training)] = calls
    assert (dataset, out) == (tmp_path / "data", tmp_path / "run")
    assert (training.objective, model.aspects, training.num_epochs) == ("bpr", 3, 2)
    calls.clear()
    assert "seen" in cli("test", "--datafile", tmp_path / "data", "--parameters", tmp_path / "run").err
    assert calls == [(tmp_path / "data", tmp_path / "run")]


@pytest.mark.parametrize(
    ("setup", "objective"), [("default", "rating"), ("bpr", "bpr"), ("Softmax", "softmax")]
)
def test_setup_is_alias_of_objective(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setup: str, objective: str
) -> None:
    chosen = []

    def train(dataset: Path, out: Path, **settings: object) -> None:
        chosen.append(settings["training"].objective)  # type: ignore[attr-defined]
        raise ValueError("seen")

    monkeypatch.setattr("llmdirect.training.train.train", train)
    cli("train", tmp_path, "--setup", setup)
    cli("train", tmp_path, "--objective", objective.upper())
    assert chosen == [objective, objective]


def test_duplicate_or_unknown_options_are_usage_errors(cli: CommandLine, tmp_path: Path) -> None:
    for arguments, message in (
        (
            ("--setup", "BPR", "--objective", "bpr"),
            "give the objective once: with --objective, or with --setup",
        ),
        (("--setup", "wrong"), "--setup 'wrong': expected one of softmax, bpr, default"),
        (("--datafile", tmp_path), "give the dataset once: as the argument, or with --datafile"),
    ):
        answer = cli("train", tmp_path, *arguments)
        assert answer.code == 2
        assert message in answer.err
    answer = cli("train")
    assert answer.code == 2
    assert "give the dataset once" in answer.err


@pytest.mark.parametrize("written", ["{}", "{}=ratio"])
@pytest.mark.parametrize("former", sorted(RENAMED))
def test_former_option_name_error_names_replacement(
    cli: CommandLine, tmp_path: Path, former: str, written: str
) -> None:
    command = next(name for name in group().commands if RENAMED[former] in options_of(name))
    for spelling in (former, former.replace("-", "_").replace("__", "--", 1), former.upper()):
        answer = cli(command, tmp_path, written.format(spelling))
        assert answer.code == 2
        assert f"{former} is called {RENAMED[former]} now" in answer.err


def test_renamed_options_exist_and_former_do_not() -> None:
    every = {name for command in group().commands for name in options_of(command)}
    assert set(RENAMED.values()) <= every
    assert not set(RENAMED) & every


@pytest.mark.parametrize(
    ("error", "code"),
    [("`num_epochs`: -1, expected 0 or more", 2), ("run it again with `overwrite=True`", 2)],
)
def test_library_errors_name_command_flags(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, code: int
) -> None:
    def train(*_: object, **__: object) -> None:
        raise ValueError(error)

    monkeypatch.setattr("llmdirect.training.train.train", train)
    answer = cli("train", tmp_path)
    assert answer.code == code
    expected = error.replace("`num_epochs`", "--num-epochs").replace("`overwrite=True`", "--overwrite")
    assert answer.err == f"error: {expected}\n"
