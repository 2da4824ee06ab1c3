"""Command line in processes that can be killed.

They are forked from a server that has imported the libraries once.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "llmdirect.cli",
        "llmdirect.encoding.precompute",
        "llmdirect.store.store",
        "transformers.models.bert.modeling_bert",
    ]
)
TOO_LONG = 300  # seconds; reached by a fault alone


def _command(arguments: list[str], errors: str, environment: dict[str, str]) -> None:
    """Run `llmdirect` with its output in files."""
    os.environ.update(environment)
    for stream, path in ((1, f"{errors}.out"), (2, errors)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
    sys.argv = ["llmdirect", *arguments]
    from llmdirect.cli import main

    main()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BaseProcess]]:
    """Function that starts `llmdirect`; processes still running at the end are killed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes: list[BaseProcess] = []

    def start(*arguments: object, errors: str = "errors", **environment: object) -> BaseProcess:
        command = [str(argument) for argument in arguments], str(tmp_path / errors)
        process = SERVER.Process(
            target=_command, args=(*command, {name: str(value) for name, value in environment.items()})
        )
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def finish(process: BaseProcess, tmp_path: Path) -> None:
    process.join(TOO_LONG)
    assert process.exitcode == 0, (tmp_path / "errors").read_text()


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait until the condition holds or the process has ended."""
    end = time.monotonic() + TOO_LONG
    while process.is_alive() and not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def kill(process: BaseProcess) -> bool:
    """SIGKILL; whether it hit a running process."""
    process.kill()
    process.join(TOO_LONG)
    return process.exitcode == -signal.SIGKILL
