"""Losses against plain loops of their formulas."""

import math

import pytest
import torch
from torch import Tensor

from llmdirect.training.losses import (
    bpr_loss,
    contrastive_loss,
    orthogonality_loss,
    rate_reduction_loss,
    rating_anchor_loss,
    sampled_softmax_loss,
    softmax_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_softmax_loss() -> None:
    positive, others = normal(4), normal(4, 7, seed=1)
    others[2, :3] = -torch.inf
    expected = 0.0
    for own, row in zip(positive.tolist(), others.tolist(), strict=True):
        total = math.exp(own) + sum(math.exp(value) for value in row)
        expected -= math.log(math.exp(own) / total) / 4
    assert softmax_loss(positive, others).item() == pytest.approx(expected, rel=1e-12)


def test_masked_candidates_have_no_gradient() -> None:
    positive = normal(2).requires_grad_()
    scores = normal(2, 5, seed=1).requires_grad_()
    hidden = torch.tensor([[True, False, True, False, False]] * 2)
    softmax_loss(positive, scores.masked_fill(hidden, -torch.inf)).backward()
    assert not scores.grad[hidden].any()
    assert (scores.grad[~hidden] > 0).all()
    assert torch.isfinite(positive.grad).all()


def test_sampled_softmax_of_all_candidates_equals_full_softmax() -> None:
    positive, others = normal(3), normal(3, 6, seed=1)
    sampled = sampled_softmax_loss(positive, others, torch.tensor([6, 6, 6]))
    assert sampled.item() == pytest.approx(softmax_loss(positive, others).item(), rel=1e-12)


def test_sampled_softmax_partition_function_is_unbiased() -> None:
    """exp(loss) is the partition function over exp(positive): linear in the draws, so without bias."""
    generator = torch.Generator().manual_seed(3)
    num_items, draws, negatives = 50, 20_000, 5
    scores, positive = 1.5 * normal(num_items), torch.tensor(0.3, dtype=torch.float64)
    drawn = scores[torch.randint(num_items, (draws, negatives), generator=generator)]
    candidates = torch.tensor([num_items])
    estimates = torch.stack(
        [sampled_softmax_loss(positive[None], row[None], candidates).exp() for row in drawn]
    )
    full = softmax_loss(positive[None], scores[None]).exp()
    error = estimates.std() / math.sqrt(draws)
    assert abs(estimates.mean() - full) < 4 * error
    assert error < 0.02 * full, "the test must be able to tell"
    uncorrected = torch.cat([positive.expand(draws, 1), drawn], 1).exp().sum(1).mean() / positive.exp()
    assert abs(uncorrected - full) > 50 * error


def test_sampled_softmax_converges_to_full_softmax() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = normal(30).requires_grad_()
    positive = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    full = torch.autograd.grad(softmax_loss(positive, scores[None]), (positive, scores))
    drawn = torch.randint(30, (1, 60_000), generator=generator)
    sampled = torch.autograd.grad(
        sampled_softmax_loss(positive, scores[drawn], torch.tensor([30])), (positive, scores)
    )
    torch.testing.assert_close(sampled, full, rtol=0.05, atol=1e-3)


def test_bpr_loss() -> None:
    positive, negatives = normal(4), normal(4, 3, seed=1)
    expected = 0.0
    for own, row in zip(positive.tolist(), negatives.tolist(), strict=True):
        expected -= sum(math.log(1 / (1 + math.exp(other - own))) for other in row) / 12
    assert bpr_loss(positive, negatives).item() == pytest.approx(expected, rel=1e-12)


def test_bpr_has_gradient_for_extreme_scores() -> None:
    """log(sigmoid(x) + 1e-8) would be constant at 18.4 here, without gradient."""
    positive = torch.tensor([-200.0], requires_grad=True)
    loss = bpr_loss(positive, torch.tensor([[0.0]]))
    loss.backward()
    assert loss.item() == 200.0
    assert positive.grad.item() == -1.0
    assert bpr_loss(torch.tensor([200.0]), torch.tensor([[0.0]])).item() == 0.0


def test_contrastive_loss_has_gradient_of_document_only() -> None:
    document, review = normal(5).requires_grad_(), normal(5, seed=1).requires_grad_()
    loss = contrastive_loss(document, review)
    differences = zip(document.tolist(), review.tolist(), strict=True)
    assert loss.item() == pytest.approx(sum((d - r) ** 2 for d, r in differences) / 5, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(document.grad, 2 * (document - review).detach() / 5)
    assert review.grad is None


def test_orthogonality_loss() -> None:
    aspects = normal(4, 6)
    total = 0.0
    for i, j in ((i, j) for i in range(4) for j in range(4)):
        a, b = aspects[i].tolist(), aspects[j].tolist()
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        total += (cosine - (i == j)) ** 2
    assert orthogonality_loss(aspects).item() == pytest.approx(total / (16 - 4), rel=1e-12)
    assert orthogonality_loss(torch.eye(4, 6)).item() == 0.0
    assert orthogonality_loss(torch.ones(1, 6, requires_grad=True)).item() == 0.0


def naive_rate_reduction(
    words: list[list[float]], linked: list[list[float]], beta: float, eps: float
) -> float:
    """-(R(X) - mean_g R_g), every matrix filled entry by entry."""
    count, width = len(words), len(words[0])
    rows = [[value / math.hypot(*row) for value in row] for row in words]

    def rate(weights: list[float], factor: float) -> float:
        matrix = [[float(i == j) for j in range(width)] for i in range(width)]
        for i in range(width):
            for j in range(width):
                matrix[i][j] += factor * sum(
                    w * row[i] * row[j] for w, row in zip(weights, rows, strict=True)
                )
        return float(torch.tensor(matrix, dtype=torch.float64).det().log())

    whole = rate([1.0] * count, beta * width / (count * eps**2)) / (2 * beta)
    parts = [
        sum(group) / (2 * count) * rate(group, width / (sum(group) * eps**2)) if sum(group) else 0.0
        for group in linked
    ]
    return -(whole - sum(parts) / len(parts))


def test_rate_reduction_loss() -> None:
    words = normal(9, 4)
    linked = (torch.rand(3, 9, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    linked[2] = 0
    expected = naive_rate_reduction(words.tolist(), linked.tolist(), 0.1, 0.05)
    assert rate_reduction_loss(words, linked).item() == pytest.approx(expected, rel=1e-10)
    assert rate_reduction_loss(words, linked.bool()).item() == pytest.approx(expected, rel=1e-10)
    in_single = rate_reduction_loss(words.float(), linked.float()).item()
    assert in_single == pytest.approx(expected, rel=1e-4)


def test_rate_reduction_normalises_over_features() -> None:
    words, linked = normal(9, 4), torch.ones(2, 9, dtype=torch.float64)
    loss = rate_reduction_loss(words, linked).item()
    longer_words = words * torch.arange(1, 10, dtype=torch.float64)[:, None]
    assert rate_reduction_loss(longer_words, linked).item() == pytest.approx(loss, rel=1e-12)
    # Scaling that an implementation normalising over tokens would ignore.
    longer_features = words * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert rate_reduction_loss(longer_features, linked).item() != pytest.approx(loss, rel=1e-3)


def test_rate_reduction_prefers_spread_words_and_compact_groups() -> None:
    spread = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    together = torch.ones(8, 4, dtype=torch.float64)
    same = torch.zeros(4, 8, dtype=torch.float64)
    for direction in range(4):
        same[direction, [direction, direction + 4]] = 1
    mixed = same.roll(1, 1) + same
    assert rate_reduction_loss(spread, same) < rate_reduction_loss(together, same)
    assert rate_reduction_loss(spread, same) < rate_reduction_loss(spread, mixed)


def test_rate_reduction_without_words_or_groups() -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    loss = rate_reduction_loss(nothing, torch.zeros(1, 0))
    loss.backward()
    assert loss.item() == 0.0
    words = normal(6, 4)
    alone = rate_reduction_loss(words, torch.zeros(1, 6, dtype=torch.float64))
    assert rate_reduction_loss(words, torch.zeros(0, 6)).item() == pytest.approx(alone.item(), rel=1e-12)


def test_rating_anchor_loss() -> None:
    sentiment, rating = normal(6), torch.tensor([1, 5, 4, math.nan, 2, 5], dtype=torch.float64)
    rated = [0, 1, 2, 4, 5]

    def standardised(values: list[float]) -> list[float]:
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
        return [(value - mean) / deviation for value in values]

    left = standardised([sentiment[n].item() for n in rated])
    right = standardised([rating[n].item() for n in rated])
    expected = sum((a - b) ** 2 for a, b in zip(left, right, strict=True)) / 5
    assert rating_anchor_loss(sentiment, rating).item() == pytest.approx(expected, rel=1e-12)
    assert rating_anchor_loss(-sentiment, rating) != rating_anchor_loss(sentiment, rating)
    assert rating_anchor_loss(rating.nan_to_num() * 3 + 1, rating).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("ratings", [[], [math.nan, 4.0], [5.0, 5.0], [math.nan, math.nan]])
def test_rating_anchor_loss_without_comparable_ratings(ratings: list[float]) -> None:
    sentiment = torch.arange(len(ratings), dtype=torch.float32).requires_grad_()
    loss = rating_anchor_loss(sentiment, torch.tensor(ratings))
    loss.backward()
    assert loss.item() == 0.0
    assert not sentiment.grad.any()


def test_rating_anchor_loss_finite_gradient_for_constant_sentiment() -> None:
    sentiment = torch.zeros(3, requires_grad=True)
    rating_anchor_loss(sentiment, torch.tensor([1.0, 3.0, 5.0])).backward()
    assert torch.isfinite(sentiment.grad).all()


def test_losses_are_finite_in_bfloat16() -> None:
    aspects = normal(6, 64).float().requires_grad_()
    words = normal(50, 64, seed=1).float().requires_grad_()
    linked = torch.ones(5, 50)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = orthogonality_loss(aspects), rate_reduction_loss(words.bfloat16(), linked)
    assert all(torch.isfinite(loss) for loss in mixed)
    exact = rate_reduction_loss(words.bfloat16().float(), linked)
    assert mixed[1].item() == pytest.approx(exact.item(), rel=1e-6)
    sum(mixed).backward()
    assert torch.isfinite(aspects.grad).all()
    assert torch.isfinite(words.grad).all()
