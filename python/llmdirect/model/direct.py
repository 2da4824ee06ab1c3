"""Parameters of DIRECT: mentions and sentiment of tokens, interests of users, biases.

Axes: B batch, R passages, L slots of a user, T tokens, D embedding, A aspects, C channels, K = A * C,
M mention space, U users, I items.
"""

import math

import torch
from torch import Tensor, nn

from llmdirect.config import PROJECTION, ModelConfig
from llmdirect.model.forms import score_form
from llmdirect.model.vectors import normalize, tokens_per_vote


class Direct(nn.Module):
    """Parameters of DIRECT; `CatalogueScores` combines them with the documents of a view.

    Parameters
    ----------
    config
        Shape of the model.
    dim
        D, of token embeddings with the lexicon's vectors.
    """

    centre: Tensor
    scale: Tensor
    collaboration: Tensor
    """Weight of the collaborative term, selected on validation, not by gradients (`select_term`)."""

    def __init__(self, config: ModelConfig, dim: int, num_users: int, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.form = score_form(config)
        self.aspects, self.channels = config.width(dim)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        width = self.aspects * self.channels
        # Random numbers in float64: in float32 their rounding depends on the processor.
        double = torch.float64
        self.sentiment: nn.Parameter | nn.Sequential
        if config.sentiment == "linear":
            self.sentiment = nn.Parameter((torch.randn(dim, width, dtype=double) / math.sqrt(dim)).float())
        else:
            hidden = max(1, dim // 4)
            layers = nn.Linear(dim, hidden, dtype=double), nn.LeakyReLU(), nn.Linear(hidden, 1, dtype=double)
            self.sentiment = nn.Sequential(*layers).float()
        self.mention = nn.Linear(dim, PROJECTION, bias=False, dtype=double).float()
        aspect = torch.randn(self.aspects + 1, PROJECTION, dtype=double) / math.sqrt(PROJECTION)
        self.aspect = nn.Parameter(aspect.float())
        # 0: every token mentions all aspects equally, so that the linear sentiment is a map of pooled text.
        self.sharpness = nn.Parameter(torch.tensor(0.0 if config.sentiment == "linear" else 1.0))
        self.user = UserSide(config, self.form.user_width(width))
        self.interest_norm = self.form.interest_norm(self.aspects, config.batch_norm)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.prior = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("collaboration", torch.zeros(()))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.user_bias = nn.Parameter(torch.zeros(num_users))
        self.item_bias = nn.Parameter(torch.zeros(num_items))

    def standard(self, tokens: Tensor) -> Tensor:
        """Standardised embeddings [..., D]: centred on the train mean, mean squared length 1."""
        return (tokens - self.centre) / self.scale

    def mentions(self, standard: Tensor) -> Tensor:
        """Mentions [..., A] of tokens: share of each token that is about each aspect.

        m_tk = softmax_k(sharpness * cos(W_m h_t, a_k)) with the background, which is left out, at k = 0.

        Parameters
        ----------
        standard
            [..., D] what `standard` returned.

        References
        ----------
        Wu, H., et al. (2024), as published with DIRECT.
        """
        cosines = normalize(self.mention(standard)) @ normalize(self.aspect).T
        return torch.softmax(self.sharpness * cosines, -1)[..., 1:]

    def passages(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Preference P [R, K] and mentions Q [R, A] of passages.

        P_r[k] = w_r Σ_t s_tk m_tk and Q_r[k] = w_r Σ_t m_tk; w_r = 1/length where each review has one vote.

        Parameters
        ----------
        tokens
            [R, T, D] token embeddings.
        mask
            bool [R, T].
        """
        standard = self.standard(tokens)
        per_vote = tokens_per_vote(mask.sum(1), self.config.equal_reviews)
        mentions = self.mentions(standard) * mask[..., None] / per_vote[:, None, None]
        summed = mentions.sum(1)
        if isinstance(self.sentiment, nn.Parameter):
            # Σ_t m_ta h_t first: A * D numbers a passage instead of K a token.
            pooled = mentions.transpose(1, 2) @ standard
            weight = self.sentiment.view(-1, self.aspects, self.channels)
            return torch.einsum("rad,dac->rac", pooled, weight).flatten(1), summed
        sentiment = torch.tanh(self.sentiment(standard))
        return (sentiment * mentions).sum(1), summed

    def token_terms(self, standard: Tensor) -> tuple[Tensor, Tensor]:
        """Signed terms s_tk m_tk [T, K] and mentions m_tk [T, A] of single tokens, which `passages` sums."""
        mentions = self.mentions(standard)
        if isinstance(self.sentiment, nn.Parameter):
            sentiment = (standard @ self.sentiment).view(-1, self.aspects, self.channels)
            return (sentiment * mentions[..., None]).flatten(1), mentions
        return torch.tanh(self.sentiment(standard)) * mentions, mentions

    def project_terms(self, standard: Tensor, vector: Tensor) -> Tensor:
        """Products [T] of the signed terms of single tokens and a vector [K]: A numbers a token, not K."""
        if not isinstance(self.sentiment, nn.Parameter):
            return self.token_terms(standard)[0] @ vector
        directions = (self.sentiment * vector).view(-1, self.aspects, self.channels).sum(2)
        return (self.mentions(standard) * (standard @ directions)).sum(1)

    @property
    def mentions_uniform(self) -> bool:
        """Whether every token mentions all aspects equally, and the sentiment is linear."""
        return isinstance(self.sentiment, nn.Parameter) and not self.sharpness

    def pooled_terms(self, sums: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Preference [..., K] and mentions [..., A] of token sums, while `mentions_uniform` holds.

        Parameters
        ----------
        sums
            [..., D] weighted sums of token embeddings.
        weight
            [...] weight of the tokens in each sum, 0 where there are none.
        """
        assert isinstance(self.sentiment, nn.Parameter)
        dtype, num_topics = self.sentiment.dtype, self.aspects + 1
        standard = ((sums - weight[..., None] * self.centre) / self.scale).to(dtype)
        standard = torch.where(weight[..., None] > 0, standard, 0.0)
        share = weight.to(dtype)[..., None] / num_topics
        return standard @ self.sentiment / num_topics, share.expand(*share.shape[:-1], self.aspects)

    def interests(self, user: Tensor) -> Tensor:
        """Query of each user: unit vectors [B, K] (cosine form), interests in (0, 1) [B, A] (ratio form).

        user: [B, K] or [B, M] vectors of `UserSide`.
        """
        return self.form.interests(user, self.aspect[1:], self.interest_norm)

    def profiles(self, sums: Tensor, weight: Tensor) -> Tensor:
        """Vectors that interests are read from; sums and weight: as `ScoreForm.profile` takes them."""
        return self.form.profile(sums, weight, self.project)

    def project(self, tokens: Tensor) -> Tensor:
        """Embeddings [..., D] in mention space [..., M]."""
        projected: Tensor = self.mention(self.standard(tokens))
        return projected

    def item_bias_of(self, popularity: Tensor, items: Tensor | None = None) -> Tensor:
        """Item bias of all items, or of `items`; popularity: number of positives of each."""
        if self.config.popularity:
            # log(n + 1): an item without any positive has 0, not minus infinity, so it can be recommended.
            return self.prior * torch.log1p(popularity)
        return self.item_bias if items is None else self.item_bias[items]

    def temperature(self) -> Tensor:
        """Inverse temperature 1 / tau of the cosine form."""
        return self.log_temperature.exp()


class UserSide(nn.Module):
    """User vectors by attention over history and passages, each with a learned query."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.side = config.user
        self.history_query = nn.Parameter(torch.zeros(width))
        self.text_query = nn.Parameter(torch.zeros(width))
        if self.side == "both":
            # Cross gates: how much of a side passes depends on both sides.
            self.history_gate = nn.Linear(2 * width, width)
            self.text_gate = nn.Linear(2 * width, width)
            for gate in (self.history_gate, self.text_gate):
                nn.init.zeros_(gate.weight)
                nn.init.zeros_(gate.bias)

    def forward(self, history: tuple[Tensor, Tensor] | None, texts: tuple[Tensor, Tensor] | None) -> Tensor:
        """User vectors [B, width]; zeros for a side where the mask is empty.

        The queries do not depend on the candidate, so that one vector ranks the whole catalogue.

        Parameters
        ----------
        history
            Vectors [B, L, width] and mask [B, L] of the history; needed unless the side is "text".
        texts
            The same of the user's passages; needed unless the side is "history".
        """
        if self.side == "history":
            assert history is not None
            return attend(self.history_query, *history)
        assert texts is not None
        if self.side == "text":
            return attend(self.text_query, *texts)
        assert history is not None
        read = attend(self.history_query, *history), attend(self.text_query, *texts)
        both = torch.cat(read, -1)
        gated: Tensor = torch.sigmoid(self.history_gate(both)) * read[0]
        return gated + torch.sigmoid(self.text_gate(both)) * read[1]


def attend(query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    """Attention-weighted sum [B, D] of vectors [B, L, D] over the slots in `mask`; zeros for empty masks."""
    return (attention(query, vectors, mask)[:, None] @ vectors).squeeze(1)


def attention(query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    """Attention weights softmax_l(vectors·query) [B, L] over the slots in `mask`; zeros for empty masks."""
    logits = (vectors @ query).masked_fill(~mask, -torch.inf)
    logits = torch.where(mask.any(1, keepdim=True), logits, 0.0)
    return torch.softmax(logits, 1) * mask
