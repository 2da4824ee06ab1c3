"""python benches/mutations.py [--scale X] [--seed N] [--workers N] [--only KIND,...] [--out FILE]

Opens damaged and forged files in worker processes: stores, shards, datasets, runs, folders of .npy files and
raw files (Parquet, gzip), each with one random change of one file. 10,000 cases at scale 1; a case depends on
its number and the seed only. Counts what came of them:

refused   an error of the documented kinds: DataError, another error of the package, ValueError or OSError
equal     the data are as before: the change was in a part that nothing reads
found     a plain open reads other data, but `verify=True` or `audit` refuses
edited    a well-formed manifest that states something else, or hashes that fit a changed file
silent    other data that nothing refuses
defect    another exception, such as InternalError, TypeError or MemoryError
crash     the process died
hang      no answer within a minute

Exits with 1 if there is a case of the last four kinds, after printing its number.
"""

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
CASES = {
    "store": 3000,
    "shards": 1500,
    "dataset": 2000,
    "run": 1500,
    "npy": 1000,
    "gzip": 400,
    "parquet": 600,
}
FAULTS = ("silent", "defect", "crash", "hang")
SECONDS = 60
MEMORY = 8 << 30
PRELOAD = [
    "llmdirect.runs.trained",
    "llmdirect.training.train",
    "llmdirect.store.audit",
    "llmdirect.data.prepare",
]


# --- artefacts, sound ---


def make_artefacts(folder: Path) -> None:
    """One artefact of each kind, small, and its digest in `<kind>.digest`."""
    import numpy as np
    import polars as pl

    from run_helpers import fit, make_dataset
    from store_helpers import published_arrays, random_content, write_content, write_dataset, write_published

    rng = np.random.default_rng(0)
    contents = [random_content(rng, [3, 0, 9, 5] * 10, dtype="int8") for _ in range(3)]
    write_content(folder / "store", contents[0], "int8")
    write_dataset(folder / "shards", contents, "int8")
    make_dataset(folder / "dataset")
    fit(folder / "dataset", folder / "run", num_epochs=1)
    write_published(folder / "npy", published_arrays(rng))
    (folder / "gzip").mkdir()
    (folder / "parquet").mkdir()
    lines = (folder / "dataset.json").read_bytes()
    (folder / "gzip" / "reviews.json.gz").write_bytes(gzip.compress(lines, mtime=0))
    rows = [json.loads(line) for line in lines.splitlines()]
    pl.DataFrame(rows).write_parquet(folder / "parquet" / "reviews.parquet")
    for kind, read in READERS.items():
        scratch = folder / "scratch"
        shutil.copytree(folder / kind, scratch / kind)  # reading shards removes them
        (folder / f"{kind}.digest").write_text(read(scratch / kind, scratch / "made"))
        shutil.rmtree(scratch)


# --- reading them: a digest of everything that a user would get ---


def digest(*parts: Any) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part.tobytes() if hasattr(part, "tobytes") else repr(part).encode())
    return state.hexdigest()


def store_digest(folder: Path, **options: bool) -> str:
    import numpy as np

    from llmdirect.store.store import EmbeddingStore

    store = EmbeddingStore.open(folder, **options)
    out = np.zeros((store.num_rows, store.dim), np.float32)
    store.gather(np.arange(store.num_passages), out)
    found = store.contains(store.keys), store.lookup(store.keys)
    return digest(out, store.offsets, store.spans, *found, store.read(2))


def read_store(folder: Path, scratch: Path) -> str:
    return store_digest(folder)


def read_shards(folder: Path, scratch: Path) -> str:
    from llmdirect.store.consolidation import consolidate

    consolidate(folder)
    return store_digest(folder / "stores" / "tiny")


def read_dataset(folder: Path, scratch: Path) -> str:
    from llmdirect.data.dataset import TEST, TRAIN, Dataset

    dataset = Dataset.open(folder)
    rows, passages = dataset.interactions, dataset.passages
    train, test = dataset.csr(TRAIN), dataset.csr(TEST)
    return digest(
        *vars(rows).values(),
        passages.text.to_list(),
        passages.kind,
        passages.split,
        dataset.user_ids,
        dataset.item_ids,
        train.indices,
        test.indices,
        dataset.popularity(TRAIN),
        dataset.duplicate_ids(),
    )


def read_run(folder: Path, scratch: Path) -> str:
    from llmdirect.ranking.top_k import rank
    from llmdirect.runs.trained import Trained

    trained = Trained.load(folder)
    users = list(range(len(trained.users.ids)))
    lists = rank(trained.tables, users, k=5, seen=trained.users.seen)
    return digest(lists.items, lists.scores, trained.item_ids, trained.aspect_names, trained.titles)


