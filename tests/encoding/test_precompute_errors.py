"""Errors of `precompute`: messages name location and solution, and nothing is written."""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from command_line import CommandLine
from llmdirect.common.locks import single_writer
from llmdirect.data.dataset import Dataset
from llmdirect.encoding import job as encoding_job
from llmdirect.encoding.encoders import Encoder, encoder
from precompute_helpers import (
    LONG,
    TEXTS,
    Checkpoint,
    build_checkpoints,
    run_all,
    store_of,
)
from store_helpers import data_file, largest_file, visible

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "bert")


def limited_memory(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Make batches of more tokens run out of memory; returns the sizes of those that fit."""
    forward, sizes = Encoder._forward, []

    def check(self: Encoder, batch: Any) -> torch.Tensor:
        size = sum(map(len, batch))
        if size > tokens:
            raise torch.OutOfMemoryError(f"tried to allocate {size} tokens\nand a long table")
        sizes.append(size)
        return forward(self, batch)

    monkeypatch.setattr(Encoder, "_forward", check)
    return sizes


def test_batch_out_of_memory_is_split_and_recorded_in_plan(
    dataset: Path, checkpoints: dict[str, Checkpoint]
) -> None:
    bert = checkpoints["bert"]
    options = {"token_budget": 200, "shard_tokens": 100}
    run_all(dataset, bert, **options, store="whole")
    with pytest.MonkeyPatch.context() as patch:
        sizes = limited_memory(patch, 70)
        run_all(dataset, bert, **options, store="split")
    store = dataset / "stores" / "split"
    plan = json.loads((store / "plan.json").read_text())
    assert set(plan["budgets"]) >= {"0"}
    assert all(budget < 200 for budget in plan["budgets"].values())
    assert 64 <= max(sizes) <= 70
    before = visible(store)
    assert before != visible(dataset / "stores" / "whole")
    # With more memory, the plan still determines batches, so the bytes are equal.
    shutil.rmtree(store / "shards")
    run_all(dataset, bert, **options, store="split")
    assert visible(store) == before


def test_token_budget_is_tuned_once_and_recorded(
    dataset: Path,
    checkpoints: dict[str, Checkpoint],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bert = checkpoints["bert"]
    monkeypatch.setattr(encoder, "_TOKENS_AT_ONCE", {"cpu": 400, "cuda": 400})
    monkeypatch.setattr(encoding_job, "has_own_memory", lambda device: True)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        sizes = limited_memory(patch, 110)
        run_all(dataset, bert, token_budget=None, store="found")
    assert caplog.messages == ["100 tokens at once fit cpu, not 400"]
    assert max(sizes) <= 100
    store = dataset / "stores" / "found"
    plan = json.loads((store / "plan.json").read_text())
    assert (plan["token_budget"], plan["budgets"]) == (100, {})
    before = visible(store)
    # With more memory, the plan still determines the budget.
    shutil.rmtree(store / "shards")
    run_all(dataset, bert, token_budget=None, store="found")
    assert visible(store) == before


def test_explicit_token_budget_is_not_tuned(
    dataset: Path, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_job, "has_own_memory", lambda device: True)
    limited_memory(monkeypatch, 70)
    run_all(dataset, checkpoints["bert"], token_budget=200, shard_tokens=100)
    plan = json.loads((store_of(dataset) / "plan.json").read_text())
    assert plan["token_budget"] == 200
    assert plan["budgets"]


def test_single_sequence_out_of_memory(
    dataset: Path, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch, cli: CommandLine
) -> None:
    limited_memory(monkeypatch, 30)
    answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path)
    assert answer.code == 1
    assert "a sequence of 64 tokens does not fit the memory of cpu (tried to allocate" in answer.err
    assert "lower --max-length" in answer.err
    assert not list((store_of(dataset)).glob("shards/*/manifest.json"))


def test_non_finite_vectors(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path, cli: CommandLine
) -> None:
    path = Path(shutil.copytree(checkpoints["bert"].path, tmp_path / "tiny-nan"))
    weights = load_file(path / "model.safetensors")
    word = AutoTokenizer.from_pretrained(path)("daughter", add_special_tokens=False)["input_ids"]
    weights["bert.embeddings.word_embeddings.weight"][word] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    answer = cli("precompute", dataset, "--encoder", path, "--token-budget", 1, "--shard-tokens", 1)
    assert answer.code == 1
    texts = Dataset.open(dataset).passages.text.to_list()
    # The longest text is first.
    assert f"passage {texts.index(LONG)} ({LONG[:40]!r} …) has a vector that is not finite" in answer.err
    assert "try another --device" in answer.err
    assert not (store_of(dataset) / "shards" / "00000").exists()


def test_float16_overflow_suggests_bfloat16(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path, cli: CommandLine
) -> None:
    path = Path(shutil.copytree(checkpoints["bert"].path, tmp_path / "tiny-large"))
    weights = load_file(path / "model.safetensors")
    weights["bert.encoder.layer.1.output.LayerNorm.weight"] += 1e5
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    answer = cli("precompute", dataset, "--encoder", path, "--dtype", "float16")
    assert answer.code == 1
    assert "not finite in float16; store --dtype bfloat16 or float32" in answer.err
    assert cli("precompute", dataset, "--encoder", path, "--dtype", "bfloat16").code == 0


@pytest.fixture
def no_new_files(dataset: Path) -> Iterator[None]:
    """Assert that no file was added to the dataset."""
    before = sorted(dataset.rglob("*"))
    yield
    assert sorted(dataset.rglob("*")) == before


@pytest.fixture
def nothing_encoded(no_new_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert in addition that nothing was encoded."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("tokens are encoded")

    monkeypatch.setattr(Encoder, "embed", forbidden)


@pytest.mark.usefixtures("no_new_files")
def test_estimate_writes_nothing(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("precompute", dataset, "--encoder", checkpoints["bert"].path, "--estimate")
    estimate = json.loads(cli(*command, "--json").out)
    # Per token an int8 vector, its scale and 8 bytes of span; per text 16 bytes of key and 8 of offset.
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"].path)
    rows = sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert estimate["tokens"] == estimate["tokens_to_encode"] == rows
    assert estimate["texts"] == len(TEXTS) + 2
    assert estimate["bytes"] == estimate["bytes_to_write"] == rows * (32 + 2 + 8) + (len(TEXTS) + 2) * 24
    assert 0 < estimate["estimated_seconds"] < 60
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    answer = cli(*command)
    assert (answer.code, "0.00 GB are free, too little" in answer.out) == (0, True)
    assert re.search(r" shards,\sin\sabout\s\d+\ss; ", answer.out)


@pytest.mark.usefixtures("nothing_encoded")
def test_insufficient_disk_space_fails_before_encoding(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path)
    assert answer.code == 1
    assert "the shards need 0.00 GB and the disk has 0.00 GB free; make room" in answer.err
    assert str(dataset / "stores" / "tiny-bert-int8") in answer.err


def test_full_disk_loses_only_current_shard(dataset: Path, checkpoints: dict[str, Checkpoint]) -> None:
    run_all(dataset, checkpoints["bert"])
    whole = visible(dataset)
    shutil.rmtree(store_of(dataset) / "shards")
    # The first shard holds the longest text alone and is larger than that.
    with (
        largest_file(5000),
        pytest.raises(
            OSError, match=r"File too large; make room and run again: shards that are complete stay"
        ),
    ):
        run_all(dataset, checkpoints["bert"])
    assert not (store_of(dataset) / "shards" / "00000" / "manifest.json").exists()
    assert run_all(dataset, checkpoints["bert"]).encoded_shards > 0
    assert visible(dataset) == whole


@pytest.mark.usefixtures("nothing_encoded")
def test_unavailable_device(dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine) -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path, "--device", absent)
    assert answer.code == 1
    assert f"device {absent} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA" in answer.err
    assert "--device cpu" in answer.err


@pytest.mark.usefixtures("nothing_encoded")
def test_unknown_model_offline(
    dataset: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for command in (("precompute", dataset), ("cache-model", "google/t5gemma-2b-2b-ul2")):
        answer = cli(*command)
        assert answer.code == 1
        assert "google/t5gemma-2b-2b-ul2 is not on this machine" in answer.err
        for cure in ("licence", "hf auth login", "llmdirect cache-model google/t5gemma-2b-2b-ul2", "copy"):
            assert cure in answer.err
        assert str(tmp_path / "cache" / "google-t5gemma-2b-2b-ul2") in answer.err


# ---------------------------------------------------------------- damaged files


def test_second_writer(dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine) -> None:
    folder = dataset / "stores" / "tiny-bert-int8"
    with single_writer(folder):
        answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path)
        assert answer.code == 1
        assert f"{folder}: another llmdirect process is writing here" in answer.err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("plan.json", content) for content in (b"", b"{}", b"[1]", b'{"format": "x", "version": 1}')),
        *(("plan-*.npy", content) for content in (None, b"", b"{}")),
    ],
)
def test_damaged_plan(
    name: str, content: bytes | None, dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine
) -> None:
    run_all(dataset, checkpoints["bert"])
    [path] = store_of(dataset).glob(name)
    path.unlink() if content is None else path.write_bytes(content)
    before = visible(dataset)
    answer = cli(
        *("precompute", dataset, "--encoder", checkpoints["bert"].path),
        *("--shard-tokens", 20, "--token-budget", 15),
    )
    assert answer.code == 1
    assert f"error: {path}" in answer.err
    assert f"delete {store_of(dataset)} or choose another --store" in answer.err
    assert visible(dataset) == before


def test_recovery_from_flipped_byte(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path, cli: CommandLine
) -> None:
    command = (
        *("precompute", dataset, "--encoder", checkpoints["bert"].path),
        *("--shard-tokens", 20, "--token-budget", 15),
    )
    assert cli(*command).code == 0
    twin = Path(shutil.copytree(dataset, tmp_path / "twin"))
    shard = store_of(dataset) / "shards" / "00001"
    path = data_file(shard, "tokens")
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)
    answer = cli("consolidate", dataset)
    assert answer.code == 1
    assert f"{path}: checksum" in answer.err
    assert "remove its folder, then run `llmdirect precompute`" in answer.err
    assert not (store_of(dataset) / "manifest.json").exists()
    shutil.rmtree(path.parent)
    assert (cli(*command).code, cli("consolidate", dataset).code, cli("consolidate", twin).code) == (0, 0, 0)
    assert visible(dataset) == visible(twin)


def test_recovery_from_damaged_shard_manifest(dataset: Path, checkpoints: dict[str, Checkpoint]) -> None:
    run_all(dataset, checkpoints["bert"])
    whole = visible(dataset)
    path = store_of(dataset) / "shards" / "00002" / "manifest.json"
    path.write_text('{"format": "llm')
    with pytest.raises(ValueError, match=r"shards/00002/manifest\.json: not valid JSON .* remove it and run"):
        run_all(dataset, checkpoints["bert"])
    path.unlink()
    assert run_all(dataset, checkpoints["bert"]).encoded_shards == 1
    assert visible(dataset) == whole


def test_store_with_lost_file_is_not_finished(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine
) -> None:
    run_all(dataset, checkpoints["bert"])
    assert cli("consolidate", dataset).code == 0
    path = data_file(store_of(dataset), "tokens")
    path.write_bytes(path.read_bytes()[:-1])
    answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path)
    assert answer.code == 1
    assert f"{path}: missing or truncated; delete {store_of(dataset)}" in answer.err


def test_invalid_arguments(dataset: Path, cli: CommandLine) -> None:
    for option, value in (("--dtype", "int4"), ("--token-budget", 0), ("--shard-tokens", -1)):
        answer = cli("precompute", dataset, "--encoder", "minilm", option, value)
        assert answer.code == 2
        assert f"{option}: " in answer.err
    former = cli("precompute", dataset, "--model", "minilm")
    assert (former.code, "--model is called --encoder now" in former.err) == (2, True)
    empty = cli("precompute", dataset / "nowhere", "--encoder", "minilm")
    assert (empty.code, "llmdirect prepare" in empty.err) == (1, True)
    assert not (dataset / "stores").exists()
