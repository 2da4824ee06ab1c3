"""DIRECT against plain loops over tokens, passages and slots."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmdirect.collaborative.ease import EaseInputs
from llmdirect.config import PROJECTION, ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.model.direct import Direct, UserSide, attend
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.scores import CatalogueScores, SlotDropout, export_tables
from llmdirect.model.token_tables import TokenTable, read_all, read_passages, refreshed
from llmdirect.model.train_view import TrainView
from llmdirect.model.vectors import normalize
from llmdirect.model.word_types import WordTypes
from llmdirect.ranking.top_k import rank
from llmdirect.training.objective import Objective
from model_helpers import (
    COLD,
    DIM,
    ITEMS,
    USERS,
    Row,
    all_pairs,
    config,
    dataset_of,
    normal,
    random_model,
    scores_of,
    view_of,
)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / a.double().norm() / b.double().norm())


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def naive_token(model: Direct, token: Tensor) -> tuple[list[float], list[float]]:
    """Terms s_tk m_tk (channels adjacent within an aspect) and mentions m_tk of a token."""
    h = (token - model.centre) / model.scale
    projected = model.mention.weight @ h
    mentions = softmax([float(model.sharpness) * cosine(projected, aspect) for aspect in model.aspect])[1:]
    terms = []
    for k, mention in enumerate(mentions):
        for c in range(model.channels):
            if isinstance(model.sentiment, nn.Parameter):
                sentiment = float(h @ model.sentiment[:, k * model.channels + c])
            else:
                sentiment = math.tanh(float(model.sentiment(h)))
            terms.append(sentiment * mention)
    return terms, mentions


def naive_passage(model: Direct, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """P_r and Q_r from the tokens [T, D] of a passage."""
    preference = torch.zeros(model.aspects * model.channels, dtype=torch.float64)
    mass = torch.zeros(model.aspects, dtype=torch.float64)
    for token in tokens:
        terms, mentions = naive_token(model, token)
        preference += torch.tensor(terms, dtype=torch.float64)
        mass += torch.tensor(mentions, dtype=torch.float64)
    share = max(1, len(tokens)) if model.config.equal_reviews else 1
    return preference / share, mass / share


def naive_documents(model: Direct, view: TrainView) -> tuple[Tensor, Tensor]:
    """P_i and Q_i of every item."""
    preference = torch.zeros(view.num_items, model.aspects * model.channels, dtype=torch.float64)
    mass = torch.zeros(view.num_items, model.aspects, dtype=torch.float64)
    for passage in range(len(view.lengths)):
        tokens, mask = view.tokens(torch.tensor([passage]))
        p, q = naive_passage(model, tokens[mask])
        preference[view.passage_item[passage]] += p
        mass[view.passage_item[passage]] += q
    return preference, mass


@pytest.mark.parametrize("vote", [True, False], ids=["vote", "length"])
@pytest.mark.parametrize("sentiment", ["linear", "mlp"])
@torch.no_grad()
def test_item_documents_match_naive_sums(view: TrainView, sentiment: str, vote: bool) -> None:
    model = random_model(config(sentiment=sentiment, equal_reviews=vote), view)
    preference, mass = naive_documents(model, view)
    table = read_all(model, ItemDocuments(view, vote))
    torch.testing.assert_close(table.items()[0].double(), preference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(table.items()[1].double(), mass, rtol=1e-5, atol=1e-5)
    for item in (0, ITEMS - 1):  # detects item indices that are off by one
        assert preference[item].abs().sum() > 0


@pytest.mark.parametrize("sentiment", ["linear", "mlp"])
@torch.no_grad()
def test_token_terms_sum_to_passage(view: TrainView, sentiment: str) -> None:
    for vote in (True, False):
        model = random_model(config(sentiment=sentiment, equal_reviews=vote), view)
        tokens, mask = view.tokens(torch.arange(len(view.lengths)))
        preference, mass = model.passages(tokens, mask)
        for passage, length in enumerate(view.lengths.tolist()):
            terms, mentions = model.token_terms(model.standard(tokens[passage][mask[passage]]))
            share = max(1, length) if vote else 1
            torch.testing.assert_close(terms.sum(0) / share, preference[passage])
            torch.testing.assert_close(mentions.sum(0) / share, mass[passage])


@pytest.mark.parametrize("vote", [True, False], ids=["vote", "length"])
@pytest.mark.parametrize("form", ["cosine", "ratio"])
@torch.no_grad()
def test_pooled_table_equals_token_table_for_equal_mentions(view: TrainView, form: str, vote: bool) -> None:
    model = random_model(config(score_form=form, equal_reviews=vote, user="both"), view)
    model.sharpness.fill_(0.0)
    pooled, tokens = (scores_of(model, view, kind) for kind in (False, True))
    pairs, passages = all_pairs(view), torch.arange(len(view.lengths))
    for actual, expected in (
        (pooled.table.items(), tokens.table.items()),
        (pooled.table.rows(passages), tokens.table.rows(passages)),
        (
            pooled.table.without(pairs.item, pairs.passage),
            tokens.table.without(pairs.item, pairs.passage),
        ),
        (pooled.left_out(pairs), tokens.left_out(pairs)),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sentiment", ["linear", "mlp"])
@torch.no_grad()
def test_padding_is_ignored_and_mask_unchanged(view: TrainView, sentiment: str) -> None:
    model = random_model(config(sentiment=sentiment), view)
    tokens, mask = view.tokens(torch.arange(len(view.lengths)))
    expected = model.passages(tokens, mask)
    kept = mask.clone()
    garbage = torch.where(mask[..., None], tokens, 50 * normal(*tokens.shape))
    longer = torch.cat([garbage, 50 * normal(len(mask), 3, view.dim)], 1)
    padded = torch.cat([mask, torch.zeros(len(mask), 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(model.passages(longer, padded), expected)
    assert torch.equal(mask, kept)


def naive_attend(query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    rows = []
    for slots, kept in zip(vectors, mask, strict=True):
        chosen = slots[kept].double()
        weights = softmax([float(vector @ query.double()) for vector in chosen])
        rows.append(
            sum((w * v for w, v in zip(weights, chosen, strict=True)), torch.zeros(len(query)).double())
        )
    return torch.stack(rows)


def test_attention_respects_mask() -> None:
    query, vectors = normal(4), normal(3, 5, 4, seed=1)
    mask = torch.tensor([[True, False, True, True, False], [False] * 5, [False] * 4 + [True]])
    kept = mask.clone()
    read = attend(query, vectors, mask)
    torch.testing.assert_close(read.double(), naive_attend(query, vectors, mask))
    assert not read[1].any()
    hidden = torch.where(mask[..., None], vectors, 1000 * normal(3, 5, 4, seed=2))
    torch.testing.assert_close(attend(query, hidden, mask), read)
    assert torch.equal(mask, kept)


def test_cross_gates_match_formula() -> None:
    side = UserSide(config(score_form="ratio", user="both"), 4)
    with torch.no_grad():
        for number, parameter in enumerate(side.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=number))
    vectors, mask = normal(2, 3, 4, seed=8), torch.tensor([[True, True, False], [False] * 3])
    texts, text_mask = normal(2, 2, 4, seed=9), torch.ones(2, 2, dtype=torch.bool)
    history = naive_attend(side.history_query.detach(), vectors, mask)
    text = naive_attend(side.text_query.detach(), texts, text_mask)
    both = torch.cat([history, text], 1)
    expected = 0
    for gate, read in ((side.history_gate, history), (side.text_gate, text)):
        opened = torch.sigmoid(both @ gate.weight.double().T + gate.bias.double())
        expected = expected + opened * read
    torch.testing.assert_close(side((vectors, mask), (texts, text_mask)), expected.float())


def naive_queries(model: Direct, view: TrainView, dataset: Dataset) -> Tensor:
    """Interests of the paper in a loop over users: u = sigmoid(norm(A g(user)))."""

    def profile(passages: list[int]) -> Tensor:
        tokens, mask = view.tokens(torch.tensor(passages))
        if model.config.equal_reviews:
            means = [t[m].mean(0) for t, m in zip(tokens, mask, strict=True) if m.any()]
        else:
            means = list(tokens[mask])
        if not means:
            return torch.zeros(PROJECTION)
        return model.mention.weight @ ((torch.stack(means).mean(0) - model.centre) / model.scale)

    logits = []
    rows = dataset.interactions
    for user in range(view.num_users):
        own_rows = np.flatnonzero((rows.user_idx == user) & (rows.split == 0))
        own_rows = own_rows[np.argsort(-rows.timestamp[own_rows], kind="stable")]
        vectors = [
            profile(np.flatnonzero((rows.item_idx == item) & (rows.split == 0)).tolist())
            for item in rows.item_idx[own_rows]
        ]
        texts = [profile([row]) for row in own_rows.tolist() if dataset.passages.text[int(row)]]
        sides = []
        for query, read in ((model.user.history_query, vectors), (model.user.text_query, texts)):
            stacked = torch.stack(read) if read else torch.zeros(1, PROJECTION)
            mask = torch.full((1, len(stacked)), bool(read))
            sides.append(naive_attend(query, stacked[None], mask)[0].float())
        both = torch.cat(sides)
        user_vector = torch.sigmoid(model.user.history_gate(both)) * sides[0]
        user_vector = user_vector + torch.sigmoid(model.user.text_gate(both)) * sides[1]
        # No interest in the background aspect.
        logits.append(torch.stack([aspect @ user_vector for aspect in model.aspect[1:]]))
    return torch.sigmoid(model.interest_norm(torch.stack(logits)))


@torch.no_grad()
def test_published_score_matches_token_loop(view: TrainView, dataset: Dataset) -> None:
    """b_u + b_i + b_0 + Σ g_t s_t / (Σ g_t + ε) with gates g_t = Σ_k m_tk u_k."""
    model = random_model(ModelConfig.for_preset("paper", aspects=4), view)
    model.interest_norm.running_mean.copy_(normal(4, seed=4))
    ranking = export_tables(scores_of(model, view, tokens=True))
    queries = naive_queries(model, view, dataset)
    torch.testing.assert_close(torch.from_numpy(ranking.query), queries, rtol=1e-4, atol=1e-5)
    lists = rank(ranking, np.arange(USERS), k=ITEMS, seen=None)
    rows = dataset.interactions
    for user, item in product(range(USERS), range(ITEMS)):
        passages = np.flatnonzero(view.passage_item.numpy() == item).tolist()
        tokens, mask = view.tokens(torch.tensor(passages))
        gated, gates = 0.0, 0.0
        for token in tokens[mask]:
            h = (token - model.centre) / model.scale
            _, mentions = naive_token(model, token)
            gate = sum(m * float(u) for m, u in zip(mentions, queries[user], strict=True))
            gated += gate * math.tanh(float(model.sentiment(h)))
            gates += gate
        expected = float(model.bias + model.user_bias[user] + model.item_bias[item]) + gated / (gates + 5e-7)
        score = lists.scores[user][lists.items[user] == item].item()
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert (rows.split == 2).any()


@torch.no_grad()
def test_cosine_score_matches_formula(view: TrainView) -> None:
    """b_i + q·P_i / (|q| |P_i| tau), with b_i = prior · log(n + 1)."""
    model = random_model(config(), view)
    preference, _ = naive_documents(model, view)
    scores = scores_of(model, view, tokens=True)
    table = scores.catalogue(scores.interests(torch.arange(USERS)))
    indptr, entries = view.history.indptr, view.history.entries
    for user, item in product(range(USERS), range(ITEMS)):
        history = preference[entries[indptr[user] : indptr[user + 1]]]
        units = torch.stack([h / h.norm() for h in history if h.norm() > 0]) if len(history) else None
        text = 0.0
        if units is not None and preference[item].norm() > 0:
            mask = torch.ones(1, len(units), dtype=torch.bool)
            query = naive_attend(model.user.history_query, units[None], mask)[0]
            text = cosine(query, preference[item]) * math.exp(float(model.log_temperature))
        bias = float(model.prior) * math.log(int(view.popularity[item]) + 1)
        assert table[user, item].item() == pytest.approx(bias + text, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_items_without_text_have_zero_profiles(tmp_path: Path, form: str) -> None:
    """A history of items without text equals an empty history."""
    dataset = dataset_of([Row(0, 0, ""), Row(0, 1, " "), Row(1, 2, "some words")], 3, 4, {3: "others"})
    view = view_of(dataset, tmp_path)
    model = random_model(config(score_form=form, user="both"), view)
    scores = scores_of(model, view, tokens=True)
    assert not scores.profiles[:2].any()
    assert scores.profiles[2].any()
    queries = scores.interests(torch.arange(3))
    assert torch.equal(queries[0], queries[2])
    assert not torch.equal(queries[1], queries[2])


def test_cold_items_are_scored_by_text(view: TrainView) -> None:
    """No parameter vectors per item: items without train interactions are scored by their text."""
    model = random_model(config(), view)
    by_item = [name for name, value in model.named_parameters() if ITEMS in value.shape]
    assert by_item == ["item_bias"]
    assert view.popularity[COLD] == 0
    scores = scores_of(model, view, tokens=True)
    assert scores.preference[COLD].abs().sum() > 0
    assert torch.isfinite(model.item_bias_of(view.popularity)).all()
    assert model.item_bias_of(view.popularity)[COLD] == 0.0
    ranking = replace(export_tables(scores), query=scores.item[[COLD]].detach() * 100, user_bias=None)
    assert rank(ranking, [0], k=1, seen=None).items[0, 0] == COLD


def test_normalize_of_zero_vector_has_finite_gradient() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    directions = normalize(rows)
    torch.testing.assert_close(directions, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    directions.sum().backward()
    torch.testing.assert_close(rows.grad, torch.tensor([[0.032, -0.024], [1.0, 1.0]]))


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_gradients_are_finite_for_empty_documents(
    view: TrainView, form: str, tokens: bool, mixed: bool
) -> None:
    """Users and items without passages are zero vectors, whose norm has no gradient."""
    collaboration = EaseInputs(view.positives, torch.arange(ITEMS)).ease(3.0)
    pairs = all_pairs(view)
    for user, dropout in product(("history", "text", "both"), (0.0, 0.999)):
        model = random_model(config(score_form=form, user=user, collaborative=True), view).train()
        documents = ItemDocuments(view, equal_reviews=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            if tokens:
                everything = torch.arange(len(view.lengths))
                table = TokenTable(documents, *read_passages(model, view, everything))
                scores = CatalogueScores(model, documents, table, collaboration)
            else:
                scores = scores_of(model, view, False, collaboration)
            keep = SlotDropout(dropout, torch.Generator().manual_seed(1))
            left_out, _ = scores.left_out(pairs, keep)
        assert left_out.dtype == torch.float32
        loss = torch.nn.functional.cross_entropy(left_out, pairs.item)
        loss.backward()
        assert torch.isfinite(loss)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), name
                assert parameter.grad.abs().max() < 1e4, name


@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_bfloat16_scores_are_close(view: TrainView, form: str) -> None:
    model = random_model(config(score_form=form, user="both"), view)
    pairs = all_pairs(view)
    with torch.no_grad():
        exact, _ = scores_of(model, view, True).left_out(pairs)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = scores_of(model, view, True).left_out(pairs)
    torch.testing.assert_close(mixed, exact, rtol=0.05, atol=0.3)


AUXILIARY = {
    "contrastive": ("sentiment", "mention.weight", "aspect", "user.history_query"),
    "anchor": ("sentiment", "mention.weight", "aspect"),
    "rate": ("mention.weight",),
    "orthogonality": ("aspect",),
}


@pytest.mark.parametrize("weight", AUXILIARY)
def test_auxiliary_losses_contribute_gradients(view: TrainView, weight: str) -> None:
    pairs = all_pairs(view)
    vectors = normal(20, DIM)
    words = WordTypes(
        [f"w{number}" for number in range(20)], vectors, normalize(vectors), torch.ones(20).long()
    )

    def step(**weights: float) -> tuple[float, dict[str, Tensor]]:
        model = random_model(config(), view).train()
        documents = ItemDocuments(view, equal_reviews=True)
        table = TokenTable(documents, *read_passages(model, view, torch.arange(len(view.lengths))))
        scores = CatalogueScores(model, documents, table, None)
        training = TrainConfig(history_dropout=0.0, **weights)
        parts = Objective(training, torch.Generator().manual_seed(0), words)(scores, pairs, None)
        parts["loss"].backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        return parts["loss"].item(), gradients

    plain, gradients = step()
    weighted, weighted_gradients = step(**{weight: 0.5})
    assert weighted != pytest.approx(plain, rel=1e-4)
    for name in AUXILIARY[weight]:
        assert (weighted_gradients[name] - gradients[name]).abs().max() > 1e-5, name


def test_only_refreshed_passages_have_gradients(view: TrainView) -> None:
    model = random_model(config(), view).train()
    table = read_all(model, ItemDocuments(view, equal_reviews=True))
    chosen = torch.tensor([1, 3])
    fresh = refreshed(table, chosen, *read_passages(model, view, chosen))
    torch.testing.assert_close(fresh.items(), table.items())
    fresh.items()[0].sum().backward()
    first = model.sentiment.grad.clone()
    model.zero_grad()
    preference, _ = read_passages(model, view, chosen)
    preference[view.passage_item[chosen] >= 0].sum().backward()
    torch.testing.assert_close(model.sentiment.grad, first)


def test_slot_dropout_rate_and_determinism() -> None:
    mask = torch.ones(50, 40, dtype=torch.bool)
    mask[:, 30:] = False
    first, second = (SlotDropout(0.7, torch.Generator().manual_seed(5))(mask) for _ in range(2))
    assert torch.equal(first, second)
    assert not first[:, 30:].any()
    assert abs(first[:, :30].float().mean().item() - 0.3) < 4 * math.sqrt(0.21 / 1500)
    assert torch.equal(SlotDropout(0.0, torch.Generator())(mask), mask)


def test_batch_norm_of_single_pair_uses_running_statistics(view: TrainView) -> None:
    model = random_model(ModelConfig.for_preset("paper"), view).train()
    user = normal(4, PROJECTION)
    model.interests(user)
    alone = model.interests(user[:1])
    with pytest.raises(ValueError, match=r"batch norm .* model.eval\(\) first"):
        export_tables(scores_of(model, view, tokens=True))
    torch.testing.assert_close(alone, model.eval().interests(user)[:1])
