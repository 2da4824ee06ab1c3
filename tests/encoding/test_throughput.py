"""Throughput figures, and overlap of tokenising, encoding and writing."""

import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect.common.progress import Silent
from llmdirect.data.dataset import Dataset
from llmdirect.encoding import estimate, throughput
from llmdirect.encoding.encoders import Encoder, Tokens, load_encoder
from llmdirect.encoding.estimate import estimate_seconds
from llmdirect.encoding.job import Job, open_job
from llmdirect.encoding.options import Options
from llmdirect.encoding.throughput import ThroughputMeter, format_duration
from llmdirect.store.token_format import TokenFormat
from precompute_helpers import TEXTS, Checkpoint, build_checkpoints, make_usual_dataset, run_all


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "bert")["bert"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_usual_dataset(tmp_path)


class Bar(Silent):
    """Progress bar that records its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done = 0.0

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_meter_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    bar = Bar()
    meter = ThroughputMeter(bar, peak=200.0, peak_from="measured")
    clock[0] += 20.0
    meter.add_batch(passages=40, tokens=600, operations=1000.0)
    meter.add_bytes(3_210_000_000)
    clock[0] += 20.0
    meter.add_batch(passages=40, tokens=400, operations=3000.0)
    # 80 passages and 4,000 operations in 40 s, of 200 operations a second.
    assert bar.notes[-1] == "2 passages/s, MFU 50%, 3.21 GB written"
    assert bar.done == 1000
    assert meter.summary().to_json() == {
        "seconds": 40.0,
        "tokens_per_second": 25.0,
        "passages_per_second": 2.0,
        "mfu": 0.5,
        "peak_flops": 200.0,
        "peak_from": "measured",
    }


def test_result_reports_throughput(dataset: Path, bert: Checkpoint, cli: CommandLine) -> None:
    command = ("precompute", dataset, "--encoder", bert.path, "--shard-tokens", 20, "--json")
    result = json.loads(cli(*command).out)
    assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["seconds"])
    assert result["passages_per_second"] == pytest.approx(result["texts"] / result["seconds"])
    assert result["mfu"] > 0
    assert "seconds" not in json.loads(cli(*command).out)  # nothing to encode


@pytest.mark.parametrize("processes", [1, 4])
def test_time_is_estimated_before_encoding(
    dataset: Path,
    bert: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    processes: int,
) -> None:
    embed, clock = Encoder.embed, [0.0]

    def slow_at_first(self: Encoder, passages: list[Tokens], *, token_budget: int) -> torch.Tensor:
        """One second per 1,000 operations, and 100 more for the first batch."""
        clock[0] += self.operations([len(passage) for passage in passages]) / 1000 + 100 * (clock[0] == 0)
        return embed(self, passages, token_budget=token_budget)

    options = Options(
        dataset=dataset,
        encoder=str(bert.path),
        token_format=TokenFormat(),
        device="cpu",
        token_budget=15,
        shard_tokens=20,
        max_length=None,
        revision=None,
        store=None,
    )
    job = open_job(options, Dataset.open(dataset), write=False)
    assert isinstance(job, Job)
    shards = list(range(1, job.plan.num_shards))
    assert shards
    monkeypatch.setattr(Encoder, "embed", slow_at_first)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    with caplog.at_level(logging.INFO):
        messages = estimate_seconds(job, shards, processes)
    lengths = np.concatenate([job.plan.num_tokens[slice(*job.plan.shard_range(shard))] for shard in shards])
    seconds = job.encoder.operations(lengths) / 1000 / processes
    assert messages == pytest.approx(seconds)
    assert caplog.messages[-1].startswith(f"about {format_duration(seconds)}, by ")
    assert estimate_seconds(job, []) is None


def test_format_duration_selects_unit() -> None:
    assert [format_duration(seconds) for seconds in (2.4, 89, 119, 7000, 12_240)] == [
        *("2 s", "89 s", "2 min", "117 min", "3.4 h")
    ]


def test_tokenising_overlaps_encoding(
    dataset: Path, bert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str]] = []
    second = threading.Event()
    tokenize, embed = Encoder.tokenize, Encoder.embed

    def record_tokenize(self: Encoder, texts: list[str]) -> object:
        started.append(("tokenise", threading.current_thread().name))
        if len([what for what, _ in started if what == "tokenise"]) == 2:
            second.set()
        return tokenize(self, texts)

    def blocking_embed(self: Encoder, *arguments: object, **options: object) -> object:
        # The first shard's batches finish only once the second shard is being tokenised.
        assert second.wait(timeout=60)
        return embed(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "tokenize", record_tokenize)
    monkeypatch.setattr(Encoder, "embed", blocking_embed)
    monkeypatch.setattr("llmdirect.encoding.estimate.estimate_seconds", lambda *_: None)
    # bfloat16 needs no calibration before the first shard, unlike int8.
    assert run_all(dataset, bert, dtype="bfloat16").encoded_shards > 2
    assert {name.split("_")[0] for _, name in started} == {"tokeniser"}


def test_tokeniser_error_stops_run(dataset: Path, bert: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize = Encoder.tokenize

    def breaks(self: Encoder, texts: list[str]) -> object:
        if TEXTS[5] in texts:
            raise RuntimeError("a text that no tokenizer can read")
        return tokenize(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "tokenize", breaks)
        with pytest.raises(RuntimeError, match="no tokenizer can read"):
            run_all(dataset, bert)
    assert run_all(dataset, bert).encoded_shards >= 1
    assert run_all(dataset, bert).encoded_shards == 0


def test_operations_of_plan_sum_over_batches(bert: Checkpoint) -> None:
    encoder = load_encoder(str(bert.path))
    lengths = np.array([3, 90, 90, 0, 64, 7], np.int32)
    assert encoder.operations(lengths) == pytest.approx(sum(encoder.operations([int(n)]) for n in lengths))
