"""Threads of the core: their number, forked children, interrupts."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import llmdirect
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.training.negatives import sample_negatives


def test_num_threads_does_not_change_results() -> None:
    before = llmdirect.num_threads()
    rng = np.random.default_rng(0)
    seen = Csr.from_pairs(rng.integers(0, 300, 3000), rng.integers(0, 500, 3000), 300)
    query, item = rng.standard_normal((300, 9)), rng.standard_normal((500, 9))
    results = []
    try:
        for count in (1, 2, 7):
            llmdirect.set_num_threads(count)
            assert llmdirect.num_threads() == count
            drawn = sample_negatives(np.arange(300), seen, 500, 50, seed=1)
            lists = rank(ScoreTables(query=query, item=item), np.arange(300), k=10, seen=seen)
            results.append((drawn, lists.items, lists.scores))
    finally:
        llmdirect.set_num_threads(before)
    for other in results[1:]:
        for output, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("count", [0, 257])
def test_invalid_num_threads(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} threads, expected 1 to 256"):
        llmdirect.set_num_threads(count)


FORK_PROGRAM = """
import os, numpy as np
from llmdirect.common.csr import Csr
from llmdirect.training.negatives import sample_negatives
positives = Csr.from_pairs([0, 1], [2, 3], 2)
users = np.tile(np.array([0, 1], np.int32), 50_000)
before = sample_negatives(users, positives, 9, 4, seed=5)
child = os.fork()
after = sample_negatives(users, positives, 9, 4, seed=5)
assert (before == after).all()
if child:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
"""


def test_forked_child_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-c", FORK_PROGRAM], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CTRL_C_PROGRAM = """
import numpy as np
from llmdirect.ranking.top_k import rank
from llmdirect.ranking.scorer import ScoreTables
rng = np.random.default_rng(0)
tables = ScoreTables(query=rng.standard_normal((200_000, 64)), item=rng.standard_normal((50_000, 64)))
print("ready", flush=True)
rank(tables, np.arange(200_000), k=10, seen=None)
"""


def test_ctrl_c_interrupts_long_call() -> None:
    command = [sys.executable, "-c", CTRL_C_PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
