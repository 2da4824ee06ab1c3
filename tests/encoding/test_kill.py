"""Commands killed at any moment resume bit-equal to an uninterrupted run; readers see complete stores.

Each run is a separate process, killed with SIGKILL. They are forked from a server that has imported
the libraries once.
"""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from llmdirect.common.errors import BusyError
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from precompute_helpers import TEXTS, build_checkpoints, make_dataset
from processes import finish, kill, wait_for
from store_helpers import random_content, visible, write_content, write_dataset, write_published

pytestmark = pytest.mark.slow  # kills processes at many points


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    texts = [f"{text} {number}" for number in range(3) for text in TEXTS]
    return make_dataset(folder, [*texts, "", " "]), build_checkpoints(folder, "bert")["bert"].path


def shards_done(dataset: Path) -> int:
    return len(list(dataset.glob("stores/*/shards/*/manifest.json")))


def more_shards_than(dataset: Path, count: int) -> bool:
    return shards_done(dataset) > count


def test_killed_precompute_resumes_bit_equal(
    work: tuple[Path, Path], tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    dataset, model = work
    unbroken, broken = (Path(shutil.copytree(dataset, tmp_path / name)) for name in ("unbroken", "broken"))
    options = ("--encoder", model, "--shard-tokens", 1, "--token-budget", 1)
    finish(start("precompute", unbroken, *options), tmp_path)
    expected = visible(unbroken)
    total = shards_done(unbroken)
    assert total >= 24

    # Twenty kills in a row, each at a random moment after the run has passed the previous one.
    rng = random.Random(7)
    stages: list[Callable[[], bool]] = [
        lambda: any(broken.glob("stores/*/plan.json")),
        lambda: any(broken.glob("stores/*/shards/*/.*.tmp*")),
        *(partial(more_shards_than, broken, count) for count in range(17)),
        lambda: shards_done(broken) >= total - 1,
    ]
    hits = 0
    for stage in stages:
        process = start("precompute", broken, *options)
        wait_for(stage, process)
        time.sleep(rng.uniform(0, 0.02))
        hits += kill(process)
        # Every shard with a manifest is complete.
        for manifest in broken.glob("stores/*/shards/*/manifest.json"):
            EmbeddingStore.open(manifest.parent, verify=True)
    assert hits >= 15
    finish(start("precompute", broken, *options), tmp_path)
    assert visible(broken) == expected
    for folder in (unbroken, broken):
        finish(start("consolidate", folder), tmp_path)
    assert visible(broken) == visible(unbroken)
    assert EmbeddingStore.open(next((broken / "stores").iterdir()), verify=True).num_passages > 8


def test_killed_growth_resumes_bit_equal(
    work: tuple[Path, Path], tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    _, model = work
    options = (
        "--encoder",
        model,
        "--shard-tokens",
        1,
        "--token-budget",
        1,
        "--dtype",
        "int8",
        "--project",
        8,
    )
    for name in ("small", "grown"):
        (tmp_path / name).mkdir()
    small = make_dataset(tmp_path / "small", TEXTS[:6])
    finish(start("precompute", small, *options), tmp_path)
    finish(start("consolidate", small), tmp_path)
    [old] = (small / "stores").iterdir()
    grown = make_dataset(tmp_path / "grown", [*TEXTS[2:], "one", "and another"])
    shutil.copytree(small / "stores", grown / "stores")
    unbroken, broken = (Path(shutil.copytree(grown, tmp_path / name)) for name in ("unbroken", "broken"))
    for command in (("precompute", unbroken, *options), ("consolidate", unbroken)):
        finish(start(*command), tmp_path)
    [folder] = (broken / "stores").iterdir()

    rng = random.Random(9)
    first = (old / "manifest.json").read_bytes()
    stages: list[tuple[bool, Callable[[], bool]]] = [
        (True, lambda: (folder / "plan.json").exists()),
        *((True, partial(more_shards_than, broken, count)) for count in range(0, 5, 2)),
        (False, lambda: any(folder.glob(".*.tmp*"))),
        (False, lambda: any(folder.glob(".*.tmp*"))),
        (False, lambda: (folder / "manifest.json").read_bytes() != first),
    ]
    hits = 0
    for encoding, stage in stages:
        if not encoding and shards_done(broken):
            finish(start("precompute", broken, *options), tmp_path)
        process = start("precompute", broken, *options) if encoding else start("consolidate", broken)
        wait_for(stage, process)
        time.sleep(rng.uniform(0, 0.005))
        hits += kill(process)
        EmbeddingStore.open(folder, verify=True)  # the complete old or the complete new store
    assert hits >= 3
    for command in (("precompute", broken, *options), ("consolidate", broken)):
        finish(start(*command), tmp_path)
    assert visible(broken) == visible(unbroken)
    store = EmbeddingStore.open(folder, verify=True)
    assert store.num_passages == len(TEXTS)


SIZES = [[300, 0, 700], [900], [1, 1200, 40], [800, 30]]


def write_shards(root: Path) -> Path:
    """Shards of 30 MB, so that joining them takes a while."""
    rng = np.random.default_rng(3)
    return write_dataset(root, [random_content(rng, counts, dim=4000) for counts in SIZES])


def written_more_than(size: float, folder: Path) -> bool:
    """Whether a file with more bytes than that is being written."""
    for path in folder.glob(".*.tmp*"):
        with suppress(FileNotFoundError):  # renamed to its final name
            if path.stat().st_size > size:
                return True
    return False


def test_killed_consolidate_resumes_bit_equal(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
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
        # Either no store exists yet, or it is complete.
        if (store / "manifest.json").exists():
            EmbeddingStore.open(store, verify=True)
        else:
            with pytest.raises(FileNotFoundError, match="llmdirect consolidate"):
                EmbeddingStore.open(store)
        finish(start("consolidate", broken), tmp_path)
        assert visible(broken) == expected
        shutil.rmtree(broken)
    assert hits >= 3


def test_killed_published_consolidation_resumes(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
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
            # Every file under its final name is complete.
            named = {name: data for name, data in visible(out).items() if not name.startswith(".")}
            assert named.items() <= visible(unbroken).items()
        finish(start("consolidate", source, "--out", out, "--layout", layout), tmp_path)
        assert visible(out) == visible(unbroken)
    assert hits >= 2


def test_readers_see_old_or_new_store(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    root = tmp_path / "dataset"
    folder = write_shards(root)
    finish(start("consolidate", root), tmp_path)
    rng = np.random.default_rng(8)
    counts = {len(EmbeddingStore.open(folder).keys)}
    seen = set()
    for round_ in range(4):
        write_content(folder / "shards" / "00000", random_content(rng, [round_, 60], dim=4000))
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


def test_killed_writer_releases_lock(
    work: tuple[Path, Path], tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    dataset, model = work
    folder = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    options = ("--encoder", model, "--shard-tokens", 1, "--token-budget", 1)
    process = start("precompute", folder, *options)
    wait_for(lambda: shards_done(folder) > 0, process)
    os.kill(process.pid or 0, signal.SIGSTOP)  # alive, and certainly not finished in the meantime
    with pytest.raises(BusyError, match=re.escape(str(next((folder / "stores").iterdir())))):
        consolidate(folder)
    assert kill(process)
    finish(start("precompute", folder, *options), tmp_path)
    assert consolidate(folder).changed
