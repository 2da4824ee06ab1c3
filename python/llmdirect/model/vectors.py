"""Length normalisation of vectors and of reviews."""

import torch
from torch import Tensor


def normalize(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays one, and passes its gradient on unchanged.

    Dividing by a bounded length instead would multiply that gradient by the inverse of the bound.
    """
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, 1.0)


def tokens_per_vote(lengths: Tensor, equal_reviews: bool) -> Tensor:
    """Number of tokens that share one vote, in the dtype of `lengths`; the inverse of a token's weight.

    Parameters
    ----------
    lengths
        [...] number of tokens of each review.
    equal_reviews
        Whether each review has one vote, which its tokens share; otherwise each token has one.
    """
    return lengths.clamp(min=1) if equal_reviews else torch.ones_like(lengths)
