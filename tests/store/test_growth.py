"""Extending a store: only new texts are encoded, removed texts are dropped."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import CommandLine
from llmdirect import _core
from llmdirect._core import passage_keys
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import write_manifest
from llmdirect.encoding.encoders import Encoder
from llmdirect.store.calibration import CALIBRATION
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from precompute_helpers import TEXTS, Checkpoint, build_checkpoints, make_dataset, run_all, store_of
from store_helpers import assert_same, joined, random_content, visible, write_content

pytestmark = pytest.mark.slow

NEW = ["no strings at all", "she plays the amplifier", "", "sturdy strap, sturdy cable"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "bert")["bert"]


def prepare_again(dataset: Path, texts: list[str]) -> None:
    """Replace the texts of a dataset, keeping its stores."""
    stores = dataset.parent / "kept"
    shutil.move(dataset / "stores", stores)
    shutil.rmtree(dataset)
    make_dataset(dataset.parent, texts)
    shutil.move(stores, dataset / "stores")


def rows_of(store: EmbeddingStore, text: str) -> np.ndarray:
    [number] = store.lookup(passage_keys([text]))
    return store.read(int(number))[1]


@pytest.mark.parametrize("form", [{"dtype": "bfloat16"}, {"dtype": "int8", "project": 8}])
@pytest.mark.parametrize("keep_shards", [False, True])
def test_only_new_texts_are_encoded(
    form: dict[str, Any],
    keep_shards: bool,
    bert: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: CommandLine,
) -> None:
    dataset = make_dataset(tmp_path, TEXTS)
    run_all(dataset, bert, **form)
    consolidate(dataset, keep_shards=keep_shards)
    before = EmbeddingStore.open(store_of(dataset))
    fitted = (store_of(dataset) / CALIBRATION).read_bytes() if "project" in form else b""
    prepare_again(dataset, [*TEXTS[2:], *NEW])

    read: list[str] = []
    tokenize = Encoder.tokenize
    monkeypatch.setattr(Encoder, "tokenize", lambda self, texts: read.extend(texts) or tokenize(self, texts))
    # The estimate tokenises some of the same texts.
    monkeypatch.setattr("llmdirect.encoding.estimate.estimate_seconds", lambda *_: None)
    result = run_all(dataset, bert, **form)
    assert sorted(read) == sorted(NEW)
    assert result.texts == len(NEW)
    assert run_all(dataset, bert, **form).pending_shards == 0  # complete, not yet consolidated
    consolidated = json.loads(cli("consolidate", dataset, "--json").out)
    assert (consolidated["dropped"], consolidated["passages"]) == (2, len(TEXTS) - 2 + len(NEW))
    assert not list(store_of(dataset).glob("shards")) + list(store_of(dataset).glob("plan*"))
    assert json.loads(cli("audit", dataset, "--json").out)["ok"]

    grown = EmbeddingStore.open(store_of(dataset), verify=True)
    for text in TEXTS[2:]:
        np.testing.assert_array_equal(rows_of(grown, text), rows_of(before, text))
    assert not grown.contains(passage_keys(TEXTS[:2])).any()
    assert len(rows_of(grown, "")) == 0 < len(rows_of(grown, NEW[0]))
    if "project" in form:
        assert (store_of(dataset) / CALIBRATION).read_bytes() == fitted
        np.testing.assert_array_equal(grown.channels, before.channels)
    else:  # vectors of new texts equal those of a store built at once
        at_once = make_second_dataset(tmp_path / "at once", [*TEXTS[2:], *NEW])
        run_all(at_once, bert, **form)
        consolidate(at_once)
        for text in NEW:
            expected = rows_of(EmbeddingStore.open(store_of(at_once)), text)
            np.testing.assert_allclose(rows_of(grown, text), expected, rtol=2**-6, atol=2**-6)
    again = run_all(dataset, bert, **form)
    assert (again.consolidated, again.encoded_shards) == (True, 0)
    assert not consolidate(dataset).changed


def make_second_dataset(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    return make_dataset(folder, texts)


def test_reintroduced_text_is_encoded_again(bert: Checkpoint, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [*TEXTS, *NEW])
    run_all(dataset, bert)
    consolidate(dataset)
    for texts, dropped in ((TEXTS, len(NEW)), ([*TEXTS, *NEW], 0), (TEXTS, len(NEW)), ([*TEXTS, *NEW], 0)):
        prepare_again(dataset, texts)
        result = run_all(dataset, bert)
        assert result.consolidated == bool(dropped)
        assert consolidate(dataset).dropped == dropped
        store = EmbeddingStore.open(store_of(dataset), verify=True)
        assert store.num_passages == len(texts)
        assert store.contains(passage_keys(texts)).all()


def test_consolidate_requires_complete_growth(bert: Checkpoint, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, TEXTS)
    run_all(dataset, bert)
    consolidate(dataset)
    old = visible(store_of(dataset))
    prepare_again(dataset, [*TEXTS, *NEW])
    run_all(dataset, bert)
    shards = sorted((store_of(dataset) / "shards").iterdir())
    whole = visible(store_of(dataset))
    # Killed after the plan, and after some shards.
    for count in range(len(shards) + 1)[::-1][1:]:
        shutil.rmtree(shards[count])
        with pytest.raises(DataError, match=rf"shards/{count:05d}: missing.*run precompute again"):
            consolidate(dataset)
        assert old.items() <= visible(store_of(dataset)).items()
    assert run_all(dataset, bert).encoded_shards == len(shards)
    assert visible(store_of(dataset)) == whole
    # Changed texts before consolidation are an error.
    prepare_again(dataset, [*TEXTS, *NEW, "and one"])
    with pytest.raises(MismatchError, match=r"texts is .*delete .*plan\.json.* consolidate.* grow"):
        run_all(dataset, bert)
    consolidate(dataset)
    assert run_all(dataset, bert).texts == 1
    consolidate(dataset)
    assert EmbeddingStore.open(store_of(dataset), verify=True).num_passages == len(TEXTS) + len(NEW) + 1


def test_growth_requires_same_encoder_but_not_library_version(bert: Checkpoint, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, TEXTS)
    run_all(dataset, bert)
    consolidate(dataset)
    prepare_again(dataset, [*TEXTS, *NEW])
    folder = store_of(dataset)
    manifest = json.loads((folder / "manifest.json").read_text())
    encoder = manifest["encoder"]
    write_manifest(folder, manifest | {"encoder": encoder | {"attention": "other"}})
    with pytest.raises(MismatchError, match=r"attention is 'other' there, .* here.*`store`"):
        run_all(dataset, bert)
    older = encoder | {"versions": {"torch": "2.0"}}
    write_manifest(folder, manifest | {"encoder": older})
    run_all(dataset, bert)
    consolidate(dataset)
    assert EmbeddingStore.open(folder, verify=True).encoder == older


def test_external_store_grows_without_dropping(bert: Checkpoint, tmp_path: Path, cli: CommandLine) -> None:
    first = make_second_dataset(tmp_path / "first", TEXTS)
    run_all(first, bert)
    consolidate(first)
    second = make_second_dataset(tmp_path / "second", [*TEXTS[5:], *NEW])
    run = ("--encoder", bert.path, "--shard-tokens", 20, "--token-budget", 15, "--store", store_of(first))
    assert json.loads(cli("precompute", second, *run, "--json").out)["texts"] == len(NEW)
    consolidated = json.loads(cli("consolidate", second, "--store", store_of(first), "--json").out)
    assert (consolidated["dropped"], consolidated["passages"]) == (0, len(TEXTS) + len(NEW))
    assert not (second / "stores").exists()
    assert "nothing to do" in cli("precompute", second, *run).out
    missing = cli("consolidate", second, "--store", tmp_path / "nowhere")
    assert (missing.code, "nowhere: no such folder" in missing.err) == (1, True)


@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=7), min_size=1, max_size=3),
    dtype=st.sampled_from(["bfloat16", "float32", "int8"]),
)
def test_selected_passages_match_naive_join(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, bool]]], dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(1)
    contents = [random_content(rng, [rows for rows, _ in part], dtype=dtype) for part in parts]
    chosen = [np.array([kept for _, kept in part], bool) for part in parts]
    for number, content in enumerate(contents):
        write_content(folder / str(number), content, dtype)
    (folder / "out").mkdir()
    paths = [folder / str(number) for number in range(len(parts))]
    data = _core.consolidate_shards(paths, folder / "out", lambda _: None, chosen)
    write_manifest(
        folder / "out", {"format": "llmdirect-store", "version": 2, "encoder": {}, "source": {}, **data}
    )
    for content, kept in zip(contents, chosen, strict=True):
        rows = np.repeat(kept, np.diff(content.offsets))
        content.offsets = np.concatenate([[0], np.cumsum(np.diff(content.offsets)[kept])]).astype(np.int64)
        content.tokens, content.spans, content.keys = (
            content.tokens[rows],
            content.spans[rows],
            content.keys[kept],
        )
        content.scales = None if content.scales is None else content.scales[rows]
    assert_same(EmbeddingStore.open(folder / "out", verify=True), joined(contents))


def test_selected_passages_across_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    content = random_content(rng, [700, 0, 900, 1, 1200, 800], dim=4000)  # 4 MiB a chunk: some 520 rows
    write_content(tmp_path / "a", content)
    (tmp_path / "out").mkdir()
    kept = np.array([True, True, False, False, True, False])
    data = _core.consolidate_shards([tmp_path / "a"], tmp_path / "out", lambda _: None, [kept])
    write_manifest(
        tmp_path / "out", {"format": "llmdirect-store", "version": 2, "encoder": {}, "source": {}, **data}
    )
    store = EmbeddingStore.open(tmp_path / "out", verify=True)
    rows = np.repeat(kept, np.diff(content.offsets))
    np.testing.assert_array_equal(store.tokens_numpy, content.tokens[rows])
    np.testing.assert_array_equal(store.spans, content.spans[rows])
    np.testing.assert_array_equal(store.offsets, [0, 700, 700, 1900])
    with pytest.raises(ValueError, match="kept has 2 entries for 6 passages"):
        _core.consolidate_shards([tmp_path / "a"], tmp_path / "out", lambda _: None, [kept[:2]])
