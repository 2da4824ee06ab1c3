"""Faithfulness measures against plain loops, and their invariants."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.data.prepare import prepare
from llmdirect.explanation import faithfulness as module
from llmdirect.explanation.attribution import by_effect, deletions, gradient_x_input
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.faithfulness import METHODS, PREDICTIONS, SHARES, faithfulness, rank_correlation
from llmdirect.explanation.item_document import ItemText
from llmdirect.explanation.reencoding import Reencoder, texts_without
from run_helpers import fit_each, write_reviews
from word_encoder import WordEncoder, write_words

pytestmark = pytest.mark.slow  # re-encodes texts

NAMES = ["default", "vote", "ratio"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(write_reviews(folder / "reviews.json"), folder / "data")
    write_words(folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return fit_each(dataset, tmp_path_factory.mktemp("runs"), NAMES)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_run_encoder", lambda *_: WordEncoder())


@pytest.fixture(scope="module")
def measured(runs: dict[str, Path], dataset: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_run_encoder", lambda *_: WordEncoder())
        return faithfulness(dataset, runs["default"], pairs=10, words=0)


@pytest.mark.parametrize("name", NAMES)
def test_deletions_match_sums_over_tokens(runs: dict[str, Path], name: str) -> None:
    """Reference: sums over the remaining tokens, whose vectors are not re-encoded."""
    explainer = Explainer.open(runs[name])
    trained, model, user = explainer.trained, explainer.texts.model, 1
    passages = explainer.texts.read_passages(explainer.texts.passages_of(int(explainer.candidates(user)[0])))
    text = ItemText.from_passages(passages, model, trained.lexicon)
    query = explainer.query(user)

    read, first = [], 0
    for passage in passages:
        tokens, word, spans = passage.inputs(trained.lexicon)
        read.append((word + first, *model.token_terms(model.standard(tokens))))
        first += len(spans)

    def by_tokens(words: list[int]) -> float:
        preference, mass = torch.zeros(text.preference.shape[1]).double(), torch.zeros(model.aspects).double()
        for word, terms, mentions in read:
            kept = np.isin(word, words)
            weight = 1 / max(1, int(kept.sum())) if model.config.equal_reviews else 1.0
            preference, mass = preference + terms[kept].sum(0) * weight, mass + mentions[kept].sum(0) * weight
        return float(model.form.text_term(query, preference, mass))

    remaining = list(range(len(text)))
    for words, term in deletions(text, query, model, 12):
        effects = [
            by_tokens(remaining) - by_tokens([w for w in remaining if w != word]) for word in remaining
        ]
        best = sorted(effects, reverse=True)[: len(words)]
        assert sorted((effects[remaining.index(w)] for w in words.tolist()), reverse=True) == pytest.approx(
            best, rel=1e-6, abs=1e-9
        )
        remaining = [word for word in remaining if word not in words]
        assert term == pytest.approx(by_tokens(remaining), rel=1e-6, abs=1e-9)
    assert sorted(by_effect(text, query, model).tolist()) == list(range(len(text)))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_x_input_matches_finite_differences(runs: dict[str, Path], name: str) -> None:
    explainer = Explainer.open(runs[name])
    trained, model, user = explainer.trained, explainer.texts.model, 2
    passages = explainer.texts.read_passages(explainer.texts.passages_of(int(explainer.candidates(user)[0])))[
        :2
    ]
    query = explainer.query(user)
    text = ItemText.from_passages(passages, model, trained.lexicon)
    for centred in (False, True):
        gradient = gradient_x_input(passages, query, model, trained.lexicon, centred)
        inputs = [passage.inputs(trained.lexicon) for passage in passages]

        def perturbed(word: int, by: float, inputs=inputs, centred=centred) -> float:
            preference, mass = (
                torch.zeros(text.preference.shape[1]).double(),
                torch.zeros(model.aspects).double(),
            )
            first = 0
            for tokens, owner, spans in inputs:
                values = tokens - model.centre if centred else tokens
                step = torch.from_numpy(by * (owner + first == word))[:, None]
                terms, mentions = model.token_terms(model.standard(tokens + step * values))
                first += len(spans)
                weight = 1 / len(tokens) if model.config.equal_reviews else 1.0
                preference, mass = preference + terms.sum(0) * weight, mass + mentions.sum(0) * weight
            return float(model.form.text_term(query, preference, mass))

        for word in range(0, len(text), 7):
            slope = (perturbed(word, 1e-5) - perturbed(word, -1e-5)) / 2e-5
            assert gradient[word] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_measures_match_plain_loop(measured: dict[str, Any], runs: dict[str, Path], dataset: Path) -> None:
    explainer = Explainer.open(runs["default"])
    generator = np.random.default_rng(0)
    pairs = module._sample_pairs(explainer, 10, 0, generator)
    assert len(pairs) == len({pair.user for pair in pairs}) == measured["pairs"] == 10
    falls, ranks = [], []
    for pair in pairs:
        reader = Reencoder(explainer, WordEncoder())  # type: ignore[arg-type]
        query = explainer.query(pair.user)
        scores = explainer.trained.tables.score_pairs(
            np.full(len(pair.others) + 1, pair.user), items := explainer.candidates(pair.user)
        )
        position = items.tolist().index(pair.item)
        assert position < 10
        whole = pair.base + reader.text_term(query, [passage.text for passage in pair.passages])
        assert whole == pytest.approx(scores[position], rel=1e-4)
        order = by_effect(pair.text, query, explainer.texts.model)
        removed = order[: max(1, round(0.1 * len(order)))]
        texts = []
        for number, passage in enumerate(pair.passages):
            words = passage.text.replace(".", " .").split()
            removed_words = [int(w - np.flatnonzero(pair.text.passage == number)[0]) for w in removed.tolist()
                    if pair.text.passage[w] == number]  # fmt: skip
            texts.append(" ".join(word for at, word in enumerate(words) if at not in removed_words))
        deleted_score = pair.base + reader.text_term(query, texts)
        falls.append(whole - deleted_score)
        ranks.append(1 + int((np.delete(scores, position) > deleted_score).sum()))
    assert measured["comprehensiveness"]["direct"]["at"]["0.1"]["mean"] == pytest.approx(np.mean(falls))
    assert measured["deletion"]["direct"]["rank"][1 + SHARES.index(0.1)] == pytest.approx(np.mean(ranks))


def test_measures_are_consistent(measured: dict[str, Any]) -> None:
    for name in ("comprehensiveness", "sufficiency"):
        assert tuple(measured[name]) == METHODS
        for summary in measured[name].values():
            assert summary["mean"] == pytest.approx(np.mean([at["mean"] for at in summary["at"].values()]))
            assert summary["low"] <= summary["mean"] <= summary["high"]
    for sign, name, end in ((1, "comprehensiveness", ""), (-1, "sufficiency", "_sufficiency")):
        means = {method: summary["mean"] for method, summary in measured[name].items()}
        for title, other in (("gradient", "gradient_x_input"), ("random", "random")):
            gap = measured[f"direct_minus_{title}{end}"]["mean"]
            assert gap == pytest.approx(sign * (means["direct"] - means[other]))
    for method in METHODS:
        deletion, insertion = measured["deletion"][method], measured["insertion"][method]
        assert deletion["share"] == [0.0, *SHARES, 1.0]
        assert deletion["score"] == pytest.approx(
            [measured["mean_score"]]
            + [
                measured["mean_score"] - at["mean"]
                for at in measured["comprehensiveness"][method]["at"].values()
            ]
            + [measured["mean_score"] - measured["mean_text_term"]]
        )
        assert deletion["score"][0] == pytest.approx(insertion["score"][-1])
        assert deletion["rank"][-1] == insertion["rank"][0]
    # Where a token's context is a mean over its text, DIRECT's words are far from random.
    assert measured["direct_minus_random"]["low"] > 0
    assert measured["direct_minus_random_sufficiency"]["low"] > 0
    assert measured["correlation"]["effect"]["mean"] > 0.3
    # All mentions are equal in this run, and each word is one token: correlation is undefined.
    assert measured["correlation"]["mention"] is None
    assert set(measured["correlation"]) == set(PREDICTIONS)


def test_effects_are_exact_without_context(runs: dict[str, Path]) -> None:
    """Without context, re-encoding keeps tokens, so that effects equal the change of the text term."""
    explainer = Explainer.open(runs["default"])
    pair = module._sample_pairs(explainer, 1, 0, np.random.default_rng(3))[0]
    whole_of: dict[str, Any] = {}

    class ContextFreeEncoder(WordEncoder):
        """Encoder that returns the tokens of the whole text."""

        def _embedding(self, text: str) -> Any:
            embedding, passage = super()._embedding(text), whole_of[text]
            words = [passage.text[start:end] for start, end in passage.spans.tolist()]
            rows = [words.index(text[start:end]) for start, end in embedding.spans.tolist()]
            return type(embedding)(torch.from_numpy(passage.tokens[rows]), embedding.spans)

    query, model = explainer.query(pair.user), explainer.texts.model
    effects, _ = pair.text.effects(query, model)

    def term(removed: list[int]) -> float:
        texts = texts_without(pair.passages, pair.text, removed)
        whole_of.update(zip(texts, pair.passages, strict=True))
        return Reencoder(explainer, ContextFreeEncoder()).text_term(query, texts)  # type: ignore[arg-type]

    for word in range(len(pair.text)):
        assert term([]) - term([word]) == pytest.approx(float(effects[word]), rel=1e-4, abs=1e-6)


def test_rank_correlation_known_values() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 15])) == pytest.approx(0.5)
    assert rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 2, 9])) == pytest.approx(1)
    assert rank_correlation(np.array([3.0, 2, 1]), np.array([1.0, 2, 3])) == pytest.approx(-1)
    assert np.isnan(rank_correlation(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))


def test_sampled_documents_respect_word_limit(runs: dict[str, Path]) -> None:
    explainer = Explainer.open(runs["default"])
    for limit in (1, 12, 40):
        for pair in module._sample_pairs(explainer, 6, limit, np.random.default_rng(1)):
            lengths = [len(passage.text.split()) for passage in pair.passages]
            assert sum(lengths) <= limit or len(lengths) == 1
            passages = explainer.texts.read_passages(explainer.texts.passages_of(pair.item))
            if sum(lengths) > limit:
                assert lengths[0] == min(len(passage.text.split()) for passage in passages)


def test_faithfulness_command(runs: dict[str, Path], dataset: Path, cli: CommandLine) -> None:
    options = (dataset, "--parameters", runs["default"], "--pairs", "4", "--words", "30")
    answer = cli("faithfulness", *options, "--json")
    assert answer.code == 0, answer.err
    output = json.loads(answer.out)
    assert (output["pairs"], output["words"]) == (4, 30)
    answer = cli("faithfulness", *options)
    assert "comprehensiveness (larger is better)" in answer.out
    assert f"{output['correlation']['effect']['mean']:.3f}" in answer.out
    assert cli("faithfulness", *options[:3], "--pairs", "1").code == 2


def test_too_few_users(runs: dict[str, Path], dataset: Path) -> None:
    with pytest.raises(DataError, match="has 1 users with an item to explain"):
        faithfulness(dataset, runs["default"], pairs=1)
