"""Commands killed at any moment and run again end with an unbroken run's bytes; readers see whole stores.

Each run is a process of its own, killed with SIGKILL. They are forked from a server that has imported
the libraries once.
"""

import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from precompute_helpers import build_checkpoints, make_usual_dataset
from store_helpers import random_content, visible, write_dataset, write_published, write_store

from llmdirect.errors import BusyError
from llmdirect.store import EmbeddingStore, consolidate

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["llmdirect.cli", "llmdirect.precompute", "llmdirect.store", "transformers.models.bert.modeling_bert"]
)
TOO_LONG = 300  # seconds; reached by a fault alone


def _command(arguments: list[str], errors: str) -> None:
    """What the process does: `llmdirect` with these arguments, its standard error kept in a file."""
    os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    sys.argv = ["llmdirect", *arguments]
    from llmdirect.cli import main

    main()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BaseProcess]]:
    """Starts `llmdirect` with the given arguments; what still runs at the end is killed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes: list[BaseProcess] = []

    def start(*arguments: object) -> BaseProcess:
        process = SERVER.Process(
            target=_command, args=([str(each) for each in arguments], str(tmp_path / "errors"))
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
    """Looks until the condition holds or the process has ended."""
    end = time.monotonic() + TOO_LONG
    while process.is_alive() and not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def kill(process: BaseProcess) -> bool:
    """SIGKILL; whether it hit a running process."""
    process.kill()
    process.join(TOO_LONG)
    return process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    return make_usual_dataset(folder), build_checkpoints(folder, "bert")["bert"].path


def shards_done(dataset: Path) -> int:
    return len(list(dataset.glob("stores/*/shards/*/manifest.json")))


def test_precompute_killed_anywhere_resumes_to_the_same_bytes(
    work: tuple[Path, Path], tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    dataset, model = work
    unbroken, broken = (Path(shutil.copytree(dataset, tmp_path / name)) for name in ("unbroken", "broken"))
    options = ("--model", model, "--shard-tokens", 1, "--token-budget", 1)
    finish(start("--help"), tmp_path)  # the server's imports are not the run's time
    began = time.monotonic()
    finish(start("precompute", unbroken, *options), tmp_path)
    duration = time.monotonic() - began
    expected = visible(unbroken)
    total = shards_done(unbroken)
    assert total >= 8

    def later() -> Callable[[], bool]:
        end = time.monotonic() + rng.uniform(duration / 4, duration)
        return lambda: time.monotonic() > end

    rng = random.Random(7)
    stages: list[Callable[[], Callable[[], bool]]] = [
        lambda: lambda: any(broken.glob("stores/*/plan.json")),
        later,
        lambda: lambda: any(broken.glob("stores/*/shards/*/.*.tmp*")),
        lambda: lambda: shards_done(broken) >= total // 2,
        later,
        lambda: lambda: shards_done(broken) >= total - 1,
    ]
    hits = 0
    for stage in stages:
        process = start("precompute", broken, *options)
        wait_for(stage(), process)
        hits += kill(process)
        # Whatever has a manifest is whole.
        for manifest in broken.glob("stores/*/shards/*/manifest.json"):
            EmbeddingStore.open(manifest.parent, verify=True)
    assert hits >= 3
    finish(start("precompute", broken, *options), tmp_path)
    assert visible(broken) == expected
    for folder in (unbroken, broken):
        finish(start("consolidate", folder), tmp_path)
    assert visible(broken) == visible(unbroken)
    assert EmbeddingStore.open(next((broken / "stores").iterdir()), verify=True).num_passages > 8


SIZES = [[300, 0, 700], [900], [1, 1200, 40], [800, 30]]


def write_shards(root: Path) -> Path:
    """Shards of 30 MB, so that joining them takes a while."""
    rng = np.random.default_rng(3)
    return write_dataset(root, [random_content(rng, counts, dim=4000) for counts in SIZES])


def written_more_than(size: float, folder: Path) -> bool:
    """Whether a file with more bytes than that is being written."""
    for path in folder.glob(".*.tmp*"):
        with suppress(FileNotFoundError):  # it has got its name
            if path.stat().st_size > size:
                return True
    return False


def test_consolidate_killed_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    shards = write_shards(tmp_path / "shards")
    relative = shards.relative_to(tmp_path / "shards")
    unbroken = Path(shutil.copytree(tmp_path / "shards", tmp_path / "unbroken"))
    finish(start("consolidate", unbroken), tmp_path)
    expected = visible(unbroken)

    rng = random.Random(11)
    stages: list[Callable[[Path], bool]] = [
        *(partial(written_more_than, rng.uniform(0, 30e6)) for _ in range(3)),
        lambda store: any(store.glob("tokens-*.npy")),
        lambda store: (store / "manifest.json").exists(),
        lambda store: len(list(store.glob("shards/*"))) < len(SIZES),
    ]
    hits = 0
    for number, stage in enumerate(stages):
        broken = Path(shutil.copytree(tmp_path / "shards", tmp_path / f"broken{number}"))
        store = broken / relative
        process = start("consolidate", broken)
        wait_for(partial(stage, store), process)
        hits += kill(process)
        # Either there is no store yet, or it is all there.
        if (store / "manifest.json").exists():
            EmbeddingStore.open(store, verify=True)
        else:
            with pytest.raises(FileNotFoundError, match="llmdirect consolidate"):
                EmbeddingStore.open(store)
        finish(start("consolidate", broken), tmp_path)
        assert visible(broken) == expected
        shutil.rmtree(broken)
    assert hits >= 3


def test_published_folder_killed_while_it_is_merged(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((64, 2000)).astype(np.float32) for _ in range(40)]
    source = write_published(tmp_path / "in", {"user_embeddings": arrays, "item_embeddings": arrays[:2]})
    hits = 0
    for layout in ("store", "padded"):
        unbroken, out = tmp_path / f"unbroken-{layout}", tmp_path / layout
        consolidate(source, out=unbroken, layout=layout)
        for size in (1, 9e6):
            process = start("consolidate", source, "--out", out, "--layout", layout)
            wait_for(partial(written_more_than, size, out), process)
            hits += kill(process)
            # Whatever has its name is whole.
            named = {name: data for name, data in visible(out).items() if not name.startswith(".")}
            assert named.items() <= visible(unbroken).items()
        finish(start("consolidate", source, "--out", out, "--layout", layout), tmp_path)
        assert visible(out) == visible(unbroken)
    assert hits >= 2


def test_readers_see_the_old_store_or_the_new_one(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    root = tmp_path / "dataset"
    folder = write_shards(root)
    finish(start("consolidate", root), tmp_path)
    rng = np.random.default_rng(8)
    counts = {len(EmbeddingStore.open(folder).keys)}
    seen = set()
    for round_ in range(4):
        write_store(folder / "shards" / "00000", random_content(rng, [round_, 60], dim=4000))
        (folder / "plan.json").write_text('{"num_shards": 1}')
        before = max(counts)
        counts.add(before + 2)
        process = start("consolidate", root)
        while process.is_alive():
            store = EmbeddingStore.open(folder)
            assert store.num_passages in (before, before + 2)
            seen.add(store.num_passages)
        finish(process, tmp_path)
        assert EmbeddingStore.open(folder, verify=True).num_passages == before + 2
    assert seen > {min(counts)}


def test_a_killed_writer_gives_its_lock_back(
    work: tuple[Path, Path], tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    dataset, model = work
    folder = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    options = ("--model", model, "--shard-tokens", 1, "--token-budget", 1)
    process = start("precompute", folder, *options)
    wait_for(lambda: shards_done(folder) > 0, process)
    os.kill(process.pid or 0, signal.SIGSTOP)  # alive, and for certain not finished in the meantime
    with pytest.raises(BusyError, match=re.escape(str(next((folder / "stores").iterdir())))):
        consolidate(folder)
    assert kill(process)
    finish(start("precompute", folder, *options), tmp_path)
    assert consolidate(folder)["changed"]
