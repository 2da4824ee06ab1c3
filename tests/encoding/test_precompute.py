"""`cache-model`, `precompute`, `consolidate`: stored tokens, resuming, incompatible options."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import tiny
from command_line import CommandLine
from llmdirect import _core
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.encoders import Encoder
from llmdirect.encoding.encoders.windows import windows
from llmdirect.store.batch_plan import make_plan
from llmdirect.store.store import EmbeddingStore
from precompute_helpers import (
    COPIES,
    TEXTS,
    Checkpoint,
    build_checkpoints,
    make_dataset,
    run_all,
    store_of,
)
from store_helpers import data_file, visible

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "t5gemma", "t5gemma2", "bert")


def reference_rows(name: str, checkpoint: Checkpoint, text: str, limit: int) -> torch.Tensor:
    """Reference: vectors of a text by the whole model, in windows if it exceeds the limit."""
    ids = AutoTokenizer.from_pretrained(checkpoint.path)(text)["input_ids"]
    if len(ids) <= limit:
        return tiny.whole_model_rows(name, checkpoint.model, ids)
    before, after = ids[:1], ids[-1:] if name == "bert" else []
    content = ids[1 : len(ids) - len(after)]
    rows = []
    for window in windows(len(content), limit - 1 - len(after)):
        read = [*before, *content[window.start : window.stop], *after]
        output = tiny.whole_model_rows(name, checkpoint.model, read)
        low = 0 if window.start == 0 else 1 + window.keep_start - window.start
        high = len(read) if window.stop == len(content) else 1 + window.keep_stop - window.start
        rows.append(output[low:high])
    return torch.cat(rows)


def rows_of(store: EmbeddingStore, text: str) -> torch.Tensor:
    [passage] = store.lookup(_core.passage_keys([text]))
    return store.tokens[store.offsets[passage] : store.offsets[passage + 1]]


# One sequence per batch makes results bit-equal; the default budget packs many.
@pytest.mark.parametrize("budget", [1, None])
@pytest.mark.parametrize(
    ("name", "cached_as", "stored_as"),
    [
        ("t5gemma", "float32", "float32"),
        ("t5gemma2", "bfloat16", "bfloat16"),
        ("bert", "float32", "float16"),
    ],
)
def test_store_matches_whole_model(
    name: str,
    cached_as: str,
    stored_as: str,
    budget: int | None,
    checkpoints: dict[str, Checkpoint],
    dataset: Path,
    tmp_path: Path,
    cli: CommandLine,
) -> None:
    cached = json.loads(cli("cache-model", checkpoints[name].path, "--dtype", cached_as, "--json").out)
    assert Path(cached["path"]) == tmp_path / "cache" / f"tiny-{name}"
    # By its id, as the original no longer exists.
    options = ["--token-budget", budget] if budget else []
    result = json.loads(
        cli("precompute", dataset, "--encoder", f"tiny-{name}", "--dtype", stored_as, *options, "--json").out
    )
    joined = json.loads(cli("consolidate", dataset, "--json").out)
    store = EmbeddingStore.open(joined["path"], verify=True)
    assert store.dtype == stored_as

    whole = checkpoints[name]
    if cached_as == "bfloat16":
        _, rounded = tiny.build(name, tmp_path / "rounded")
        for parameter in rounded.parameters():
            parameter.data = parameter.data.bfloat16().float()
        whole = Checkpoint(whole.path, rounded)
    limit = store.encoder["max_length"]
    assert limit == {"t5gemma": 128, "t5gemma2": 128, "bert": 64}[name]
    total = 0
    for text in TEXTS:
        expected = reference_rows(name, whole, text, limit)
        total += len(expected)
        if budget:
            assert torch.equal(rows_of(store, text), expected.to(getattr(torch, stored_as)))
        else:
            error = {"float32": 1e-5, "float16": 2**-10, "bfloat16": 2**-7}[stored_as]
            torch.testing.assert_close(rows_of(store, text).float(), expected, rtol=error, atol=10 * error)
    # Each distinct text once, empty ones without rows.
    assert store.num_rows == total == result["tokens"]
    assert store.num_passages == len(TEXTS) + 2 == result["texts"] == result["passages"] - len(COPIES)
    assert [len(rows_of(store, text)) for text in ("", " ")] == [0, 0]
    assert (result["texts_without_tokens"], result["texts_in_windows"]) == (2, 1)
    assert store.contains(Dataset.open(dataset).passage_keys()).all()


def test_interrupted_run_encodes_missing_shards_bit_equal(
    dataset: Path, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_all(dataset, checkpoints["bert"])
    shards = sorted((store_of(dataset) / "shards").iterdir())
    assert first.encoded_shards == first.plan.shards == len(shards) > 4
    whole = visible(dataset)
    shutil.rmtree(shards[1])
    (shards[2] / "manifest.json").unlink()
    data_file(shards[4], "spans").unlink()
    tokens = data_file(shards[0], "tokens")
    tokens.write_bytes(tokens.read_bytes()[:-1])
    (store_of(dataset) / ".plan.json.tmp12").write_text("left by a killed run")
    encoded: list[int] = []
    embed = Encoder.embed
    monkeypatch.setattr(Encoder, "embed", lambda self, *a, **k: encoded.append(1) or embed(self, *a, **k))
    again = run_all(dataset, checkpoints["bert"])
    assert again.encoded_shards == 4 == again.pending_shards
    assert 0 < len(encoded) < 3 * 4
    assert visible(dataset) == whole


def test_second_run_is_no_op(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(dataset, checkpoints["bert"])

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a finished store is encoded again")

    monkeypatch.setattr(Encoder, "embed", forbidden)
    for _ in range(2):
        before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.name != ".lock"}
        again = run_all(dataset, checkpoints["bert"])
        assert again.encoded_shards == again.pending_shards == 0
        after = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.name != ".lock"}
        assert after == before
        assert cli("consolidate", dataset).code == 0  # the second iteration runs on the finished store
    assert again.consolidated
    assert "nothing to do" in cli("precompute", dataset, "--encoder", checkpoints["bert"].path).out


MIXED = {
    "another model": (
        {"encoder": "t5gemma"},
        ["id is 'tiny-bert' there, 'tiny-t5gemma' here"],
    ),
    "another type": ({"dtype": "float16"}, ["dtype is 'bfloat16' there, 'float16' here"]),
    "a lower limit": ({"max_length": 24}, ["max_length is 40 there, 24 here"]),
    "the model's own limit": ({"max_length": None}, ["max_length is 40 there, 64 here"]),
}


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("what", MIXED)
def test_incompatible_options(
    what: str,
    consolidated: bool,
    dataset: Path,
    checkpoints: dict[str, Checkpoint],
    cli: CommandLine,
) -> None:
    changes, differences = MIXED[what]
    run_all(dataset, checkpoints["bert"], dtype="bfloat16", max_length=40, store="one")
    if consolidated:
        assert cli("consolidate", dataset).code == 0
    before = visible(dataset)
    options = {"encoder": "bert", "dtype": "bfloat16", "max_length": 40, **changes}
    path = checkpoints[str(options["encoder"])].path
    limit = ["--max-length", options["max_length"]] if options["max_length"] else []
    answer = cli(
        *("precompute", dataset, "--store", "one", "--encoder", path, "--dtype", options["dtype"]),
        *("--shard-tokens", 20, "--token-budget", 15),
        *limit,
    )
    assert answer.code == 1
    assert answer.err.count("error: ") == 1
    for text in [str(dataset / "stores" / "one"), *differences, "--store"]:
        assert text in answer.err
    assert visible(dataset) == before


@pytest.mark.parametrize("consolidated", [False, True])
def test_changed_texts_or_weights(
    consolidated: bool,
    dataset: Path,
    checkpoints: dict[str, Checkpoint],
    tmp_path: Path,
    cli: CommandLine,
) -> None:
    path = Path(shutil.copytree(checkpoints["bert"].path, tmp_path / "tiny-bert"))
    run = ("precompute", "--encoder", path, "--shard-tokens", 20, "--token-budget", 15)
    assert cli(*run, dataset).code == 0
    if consolidated:
        assert cli("consolidate", dataset).code == 0
    if not consolidated:  # a consolidated store is extended
        (tmp_path / "next").mkdir()
        other = make_dataset(tmp_path / "next", [*TEXTS, "one more"])
        shutil.copytree(dataset / "stores", other / "stores")
        before = visible(other)
        answer = cli(*run, other)
        assert answer.code == 1
        assert answer.err.count("error: ") == 1
        assert "texts is '" in answer.err
        assert visible(other) == before

    weights = load_file(path / "model.safetensors")
    weights = {key: value * 1.5 for key, value in weights.items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    before = visible(dataset)
    answer = cli(*run, dataset)
    assert answer.code == 1
    assert "weights is '" in answer.err
    assert visible(dataset) == before


def test_unconsolidated_run_with_other_budget(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine
) -> None:
    run_all(dataset, checkpoints["bert"])
    answer = cli("precompute", dataset, "--encoder", checkpoints["bert"].path)
    assert answer.code == 1
    assert "settings.token_budget is 15 there, 2048 here" in answer.err
    assert "settings.shard_tokens is 20 there, 65536 here" in answer.err
    assert "give the same options" in answer.err


def test_checkpoint_with_missing_weights_writes_nothing(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path, cli: CommandLine
) -> None:
    path = Path(shutil.copytree(checkpoints["t5gemma2"].path, tmp_path / "broken"))
    weights = load_file(path / "model.safetensors")
    [missing, *_] = [key for key in weights if "encoder.layers.1.mlp" in key]
    del weights[missing]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    for command in (
        ("precompute", dataset, "--encoder", path),
        ("cache-model", path, "--out", tmp_path / "o"),
    ):
        answer = cli(*command)
        assert answer.code == 1
        assert str(path) in answer.err
        assert "1 weights of T5Gemma2TextEncoder are missing" in answer.err
    assert not (dataset / "stores").exists()
    assert not (tmp_path / "o").exists()


def _num_processed_tokens(count: int) -> int:
    """Tokens processed for a passage of `count`: windows of 64 with their overlap."""
    return sum(window.stop - window.start for window in windows(count, 64))


@pytest.mark.parametrize(
    "cost",
    [
        lambda count, _: _num_processed_tokens(count),
        lambda count, longest: len(windows(count, 64)) * longest * (count > 0),
    ],
)
def test_plan_respects_budget_and_shard_size(cost: Callable[[int, int], int]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 90, 300).astype(np.int32)
    limit, budget, shard_tokens = 64, 200, 500
    plan = make_plan(
        rows,
        {},
        max_length=limit,
        cost=cost,
        token_budget=budget,
        shard_tokens=shard_tokens,
    )
    assert sorted(plan.text_idx) == list(range(300))
    np.testing.assert_array_equal(plan.num_tokens, rows[plan.text_idx])
    assert (np.diff(plan.num_tokens) <= 0).all()
    seen = []
    for shard in range(plan.num_shards):
        start, stop = plan.shard_range(shard)
        batches = plan.batches(shard)
        assert [batches[0][1], batches[-1][2]] == [start, stop]
        assert plan.num_tokens[start:stop].sum() >= shard_tokens or shard == plan.num_shards - 1
        assert plan.num_tokens[start : batches[-1][1]].sum() < shard_tokens
        for number, low, high in batches:
            seen.append(number)
            longest = min(int(plan.num_tokens[low]), limit)
            taken = sum(cost(int(count), longest) for count in plan.num_tokens[low:high])
            assert high - low == 1 or taken <= budget
            if high < len(plan.num_tokens) and plan.num_tokens[high] and plan.shard[high] == shard:
                # Batches are filled up to the budget.
                assert taken + cost(int(plan.num_tokens[high]), longest) > budget
    assert seen == sorted(set(seen))
