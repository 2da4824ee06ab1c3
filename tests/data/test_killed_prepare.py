"""`prepare` killed at any point leaves the old dataset or none, and a second run completes it."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.store.audit import audit
from review_files import random_reviews, write_lines

pytestmark = pytest.mark.slow  # kills processes at many points

# Kills itself at the n-th durable call (sync or rename), before or right after it.
KILLED_AT = """
import os, signal, sys
from llmdirect.data.prepare import prepare

raw, out, number, moment, seed = sys.argv[1:]
calls = 0

def deadly(real):
    def call(*arguments):
        global calls
        calls += 1
        last = calls == int(number)
        if last and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

for name in ("replace", "fsync", "unlink"):
    setattr(os, name, deadly(getattr(os, name)))
prepare(raw, out, seed=int(seed), overwrite=True)
"""
KILLED = -9


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = random_reviews(4, users=200, items=150, rows=6000)
    return write_lines(tmp_path_factory.mktemp("raw") / "raw.jsonl", records)


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """Files of uninterrupted runs, by seed."""
    folder = tmp_path_factory.mktemp("whole")
    for seed in (1, 2):
        prepare(raw, folder / str(seed), seed=seed)
    return {seed: contents(folder / str(seed)) for seed in (1, 2)}


COMMIT = 14  # four tables of three calls each, then sync, rename (this one) and sync of the manifest


@pytest.mark.parametrize(
    ("number", "moment"),
    [(1, "before"), (3, "after"), (5, "before"), (12, "before"), (COMMIT, "before"), (COMMIT, "after")],
)
def test_new_folder(
    tmp_path: Path, raw: Path, whole: dict[int, dict[str, bytes]], number: int, moment: str
) -> None:
    out = tmp_path / "out"
    with start(KILLED_AT, raw, out, number, moment, 1) as process:
        process.wait()
    assert process.returncode == KILLED
    committed = number + (moment == "after") > COMMIT
    assert (out / "manifest.json").exists() == committed
    if committed:
        assert audit(out).ok
    result = prepare(raw, out, seed=1)
    assert result.status == ("unchanged" if committed else "written")
    assert contents(out) == whole[1]


@pytest.mark.parametrize(
    ("number", "moment"),
    [(9, "after"), (COMMIT, "before"), (COMMIT, "after"), (COMMIT + 2, "before")],
)
def test_replaced_dataset(
    tmp_path: Path, raw: Path, whole: dict[int, dict[str, bytes]], number: int, moment: str
) -> None:
    out = tmp_path / "out"
    before = prepare(raw, out, seed=1).hash
    with start(KILLED_AT, raw, out, number, moment, 2) as process:
        process.wait()
    assert process.returncode == KILLED
    dataset = Dataset.open(out)
    committed = number + (moment == "after") > COMMIT
    assert (dataset.hash != before) == committed
    assert audit(out).ok
    prepare(raw, out, seed=2, overwrite=not committed)
    assert contents(out) == whole[2]


def test_random_moments(tmp_path: Path, raw: Path, whole: dict[int, dict[str, bytes]]) -> None:
    """Consecutive kills at times spread over the duration of a run."""
    script = (
        "import sys; from llmdirect.data.prepare import prepare; prepare(sys.argv[1], sys.argv[2], seed=1)"
    )
    began = time.perf_counter()
    with start(script, raw, tmp_path / "measured") as process:
        assert process.wait() == 0
    lasted = time.perf_counter() - began
    out, rng = tmp_path / "out", random.Random(0)
    for part in range(4):
        with start(script, raw, out) as process:
            time.sleep(lasted * rng.uniform(part, part + 1) / 4)
            process.kill()
        if (out / "manifest.json").exists():
            assert audit(out).ok
    prepare(raw, out, seed=1)
    assert contents(out) == whole[1]
