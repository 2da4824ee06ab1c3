"""Synthetic corpus: files, planted words, and ranking quality of an oracle and of baselines."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.resplit import resplit
from llmdirect.evaluation.protocol import evaluate_split, seen_items
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.store.audit import audit
from llmdirect.synthetic import sentences as templates
from llmdirect.synthetic.corpus import CORE, REVIEWS_PER_USER, Corpus, generate, utilities
from llmdirect.synthetic.recovery import oracle
from llmdirect.synthetic.sentences import ASPECTS, LEXICON
from llmdirect.text.duplicates import normalize_text
from llmdirect.text.words import word_spans

pytestmark = pytest.mark.slow

NDCG = "ndcg@10"
FILES = ("reviews.json.gz", "items.json.gz", "truth.json")


def words(text: str) -> list[str]:
    """Words as segmented in explanations, case folded."""
    return [text[start:end].casefold() for start, end in word_spans(text)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return generate(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def dataset(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    prepare(corpus.reviews_path, folder, items=corpus.items_path, k_core=CORE)
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Corpus large enough for shares to be close to their expectation."""
    return generate(tmp_path_factory.mktemp("large"), seed=5, num_users=700)


# Files


def test_generate_is_deterministic_across_processes(tmp_path: Path, corpus: Corpus) -> None:
    code = "import sys; from llmdirect.synthetic.corpus import generate; generate(sys.argv[1])"
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", code, str(out)], check=True, env=env)
        for name in FILES:
            assert (out / name).read_bytes() == (corpus.reviews_path.parent / name).read_bytes(), name
    generate(tmp_path / "other", seed=1)
    for name in FILES:
        assert (tmp_path / "other" / name).read_bytes() != (tmp_path / "1" / name).read_bytes(), name


def test_generate_replaces_existing_corpus(tmp_path: Path, corpus: Corpus) -> None:
    generate(tmp_path, seed=9)
    generate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (corpus.reviews_path.parent / name).read_bytes()


def test_gzip_headers_without_time_and_name(corpus: Corpus) -> None:
    for path in (corpus.reviews_path, corpus.items_path):
        head = path.read_bytes()[:10]
        assert head[3] == 0
        assert head[4:8] == bytes(4)


def test_reviews_follow_amazon_2014_layout(corpus: Corpus) -> None:
    records = lines(corpus.reviews_path)
    assert [
        (r["reviewerID"], r["asin"], r["reviewText"], r["overall"], r["summary"], r["unixReviewTime"])
        for r in records
    ] == [(r.user_id, r.item_id, r.text, r.rating, r.summary, r.time) for r in corpus.reviews]
    assert all(re.fullmatch(r"A[0-9A-Z]{13}", r["reviewerID"]) for r in records)
    assert all(re.fullmatch(r"B0[0-9A-Z]{8}", r["asin"]) for r in records)
    assert all(r["unixReviewTime"] % 86_400 == 0 for r in records)


def test_truth_json_matches_corpus(corpus: Corpus) -> None:
    truth = json.loads(corpus.truth_path.read_text())
    assert list(truth["aspects"]) == list(corpus.aspects)
    for aspect, (positive, negative) in corpus.words.items():
        assert truth["aspects"][aspect] == {"positive": list(positive), "negative": list(negative)}
    assert list(truth["users"]) == corpus.user_ids
    assert list(truth["items"]) == corpus.item_ids
    np.testing.assert_array_equal([list(u.values()) for u in truth["users"].values()], corpus.interests)
    items = truth["items"].values()
    np.testing.assert_array_equal([list(i["quality"].values()) for i in items], corpus.qualities)
    np.testing.assert_array_equal([i["popularity"] for i in items], corpus.popularity)
    counts = Counter(review.item_id for review in corpus.reviews)
    assert {name: item["reviews"] for name, item in truth["items"].items()} == counts
    assert truth["taste"] == corpus.taste
    for entry, review in zip(truth["reviews"], corpus.reviews, strict=True):
        assert (entry["user_id"], entry["item_id"]) == (review.user_id, review.item_id)
        assert [(w["word"], corpus.aspects.index(w["aspect"]), w["positive"]) for w in entry["words"]] == [
            (mention.word, mention.aspect, mention.positive) for mention in review.planted
        ]


