"""python benches/kills.py [--scale X] [--seed N] [--only STAGE,...] [--out FILE]

Kills stages at random moments (SIGKILL) and compares what the resumed stage makes with an uninterrupted one,
bit by bit: 300 kills of `precompute`, `consolidate` and `train` each, 50 of `grid` and of `scoreboard`, at
scale 1. Data are small; processes are forked from a server that has imported the libraries. After each kill
the same command goes on in the same folder; a folder that is complete is compared and replaced.

Prints a JSON line a stage: kills, finished folders, seconds, and the faults: a result that differs, an error
of the resumed stage, or a stage that does not end within a minute. Exits with 1 if there is a fault.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
KILLS = {"precompute": 300, "consolidate": 300, "train": 300, "grid": 50, "scoreboard": 50}
KILLS_A_FOLDER = 5
SECONDS = 60
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "llmdirect.encoding.precompute",
        "llmdirect.store.consolidation",
        "llmdirect.training.search",
        "llmdirect.benchmark.scoreboard",
        "transformers.models.bert.modeling_bert",
    ]
)


# --- stages: inputs, the work, and a digest of its result ---


def prepare_inputs(folder: Path) -> None:
    """A dataset with a store, one without, and one with shards."""
    from llmdirect.data.prepare import prepare
    from run_helpers import make_dataset, write_reviews

    make_dataset(folder / "dataset")
    prepare(write_reviews(folder / "raw.json"), folder / "bare")
    build_encoder(folder / "encoder")
    shutil.copytree(folder / "bare", folder / "shards")
    precompute(folder / "encoder", folder / "shards")


def build_encoder(folder: Path) -> None:
    """A tiny random encoder."""
    from tiny import build

    shutil.copytree(build("bert", folder.parent)[0], folder)


def precompute(encoder: Path, dataset: Path) -> None:
    from llmdirect.encoding.precompute import precompute as work

    work(dataset, encoder=str(encoder), dtype="float16", shard_tokens=300, device="cpu")


def run_precompute(inputs: Path, folder: Path) -> None:
    if not (folder / "dataset").exists():
        copy(inputs / "bare", folder / "dataset")
    precompute(inputs / "encoder", folder / "dataset")


def run_consolidate(inputs: Path, folder: Path) -> None:
    from llmdirect.store.consolidation import consolidate

    if not (folder / "dataset").exists():
        copy(inputs / "shards", folder / "dataset")
    consolidate(folder / "dataset")


def run_train(inputs: Path, folder: Path) -> None:
    from run_helpers import fit

    fit(inputs / "dataset", folder / "run", num_epochs=6)


def run_grid(inputs: Path, folder: Path) -> None:
    from llmdirect.training.search import grid

    settings = {"num_epochs": 2, "aspects": 3, "batch_size": 32, "token_budget": 200}
    grid(inputs / "dataset", folder / "runs", params={"lr": [1e-3, 3e-4]}, settings=settings)


def run_scoreboard(inputs: Path, folder: Path) -> None:
    from llmdirect.benchmark.scoreboard import scoreboard

    scoreboard(inputs / "dataset", out=folder / "board", rows=["popularity", "ease"], splits=2)


def copy(source: Path, target: Path) -> None:
    """Copy a folder in one step, as the kill may come before its end."""
    temporary = target.with_name("copying")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)


def files_digest(folder: Path, pattern: str = "**/*") -> str:
    """Names and bytes of the files that count."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and path.suffix == ".npy":
            state.update(str(path.relative_to(folder)).encode())
            state.update(path.read_bytes())
    return state.hexdigest()


def store_digest(folder: Path) -> str:
    return files_digest(folder / "dataset" / "stores")


def run_digest(folder: Path) -> str:
    from run_helpers import content

    return hashlib.sha256(repr(content(folder / "run")).encode()).hexdigest()


def without_times(value: Any) -> Any:
    """JSON without seconds and paths."""
    if isinstance(value, dict):
        return {
            key: without_times(part)
            for key, part in value.items()
            if "seconds" not in key and key not in ("run", "best", "markdown", "plot", "path", "out")
        }
    return [without_times(part) for part in value] if isinstance(value, list) else value


