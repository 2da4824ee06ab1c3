"""Explanations: terms sum to the score, effects equal the change when a word is removed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import CommandLine
from llmdirect.common.errors import DataError, MismatchError, MissingError
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.explanation import item_document as item_text
from llmdirect.explanation.explain import explain
from llmdirect.explanation.explainer import Explainer
from llmdirect.model.vectors import normalize
from llmdirect.ranking.top_k import rank
from llmdirect.runs.folder import RunFolder
from llmdirect.runs.new_users import new_user
from llmdirect.runs.recommend import recommend, recommend_new
from llmdirect.runs.trained import Trained
from llmdirect.runs.user_rows import UserTexts
from llmdirect.training.train import train
from model_helpers import write_embeddings
from run_helpers import SHAPES, fit, fit_each, make_dataset, write_reviews

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    fit(dataset, folder / "refined", token_epochs=2, lr=1e-2)
    return {**fit_each(dataset, folder, SHAPES), "refined": folder / "refined"}


ALL = [*SHAPES, "refined"]


@pytest.mark.parametrize("name", ALL)
def test_terms_sum_to_ranking_score(runs: dict[str, Path], name: str) -> None:
    trained = Trained.load(runs[name])
    for user_id in trained.users.ids[:4]:
        user = trained.user_idx(user_id)
        lists = rank(trained.tables, [user], k=3, seen=trained.users.seen)
        result = explain(runs[name], user_id, k=3)
        for position, entry in enumerate(result["explanations"]):
            item = trained.item_idx(entry["item_id"])
            assert (entry["rank"], item) == (position + 1, lists.items[0, position])
            parts = entry["terms"]
            words = [word["contribution"] for passage in entry["passages"] for word in passage["words"]]
            total = sum(words) + sum(value for key, value in parts.items() if key != "words")
            assert total == pytest.approx(float(trained.tables.score_pairs([user], [item])[0]), rel=1e-5)
            assert entry["score"] == pytest.approx(float(lists.scores[0, position]), rel=1e-5)
            assert sum(p["contribution"] for p in entry["passages"]) == pytest.approx(sum(words))
            assert sum(a["contribution"] for a in entry["aspects"]) == pytest.approx(sum(words))
            lead = entry["lead"]
            median = trained.item_idx(lead["item_id"])
            scores = trained.tables.score_pairs([user, user], [item, median])
            assert lead["total"] == pytest.approx(float(scores[0] - scores[1]), rel=1e-4, abs=1e-5)
            assert lead["words"] + lead["popularity"] + lead["collaboration"] == pytest.approx(lead["total"])


@pytest.mark.parametrize("name", ALL)
def test_effect_equals_removal_of_tokens(
    runs: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_text, "_TOKENS_AT_ONCE", 20)  # several groups per document
    explainer = Explainer.open(runs[name])
    trained, store = explainer.trained, explainer.texts.store
    model, user = trained.model, 1
    item = int(explainer.candidates(user)[0])
    entry = explainer.explain(user, item)
    query = torch.from_numpy(np.asarray(trained.tables.query[user])).double()
    rows = [passage["passage_idx"] for passage in entry["passages"]]
    stored = store.lookup(explainer.texts.dataset.passage_keys()[rows]).tolist()
    texts = {passage["passage_idx"]: passage["text"] for passage in entry["passages"]}

    def text_term(removed: tuple[int, int, int] | None) -> float:
        """Reference: plain loop over the tokens in the store."""
        preference, mass = (
            torch.zeros(trained.tables.query.shape[1]).double(),
            torch.zeros(model.aspects).double(),
        )
        for row, number in zip(rows, stored, strict=True):
            spans, tokens = store.read(number)
            tokens = torch.from_numpy(trained.lexicon.extend(tokens, texts[row], spans))
            spans = spans.astype(int).tolist()
            kept = [
                n
                for n, (start, end) in enumerate(spans)
                if end > start and not (removed and removed[0] == row and removed[1] <= start < removed[2])
            ]
            if not kept:
                continue
            p, q = model.token_terms(model.standard(tokens[kept]))
            weight = len(kept) if model.config.equal_reviews else 1
            preference, mass = preference + p.double().sum(0) / weight, mass + q.double().sum(0) / weight
        if model.config.score_form == "cosine":
            return float(query @ normalize(preference))
        return float((query @ preference) / (query @ mass + 5e-7))

    whole, checked = text_term(None), 0
    for passage in entry["passages"]:
        for word in passage["words"]:
            expected = whole - text_term((passage["passage_idx"], word["start"], word["end"]))
            assert word["effect"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
            checked += 1
        expected_effect = whole - text_term((passage["passage_idx"], 0, len(passage["text"])))
        assert passage["effect"] == pytest.approx(expected_effect, rel=1e-3, abs=1e-5)
    assert checked > 10


def test_passages_and_words_are_of_train_split(runs: dict[str, Path], dataset: Path) -> None:
    data = Dataset.open(dataset)
    for entry in explain(runs["default"], data.user_ids[0], k=5)["explanations"]:
        item = data.item_ids.index(entry["item_id"])
        rows = np.flatnonzero((data.passages.item_idx == item) & (data.passages.split == TRAIN))
        assert sorted(passage["passage_idx"] for passage in entry["passages"]) == rows.tolist()
        for passage in entry["passages"]:
            assert passage["text"] == data.passages.text[passage["passage_idx"]]
            spans = [(word["start"], word["end"]) for word in passage["words"]]
            assert spans == sorted(spans)
            assert all(passage["text"][w["start"] : w["end"]] == w["text"] for w in passage["words"])


@pytest.mark.parametrize("name", ALL)
def test_single_user_explainer_matches_full_explainer(runs: dict[str, Path], name: str) -> None:
    explainer = Explainer.open(runs[name])
    for user in (5, 2):
        alone = explainer.for_users(explainer.trained.for_user(user))
        assert alone.trained.users.ids == [explainer.trained.users.ids[user]]
        candidates = explainer.candidates(user)
        assert alone.candidates(0).tolist() == candidates.tolist()
        for item in (int(candidates[0]), int(explainer.trained.users.seen.row(user)[0])):
            expected = explainer.explain(user, item)
            assert alone.explain(0, item) == expected
            assert alone.explain(0, item, candidates[::-1])["rank"] == (
                expected["rank"] and len(candidates) + 1 - expected["rank"]
            )


def test_explanation_unchanged_after_cache_eviction(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmdirect.explanation.item_texts._CACHED_ITEMS", 2)
    explainer = Explainer.open(runs["default"])
    first = [explainer.explain(0, item) for item in range(4)]
    again = [explainer.explain(0, item) for item in (0, 3, 1, 2)]
    assert [again[0], again[2], again[3], again[1]] == first


def test_history_contributions_sum_to_text_term(runs: dict[str, Path]) -> None:
    trained = Trained.load(runs["default"])
    (entry,) = explain(runs["default"], trained.users.ids[3], k=1)["explanations"]
    seen = {trained.item_ids[item] for item in trained.users.seen.row(3).tolist()}
    assert {part["item_id"] for part in entry["history"]} == seen
    assert sum(part["weight"] for part in entry["history"]) == pytest.approx(1)
    text = entry["terms"]["words"] + entry["terms"]["words_everywhere"]
    assert sum(part["contribution"] for part in entry["history"]) == pytest.approx(text, rel=1e-4)


@pytest.mark.parametrize("items", [[], [2, 7]])
def test_texts_of_new_user_are_part_of_history(runs: dict[str, Path], items: list[int]) -> None:
    explainer = Explainer.open(runs["default"])
    embeddings = torch.nn.functional.normalize(
        torch.randn(2, explainer.trained.profile.shape[1], generator=torch.Generator().manual_seed(1))
    )
    texts = ["warm and bright", "no noise"]
    trained = new_user(explainer.trained, np.array(items, np.int64), UserTexts(tuple(texts), embeddings))
    entry = explainer.for_users(trained).explain(0, 4)
    assert entry["user_id"] == "you"
    listed = {(part["item_id"], part["title"]) for part in entry["history"]}
    assert listed == {(None, text) for text in texts} | {
        (explainer.trained.item_ids[item], None) for item in items
    }
    assert sum(part["weight"] for part in entry["history"]) == pytest.approx(1)
    text = entry["terms"]["words"] + entry["terms"]["words_everywhere"]
    assert sum(part["contribution"] for part in entry["history"]) == pytest.approx(text, rel=1e-4)


def test_explain_invalid_arguments(runs: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no user 'nobody'.*`llmdirect recommend` with `history`"):
        explain(runs["default"], "nobody")
    with pytest.raises(MissingError, match=r"no item 'i99' in the catalogue \(did you mean"):
        explain(runs["default"], "u1", ["i99"])
    other = make_dataset(tmp_path / "other", seed=3)
    with pytest.raises(MismatchError, match=r"was trained on dataset"):
        explain(runs["default"], "u1", dataset=other)


def test_explain_command(runs: dict[str, Path], tmp_path: Path, cli: CommandLine) -> None:
    page = tmp_path / "why.html"
    answer = cli("explain", runs["default"], "--user", "u2", "-k", "2", "--html", page)
    assert answer.code == 0, answer.err
    assert "u2" in answer.out
    assert page.read_text().startswith("<!doctype html>") or page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", ALL)
def test_new_user_with_same_history_gets_same_list(runs: dict[str, Path], name: str) -> None:
    trained = Trained.load(runs[name])
    user = trained.users.ids[5]
    history = [trained.item_ids[item] for item in trained.users.seen.row(5).tolist()]
    (existing,) = recommend(runs[name], [user], k=5).recommendations
    (new,) = recommend_new(runs[name], history=history, k=5).recommendations
    assert not {item.item_id for item in new.items} & set(history)
    if trained.model.config.user == "history":
        assert [item.item_id for item in new.items] == [item.item_id for item in existing.items]
    config: Any = trained.model.config
    if config.user == "history" and config.collaborative is False:
        bias = trained.tables.user_bias
        assert bias is not None
        offset = float(bias[5] - trained.model.bias)  # a new user has the global bias only
        for existing_item, new_item in zip(existing.items, new.items, strict=True):
            assert existing_item.score - new_item.score == pytest.approx(offset, abs=1e-5)


def test_recommend_command(runs: dict[str, Path], cli: CommandLine) -> None:
    run = runs["default"]
    answer = cli("recommend", run, "--user", "u0", "--user", "u1", "-k", "2")
    assert answer.code == 0
    assert "u0" in answer.out
    assert "u1" in answer.out
    assert cli("recommend", run).code == 2
    assert cli("recommend", run, "--user", "u0", "--history", "i1").code == 2
    answer = cli("recommend", run, "--user", "nobody")
    assert answer.code == 1
    assert "no user 'nobody'" in answer.err
    answer = cli("recommend", run, "--history", 'i1, "not,hing"')
    assert "no item 'not,hing'" in answer.err
    once = json.loads(cli("recommend", run, "--history", "i1", "--json").out)
    assert json.loads(cli("recommend", run, "--history", "i1, i1", "--json").out) == once
    assert len(once["recommendations"][0]["items"]) == 10
    many = json.loads(cli("recommend", run, "--history", "i1", "-k", str(10**12), "--json").out)
    assert many["recommendations"][0]["items"][:10] == once["recommendations"][0]["items"]
    answer = cli("recommend", run, "--history", "i1,nothing")
    assert answer.code == 1
    assert "no item 'nothing'" in answer.err


def test_recommend_new_only_excludes_held_out_items(
    runs: dict[str, Path], dataset: Path, cli: CommandLine
) -> None:
    run, data = runs["default"], Dataset.open(dataset)
    trained, rows = Trained.load(run), data.interactions
    for user in ("u0", "u5"):
        number = trained.user_idx(user)
        train, all_splits = (
            {data.item_ids[item] for item in rows.item_idx[(rows.user_idx == number) & chosen]}
            for chosen in (rows.split == 0, rows.split >= 0)
        )
        assert train < all_splits
        command = ("recommend", run, "--user", user, "-k", len(data.item_ids), "--json")
        usual, new = (
            [
                entry["item_id"]
                for entry in json.loads(cli(*command, *more).out)["recommendations"][0]["items"]
            ]
            for more in ((), ("--new-only",))
        )
        assert set(usual) == set(data.item_ids) - train
        assert new == [item for item in usual if item not in all_splits]
    assert cli("recommend", run, "--history", "i1", "--new-only").code == 2
    answer = cli("recommend", run, "--user", "u0", "--new-only", "--dataset", run)
    assert (answer.code, "expected 'llmdirect-dataset'" in answer.err) == (1, True)


def test_ids_and_titles_are_escaped_in_terminal(tmp_path: Path, cli: CommandLine) -> None:
    """Brackets are not markup, and escape sequences are removed."""
    lines = [json.loads(line) for line in write_reviews(tmp_path / "plain.json").read_text().splitlines()]
    for line in lines:
        line["reviewerID"] += "[/bold]"
    raw, items = tmp_path / "raw.json", tmp_path / "items.json"
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    titles = [{"asin": line["asin"], "title": f"Strings [import] \x1b[31m{line['asin']}"} for line in lines]
    items.write_text("".join(json.dumps(title) + "\n" for title in titles))
    prepare(raw, tmp_path / "data", items=items)
    write_embeddings(tmp_path / "data/stores/s", Dataset.open(tmp_path / "data").passages.text.to_list())
    fit(tmp_path / "data", tmp_path / "run", num_epochs=1)
    for command in (["recommend", tmp_path / "run", "--user", "u1[/bold]"], ["aspects", tmp_path / "run"]):
        answer = cli(*command)
        assert answer.code == 0, answer.err
        assert "Strings [import]" in answer.out
        assert "\x1b[31m" not in answer.out
    assert "u1[/bold]" in cli("recommend", tmp_path / "run", "--user", "u1[/bold]").out


def test_load_during_concurrent_commit(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(dataset, tmp_path / "run")
    read, stale = RunFolder.tensors, iter([True, False])

    def tensors(run: RunFolder, name: str) -> dict[str, torch.Tensor]:
        if next(stale, False):  # a commit between reading the manifest and its files
            run.manifest = {**run.manifest, "files": {}}
        return read(run, name)

    monkeypatch.setattr(RunFolder, "tensors", tensors)
    assert Trained.load(tmp_path / "run").item_ids
    (tmp_path / "run" / "best").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"missing, though .* names it"):
        Trained.load(tmp_path / "run")


def test_items_without_text_or_with_single_review(tmp_path: Path) -> None:
    """Removing the only review with words leaves a text term of exactly 0, despite an empty review."""
    raw = tmp_path / "sparse.csv"
    lines = [f"u{u},i{i},{'' if i in (0, 1) else f'words {u} {i}'}\n" for u in range(6) for i in range(6)]
    lines = [line for line in lines if not line.startswith("u5,i1")] + ["u5,i1,only these words\n"]
    raw.write_text("u,i,t\n" + "".join(lines))
    columns = {"user": "u", "item": "i", "text": "t"}
    prepare(raw, tmp_path / "sparse", columns=columns, fractions=(0.5, 0.25, 0.25))
    data = Dataset.open(tmp_path / "sparse")
    write_embeddings(tmp_path / "sparse/stores/s", data.passages.text.to_list())
    for name in ("default", "ratio"):
        fit(tmp_path / "sparse", tmp_path / name, name)
        explainer = Explainer.open(tmp_path / name)
        for user in range(6):
            for item in range(6):
                entry = explainer.explain(user, item)
                worded = [passage for passage in entry["passages"] if passage["words"]]
                if len(worded) == 1:
                    text = entry["terms"]["words"] + entry["terms"]["words_everywhere"]
                    assert worded[0]["effect"] == pytest.approx(text, rel=1e-5, abs=1e-6)
                if not worded:
                    assert entry["terms"]["words"] == 0.0
    assert any(not any(p["words"] for p in explainer.explain(0, item)["passages"]) for item in range(2))


def test_recommend_new_requires_texts_for_text_user_model(dataset: Path, tmp_path: Path) -> None:
    train(
        dataset,
        tmp_path / "run",
        model=ModelConfig(aspects=3, user="text"),
        training=TrainConfig(num_epochs=1),
    )
    with pytest.raises(ValueError, match=r"run: reads interests from texts alone; give `texts`"):
        recommend_new(tmp_path / "run", history=["i1"])