def test_prepare_keeps_all_reviews_and_items(corpus: Corpus, dataset: Dataset) -> None:
    counts = dataset.manifest["counts"]
    assert counts["rows_read"] == len(corpus.reviews) == len(dataset.interactions)
    assert (counts["duplicates_dropped"], counts["bad_lines"]) == (0, 0)
    assert not any(counts["k_core_removed"].values())
    assert counts["item_metadata"]["items_found"] == len(corpus.item_ids)
    assert counts["item_metadata"]["descriptions"] == len(corpus.item_ids)
    assert dataset.manifest["options"]["k_core"] == CORE
    assert set(dataset.user_ids) == set(corpus.user_ids)
    assert set(dataset.item_ids) == set(corpus.item_ids)
    assert not np.isnan(dataset.interactions.rating).any()
    report = audit(dataset.path)
    assert report.ok
    assert not report.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"reviews_per_user": (4, 9)}, r"reviews_per_user is \(4, 9\), expected 5 <= low <= high"),
        ({"reviews_per_user": (9, 8)}, r"reviews_per_user is \(9, 8\)"),
        ({"num_items": 15}, "num_items is 15; users who review 10 items need at least 20"),
        ({"num_users": 71}, "num_users is 71; 100 items .* need at least 72 users"),
        ({"taste": float("nan")}, "taste is nan, expected a finite number from 0 on"),
        ({"taste": -1.0}, "taste is -1.0"),
    ],
)
def test_invalid_sizes(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_smallest_sizes(tmp_path: Path) -> None:
    small = generate(tmp_path, num_users=20, num_items=20, reviews_per_user=(5, 10))
    assert min(Counter(review.item_id for review in small.reviews).values()) >= CORE


# Users and items


def test_corpus_is_k_core_with_long_tail(corpus: Corpus) -> None:
    users = Counter(review.user_id for review in corpus.reviews)
    items = Counter(review.item_id for review in corpus.reviews)
    assert set(users) == set(corpus.user_ids)
    assert set(items) == set(corpus.item_ids)
    assert len({(review.user_id, review.item_id) for review in corpus.reviews}) == len(corpus.reviews)
    assert min(users.values()) >= REVIEWS_PER_USER[0]
    assert min(items.values()) >= CORE
    assert np.median(list(users.values())) in range(8, 13)
    # A long tail: the upper fifth of the items has over two fifths of the reviews.
    ordered = sorted(items.values(), reverse=True)
    assert sum(ordered[: len(ordered) // 5]) > 0.4 * len(corpus.reviews)


def test_users_have_one_to_three_interests(corpus: Corpus) -> None:
    np.testing.assert_allclose(corpus.interests.sum(1), 1)
    interests = [corpus.aspects_of_interest(user) for user in corpus.user_ids]
    assert {len(aspects) for aspects in interests} == {1, 2, 3}
    for row, aspects in zip(corpus.interests, interests, strict=True):
        assert row[list(aspects)].sum() > 0.95
        assert aspects == {aspect for aspect in range(len(ASPECTS)) if row[aspect] > 1 / len(ASPECTS)}
    assert set().union(*interests) == set(range(len(ASPECTS)))


def test_items_have_mixed_qualities(corpus: Corpus) -> None:
    assert (np.abs(corpus.qualities) <= 1).all()
    assert ((corpus.qualities > 0).sum(1) == len(ASPECTS) // 2).all()
    assert corpus.popularity.sum() == pytest.approx(1)


def test_choices_match_reference_sampler(tmp_path: Path, large: Corpus) -> None:
    """Reference: sequential sampling without replacement."""
    rng = np.random.default_rng(1)
    expected = np.zeros(2)
    weights = np.exp(utilities(large.interests, large.qualities, large.popularity, large.taste))
    fit = large.interests @ large.qualities.T
    log_popularity = np.log(large.popularity)
    counts = Counter(review.user_id for review in large.reviews)
    for user, row in large.user_rows.items():
        chosen = rng.choice(
            weights.shape[1], counts[user], replace=False, p=weights[row] / weights[row].sum()
        )
        expected += [fit[row, chosen].sum(), log_popularity[chosen].sum()]
    pairs = np.array([(large.user_rows[r.user_id], large.item_rows[r.item_id]) for r in large.reviews])
    result = np.array([fit[pairs[:, 0], pairs[:, 1]].sum(), log_popularity[pairs[:, 1]].sum()])
    np.testing.assert_allclose(result / len(pairs), expected / len(pairs), atol=0.02)
    assert result[0] / len(pairs) > fit.mean() + 0.4

    tasteless = generate(tmp_path, seed=5, num_users=700, taste=0.0)
    fit = tasteless.interests @ tasteless.qualities.T
    pairs = np.array(
        [(tasteless.user_rows[r.user_id], tasteless.item_rows[r.item_id]) for r in tasteless.reviews]
    )
    weighted = fit @ tasteless.popularity
    assert fit[pairs[:, 0], pairs[:, 1]].mean() == pytest.approx(weighted.mean(), abs=0.03)


# Texts


def fixed_texts() -> list[str]:
    """All sentences, titles, descriptions and slot fillers, with blanks for the slots."""
    texts = [sentence for sentences in templates.OPINIONS.values() for sentence in sentences]
    texts += [*templates.OPENERS, *templates.ASIDES, *templates.HEADLINES, *templates.DESCRIPTIONS]
    texts = [templates.SLOT.sub(" ", text) for text in [*texts, templates.TITLE]]
    return texts + [text for slot in templates.SLOTS.values() for text in slot]


def test_planted_words_are_distinct_and_absent_from_templates() -> None:
    planted = [word for sides in LEXICON.values() for side in sides for word in side]
    assert len(planted) == len(set(planted))
    assert all(words(word) == [word] for word in planted)  # a single word as segmented in explanations
    for text in fixed_texts():
        assert not set(words(text)) & set(planted), text


def test_texts_contain_exactly_their_planted_words(corpus: Corpus) -> None:
    for review in corpus.reviews:
        matches = [word for word in words(review.text) if word in corpus.aspect_of_word]
        assert matches == [mention.word for mention in review.planted]
        assert len(set(matches)) == len(matches) >= 2
        for mention in review.planted:
            assert mention.word in corpus.words[corpus.aspects[mention.aspect]][0 if mention.positive else 1]
        sides = {(mention.aspect, mention.positive) for mention in review.planted}
        assert len({aspect for aspect, _ in sides}) == len(sides)  # one sentiment per aspect in a review
    for record in lines(corpus.items_path):
        assert not set(words(f"{record['title']} {record['description']}")) & set(corpus.aspect_of_word)
    for review in corpus.reviews:
        assert not set(words(review.summary)) & set(corpus.aspect_of_word)


@pytest.mark.parametrize("seed", range(3))
def test_text_lengths_and_no_duplicates(tmp_path: Path, seed: int) -> None:
    corpus = generate(tmp_path, seed=seed)
    items = lines(corpus.items_path)
    texts = [review.text for review in corpus.reviews]
    passages = texts + [f"{item['title']}\n{item['description']}" for item in items]
    assert len({normalize_text(text) for text in passages}) == len(passages)
    lengths = [len(text.split()) for text in texts]
    assert 40 <= np.median(lengths) <= 60
    # A CPU encodes this in under a minute at 1,500 tokens a second.
    tokens = 1.3 * sum(len(text.split()) for text in passages)
    assert 60_000 < tokens < 75_000


def test_texts_are_distinct_sentences(corpus: Corpus) -> None:
    for review in corpus.reviews:
        assert re.fullmatch(r"(?:[A-Z][^.{}]*\. ?)+", review.text), review.text
        assert "  " not in review.text
        sentences = review.text.rstrip(".").split(". ")
        assert len(set(sentences)) == len(sentences)
        assert not re.search(r"[{}]", review.summary)
    sentences = Counter(s for review in corpus.reviews for s in review.text.rstrip(".").split(". "))
    assert sentences.most_common(1)[0][1] < 0.06 * len(corpus.reviews)  # no sentence is frequent


def test_texts_mention_aspects_of_interest(large: Corpus) -> None:
    of_interest, total = 0, 0
    for review in large.reviews:
        aspects = {mention.aspect for mention in review.planted}
        of_interest += len(aspects & large.aspects_of_interest(review.user_id))
        total += len(aspects)
    by_chance = np.mean([len(large.aspects_of_interest(r.user_id)) for r in large.reviews]) / len(ASPECTS)
    assert of_interest / total > 2 * by_chance
    assert 0.7 < of_interest / total < 0.95  # some noise remains


def test_sentiment_follows_quality(large: Corpus) -> None:
    mentions = {
        (review.user_id, review.item_id, mention.aspect, mention.positive)
        for review in large.reviews
        for mention in review.planted
    }
    rows = [
        (large.qualities[large.item_rows[item], aspect], positive) for _, item, aspect, positive in mentions
    ]
    quality, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    edges = [-1, -0.6, -0.35, -0.2, 0.2, 0.35, 0.6, 1]
    for low, high in pairwise(edges):
        inside = (quality > low) & (quality <= high)
        if (low, high) == (-0.2, 0.2):
            assert not inside.any()
            continue
        share = (1 / (1 + np.exp(-6 * quality[inside]))).mean()
        assert positive[inside].mean() == pytest.approx(share, abs=0.06)


def test_ratings_correlate_with_utility(large: Corpus) -> None:
    fit = [
        large.interests[large.user_rows[r.user_id]] @ large.qualities[large.item_rows[r.item_id]]
        for r in large.reviews
    ]
    ratings = [review.rating for review in large.reviews]
    assert set(ratings) == {1, 2, 3, 4, 5}
    assert np.corrcoef(fit, ratings)[0, 1] > 0.6


# Ranking quality


def bag_of_words(dataset: Dataset, dim: int = 8, weight: float = 2.0) -> ScoreTables:
    """Log popularity + weight · cosine of user and item, all of train.

    Item: mean TF-IDF of its train reviews less the mean item, mapped onto its `dim` principal components.
    User: mean of the items of the history.
    """
    passages = dataset.passages
    rows = np.flatnonzero((passages.split == TRAIN) & (passages.user_idx >= 0))
    texts = [words(text) for text in passages.text.gather(rows)]
    vocabulary = {word: n for n, word in enumerate(sorted({word for text in texts for word in text}))}
    tfidf = np.zeros((len(rows), len(vocabulary)))
    for row, text in enumerate(texts):
        for word in text:
            tfidf[row, vocabulary[word]] += 1
    tfidf *= np.log(len(rows) / (tfidf > 0).sum(0))
    tfidf /= np.linalg.norm(tfidf, axis=1, keepdims=True)
    chosen = np.zeros((dataset.num_users, dataset.num_items))
    chosen[passages.user_idx[rows], passages.item_idx[rows]] = 1
    passages_of_item = np.zeros((dataset.num_items, len(rows)))
    passages_of_item[passages.item_idx[rows], np.arange(len(rows))] = 1
    counts = passages_of_item.sum(1, keepdims=True)
    items = passages_of_item @ tfidf / np.maximum(counts, 1)
    items -= items.mean(0)
    linear = np.linalg.svd(items, full_matrices=False)[2][:dim].T

    def mapped(vectors: np.ndarray) -> np.ndarray:
        projected = vectors @ linear
        return projected / np.linalg.norm(projected, axis=1, keepdims=True)

    users = chosen @ items / chosen.sum(1, keepdims=True)
    return ScoreTables(query=weight * mapped(users), item=mapped(items), item_bias=np.log(counts[:, 0] + 1))


@pytest.fixture(scope="module")
def figures(corpus: Corpus, dataset: Dataset) -> dict[str, float]:
    """Test NDCG@10, mean over three splits."""
    sums: dict[str, list[float]] = {}
    for seed in (242, 1, 2):
        split = resplit(dataset, seed=seed)
        models = {
            "popularity": by_popularity(split),
            "bag of words": bag_of_words(split),
            "oracle": oracle(corpus, split.user_ids, split.item_ids),
        }
        for name, tables in models.items():
            sums.setdefault(name, []).append(mean_metrics(evaluate_split(tables, split, TEST, [NDCG]))[NDCG])
    return {name: float(np.mean(values)) for name, values in sums.items()}


def by_popularity(split: Dataset) -> ScoreTables:
    empty = np.zeros((split.num_users, 0)), np.zeros((split.num_items, 0))
    return ScoreTables(query=empty[0], item=empty[1], item_bias=split.popularity(TRAIN))


def test_oracle_beats_popularity(figures: dict[str, float]) -> None:
    assert figures["oracle"] > 2.5 * figures["popularity"]
    assert figures["oracle"] < 0.8  # choices are random, so the oracle is not perfect


def test_popularity_beats_random(dataset: Dataset, figures: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    random = ScoreTables(
        query=np.zeros((dataset.num_users, 0)),
        item=np.zeros((dataset.num_items, 0)),
        item_bias=rng.random(dataset.num_items),
    )
    assert figures["popularity"] > 1.5 * mean_metrics(evaluate_split(random, dataset, TEST, [NDCG]))[NDCG]


def test_bag_of_words_beats_popularity(figures: dict[str, float]) -> None:
    assert 1.5 * figures["popularity"] < figures["bag of words"] < figures["oracle"]


def test_oracle_matches_plain_loop(corpus: Corpus, dataset: Dataset) -> None:
    seen, relevant = seen_items(dataset, TEST), dataset.csr(TEST)
    values = []
    for user, name in enumerate(dataset.user_ids):
        row = corpus.user_rows[name]
        score = {
            item: np.log(corpus.popularity[row_of_item])
            + corpus.taste * corpus.interests[row] @ corpus.qualities[row_of_item]
            for item, row_of_item in enumerate(corpus.item_rows[item_id] for item_id in dataset.item_ids)
            if item not in seen.row(user)
        }
        relevant_items = set(relevant.row(user).tolist())
        best = sorted(score, key=lambda item: -score[item])[:10]
        gain = sum(1 / np.log2(position + 2) for position, item in enumerate(best) if item in relevant_items)
        values.append(
            gain / sum(1 / np.log2(position + 2) for position in range(min(10, len(relevant_items))))
        )
    tables = oracle(corpus, dataset.user_ids, dataset.item_ids)
    assert mean_metrics(evaluate_split(tables, dataset, TEST, [NDCG]))[NDCG] == pytest.approx(
        np.mean(values), rel=1e-6
    )
    with pytest.raises(KeyError, match="nobody"):
        oracle(corpus, ["nobody"], dataset.item_ids)
