"""Unusual texts through all stages from reviews to explanations; recovery from a corrupt shard."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect._core import passage_keys
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.encoders import Encoder
from llmdirect.store.store import EmbeddingStore
from precompute_helpers import Checkpoint, build_checkpoints, make_usual_dataset, run_all, store_of
from run_helpers import write_reviews
from store_helpers import data_file, visible

ONE_WORD = "great" * 20_000
HARD = [
    ONE_WORD,
    "",
    " \t\n ",
    "...!!!",
    "😀👍🏽 family: 👨‍👩‍👧‍👦 e\u0301 and \ufb01ne",
    "הצליל חם והמיתרים בהירים",
    "صوت دافئ جدا",
    "\u202eright to left\u202c and \u200bnothing\u200b",
    "\ufeffmark\x00zero\x7f",
    "[SEP] <eos> [CLS] </s>",
]


@pytest.mark.slow
def test_hard_texts_pass_all_stages(tmp_path: Path, cli: CommandLine) -> None:
    def run_json(*arguments: object) -> Any:
        result = cli(*arguments, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    raw = write_reviews(tmp_path / "reviews.json")
    rows = [json.loads(line) for line in raw.read_text().splitlines()]
    for index, text in enumerate(HARD):
        rows[7 * index]["reviewText"] = text
    # A lone surrogate is an invalid character: the line is reported, and skipped on request.
    lines = [json.dumps(row) for row in rows]
    lines[-1] = json.dumps({**rows[-1], "reviewText": "half \ud83d"})
    raw.write_text("\n".join(lines) + "\n")
    data, run = tmp_path / "data", tmp_path / "run"
    failed = cli("prepare", raw, "--out", data, "--raw-text")
    assert (failed.code, "unpaired surrogate" in failed.err) == (1, True)
    run_json("prepare", raw, "--out", data, "--skip-bad-lines", "--raw-text")
    model = build_checkpoints(tmp_path, "t5gemma")["t5gemma"].path
    precomputed = run_json("precompute", data, "--encoder", model, "--dtype", "int8", "--project", 16)
    assert precomputed["texts_in_windows"] == 1
    run_json("consolidate", data)
    assert run_json("audit", data)["ok"]

    prepared, store = Dataset.open(data), EmbeddingStore.open(store_of(data), verify=True)
    texts = [
        text for text in prepared.passages.text.to_list() if text.strip() in {hard.strip() for hard in HARD}
    ]
    assert len(texts) >= len(HARD) - 1
    for text in texts:
        [number] = store.lookup(passage_keys([text]))
        spans, tokens = store.read(int(number))
        assert (len(spans) > 0) == bool(text.strip())
        assert np.isfinite(tokens).all()
        assert (spans[:, 1] <= len(text)).all()
        covered = np.zeros(len(text), bool)
        for start, stop in spans.tolist():
            covered[start:stop] = True
        letters = np.array([letter.isalnum() for letter in text], bool)
        assert covered[letters].all(), text[:40]
    run_json("train", data, "--out", run, "--num-epochs", 1, "--token-epochs", 1, "--aspc-num", 3)
    run_json("test", data, "--parameters", run)
    for row in np.flatnonzero(np.isin(prepared.passages.text.to_list(), [ONE_WORD, HARD[4], HARD[5]])):
        user, item = prepared.passages.user_idx[row], prepared.passages.item_idx[row]
        ids = ("--user", prepared.user_ids[user], "--item", prepared.item_ids[item])
        run_json("explain", run, *ids, "--html", tmp_path / "why.html")
    for text in (HARD[4], HARD[5], "half \ud83d"):
        assert run_json("recommend", run, "--text", text, "--encoder", model)["recommendations"]
    for text, words in (("", "the value is empty"), (" ", "holds no words")):
        assert words in cli("recommend", run, "--text", text, "--encoder", model).err


@pytest.fixture
def bert(tmp_path: Path) -> Checkpoint:
    return build_checkpoints(tmp_path, "bert")["bert"]


@pytest.mark.parametrize("name", ["tokens", "spans", "keys", "offsets"])
def test_only_corrupt_shard_is_encoded_again(
    name: str, tmp_path: Path, bert: Checkpoint, monkeypatch: pytest.MonkeyPatch, cli: CommandLine
) -> None:
    dataset = make_usual_dataset(tmp_path)
    run_all(dataset, bert)
    whole = visible(dataset)
    path = data_file(store_of(dataset) / "shards" / "00001", name)
    content = bytearray(path.read_bytes())
    content[-3] ^= 16  # the length is unchanged
    path.write_bytes(content)
    assert cli("consolidate", dataset).code == 1
    before = {shard: shard.stat().st_ino for shard in store_of(dataset).glob("shards/*")}
    read: list[str] = []
    tokenize = Encoder.tokenize
    monkeypatch.setattr(Encoder, "tokenize", lambda self, texts: read.extend(texts) or tokenize(self, texts))
    # The estimate tokenises some of the same texts.
    monkeypatch.setattr("llmdirect.encoding.estimate.estimate_seconds", lambda *_: None)
    assert run_all(dataset, bert).encoded_shards == 1
    stored = EmbeddingStore.open(path.parent).keys
    np.testing.assert_array_equal(passage_keys(read), stored)
    assert visible(dataset) == whole
    after = {shard: shard.stat().st_ino for shard in store_of(dataset).glob("shards/*")}
    assert {shard.name for shard in after if after[shard] != before[shard]} <= {"00001"}
    shutil.rmtree(dataset)