def read_npy(folder: Path, scratch: Path) -> str:
    from llmdirect.store.consolidation import consolidate

    consolidate(folder, out=scratch / "store")
    return store_digest(scratch / "store")


def read_raw(folder: Path, scratch: Path) -> str:
    from llmdirect.data.prepare import prepare

    (path,) = folder.iterdir()
    prepare(path, scratch / "dataset")
    return read_dataset(scratch / "dataset", scratch)


READERS: dict[str, Callable[[Path, Path], str]] = {
    "store": read_store,
    "shards": read_shards,
    "dataset": read_dataset,
    "run": read_run,
    "npy": read_npy,
    "gzip": read_raw,
    "parquet": read_raw,
}


def is_found(kind: str, folder: Path) -> bool:
    """Whether the documented check refuses an artefact that a plain open accepts."""
    from llmdirect.store.audit import audit

    if kind not in ("store", "dataset"):
        return False

    try:
        if kind == "store":
            store_digest(folder, verify=True)
        else:
            audit(folder)
        return False
    except ValueError:
        return True


# --- changes ---


EXTREMES: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**30, 1e9, 1e308, 0.5, -0.0, True, None, "", "x",
    "../x", "a/b", "/dev/zero", "\0", [], {}, [1], {"a": 1}, "0" * 32,
)  # fmt: skip
TEXTS = (b"", b"{", b"[" * 100_000, b"null", b"NaN", b"\xff\xfe", b'{"format": "x"}')


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """One change of a file as disks, transfers and editors make them."""
    if not data:
        return bytes([rng.randrange(256)])
    position = rng.randrange(len(data))
    if rng.random() < 0.3:  # headers are where the lengths are
        position = rng.randrange(min(len(data), 200))
    length = rng.choice((1, 1, 2, 4, 8, 64, 512))
    before, after = data[:position], data[position + length :]
    kind = rng.randrange(8)
    if kind == 0:
        return before + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]
    if kind == 1:
        return before + rng.randbytes(length) + after
    if kind == 2:
        return before + bytes(length) + after
    if kind == 3:
        return before + b"\xff" * length + after
    if kind == 4:
        return before
    if kind == 5:
        return before + after
    if kind == 6:
        return before + data[position : position + length] * 2 + after
    return data + rng.randbytes(length)


def change_json(rng: random.Random, data: bytes) -> bytes:
    """One value of a JSON file replaced, removed, renamed or added."""
    if rng.random() < 0.1:
        return rng.choice(TEXTS)
    content = json.loads(data)
    places = list(containers(content))
    place = rng.choice(places)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys or rng.random() < 0.05:
        if isinstance(place, dict):
            place["extra"] = rng.choice(EXTREMES)
        else:
            place.append(rng.choice(EXTREMES))
    elif rng.random() < 0.15:
        del place[rng.choice(keys)]
    else:
        key = rng.choice(keys)
        is_number = isinstance(place[key], int | float) and rng.random() < 0.3
        place[key] = place[key] + rng.choice((-1, 1)) if is_number else rng.choice(EXTREMES)
    return json.dumps(content).encode()


def containers(value: Any) -> Iterator[Any]:
    """All objects and arrays of a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def change_kind(rng: random.Random, path: Path, max_bits: int) -> None:
    """Put something in the place of a file that is no regular file, or not there, or of holes only."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/etc/hostname")))
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        with path.open("wb") as file:
            file.truncate(1 << rng.randrange(max_bits))


def rehash(folder: Path, path: Path) -> bool:
    """Make the manifest of a dataset or run fit a changed file."""
    from llmdirect.common.files import file_digest

    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"].values():
        if entry["name"] == path.name:
            entry |= {"bytes": path.stat().st_size, "hash": file_digest(path)}
            (folder / "manifest.json").unlink()
            (folder / "manifest.json").write_text(json.dumps(manifest))
            return True
    return False


