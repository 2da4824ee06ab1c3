"""Listing and editing of aspects, and their quality measures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect.aspects.evidence import stars_auc
from llmdirect.aspects.overview import aspect_overview, edit_aspects
from llmdirect.aspects.quality import (
    aspect_quality,
    normalised_entropy,
    npmi,
    stability,
    uniqueness,
    usage_shares,
)
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.explanation.explainer import Explainer
from llmdirect.model.direct import Direct
from llmdirect.model.vectors import normalize
from llmdirect.model.word_types import WordTypes, aspect_names
from llmdirect.runs.trained import Trained
from model_helpers import DIM, config, normal
from run_helpers import fit, make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    fit(dataset, tmp_path / "run")
    return tmp_path / "run"


def test_npmi_known_values() -> None:
    texts = ["Warm sound", "warm sound, bright", "bright", "strap"]
    # warm and sound occur in the same half of the texts; strap co-occurs with neither.
    assert npmi([["warm", "sound"]], texts) == [pytest.approx(math.log(0.5 / 0.25) / -math.log(0.5))]
    assert npmi([["warm", "strap"]], texts) == [-1.0]
    assert npmi([["warm", "bright"]], texts) == [pytest.approx(0.0)]  # in 1 of 4, as if independent
    assert npmi([["warm", "sound", "strap"]], texts) == [pytest.approx((1.0 - 1 - 1) / 3)]
    assert npmi([["warm"], []], texts) == [0.0, 0.0]


def test_uniqueness_entropy_and_stability_known_values() -> None:
    assert uniqueness([["a", "b"], ["b", "c"]]) == 0.75
    assert normalised_entropy(np.array([0.5, 0.5])) == pytest.approx(1)
    assert normalised_entropy(np.array([1.0, 0.0])) == 0
    words = [["a", "b"], ["c", "d"]]
    assert stability(words, [["d", "c"], ["b", "a"]]) == 1
    assert stability(words, [["a", "c"], ["x", "y"]]) == pytest.approx(1 / 3 / 2)
    many = [[f"w{n}", f"v{n}"] for n in range(15)]
    assert stability(many, many[::-1]) == 1
    assert stability(many, [[*pair[:1], "z"] for pair in many]) == pytest.approx(1 / 3)


def test_aspect_quality_matches_direct_computation(run: Path, dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "other", seed=5)
    trained, data = Trained.load(run), Dataset.open(dataset)
    quality = aspect_quality(trained, data, [trained])
    texts = data.passages.text.gather(np.flatnonzero(data.passages.split == TRAIN)).to_list()
    assert quality["by_aspect"] == npmi(quality["top_words"], texts)
    assert quality["stability"] == 1.0
    assert sum(quality["usage"]) == pytest.approx(1)
    assert aspect_quality(trained, data)["stability"] is None
    other = aspect_quality(trained, data, [Trained.load(tmp_path / "other")])["stability"]
    assert 0 <= other <= 1
    # Renaming an aspect does not change its top words.
    edit_aspects(run, rename={0: "mine"})
    assert aspect_quality(Trained.load(run), data)["top_words"] == quality["top_words"]
    items = np.asarray(trained.tables.item, np.float64)
    width = items.shape[1] // 3
    by_hand = [np.square(items[:, a * width : (a + 1) * width]).sum() for a in range(3)]
    assert usage_shares(trained).tolist() == pytest.approx((np.array(by_hand) / sum(by_hand)).tolist())


def test_aspect_names_weight_words_by_item_frequency() -> None:
    model = Direct(config(), DIM, 2, 2).eval()
    vectors = normal(6, DIM)
    vectors[1] = vectors[0]  # two words with one embedding
    names = ["odd", "often", "two", "three", "four", "the"]
    items = torch.tensor([1, 50, 7, 1, 20, 90])
    top_words = [
        name.split(", ") for name in aspect_names(model, WordTypes(names, vectors, normalize(vectors), items))
    ]
    with torch.no_grad():
        terms, _ = model.token_terms(model.standard(vectors))
    size = terms.view(6, 3, -1).norm(dim=2).numpy()
    weight = size / size.sum(1, keepdims=True) * np.log1p(items.numpy())[:, None]
    for aspect, words in enumerate(top_words):
        assert words == sorted(names[:5], key=lambda name: -weight[names.index(name), aspect])
        assert words.index("often") < words.index("odd")
    assert aspect_names(model, WordTypes([], vectors[:0], vectors[:0], items[:0])) == [
        f"aspect {number}" for number in range(3)
    ]


def test_overview_lists_users_with_largest_share(run: Path) -> None:
    trained = Trained.load(run)
    entries = aspect_overview(run)["aspects"]
    assert [entry["aspect"] for entry in entries] == [0, 1, 2]
    assert sum(entry["share"] for entry in entries) == pytest.approx(1)
    query = trained.users.query.double().numpy()
    width = query.shape[1] // 3
    for entry in entries:
        aspect = entry["aspect"]
        share = np.square(query[:, aspect * width : (aspect + 1) * width]).sum(1) / np.square(query).sum(1)
        assert entry["users"][0]["user_id"] == trained.users.ids[int(share.argmax())]
        assert entry["users"][0]["share"] == pytest.approx(float(share.max()))
        assert ", ".join(entry["words"]) == entry["name"]
    edit_aspects(run, merge=[[2, 1]], rename={1: "rest"}, off=[0])
    merged = aspect_overview(run)["aspects"]
    assert [(entry["aspect"], entry["merged"], entry["off"]) for entry in merged] == [
        (0, [0], True),
        (1, [1, 2], False),
    ]
    assert merged[1]["name"] == "rest"
    assert merged[1]["share"] == pytest.approx(entries[1]["share"] + entries[2]["share"])


def test_example_sentence_maximises_aspect_term(run: Path) -> None:
    explainer = Explainer.open(run)
    trained, model = explainer.trained, explainer.texts.model
    entries = aspect_overview(run, examples=True)["aspects"]
    plain = aspect_overview(run)["aspects"]
    assert [{k: v for k, v in entry.items() if k != "example"} for entry in entries] == plain
    for entry in entries:
        best, sentence = -np.inf, None
        for item in entry["items"]:
            rows = explainer.texts.passages_of(trained.item_idx(item["item_id"]))
            for passage in explainer.texts.read_passages(rows):  # each text is a single sentence
                tokens, _, _ = passage.inputs(trained.lexicon)
                terms = model.token_terms(model.standard(tokens))[0].detach().numpy()
                size = np.linalg.norm(terms.reshape(len(terms), 3, -1), axis=2)
                value = (size[:, entry["aspect"]] - size.mean(1)).sum()
                if value > best:
                    best, sentence = value, passage.text
        assert entry["example"] == sentence


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_stars_auc_matches_pairwise_count(shape: str, dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "run", shape)
    explainer = Explainer.open(tmp_path / "run")
    result = stars_auc(explainer)
    rows, model = explainer.texts.dataset.interactions, explainer.texts.model
    liked, disliked = [], []
    columns = (rows.user_idx.tolist(), rows.passage_idx.tolist(), rows.rating.tolist())
    for user, row, rating in zip(*columns, strict=True):
        if explainer.texts.dataset.passages.split[row] == TRAIN and rating != 3:
            [passage] = explainer.texts.read_passages(np.array([row]))
            terms, mentions = model.token_terms(model.standard(passage.inputs(explainer.trained.lexicon)[0]))
            prediction = terms.sum() / mentions.sum()
            if shape == "default":
                prediction = explainer.query(user) @ terms.sum(0) / terms.sum(0).norm()
            (liked if rating > 3 else disliked).append(float(prediction))
    wins = [(a > b) + (a == b) / 2 for a in liked for b in disliked]
    counts = {"liked": len(liked), "disliked": len(disliked), "liked_from": 4.0, "disliked_to": 2.0}
    assert result == {"auc": pytest.approx(np.mean(wins)), **counts}


def test_stars_auc_follows_the_scale(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    fit(dataset, tmp_path / "run")
    explainer = Explainer.open(tmp_path / "run")
    data = explainer.texts.dataset
    expected = stars_auc(explainer)
    rows = replace(data.interactions, rating=(data.interactions.rating - 1) * 25)
    explainer.texts.dataset = replace(data, interactions=rows)
    assert stars_auc(explainer) == expected | {"liked_from": 75.0, "disliked_to": 25.0}  # type: ignore[operator]
    answer = cli("aspects", tmp_path / "run", "--quality")
    assert f"{expected['liked']} rated 4 or more against" in answer.out  # type: ignore[index]
    assert "rated 2 or less" in answer.out


def test_quality_command(run: Path, dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    fit(dataset, tmp_path / "other", seed=5)
    answer = cli(
        "aspects", run, "--examples", "--quality", "--other-runs", f"{run},{tmp_path / 'other'}", "--json"
    )
    assert answer.code == 0, answer.err
    output = json.loads(answer.out)
    trained = [Trained.load(run), Trained.load(tmp_path / "other")]
    expected = aspect_quality(trained[0], Dataset.open(dataset), trained)
    assert output["quality"] == {**expected, "stars": stars_auc(Explainer.open(run))}
    shown = cli("aspects", run, "--examples", "--quality").out
    assert f"stars: AUC {output['quality']['stars']['auc']:.3f} of summed words" in shown
    assert all(entry["example"] in shown for entry in output["aspects"])
    refused = cli("aspects", run, "--other-runs", run)
    assert refused.code == 2
    assert "--quality" in refused.err


def test_aspects_command(run: Path, cli: CommandLine) -> None:
    answer = cli("aspects", run, "--rename", "1=strings", "--merge", "0,2", "--off", "1", "--json")
    assert answer.code == 0, answer.err
    aspects = json.loads(answer.out)["aspects"]
    assert [(entry["name"], entry["off"]) for entry in aspects][1] == ("strings", True)
    assert len(aspects) == 2
    assert "strings (off)" in cli("aspects", run).out
    apart = json.loads(cli("aspects", run, "--on", "1", "--split", "0", "--json").out)["aspects"]
    assert [entry["off"] for entry in apart] == [False] * 3
    assert cli("aspects", run, "--off", "7").code == 2
    assert cli("aspects", run, "--rename", "7").code == 2
    assert cli("aspects", run, "--merge", "1,x").code == 2
    (run / "aspects.json").write_text("{")
    assert cli("aspects", run).code == 1
    assert cli("aspects", run, "--reset").code == 0
    assert not (run / "aspects.json").exists()
