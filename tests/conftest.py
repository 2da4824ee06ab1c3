"""Fixtures of all tests."""

import pytest

from command_line import CommandLine
from processes import start

__all__ = ["start"]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, called in this process."""
    return CommandLine(monkeypatch, capsys)