def change(rng: random.Random, kind: str, folder: Path) -> bool:
    """Change one file; whether the manifest states what it now is, so that only `audit` could notice."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    path = rng.choice([*paths, *(path for path in paths if path.suffix == ".json" for _ in range(3))])
    if rng.random() < 0.05:
        is_raw = kind in ("gzip", "parquet")  # read to its end, however long that takes
        change_kind(rng, path, 24 if is_raw else 44)
        return False
    data = path.read_bytes()
    new = change_json(rng, data) if path.suffix == ".json" and rng.random() < 0.8 else change_bytes(rng, data)
    path.unlink()  # a link to the sound file
    path.write_bytes(new)
    if path.name == "manifest.json":
        return True
    return kind in ("dataset", "run") and rng.random() < 0.5 and rehash(folder, path)


# --- cases in workers ---


def outcome(case: int, kind: str, seed: int, artefacts: Path) -> tuple[str, str]:
    """Name of what came of a case, and the message."""
    rng = random.Random(f"{seed} {kind} {case}")
    folder = Path(tempfile.mkdtemp(dir=artefacts / "cases"))
    try:
        shutil.copytree(artefacts / kind, folder / kind, copy_function=os.link)
        is_stated = change(rng, kind, folder / kind)
        try:
            if READERS[kind](folder / kind, folder / "scratch") == (artefacts / f"{kind}.digest").read_text():
                return "equal", ""
        except Exception as error:
            from llmdirect.common.errors import InternalError, LlmdirectError

            is_documented = isinstance(error, (LlmdirectError, ValueError, OSError))
            is_documented &= not isinstance(error, InternalError)
            text = f"{type(error).__name__}: {error}"
            return "refused" if is_documented else "defect", text
        if is_found(kind, folder / kind):
            return "found", ""
        return "edited" if is_stated or kind in ("npy", "gzip", "parquet") else "silent", ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work(connection: Connection, seed: int, artefacts: Path, errors: str) -> None:
    os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    while (task := connection.recv()) is not None:
        connection.send(outcome(*task, seed, artefacts))


@dataclass
class Worker:
    """A process and what it does."""

    process: BaseProcess
    connection: Connection
    task: tuple[int, str] | None = None
    deadline: float = 0.0


def run_cases(
    tasks: list[tuple[int, str]], seed: int, workers: int, artefacts: Path
) -> Iterator[tuple[Any, ...]]:
    """(case, kind, outcome, message) of each task, in no order; a process that died or hangs is replaced."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def start() -> Worker:
        ours, theirs = context.Pipe()
        arguments = (theirs, seed, artefacts, str(artefacts / "errors.txt"))
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours)

    pending = list(reversed(tasks))
    pool = [start() for _ in range(workers)]
    while pending or any(worker.task for worker in pool):
        for index, worker in enumerate(pool):
            if worker.task is None and pending:
                worker.task, worker.deadline = pending.pop(), time.monotonic() + SECONDS
                worker.connection.send(worker.task)
            elif worker.task and time.monotonic() > worker.deadline:
                yield *worker.task, "hang", f"no answer in {SECONDS} s"
                worker.process.kill()
                pool[index] = start()
        busy = {worker.connection: index for index, worker in enumerate(pool) if worker.task}
        for connection in wait(list(busy), timeout=1):
            index = busy[connection]  # type: ignore[index]  # `wait` returns what it was given
            worker = pool[index]
            assert worker.task is not None
            try:
                result = worker.connection.recv()
            except EOFError:
                worker.process.join()
                result = "crash", f"exit code {worker.process.exitcode}"
                yield *worker.task, *result
                pool[index] = start()
                continue
            yield *worker.task, *result
            worker.task = None
    for worker in pool:
        worker.connection.send(None)
        worker.process.join()


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default=",".join(CASES), help="kinds")
    parser.add_argument("--out", type=Path, help="JSON file of the counts")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    begin = time.monotonic()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
        artefacts = Path(temporary)
        make_artefacts(artefacts)
        (artefacts / "cases").mkdir()
        tasks = [
            (case, kind)
            for kind in options.only.split(",")
            for case in range(max(1, round(CASES[kind] * options.scale)))
        ]
        for case, kind, name, text in run_cases(tasks, options.seed, options.workers, artefacts):
            counts.setdefault(kind, Counter())[name] += 1
            if name in FAULTS:
                print(f"{kind} {case} (seed {options.seed}): {name} {text}", flush=True)
    names = ("refused", "equal", "found", "edited", *FAULTS)
    print(f"{'':8}" + "".join(f"{name:>9}" for name in names))
    for kind, count in counts.items():
        print(f"{kind:8}" + "".join(f"{count[name]:9}" for name in names))
    seconds = round(time.monotonic() - begin, 1)
    print(f"{sum(sum(count.values()) for count in counts.values())} cases in {seconds} s")
    if options.out:
        content = {"seed": options.seed, "scale": options.scale, "seconds": seconds, "counts": counts}
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(count[name] for count in counts.values() for name in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
