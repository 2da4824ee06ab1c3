"""The command line, called in this process."""

import sys
from dataclasses import dataclass

import pytest

from llmdirect.cli import console, main


@dataclass(frozen=True)
class Answer:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


class CommandLine:
    """`cli("prepare", path, "--out", folder)` gives an Answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Answer:
        self._monkeypatch.setattr(sys, "argv", ["llmdirect", *map(str, arguments)])
        for stream in (console.stdout(), console.stderr()):
            self._monkeypatch.setattr(stream, "_width", 100_000)  # no line breaks inside a message
        self._capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        printed = self._capsys.readouterr()
        assert isinstance(code, int)
        return Answer(code, printed.out, printed.err)
