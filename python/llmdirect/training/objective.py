"""Training objective: ranking or rating loss on left-out scores, and auxiliary losses.

Axes as in `model`; B pairs of a batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.config import TrainConfig
from llmdirect.model.item_documents import Pairs
from llmdirect.model.scores import CatalogueScores, SlotDropout
from llmdirect.model.word_types import WordTypes
from llmdirect.training.losses import (
    bpr_loss,
    contrastive_loss,
    orthogonality_loss,
    rate_reduction_loss,
    rating_anchor_loss,
    sampled_softmax_loss,
    softmax_loss,
)
from llmdirect.training.rating_bias import RatingBiases

_GROUP_SHARE = 0.1
"""Share of the word types that are drawn as centres of groups, as published."""
_NUM_WORDS = 512
"""Word types in one evaluation of the rate reduction."""


@dataclass(frozen=True, eq=False)
class Objective:
    """Loss of a batch of train pairs.

    Parameters
    ----------
    words
        Word types; required where the rate reduction has a weight.
    biases
        Fitted rating biases of the model, from which each pair's own rating is left out.
    """

    config: TrainConfig
    generator: torch.Generator
    words: WordTypes | None = None
    biases: RatingBiases | None = None

    def __call__(self, scores: CatalogueScores, pairs: Pairs, negatives: Tensor | None) -> dict[str, Tensor]:
        """Weighted parts of the loss, and their sum `loss`.

        Parameters
        ----------
        negatives
            int64 [B, N] items for each pair; None: the whole catalogue. Not for the rating objective, which
            ignores pairs without a rating.
        """
        config, model = self.config, scores.model
        keep = SlotDropout(config.history_dropout, self.generator)
        table, query = scores.left_out(pairs, keep)
        own = table.gather(1, pairs.item[:, None])[:, 0]
        parts: dict[str, Tensor] = {}
        if config.predicts_ratings:
            rated = ~torch.isnan(pairs.rating)
            predicted = own + model.bias + model.user_bias[pairs.user]
            if self.biases is not None:
                predicted = predicted + self.biases.change(pairs)
            # Over the whole batch, so that the mean over an epoch weighs every pair alike; 0 without ratings.
            parts["mse"] = (predicted - pairs.rating)[rated].square().sum() / len(rated)
        elif config.objective == "bpr":
            assert negatives is not None
            parts["bpr"] = bpr_loss(own, table.gather(1, negatives))
        elif negatives is not None:
            candidates = scores.view.num_items - scores.view.positive_counts[pairs.user]
            parts["softmax"] = sampled_softmax_loss(own, table.gather(1, negatives), candidates)
        else:
            parts["softmax"] = softmax_loss(own, scores.view.hide_positives(table, pairs.user))
        parts |= self._auxiliary(scores, pairs, query)
        parts["loss"] = torch.stack(list(parts.values())).sum()
        return parts

    def _auxiliary(self, scores: CatalogueScores, pairs: Pairs, query: Tensor) -> dict[str, Tensor]:
        config, model = self.config, scores.model
        parts: dict[str, Tensor] = {}
        if config.contrastive or config.anchor:
            has_text = pairs.passage >= 0
            review = scores.passage_term(query, pairs.passage.clamp(min=0))
            if config.contrastive and bool(has_text.any()):
                document = scores.document_term(query, pairs)
                parts["contrastive"] = config.contrastive * contrastive_loss(
                    document[has_text], review[has_text]
                )
            if config.anchor:
                parts["anchor"] = config.anchor * rating_anchor_loss(review[has_text], pairs.rating[has_text])
        if config.orthogonality:
            parts["orthogonality"] = config.orthogonality * orthogonality_loss(model.aspect)
        if config.rate:
            assert self.words is not None
            vectors, linked = self.words.draw(_NUM_WORDS, _GROUP_SHARE, self.generator)
            words = model.mention(model.standard(vectors))
            parts["rate"] = config.rate * rate_reduction_loss(words, linked)
        return parts
