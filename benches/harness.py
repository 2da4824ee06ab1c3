"""Benchmark harness: ours and a peer on the same data, in one process, in turns; results must agree."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from llmdirect import set_num_threads

ROUNDS = 9
WARM = 0.02  # seconds
PACKAGES = ("llmdirect", "numpy", "torch", "scipy", "faiss-cpu", "lenskit", "ranx")


@dataclass(frozen=True)
class Job:
    """Comparison of one function with a peer's."""

    job: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    agree: Callable[[], None]
    """Raises if the two results differ in what they must share."""
    count: float
    """Units of work in one call."""
    unit: str
    threads: int = 2
    rounds: int = ROUNDS


def measure(job: Job) -> dict[str, object]:
    """Measure a job: {"job", "peer", "threads", "ours", "theirs", "unit", "ratio"}.

    "ours" and "theirs" are units a second, medians; a ratio above 1 means that ours is faster.
    """
    set_num_threads(job.threads)
    torch.set_num_threads(job.threads)
    job.agree()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(job.rounds):
        for function, seconds in zip((job.ours, job.theirs), times, strict=True):
            warm_up(function)
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
    ours, theirs = (job.count / statistics.median(seconds) for seconds in times)
    return {
        "job": job.job,
        "peer": job.peer,
        "threads": job.threads,
        "ours": ours,
        "theirs": theirs,
        "unit": f"{job.unit}/s",
        "ratio": ours / theirs,
    }


def warm_up(function: Callable[[], object]) -> None:
    """Call for 20 ms, so that caches hold the function's own data and cores are at full speed."""
    until = time.perf_counter() + WARM
    while True:
        function()
        if time.perf_counter() > until:
            return


def run(jobs: Iterable[Job], data: str, folder: Path) -> None:
    """Measure all jobs, print a line each, and write `benchmarks.json` and `benchmarks.md` to `folder`."""
    rows = []
    for job in jobs:
        row = measure(job)
        rows.append(row)
        print(f"{row['job']}  |  {row['peer']}  |  {row['ratio']:.2f}", file=sys.stderr, flush=True)
    (folder / "benchmarks.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "benchmarks.md").write_text(page(rows, data))


def page(rows: list[dict[str, object]], data: str) -> str:
    """Markdown table of the results, with data, machine and versions."""
    lines = [
        "# Speed of the core compared with its peers",
        "",
        "Written by `make bench`. Each job runs in llmdirect (*ours*) and in another library or a simple",
        "loop (the *peer*): in one process, on the same data, in turn; figures are medians. Every job first",
        "asserts that both results agree. *Ratio* is ours divided by the peer's: above 1, ours is faster.",
        "",
        f"Interactions: {data}.",
        "",
        "| job | peer | threads | ours | peer | unit | ratio |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        cells = [row["job"], row["peer"], row["threads"], figure(row["ours"]), figure(row["theirs"])]
        cells += [row["unit"], f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines += [
        "",
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; {packages}.",
        "",
    ]
    return "\n".join(lines)


def figure(value: object) -> str:
    """Three significant digits and an SI prefix."""
    number = float(str(value))
    for letter in ("", "k", "M", "G"):
        if number < 1000 or letter == "G":
            break
        number /= 1000
    return f"{number:.3g}{letter}"


def processor() -> str:
    """Name of the processor and its widest vector extension."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    widest = next((name for name in ("avx512f", "avx2") if f" {name} " in flags + " "), "")
    return f"{names[0] if names else platform.processor()} ({widest or 'no AVX2'})"
