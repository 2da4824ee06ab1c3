"""python benches/precompute_speed.py [FILE]    Speed of MiniLM on the CPU, ours and sentence-transformers.

FILE: reviews of any layout that `llmdirect prepare` reads; a generated corpus if not given. Both read the
same 2,000 texts, cut to 256 tokens, in turns, each in a process of its own, slice by slice of the list sorted
by length; their vectors must agree to 1e-5. With each slice a large matrix product measures the speed of the
machine at that moment. Times are the processor's (of all threads), so that other programs count little;
`wall_ratio` is by the clock. Then the peak memory of `precompute` at N and 4 N passages. Ends with one JSON
line: `ratio` is the median over slices of the peer's time by ours, `gemm_share` that of the rate of our
matrix products by the machine's. OMP_NUM_THREADS=2 takes two cores; --texts and --rounds say how much is
measured.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import processor

from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.encoders import Encoder, load_encoder, resolve
from llmdirect.encoding.precompute import precompute
from llmdirect.synthetic.corpus import generate

LIMIT, SLICE = 256, 100
"""Tokens of a text, texts of a slice."""
SIDE = 2048
"""Rows and columns of the matrix product."""
PASSAGES = 4000
"""N of the memory measurement: with fewer, not all buffers of shards are allocated."""


def main() -> None:
    """Measure and print a JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, help="only the peak memory at so many passages")
    args = parser.parse_args()
    with TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-") as folder:
        if args.memory:
            print(peak_memory(Path(folder), args.memory))
            return
        result = compare(texts_of(args.file, Path(folder), args.texts), args.rounds)
    for name in (PASSAGES, 4 * PASSAGES):
        command = [sys.executable, "-W", "ignore", __file__, "--memory", str(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result[f"peak_mb_{name}_passages"] = float(done.stdout)
    print(json.dumps(result))


def texts_of(file: Path | None, folder: Path, count: int) -> list[str]:
    """Distinct texts, drawn with a fixed seed."""
    reviews = file or generate(folder / "raw", num_users=count // 4, num_items=count // 4).reviews_path
    prepare(reviews, folder / "dataset")
    texts = Dataset.open(folder / "dataset").passages.text.unique().sort().to_list()
    texts = [text for text in texts if text.strip()]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[index] for index in order]


def cut(encoder: Encoder, text: str) -> str:
    """The text cut to the length limit: the peer truncates there, ours has windows."""
    while len(tokens := encoder.tokenize([text])[0]) > LIMIT:
        text = text[: tokens.spans[LIMIT - 2, 1]]
    return text


def compare(texts: list[str], rounds: int) -> dict[str, Any]:
    """Measure both encoders over all slices, in turns."""
    encoder = load_encoder("minilm", device="cpu", max_length=LIMIT)
    counted = sorted((encoder.count_tokens([text])[0], text) for text in (cut(encoder, t) for t in texts))
    slices = [counted[start : start + SLICE] for start in range(0, len(counted), SLICE)]
    names = ("ratio", "wall_ratio", "gemm_share", "tokens", "gemm")
    measured: dict[str, list[float]] = {name: [] for name in names}
    worst = 0.0
    # Processes, not threads: the state of one's memory allocator must not affect the other.
    own, other = (ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2))
    for turn in range(rounds):
        for texts_of_slice in slices:
            lengths, part = map(list, zip(*texts_of_slice, strict=True))
            machine = matrix_rate()
            if turn % 2 == 0:
                mine, peer = own.submit(ours, part).result(), other.submit(theirs, part).result()
            else:
                peer, mine = other.submit(theirs, part).result(), own.submit(ours, part).result()
            machine = (machine + matrix_rate()) / 2
            for rows, same in zip(mine.rows, peer.rows, strict=True):
                np.testing.assert_allclose(rows, same, rtol=1e-5, atol=1e-5)
                worst = max(worst, float(np.abs(rows - same).max()))
            figures = {
                "ratio": peer.processor / mine.processor,
                "wall_ratio": peer.clock / mine.clock,
                "gemm_share": encoder.operations(lengths) / mine.processor / machine,
                "tokens": sum(lengths) / mine.clock,
                "gemm": machine / 1e9,
            }
            for name in names:
                measured[name].append(figures[name])
            message = f"ratio {figures['ratio']:.2f}, share {figures['gemm_share']:.2f}"
            print(f"{turn} {lengths[-1]:4d} tokens: {message}", file=sys.stderr, flush=True)
    own.shutdown()
    other.shutdown()
    medians = {name: statistics.median(values) for name, values in measured.items()}
    return {
        **{name: round(medians[name], 3) for name in ("ratio", "wall_ratio", "gemm_share")},
        "tokens_per_second": round(medians["tokens"]),
        "gemm_gflops_a_core": round(medians["gemm"], 1),
        "largest_difference": worst,
        "texts": len(texts),
        "tokens": sum(length for length, _ in counted),
        "threads": torch.get_num_threads(),
        "processor": processor(),
    }


class Answer(NamedTuple):
    """Seconds of processor time and by the clock, and the token embeddings of each text."""

    processor: float
    clock: float
    rows: list[np.ndarray]


@cache
def _ours() -> Encoder:
    return load_encoder("minilm", device="cpu", max_length=LIMIT)


@cache
def _theirs() -> Any:
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(resolve("minilm").folder), device="cpu", local_files_only=True)
    peer.max_seq_length = LIMIT
    return peer


def ours(texts: list[str]) -> Answer:
    """Encode as `precompute` does on a CPU."""
    encoder = _ours()
    return timed(lambda: [passage.tokens for passage in encoder.encode(texts)])


def theirs(texts: list[str]) -> Answer:
    """Encode as sentence-transformers documents it for token embeddings."""
    encode = _theirs().encode
    return timed(lambda: encode(texts, output_value="token_embeddings", show_progress_bar=False))


def timed(function: Callable[[], list[torch.Tensor]]) -> Answer:
    """Call the function and measure its time."""
    started = time.process_time(), time.perf_counter()
    rows = function()
    seconds = time.process_time() - started[0], time.perf_counter() - started[1]
    return Answer(*seconds, [row.numpy() for row in rows])


def matrix_rate() -> float:
    """Floating-point operations a second of processor time, of a large matrix product."""
    left, right = torch.randn(2, SIDE, SIDE)
    return 2 * SIDE**3 / timed(lambda: [torch.mm(left, right)]).processor


def peak_memory(folder: Path, passages: int) -> float:
    """Peak memory of `precompute` above the encoder's own, in MB, for passages of a dozen tokens."""
    words = ["bright", "warm", "sturdy", "cheap", "loud", "soft", "short", "long", "thin", "heavy"]
    rows = [
        {
            "user": f"u{number % 97}",
            "item": f"i{number}",
            "text": f"{words[number % 10]} strings, {words[number // 10 % 10]} sound {number}",
            "rating": 4,
            "time": number,
        }
        for number in range(passages)
    ]
    raw = folder / "reviews.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(raw, folder / "dataset")
    load_encoder("minilm", device="cpu").encode(["warm up"])
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _kilobytes(status, "VmRSS")
    precompute(folder / "dataset", encoder="minilm", device="cpu", shard_tokens=4096)
    return round((_kilobytes(status, "VmHWM") - before) / 1024, 1)


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    main()
