"""`precompute --dtype int8 --project N --tokens content`: kept tokens, calibration, errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect._core import passage_keys
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.encoding.encoders import load_encoder
from llmdirect.encoding.precompute import precompute
from llmdirect.encoding.results import PrecomputeResult
from llmdirect.model.train_view import TrainView
from llmdirect.runs.new_users import read_texts
from llmdirect.runs.trained import Trained
from llmdirect.store.calibration import CALIBRATION, quantize_int8
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore
from llmdirect.store.token_format import TokenFormat
from llmdirect.text.words import STOP_WORDS, content_token_mask, word_spans
from precompute_helpers import Checkpoint, build_checkpoints, store_of
from run_helpers import write_reviews
from store_helpers import visible, write_published

pytestmark = pytest.mark.slow

FUNCTION = "And it is, to me."
"""A text of function words alone: `--tokens content` leaves nothing of it."""
PLACE = 5  # its line among the reviews: one of train
DIM = 32
FORMS: dict[str, dict[str, Any]] = {
    "int8": {"dtype": "int8"},
    "projected": {"dtype": "float32", "project": 8},
    "content": {"dtype": "float32", "tokens": "content"},
    "all": {"dtype": "int8", "project": 8, "tokens": "content"},
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "bert")["bert"]


def make_reviews(folder: Path, held_out: str = "") -> Path:
    """Reviews with function words, the first with these only; `held_out` is prepended to held-out texts."""
    raw = write_reviews(folder / "reviews.json")
    rows = [json.loads(line) for line in raw.read_text().splitlines()]
    rows[PLACE]["reviewText"] = FUNCTION
    for row in rows[:PLACE] + rows[PLACE + 1 :]:
        row["reviewText"] = "It's the " + row["reviewText"].replace(" ", " and ", 1)
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if held_out:
        prepare(raw, folder / "first")
        first = Dataset.open(folder / "first")
        rest = first.interactions
        names = {
            (first.user_ids[u], first.item_ids[i])
            for u, i, split in zip(rest.user_idx, rest.item_idx, rest.split, strict=True)
            if split
        }
        for row in rows:
            if (row["reviewerID"], row["asin"]) in names:
                row["reviewText"] = held_out + row["reviewText"]
        raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(raw, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reviews(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def dataset(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "dataset"))


def run_all(dataset: Path, bert: Checkpoint, **options: Any) -> PrecomputeResult:
    """`precompute` in a few shards."""
    return precompute(
        dataset, **{"encoder": str(bert.path), "shard_tokens": 2500, "token_budget": 400, **options}
    )


def make(dataset: Path, bert: Checkpoint, name: str, **form: Any) -> EmbeddingStore:
    run_all(dataset, bert, store=name, **form)
    consolidate(dataset, store=name)
    return EmbeddingStore.open(dataset / "stores" / name, verify=True)


def floats(store: EmbeddingStore, texts: list[str]) -> list[torch.Tensor]:
    """Embeddings of each text, float32."""
    return [torch.from_numpy(store.read(int(n))[1]) for n in store.lookup(passage_keys(texts))]


def naive_content(text: str, spans: np.ndarray) -> list[bool]:
    """Reference: content tokens in a loop over words."""

    def in_word(position: int) -> bool:
        return 0 <= position < len(text) and (text[position].isalnum() or text[position] == "'")

    kept = []
    for start, stop in spans.tolist():
        low, high = start, stop
        while in_word(start) and in_word(low - 1):
            low -= 1
        while in_word(start) and in_word(high):
            high += 1
        word = text[low:high].lower()
        kept.append(stop > start and any(map(str.isalnum, word)) and word not in STOP_WORDS)
    return kept


def test_each_format_is_reduction_of_plain_store(dataset: Path, bert: Checkpoint) -> None:
    plain = make(dataset, bert, "plain", dtype="float32")
    stores = {name: make(dataset, bert, name, **form) for name, form in FORMS.items()}
    data = Dataset.open(dataset)
    texts = data.passages.text.to_list()
    numbers = plain.lookup(passage_keys(texts))
    spans = [plain.spans_of(int(number)) for number in numbers]
    whole = floats(plain, texts)
    kept = [np.array(naive_content(text, span), bool) for text, span in zip(texts, spans, strict=True)]
    assert kept[texts.index(FUNCTION)].sum() == 0 < kept[-1].sum() < len(kept[-1])

    # All of train is in the sample: principal components by NumPy.
    train = np.flatnonzero(data.passages.split == 0)
    first = {texts[row]: row for row in train.tolist()}.values()
    for name, store in stores.items():
        form = store.token_format
        content = form.tokens == "content"
        sample = torch.cat(
            [whole[row][(spans[row][:, 1] > spans[row][:, 0]) & (kept[row] | (not content))] for row in first]
        )
        expected = [
            embedding[own] if content else embedding for embedding, own in zip(whole, kept, strict=True)
        ]
        assert store.dim == (8 if form.project else DIM)
        if form.project:
            statistics = store.calibration.statistics
            assert statistics is not None
            assert statistics["tokens"] == len(sample)
            variances = np.linalg.eigvalsh(np.cov(sample.double().numpy().T))[::-1]
            assert statistics["explained"] == pytest.approx(variances[:8].sum() / variances.sum(), rel=1e-6)
            projection = store.calibration.projection
            assert projection is not None
            torch.testing.assert_close(projection.T @ projection, torch.eye(8), atol=1e-5, rtol=0)
            within = np.cov((sample @ projection).double().numpy().T)
            np.testing.assert_allclose(within, np.diag(variances[:8]), atol=1e-4 * variances[0])
            expected = [embedding @ projection for embedding in expected]
            sample = sample @ projection
        if form.dtype == "int8":
            np.testing.assert_allclose(store.channels, sample.square().mean(0).sqrt(), rtol=1e-4)
        for row, (values, number) in enumerate(
            zip(expected, store.lookup(passage_keys(texts)).tolist(), strict=True)
        ):
            own = kept[row] if content else np.ones(len(spans[row]), bool)
            np.testing.assert_array_equal(store.spans_of(number), spans[row][own])
            step: Any = 1e-4
            if form.dtype == "int8":
                borders = slice(store.offsets[number], store.offsets[number + 1])
                step = torch.from_numpy(store.scales[borders, None].astype(np.float32) * store.channels) / 2
            error = (torch.from_numpy(store.read(number)[1]) - values).abs()
            assert (error <= step * 1.001 + 1e-4).all(), name
    assert plain.calibration.projection is None
    assert not (plain.path / CALIBRATION).exists()


def test_int8_of_tensor_matches_core(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal((500, 24)) * rng.choice([1e-3, 1, 50], (500, 1))).astype(np.float32)
    rows[:, 3] *= 300
    rows[7], rows[8], rows[9, 1:] = 0, 1e-7, 0
    source = write_published(tmp_path / "in", {"item_embeddings": [rows]})
    consolidate(source, out=tmp_path / "out", dtype="int8")
    store = EmbeddingStore.open(tmp_path / "out")
    numbers, scales = quantize_int8(
        torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(store.channels.copy())
    )
    np.testing.assert_array_equal(numbers.numpy(), store.tokens_numpy)
    np.testing.assert_array_equal(scales.numpy(), store.scales)
    ties = torch.tensor([[127.0, 0.5, 1.5, 2.5, -2.5, -3.5, -127.0]])
    assert quantize_int8(ties, torch.ones(7))[0].tolist() == [[127, 0, 2, 2, -2, -4, -127]]
    for wrong in (float("nan"), float("inf"), 8.4e6):
        assert not torch.isfinite(quantize_int8(torch.tensor([[wrong, 1.0]]), torch.ones(2))[1]).any()


def test_calibration_ignores_held_out_texts(tmp_path: Path, bert: Checkpoint) -> None:
    written = []
    for name, held_out in (("as they are", ""), ("changed", "daughter daughter, 7 strings. ")):
        (tmp_path / name).mkdir()
        dataset = make_reviews(tmp_path / name, held_out)
        run_all(dataset, bert, dtype="int8", project=8, tokens="content")
        written.append((store_of(dataset) / CALIBRATION).read_bytes())
        texts = Dataset.open(dataset).passages
        changed = [text for text, split in zip(texts.text, texts.split, strict=True) if split]
        assert all(text.startswith(held_out) for text in changed)
        assert len(changed) > 40
    assert written[0] == written[1]
    # Texts of train have influence.
    other = make_reviews(tmp_path)
    raw = tmp_path / "reviews.json"
    raw.write_text(raw.read_text().replace(FUNCTION, "daughter"))
    prepare(raw, other, overwrite=True)
    texts = Dataset.open(other).passages
    assert texts.split[texts.text.to_list().index("daughter")] == 0
    run_all(other, bert, dtype="int8", project=8, tokens="content")
    assert (store_of(other) / CALIBRATION).read_bytes() != written[0]


def test_interrupted_run_resumes_bit_equal(dataset: Path, bert: Checkpoint) -> None:
    options = {"shard_tokens": 500, **FORMS["all"]}
    first = run_all(dataset, bert, **options)
    assert first.plan.shards > 4
    whole = visible(dataset)
    shutil.rmtree(store_of(dataset) / "shards" / "00002")
    assert run_all(dataset, bert, **options).encoded_shards == 1
    assert visible(dataset) == whole
    # Killed between the calibration and the plan: it is fitted again.
    for path in (*store_of(dataset).glob("plan*"), store_of(dataset) / "shards"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_all(dataset, bert, **options)
    assert visible(dataset) == whole


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"dtype": "float32"}, "dtype is 'int8' there, 'float32' here"),
        ({"project": 4}, "project is 8 there, 4 here"),
        ({"project": None}, "project is 8 there, None here"),
        ({"tokens": "all"}, "tokens is 'content' there, "),
    ],
)
def test_incompatible_options(
    changes: dict[str, Any], difference: str, consolidated: bool, dataset: Path, bert: Checkpoint
) -> None:
    run_all(dataset, bert, store="one", **FORMS["all"])
    if consolidated:
        consolidate(dataset)
    before = visible(dataset)
    with pytest.raises(MismatchError, match=rf"stores/one.*{difference}.*`store`"):
        run_all(dataset, bert, store="one", **{**FORMS["all"], **changes})
    assert visible(dataset) == before


def test_shards_of_different_formats(dataset: Path, bert: Checkpoint) -> None:
    run_all(dataset, bert, store="one", dtype="bfloat16", tokens="content")
    run_all(dataset, bert, store="two", dtype="bfloat16")
    shard = dataset / "stores" / "one" / "shards" / "00001"
    shutil.rmtree(shard)
    shutil.copytree(dataset / "stores" / "two" / "shards" / "00001", shard)
    with pytest.raises(
        MismatchError, match=r"shards/00001/manifest\.json: form is null, but .*content.*remove"
    ):
        consolidate(dataset, store="one")


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_calibration(damage: str, dataset: Path, bert: Checkpoint, cli: CommandLine) -> None:
    run_all(dataset, bert, **FORMS["all"])
    path = store_of(dataset) / CALIBRATION
    content = path.read_bytes()

    def break_it() -> None:
        path.unlink() if damage == "missing" else path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    match = rf"{path}: (missing|not the file that the store was made with); copy it back"
    break_it()
    for again in (lambda: run_all(dataset, bert, **FORMS["all"]), lambda: consolidate(dataset)):
        with pytest.raises(DataError, match=match):
            again()
    path.write_bytes(content)
    consolidate(dataset)
    break_it()
    answer = cli("audit", dataset)
    assert answer.code == 1
    assert str(path) in answer.out + answer.err
    with pytest.raises(DataError, match=match):
        _ = EmbeddingStore.open(store_of(dataset)).calibration


def test_invalid_arguments(dataset: Path, bert: Checkpoint, cli: CommandLine) -> None:
    for options, message in [
        (("--project", 0), "--project: 0, expected 1 or more"),
        (("--project", DIM + 1), f"--project: {DIM + 1}, expected at most the {DIM} dimensions"),
        (("--tokens", "nouns"), "--tokens: 'nouns', expected one of all, content"),
    ]:
        answer = cli("precompute", dataset, "--encoder", bert.path, *options)
        assert answer.code == 2
        assert message in answer.err
    assert not (dataset / "stores").exists()


def test_calibration_without_tokens(tmp_path: Path, bert: Checkpoint) -> None:
    raw = write_reviews(tmp_path / "reviews.json")
    rows = [json.loads(line) | {"reviewText": FUNCTION} for line in raw.read_text().splitlines()]
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(raw, tmp_path / "dataset")
    with pytest.raises(DataError, match="no token of a train passage to fit `project` on"):
        run_all(tmp_path / "dataset", bert, project=4, tokens="content")


def test_content_tokens_known_values() -> None:
    text = "It isn't the well-made G-string, is it? 5 €!"
    words = [text[a:b] for a, b in word_spans(text).tolist() if text[a].isalnum()]
    assert words == ["It", "isn't", "the", "well", "made", "G", "string", "is", "it", "5"]
    starts = [(text.index(part), text.index(part) + len(part)) for part in (*words, "-made", "'t", ",", "€")]
    kept = content_token_mask(text, np.array([(0, 0), *starts], np.uint32))
    assert kept.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert content_token_mask("", np.zeros((0, 2), np.uint32)).tolist() == []
    assert TokenFormat("int8", 256, "content").name == "int8-256-content"
    assert TokenFormat().name == "int8"


def test_all_stages_on_reduced_store(
    dataset: Path, bert: Checkpoint, tmp_path: Path, cli: CommandLine
) -> None:
    def run_json(*arguments: object) -> Any:
        result = cli(*arguments, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    form = ("--dtype", "int8", "--project", 8, "--tokens", "content")
    precompute_answer = cli("precompute", dataset, "--encoder", bert.path, *form)
    assert "8 components with" in precompute_answer.out
    run_json("consolidate", dataset)
    assert store_of(dataset).name == "tiny-bert-int8-8-content"
    assert "nothing to do" in cli("precompute", dataset, "--encoder", bert.path, *form).out
    assert run_json("audit", dataset)["ok"]
    run = tmp_path / "run"
    run_json("train", dataset, "--out", run, "--num-epochs", 2, "--token-epochs", 1, "--aspc-num", 4)
    assert run_json("test", dataset, "--parameters", run)["num_items"] == 14
    assert len(run_json("recommend", run, "--user", "u3", "-k", 3)["recommendations"][0]["items"]) == 3
    data = Dataset.open(dataset)
    empty = data.passages.text.to_list().index(FUNCTION)
    # An item with a text without tokens is explained by its other texts.
    item = data.item_ids[data.passages.item_idx[empty]]
    why = run_json("explain", run, "--user", "u3", "--item", item)["explanations"][0]
    words = [word["text"].lower() for passage in why["passages"] for word in passage["words"]]
    assert words
    assert not STOP_WORDS & set(words)
    new = ("recommend", run, "--encoder", bert.path, "-k", 3, "--text")
    assert len(run_json(*new, "It is a warm sound")["recommendations"][0]["items"]) == 3
    refused = cli(*new, FUNCTION)
    assert (refused.code, "holds no words" in refused.err) == (2, True)

    # A text encoded for a request equals its stored version up to int8 quantisation.
    trained, view = Trained.load(run), TrainView.from_dataset(data, EmbeddingStore.open(store_of(dataset)))
    view = view.with_lexicon(trained.lexicon, data.passages.text.gather(view.passage_idx))
    row = int(view.lengths.argmax())
    tokens, mask = view.tokens(torch.tensor([row]))
    preference, _ = trained.model.passages(tokens, mask)
    text = data.passages.text[int(view.passage_idx[row])]
    encoder = load_encoder(str(bert.path), device="cpu")
    read = read_texts(trained, [text], encoder).profiles
    expected = torch.nn.functional.normalize(preference, dim=1)
    torch.testing.assert_close(read, expected, atol=0.03, rtol=0)
