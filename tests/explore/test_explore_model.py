"""Data of the pages of `llmdirect explore` against the model."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from explore_world import USED, client, explored, person
from llmdirect.aspects.overview import aspect_overview
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore.people import WhatIf
from llmdirect.ranking.top_k import rank
from llmdirect.reports.catalogue import Catalogue
from llmdirect.runs.aspect_edits import AspectEdits
from run_helpers import WORDS


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Explainer]:
    return explored(tmp_path_factory.mktemp("explored"))


@pytest.mark.parametrize("shape", USED)
def test_order_terms_and_ranks_match_ranking(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    trained = explainer.trained
    for user in range(6):
        ranking = person(explainer, user)
        lists = rank(trained.tables, [user], k=trained.tables.num_items, seen=trained.users.seen)
        expected = lists.items[0][lists.items[0] >= 0]
        assert ranking.order.tolist() == expected.tolist()
        for item, lead in zip(expected[:4].tolist(), ranking.leads(expected[:4]), strict=True):
            explanation = ranking.explain(item)
            assert explanation["rank"] == expected.tolist().index(item) + 1
            assert explanation == explainer.explain(user, item)
            assert lead == pytest.approx({part: explanation["lead"][part] for part in lead}, abs=1e-5)


@pytest.mark.parametrize("shape", USED)
def test_what_if_matches_ranking(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    trained, changed = explainer.trained, 0
    for user in range(8):
        ranking = person(explainer, user, interests={0: 3.0, 2: 0.0})
        moved = trained.with_interests(user, {0: 3.0, 2: 0.0})
        lists = rank(moved.tables, [user], k=trained.tables.num_items, seen=trained.users.seen)
        assert ranking.order.tolist() == lists.items[0][lists.items[0] >= 0].tolist()
        plain = person(explainer, user)
        assert ranking.order_before.tolist() == plain.order.tolist()
        changed += ranking.order.tolist() != plain.order.tolist()
        bare = person(explainer, user, without=("collaboration", "popularity"))
        assert [lead["popularity"] for lead in bare.leads(bare.order)] == [0] * len(bare.order)
        terms = bare.explain(int(bare.order[0]))["terms"]
        assert (terms["popularity"], terms["collaboration"]) == (0, 0)
    assert changed


def test_what_if_query_string_round_trip_and_invalid_values() -> None:
    what_if = WhatIf({3: 1.5, 0: 0.0}, ("popularity",))
    assert WhatIf.from_fields([*what_if.fields, ("a7", "1")]) == what_if
    assert WhatIf.from_fields([("a1", "1.0")]) == WhatIf()
    with pytest.raises(ValueError, match="a1=much: expected a number"):
        WhatIf.from_fields([("a1", "much")])
    with pytest.raises(ValueError, match="expected popularity or collaboration"):
        WhatIf.from_fields([("without", "words")])


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_spread_matches_aspect_terms(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    result, tables = person(explainer, 3).spread(), explainer.trained.tables
    query = tables.query[3].astype(np.float64)
    for aspect in range(3):
        own = np.zeros_like(query)
        channels = len(query) // 3
        own[aspect * channels : (aspect + 1) * channels] = 1
        adds = tables.item.astype(np.float64) @ (query * own)
        if shape == "ratio":
            adds = adds / (tables.item_mentions.astype(np.float64) @ query + tables.eps)
        assert result[aspect] == pytest.approx(adds.std(), rel=1e-4)


def test_disabled_and_merged_aspects(explainers: Callable[[str], Explainer]) -> None:
    run = explainers("default").trained.run
    edits = AspectEdits().merge([0, 2]).switch(off=[1])
    edits.write(run.path, run.weights_hash)
    try:
        catalogue = Catalogue(Explainer.open(run.path))
    finally:
        (run.path / "aspects.json").unlink()
    assert catalogue.aspects == [0]
    np.testing.assert_allclose(catalogue.item_shares[catalogue.item_shares.any(1)], [[1, 0, 0]] * 14)
    text = client(catalogue.explainer).get("/user", params={"user": catalogue.explainer.trained.users.ids[0]})
    assert 'name="a0"' in text.text
    assert 'name="a1"' not in text.text
    assert 'name="a2"' not in text.text


def test_catalogue_lists_words_and_counts_of_items(explainers: Callable[[str], Explainer]) -> None:
    explainer = explainers("default")
    catalogue, data = Catalogue(explainer), Dataset.open(explainer.trained.run.path.parent / "data")
    for item in range(14):
        rows = np.flatnonzero((data.passages.item_idx == item) & (data.passages.split == TRAIN))
        texts = [data.passages.text[row] for row in rows.tolist()]
        for word in catalogue.keywords(item):
            assert sum(word in text for text in texts) >= min(2, len(texts) - 1)
        facts = catalogue.facts(item)
        assert facts["reviews"] + facts["others"] == len(rows)
        own = (data.interactions.item_idx == item) & (data.interactions.split == TRAIN)
        assert facts["positives"] == own.sum()
        if facts["stars"] is not None:
            assert facts["stars"] == pytest.approx(float(data.interactions.rating[own].mean()))
        half = WORDS[:6] if int(re.match(r"i(\d+)", data.item_ids[item])[1]) % 2 else WORDS[5:]
        assert set(catalogue.keywords(item)) & set(half)
        assert not set(catalogue.keywords(item)) & (set(WORDS) - set(half))


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_pages_and_overview_have_equal_shares(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    catalogue, ids = Catalogue(explainer), explainer.trained.users.ids
    for entry in aspect_overview(explainer.trained.run.path)["aspects"]:
        shares = catalogue.user_shares[:, entry["aspect"]]
        for user in entry["users"]:
            assert user["share"] == pytest.approx(shares[ids.index(user["user_id"])])
        assert entry["users"][0]["share"] == pytest.approx(shares.max())


@pytest.mark.parametrize("shape", ["default", "ratio"])
def test_similar_and_related_items(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    catalogue, tables = Catalogue(explainer), explainer.trained.tables
    for item in (0, 5):
        alike, together = catalogue.similar(item, 4), catalogue.related(item, 4)
        if shape == "ratio":
            assert alike == []
        else:
            lengths = np.linalg.norm(tables.item, axis=1)
            cosines = tables.item @ tables.item[item] / (lengths * lengths[item])
            cosines[item] = -9
            assert [other for other, _ in alike] == np.argsort(-cosines)[:4].tolist()
        pair = np.zeros(1, np.int32)
        for other, value in together:
            single_user = tables.for_users(tables.query[:1], type(tables.history).from_pairs([0], [item], 1))
            assert value == pytest.approx(single_user.score_collaborative_pairs(pair, np.array([other]))[0])
            assert other != item


@pytest.mark.parametrize("shape", ["default", "paper"])
def test_item_explanation_matches_item_vector(explainers: Callable[[str], Explainer], shape: str) -> None:
    explainer = explainers(shape)
    reading, tables = Catalogue(explainer).reading(4), explainer.trained.tables
    words = [word["contribution"] for passage in reading["passages"] for word in passage["words"]]
    if shape == "paper":
        texts = (tables.item.sum(1) / (tables.item_mentions.sum(1) + tables.eps)).astype(np.float64)
    else:
        texts = tables.item @ tables.item[4] * float(explainer.trained.model.temperature())
    assert sum(words) == pytest.approx(float(texts[4] - texts.mean()), rel=1e-3, abs=1e-4)
    assert reading["rank"] is None
