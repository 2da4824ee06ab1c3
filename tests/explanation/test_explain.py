"""History words, comparison of two items, and counterfactual words of explanations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from command_line import CommandLine
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation import explain as explaining
from llmdirect.explanation.counterfactual import _fewest
from llmdirect.explanation.explain import explain
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.reencoding import Reencoder, without_words
from llmdirect.model.direct import attention
from llmdirect.model.vectors import normalize
from llmdirect.reports.explanation_page import render
from llmdirect.runs.inputs import load_run_encoder
from llmdirect.store.consolidation import consolidate
from llmdirect.text.words import word_spans
from run_helpers import fit, write_reviews
from word_encoder import WordEncoder, write_words

pytestmark = pytest.mark.slow

SHARED_OUT = ["default", "vote", "refined", "embeddings"]
NAMES = [*SHARED_OUT, "ratio", "both"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    prepare(write_reviews(folder / "reviews.json"), folder / "data")
    write_words(folder / "data")
    for name in NAMES:
        options = {"token_epochs": 2, "lr": 1e-2} if name == "refined" else {}
        fit(folder / "data", folder / name, "default" if name == "refined" else name, **options)
    return {name: folder / name for name in NAMES}


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "load_run_encoder", lambda *_: WordEncoder())


@pytest.mark.parametrize("name", NAMES)
def test_history_word_contributions_sum_to_terms(runs: dict[str, Path], name: str) -> None:
    explainer = Explainer.open(runs[name])
    trained = explainer.trained
    for user in (1, 6):
        (entry,) = explain(runs[name], trained.users.ids[user], k=1)["explanations"]
        shared = sum(part["contribution"] for part in entry["collaboration"])
        assert shared == pytest.approx(entry["terms"]["collaboration"], rel=1e-5, abs=1e-9)
        owned = {trained.item_ids[item] for item in trained.users.seen.row(user).tolist()}
        assert {part["item_id"] for part in entry["collaboration"]} <= owned
        for part in entry["history"]:
            if name not in SHARED_OUT:
                assert part["words"] is None
                continue
            total = sum(word["contribution"] for word in part["words"])
            assert total == pytest.approx(part["contribution"], rel=1e-5, abs=1e-6)
            source = trained.item_ids.index(part["item_id"])
            rows = explainer.texts.passages_of(source).tolist()
            own = [row for row in rows if explainer.texts.dataset.passages.user_idx[row] == user]
            assert [passage["passage_idx"] for passage in part["own"]] == own
            for passage in part["own"]:
                total_of_words = sum(word["contribution"] for word in passage["words"])
                assert total_of_words == pytest.approx(passage["contribution"], rel=1e-5, abs=1e-9)
                assert all(passage["text"][w["start"] : w["end"]] == w["text"] for w in passage["words"])


@pytest.mark.parametrize("name", ["default", "vote", "refined"])
def test_history_word_contribution_matches_token_loop(runs: dict[str, Path], name: str) -> None:
    """Reference: plain loop over all tokens of a history document, with all channels."""
    explainer = Explainer.open(runs[name])
    trained, model = explainer.trained, explainer.texts.model
    user = 2
    item = int(explainer.candidates(user)[0])
    entry = explainer.explain(user, item, history_words=True)
    part = entry["history"][0]
    source = trained.item_ids.index(part["item_id"])
    recent = trained.users.recent.row(user).tolist()
    vectors = trained.profile[torch.tensor(recent)].double()
    weights = attention(model.user.history_query, vectors[None], torch.ones(1, len(recent)).bool())[0]
    interest = (weights[:, None] * vectors).sum(0)
    target = normalize(torch.from_numpy(np.asarray(trained.tables.item[item], np.float64)))
    preference, sums = torch.zeros(len(target)).double(), {}
    for passage in explainer.texts.read_passages(explainer.texts.passages_of(source)):
        tokens = torch.from_numpy(
            trained.lexicon.extend(passage.tokens, passage.text, passage.spans)
        ).double()
        for token, (start, end) in zip(tokens, passage.spans.tolist(), strict=True):
            term = model.token_terms(model.standard(token[None]))[0][0]
            term = term / len(tokens) if model.config.equal_reviews else term
            preference = preference + term
            word = passage.text[start:end].casefold()
            sums[word] = sums.get(word, 0.0) + float(term @ target)
    scale = float(weights[recent.index(source)] * model.temperature() / interest.norm() / preference.norm())
    assert len(sums) > 4
    assert {w["text"]: w["contribution"] for w in part["words"]} == pytest.approx(
        {word: value * scale for word, value in sums.items()}, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_comparison_of_two_items(runs: dict[str, Path], name: str) -> None:
    explainer = Explainer.open(runs[name])
    trained, user = explainer.trained, 4
    first, second = explainer.candidates(user)[[0, 3]].tolist()
    ids = trained.users.ids[user], [trained.item_ids[first]]
    (explanation,) = explain(runs[name], *ids, than=trained.item_ids[second])["explanations"]
    other = explanation["than"]
    scores = trained.tables.score_pairs([user, user], [first, second])
    assert (other["item_id"], other["rank"]) == (trained.item_ids[second], 4)
    assert other["total"] == pytest.approx(float(scores[0] - scores[1]), rel=1e-5, abs=1e-6)
    parts = other["parts"]
    assert sum(parts.values()) == pytest.approx(other["total"], rel=1e-5, abs=1e-9)
    for key, part in (("words", "words"), ("aspects", "words"), ("collaboration", "collaboration")):
        total = sum(entry["difference"] for entry in other[key])
        assert total == pytest.approx(parts[part], rel=1e-5, abs=1e-6)
        assert all(entry["difference"] == entry["here"] - entry["there"] for entry in other[key])
        sizes = [abs(entry["difference"]) for entry in other[key]]
        assert sizes == sorted(sizes, reverse=True)
    if name in SHARED_OUT:
        text = parts["words"] + parts["words_everywhere"]
        assert sum(entry["difference"] for entry in other["history"]) == pytest.approx(
            text, rel=1e-4, abs=1e-5
        )
    else:
        assert other["history"] == []
    with pytest.raises(ValueError, match="is the item itself; name another"):
        explain(runs[name], *ids, than=ids[1][0])


def test_without_words() -> None:
    text = 'Warm,  bright sound; "cheap" strap.\n'
    spans = word_spans(text)
    words = [text[start:end] for start, end in spans.tolist()]

    def remaining(*removed: str) -> str:
        return without_words(text, spans, np.array([word in removed for word in words]))

    assert remaining() == text
    assert remaining("bright") == 'Warm,  sound; "cheap" strap.\n'
    assert remaining("Warm") == ',  bright sound; "cheap" strap.\n'
    assert remaining("Warm", ",") == 'bright sound; "cheap" strap.\n'
    assert remaining("cheap") == 'Warm,  bright sound; "" strap.\n'
    assert remaining("strap", ".") == 'Warm,  bright sound; "cheap"'
    assert remaining(*words) == ""


def reencoded_text_term(explainer: Explainer, user: int, item: int, removed: list[dict[str, int]]) -> float:
    """Text term of the item after re-encoding its texts without the given words."""
    texts = []
    for row in explainer.texts.passages_of(item).tolist():
        text = str(explainer.texts.dataset.passages.text[row])
        spans = word_spans(text)
        starts = [word["start"] for word in removed if word["passage_idx"] == row]
        texts.append(without_words(text, spans, np.isin(spans[:, 0], starts)))
    return Reencoder(explainer, WordEncoder()).text_term(explainer.query(user), texts)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_reencoded_texts_match_stored_tokens(tmp_path: Path, dtype: str) -> None:
    checkpoint, _ = tiny.build("bert", tmp_path)
    data = tmp_path / "data"
    prepare(write_reviews(tmp_path / "reviews.json"), data)
    precompute(
        data, encoder=str(checkpoint), device="cpu", dtype=dtype, project=8 if dtype == "int8" else None
    )
    consolidate(data)
    fit(data, tmp_path / "run", num_epochs=1)
    explainer = Explainer.open(tmp_path / "run")
    encoder = load_run_encoder(explainer.trained.run, str(checkpoint), "cpu")
    kept, again = Reencoder(explainer, encoder), Reencoder(explainer, encoder)
    passages = explainer.texts.read_passages(explainer.texts.passages_of(2))
    kept.add(passages)
    texts = [passage.text for passage in passages]
    # Batch composition changes last bits, which the store's dtype may round to the next value.
    error = {"float32": 1e-5, "bfloat16": 1e-3, "int8": 3e-3}[dtype]
    query = explainer.query(1)
    assert again.text_term(query, texts) == pytest.approx(kept.text_term(query, texts), rel=error, abs=error)
    assert again.tokens
    assert not kept.tokens


def test_counterfactual_words_match_reencoding(runs: dict[str, Path]) -> None:
    explainer = Explainer.open(runs["default"])
    trained = explainer.trained
    num_possible = 0
    for user in range(8):
        items = explainer.candidates(user)
        item = int(items[0])
        ids = trained.users.ids[user], [trained.item_ids[item]]
        (entry,) = explain(runs["default"], *ids, counterfactual=2)["explanations"]
        result = entry["counterfactual"]
        others = trained.tables.score_pairs([user] * (len(items) - 1), items[1:])
        base = entry["score"] - entry["terms"]["words"] - entry["terms"]["words_everywhere"]
        assert result["rank"] == 1
        assert result["without_text"]["rank"] == 1 + int((others > base).sum())

        def rank_without(
            removed: list[dict[str, int]], user=user, item=item, others=others, base=base
        ) -> int:
            return 1 + int((others > base + reencoded_text_term(explainer, user, item, removed)).sum())

        if not result["possible"]:
            assert result["without_text"]["rank"] <= 2
            assert result["words"] == []
            continue
        num_possible += 1
        assert rank_without([]) == 1
        assert result["checked"]["rank"] == rank_without(result["words"]) > 2
        assert rank_without(result["words"][:-1]) <= 2
    assert num_possible >= 2
    ids = trained.users.ids[0], [trained.item_ids[int(explainer.candidates(0)[3])]]
    with pytest.raises(ValueError, match="has rank 4: it is not among the 2 best"):
        explain(runs["default"], *ids, counterfactual=2)
    with pytest.raises(ValueError, match="none can drop out"):
        explain(runs["default"], *ids, counterfactual=50)


def test_fewest_converges_from_any_guess() -> None:
    for true in range(1, 30):
        for guess in range(1, 31):
            assert _fewest(guess, 30, lambda n, true=true: n >= true) == true


def test_explain_command_with_than_and_counterfactual(
    runs: dict[str, Path], tmp_path: Path, cli: CommandLine
) -> None:
    explainer = Explainer.open(runs["default"])
    ids = explainer.trained.item_ids
    first, second = (ids[item] for item in explainer.candidates(3)[:2].tolist())
    user, page = explainer.trained.users.ids[3], tmp_path / "why.html"
    options = ("--user", user, "--item", first, "--than", second, "--counterfactual", "1", "--html", page)
    answer = cli("explain", runs["default"], *options)
    assert answer.code == 0, answer.err
    for text in (answer.out, page.read_text()):
        assert f"Its score minus that of {second}, which has rank 2, is" in text
        assert "encoded again by the language model (" in text or "its words are not the reason" in text
    assert "Collaboration by item of the history" in page.read_text()
    assert "interest by item of the history" in answer.out
    answer = cli("explain", runs["default"], *options, "--json")
    explanation = json.loads(answer.out)["explanations"][0]
    assert explanation["than"]["item_id"] == second
    explanation["than"]["title"] = "<script>alert(1)</script>"
    explanation["counterfactual"]["words"] = [{"passage_idx": 0, "start": 0, "end": 1, "text": "<b>"}]
    shown = render({"explanations": [explanation], "model": {}, "dataset": "d"}, "t")
    assert "<script" not in shown
    assert "<b>" not in shown
    assert cli("explain", runs["default"], "--user", user, "--than", "nothing").code == 1
