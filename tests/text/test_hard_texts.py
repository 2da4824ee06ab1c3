"""Texts that nobody would write, from the file of reviews to the explanation; and a shard that rots."""

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
def test_hard_texts_go_through_every_stage(tmp_path: Path, cli: CommandLine) -> None:
    def answer(*arguments: object) -> Any:
        result = cli(*arguments, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    raw = write_reviews(tmp_path / "reviews.json")
    rows = [json.loads(line) for line in raw.read_text().splitlines()]
    for place, text in enumerate(HARD):
        rows[7 * place]["reviewText"] = text
    # Half an emoji is no character: the line is named, and left out where that is wanted.
    lines = [json.dumps(row) for row in rows]
    lines[-1] = json.dumps({**rows[-1], "reviewText": "half \ud83d"})
    raw.write_text("\n".join(lines) + "\n")
    data, run = tmp_path / "data", tmp_path / "run"
    refused = cli("prepare", raw, "--out", data)
    assert (refused.code, "unpaired surrogate" in refused.err) == (1, True)
    answer("prepare", raw, "--out", data, "--skip-bad-lines")
    model = build_checkpoints(tmp_path, "t5gemma")["t5gemma"].path
    made = answer("precompute", data, "--encoder", model, "--dtype", "int8", "--project", 16)
    assert made["texts_in_windows"] == 1
    answer("consolidate", data)
    assert answer("audit", data)["ok"]

    found, store = Dataset.open(data), EmbeddingStore.open(store_of(data), verify=True)
    texts = [
        text for text in found.passages.text.to_list() if text.strip() in {hard.strip() for hard in HARD}
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
    answer("train", data, "--out", run, "--num-epochs", 1, "--token-epochs", 1, "--aspc-num", 3)
    answer("test", data, "--parameters", run)
    for row in np.flatnonzero(np.isin(found.passages.text.to_list(), [ONE_WORD, HARD[4], HARD[5]])):
        user, item = found.passages.user_idx[row], found.passages.item_idx[row]
        ids = ("--user", found.user_ids[user], "--item", found.item_ids[item])
        answer("explain", run, *ids, "--html", tmp_path / "why.html")
    for text in (HARD[4], HARD[5], "half \ud83d"):
        assert answer("recommend", run, "--text", text, "--encoder", model)["recommendations"]
    for text in ("", " "):
        assert "holds no words" in cli("recommend", run, "--text", text, "--encoder", model).err


@pytest.fixture
def bert(tmp_path: Path) -> Checkpoint:
    return build_checkpoints(tmp_path, "bert")["bert"]


@pytest.mark.parametrize("name", ["tokens", "spans", "keys", "offsets"])
def test_a_shard_that_changed_on_the_disk_is_made_again_alone(
    name: str, tmp_path: Path, bert: Checkpoint, monkeypatch: pytest.MonkeyPatch, cli: CommandLine
) -> None:
    dataset = make_usual_dataset(tmp_path)
    run_all(dataset, bert)
    whole = visible(dataset)
    path = data_file(store_of(dataset) / "shards" / "00001", name)
    content = bytearray(path.read_bytes())
    content[-3] ^= 16  # the length stays
    path.write_bytes(content)
    assert cli("consolidate", dataset).code == 1
    before = {shard: shard.stat().st_ino for shard in store_of(dataset).glob("shards/*")}
    read: list[str] = []
    tokenize = Encoder.tokenize
    monkeypatch.setattr(Encoder, "tokenize", lambda self, texts: read.extend(texts) or tokenize(self, texts))
    # It reads some of the same texts.
    monkeypatch.setattr("llmdirect.encoding.precompute.estimate_seconds", lambda *_: None)
    assert run_all(dataset, bert).encoded_shards == 1
    stored = EmbeddingStore.open(path.parent).keys
    np.testing.assert_array_equal(passage_keys(read), stored)
    assert visible(dataset) == whole
    after = {shard: shard.stat().st_ino for shard in store_of(dataset).glob("shards/*")}
    assert {shard.name for shard in after if after[shard] != before[shard]} <= {"00001"}
    shutil.rmtree(dataset)