def json_digest(folder: Path, pattern: str) -> str:
    results = [without_times(json.loads(path.read_text())) for path in sorted(folder.glob(pattern))]
    if not results:
        raise FileNotFoundError(f"{folder}: no {pattern}")
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()


def grid_digest(folder: Path) -> str:
    from run_helpers import content

    runs = sorted(path.parent for path in (folder / "runs").glob("*/manifest.json"))
    return hashlib.sha256(repr([content(run) for run in runs]).encode()).hexdigest()


STAGES: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], str]]] = {
    "precompute": (run_precompute, store_digest),
    "consolidate": (run_consolidate, store_digest),
    "train": (run_train, run_digest),
    "grid": (run_grid, grid_digest),
    "scoreboard": (run_scoreboard, lambda folder: json_digest(folder / "board", "*.json")),
}


def work(stage: str, inputs: Path, folder: Path) -> None:
    """Run a stage, with its errors in a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    error = os.open(folder.with_suffix(".err"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(error, 1)
    os.dup2(error, 2)
    STAGES[stage][0](inputs, folder)


# --- the campaign ---


def start(stage: str, inputs: Path, folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    process = SERVER.Process(target=work, args=(stage, inputs, folder))
    process.start()
    return process


def campaign(stage: str, kills: int, inputs: Path, scratch: Path, seed: int) -> dict[str, Any]:
    """Kill a stage at random moments, and count the faults."""
    rng = random.Random(f"{seed} {stage}")
    digest = STAGES[stage][1]
    reference = scratch / f"{stage}-reference"
    begun = time.monotonic()
    for _ in range(2):  # the first one also waits for the server of processes
        shutil.rmtree(reference, ignore_errors=True)
        started = time.monotonic()
        process = start(stage, inputs, reference)
        process.join(SECONDS)
        duration = time.monotonic() - started
        if process.exitcode != 0:
            raise SystemExit(f"{stage}: {reference.with_suffix('.err').read_text()[-2000:]}")
    expected = digest(reference)
    done = folders = in_folder = 0
    faults: list[str] = []
    folder = scratch / f"{stage}-0"
    while done < kills:
        process = start(stage, inputs, folder)
        # Every sixth time it may end, as a stage that starts anew would never do by itself.
        may_end = in_folder == KILLS_A_FOLDER
        process.join(SECONDS if may_end else rng.uniform(0, duration))
        if process.is_alive() and not may_end:
            process.kill()
            process.join()
            done += 1
            in_folder += 1
            continue
        in_folder = 0
        faults += finished(stage, process, folder, expected, digest)
        shutil.rmtree(folder)
        folders += 1
        folder = scratch / f"{stage}-{folders}"
    process = start(stage, inputs, folder)
    process.join(SECONDS)
    faults += finished(stage, process, folder, expected, digest)
    seconds = time.monotonic() - begun
    return {
        "stage": stage,
        "kills": done,
        "folders": folders + 1,
        "seconds": round(seconds),
        "faults": faults,
    }


def finished(
    stage: str, process: Any, folder: Path, expected: str, digest: Callable[[Path], str]
) -> list[str]:
    """Faults of a stage that has ended, or should have."""
    if process.is_alive():
        process.kill()
        return [f"{folder.name}: no end within {SECONDS} s"]
    if process.exitcode != 0:
        return [f"{folder.name}: {folder.with_suffix('.err').read_text()[-500:]}"]
    return [] if digest(folder) == expected else [f"{folder.name}: {stage} made another result"]


def main() -> int:
    """Run the campaign, print its figures, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KILLS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        inputs.mkdir()
        prepare_inputs(inputs)
        for stage in options.only.split(","):
            kills = max(1, round(KILLS[stage] * options.scale))
            results.append(campaign(stage, kills, inputs, Path(name), options.seed))
            print(json.dumps(results[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(result["faults"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
