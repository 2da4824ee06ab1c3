"""Score forms: agreement of their methods with each other and with the formulas."""

import pytest
import torch

from llmdirect.config import ModelConfig
from llmdirect.model.forms import aspect_products, score_form
from llmdirect.model.vectors import tokens_per_vote
from llmdirect.ranking.scorer import EPS

ASPECTS = 3


@pytest.mark.parametrize("name", ["cosine", "ratio"])
def test_text_term_equal_in_training_export_and_explanation(name: str) -> None:
    form = score_form(ModelConfig.for_preset("default", score_form=name, aspects=ASPECTS))
    channels = 2 if name == "cosine" else 1
    generator = torch.Generator().manual_seed(0)
    preference = torch.randn(5, ASPECTS * channels, generator=generator, dtype=torch.float64)
    mentions = torch.rand(5, ASPECTS, generator=generator, dtype=torch.float64)
    preference[3], mentions[3] = 0.0, 0.0  # an item without text
    user = torch.rand(1, preference.shape[1] if name == "cosine" else ASPECTS, generator=generator).double()
    query = user / user.norm() if name == "cosine" else user
    temperature = torch.tensor(7.0, dtype=torch.float64)
    items = form.item_vectors(preference)
    exported = form.export_query(query, temperature)[0]
    if name == "cosine":
        lengths = preference.norm(dim=1).clamp(min=1e-12)
        expected = 7.0 * (preference @ query[0]) / lengths
    else:
        expected = (preference @ query[0]) / (mentions @ query[0] + EPS)
    scores = (
        form.score_catalogue(query, items, mentions, temperature)[0],
        form.score_documents(query.expand(5, -1), preference, mentions, temperature),
        form.text_term(exported, preference, mentions),
        form.item_products(exported, items, form.export_mentions(mentions), ASPECTS).sum(1),
        aspect_products(exported, preference, ASPECTS).sum(1) / form.divisor(exported, preference, mentions),
    )
    for score in scores:
        torch.testing.assert_close(score, expected)
    mean = form.mean_products(items, form.export_mentions(mentions), ASPECTS)(exported)
    assert float(mean.sum()) == pytest.approx(float(expected.mean()))
    assert aspect_products(exported, preference[:0], ASPECTS).shape == (0, ASPECTS)


def test_equal_reviews_divide_weight_among_tokens() -> None:
    lengths = torch.tensor([0, 1, 4])
    assert tokens_per_vote(lengths, equal_reviews=True).tolist() == [1, 1, 4]
    assert tokens_per_vote(lengths, equal_reviews=False).tolist() == [1, 1, 1]
