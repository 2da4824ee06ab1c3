"""The extension and what could end the process: buffers that change, absurd sizes, panics."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

import llmdirect
from llmdirect import _core
from llmdirect.common.errors import InternalError, LlmdirectError
from llmdirect.training.negatives import sample_negatives

RACE = """
import threading, time
import numpy as np
from llmdirect import _core

rows = 2000
indices = np.tile(np.arange(5, dtype=np.int32), rows)
positives = _core.CheckedCsr(np.arange(rows + 1, dtype=np.int64) * 5, indices)
users = np.zeros(1 << 20, np.int32)
invalid = np.full(len(users), 0x7FFFFFFF, np.int32)

def write():
    while True:
        users[:] = invalid
        users[:] = 0

threading.Thread(target=write, daemon=True).start()
end, calls = time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        _core.sample_negatives(users, positives, 100, 1, seed=0, draw=0)
    except ValueError as error:
        assert "positives has 2000 rows" in str(error)
    calls += 1
assert calls > 3
"""


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "RUST_BACKTRACE"}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**inherited, **environment}, check=False
    )


def test_users_may_change_while_negatives_are_sampled() -> None:
    done = run_python(RACE)
    assert done.returncode == 0, done.stderr


def positives() -> _core.CheckedCsr:
    return _core.CheckedCsr(np.array([0, 1, 2], np.int64), np.array([0, 1], np.int32))


def draw(num_negatives: int, num_items: int = 5) -> object:
    users = np.zeros(3, np.int32)
    return _core.sample_negatives(users, positives(), num_items, num_negatives, seed=0, draw=0)


def ranked(k: int) -> object:
    ones = np.ones((2, 1), np.float32)
    return _core.rank(np.zeros(3, np.int32), k, ones, ones, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("call", "setting"),
    [
        (lambda: draw(2**40), "num_negatives"),
        (lambda: draw(2**20 + 1), "num_negatives"),
        (lambda: draw(2**62), "num_negatives"),
        (lambda: draw(-1), "num_negatives"),
        (lambda: draw(2**70), "num_negatives"),
        (lambda: draw(1, num_items=10**30), "num_items"),
        (lambda: ranked(2**45), "k"),
        (lambda: ranked(2**63), "k"),
        (lambda: ranked(-1), "k"),
        (lambda: _core.list_metrics(np.zeros((2, 1), np.int32), positives(), [("ndcg", 2**80)]), "k"),
        (lambda: llmdirect.set_num_threads(2**65), "count"),
    ],
)
def test_absurd_sizes_are_refused_by_name(call: Callable[[], object], setting: str) -> None:
    with pytest.raises(ValueError, match=f"`{setting}`"):
        call()


@pytest.mark.parametrize("num_negatives", [4095, 4096, 4097, 100_000])
def test_many_negatives_of_a_user(num_negatives: int) -> None:
    """Tasks of the sampler hold 4096 negatives; a position has the same one whatever their number."""
    table = llmdirect.Csr.from_pairs([0, 1], [0, 1], 2)
    one = sample_negatives([0], table, 9, num_negatives, seed=3)
    two = sample_negatives([0, 1], table, 9, num_negatives, seed=3)
    assert two.shape == (2, num_negatives)
    np.testing.assert_array_equal(one[0], two[0])
    assert set(np.unique(two[0])) == set(range(9)) - {0}
    assert set(np.unique(two[1])) == set(range(9)) - {1}


def test_tables_are_read_only_views() -> None:
    table = llmdirect.Csr.from_pairs([0, 1], [3, 1], 2)
    for view in (table.indptr, table.indices):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 7
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            view.setflags(write=True)
        assert not isinstance(view.base, np.ndarray)


def test_a_panic_is_an_ordinary_exception() -> None:
    assert llmdirect.InternalError is InternalError
    with pytest.raises(InternalError, match=r"internal error: boom \(.*gil\.rs:\d+:\d+\)") as raised:
        _core._panic("boom")
    text = str(raised.value)
    assert isinstance(raised.value, LlmdirectError)
    assert isinstance(raised.value, RuntimeError)
    assert "please report it" in text
    assert f"llmdirect {llmdirect.__version__}, Python {sys.version.split()[0]}" in text
    assert str(pickle.loads(pickle.dumps(raised.value))) == text


def test_a_panic_of_several_threads_at_once() -> None:
    messages: list[str] = []

    def panic(number: int) -> None:
        try:
            _core._panic(f"boom {number}")
        except Exception as error:
            messages.append(str(error))

    threads = [threading.Thread(target=panic, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(message.split()[3] for message in messages) == sorted(map(str, range(8)))


def test_a_panic_prints_nothing_unless_asked() -> None:
    program = """
from llmdirect import _core
try:
    _core._panic("boom")
except Exception as error:
    print(type(error).__name__)
"""
    quiet = run_python(program)
    assert (quiet.stdout, quiet.stderr) == ("InternalError\n", "")
    loud = run_python(program, RUST_BACKTRACE="1")
    assert "panicked at" in loud.stderr
