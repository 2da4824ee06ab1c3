"""DIRECT: aspects that tokens mention, what they say about them, and who cares.

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
    """Parameters of DIRECT; `scores` puts them together with the documents of a view."""

    centre: Tensor
    scale: Tensor
    collaboration: Tensor
    """Weight of the collaborative term: found on validation, not by gradients (`balance`)."""

    def __init__(self, config: ModelConfig, dim: int, num_users: int, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.form = score_form(config)
        self.aspects, self.channels = config.width(dim)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        width = self.aspects * self.channels
        # Drawn in float64: what is drawn in float32 is rounded as the processor's instructions have it.
        drawn = torch.float64
        self.sentiment: nn.Parameter | nn.Sequential
        if config.sentiment == "linear":
            self.sentiment = nn.Parameter((torch.randn(dim, width, dtype=drawn) / math.sqrt(dim)).float())
        else:
            hidden = max(1, dim // 4)
            layers = nn.Linear(dim, hidden, dtype=drawn), nn.LeakyReLU(), nn.Linear(hidden, 1, dtype=drawn)
            self.sentiment = nn.Sequential(*layers).float()
        self.mention = nn.Linear(dim, PROJECTION, bias=False, dtype=drawn).float()
        aspect = torch.randn(self.aspects + 1, PROJECTION, dtype=drawn) / math.sqrt(PROJECTION)
        self.aspect = nn.Parameter(aspect.float())
        # 0: every token mentions all aspects alike, which makes the linear sentiment a map of pooled text.
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
        """Embeddings [..., D] centred on the train mean, with entries of size 1/sqrt(D) on average."""
        return (tokens - self.centre) / self.scale

    def mentions(self, standard: Tensor) -> Tensor:
        """[..., A]: share of each token that is about each aspect; the rest is background.

        m_tk = softmax_k(sharpness * cos(W_m h_t, a_k)), background at k = 0 (Wu et al. 2024).
        """
        cosines = normalize(self.mention(standard)) @ normalize(self.aspect).T
        return torch.softmax(self.sharpness * cosines, -1)[..., 1:]

    def passages(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """P [R, K] and Q [R, A] of passages from their tokens [R, T, D] and mask [R, T].

        P_r[k] = w_r Σ_t s_tk m_tk and Q_r[k] = w_r Σ_t m_tk; w_r = 1/length where each review has one vote.
        """
        standard = self.standard(tokens)
        per_vote = tokens_per_vote(mask.sum(1), self.config.equal_reviews)
        mentions = self.mentions(standard) * mask[..., None] / per_vote[:, None, None]
        mass = mentions.sum(1)
        if isinstance(self.sentiment, nn.Parameter):
            # Σ_t m_ta h_t first: A * D numbers a passage instead of K a token.
            pooled = mentions.transpose(1, 2) @ standard
            weight = self.sentiment.view(-1, self.aspects, self.channels)
            return torch.einsum("rad,dac->rac", pooled, weight).flatten(1), mass
        said = torch.tanh(self.sentiment(standard))
        return (said * mentions).sum(1), mass

    def token_terms(self, standard: Tensor) -> tuple[Tensor, Tensor]:
        """s_tk m_tk [T, K] and m_tk [T, A] of single tokens, which `passages` sums."""
        mentions = self.mentions(standard)
        if isinstance(self.sentiment, nn.Parameter):
            said = (standard @ self.sentiment).view(-1, self.aspects, self.channels)
            return (said * mentions[..., None]).flatten(1), mentions
        return torch.tanh(self.sentiment(standard)) * mentions, mentions

    def project_terms(self, standard: Tensor, vector: Tensor) -> Tensor:
        """[T]: s_t m_t · vector of single tokens, vector [K]: A numbers a token instead of K."""
        if not isinstance(self.sentiment, nn.Parameter):
            return self.token_terms(standard)[0] @ vector
        directions = (self.sentiment * vector).view(-1, self.aspects, self.channels).sum(2)
        return (self.mentions(standard) * (standard @ directions)).sum(1)

    @property
    def mentions_uniform(self) -> bool:
        """Whether every token mentions all aspects alike, and what is said of them is linear."""
        return isinstance(self.sentiment, nn.Parameter) and not self.sharpness

    def pooled_terms(self, sums: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Σ s_t m_t [..., K] and Σ m_t [..., A] of tokens while mentions rest: as many products as sums.

        sums [..., D] of the embeddings and weight [...] of the tokens in each, 0 where there are none.
        """
        assert isinstance(self.sentiment, nn.Parameter)
        dtype, several = self.sentiment.dtype, self.aspects + 1
        standard = ((sums - weight[..., None] * self.centre) / self.scale).to(dtype)
        standard = torch.where(weight[..., None] > 0, standard, 0.0)
        share = weight.to(dtype)[..., None] / several
        return standard @ self.sentiment / several, share.expand(*share.shape[:-1], self.aspects)

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
        """b_i of all items, or of `items`, which were chosen `popularity` times."""
        if self.config.popularity:
            # log(n + 1): an item without any positive has 0, not minus infinity, so it can be recommended.
            return self.prior * torch.log1p(popularity)
        return self.item_bias if items is None else self.item_bias[items]

    def temperature(self) -> Tensor:
        """1 / tau of the cosine form."""
        return self.log_temperature.exp()


class UserSide(nn.Module):
    """A user's vector from history and passages; each side is attention with a learned query."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.side = config.user
        self.history_query = nn.Parameter(torch.zeros(width))
        self.text_query = nn.Parameter(torch.zeros(width))
        if self.side == "both":
            # Cross gates: each side decides, with the other in view, how much of itself passes.
            self.history_gate = nn.Linear(2 * width, width)
            self.text_gate = nn.Linear(2 * width, width)
            for gate in (self.history_gate, self.text_gate):
                nn.init.zeros_(gate.weight)
                nn.init.zeros_(gate.bias)

    def forward(self, history: tuple[Tensor, Tensor] | None, texts: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, width] from (vectors [B, L, width], mask [B, L]) of each side that is used.

        The queries do not depend on the candidate, so one vector ranks the whole catalogue. A user with
        nothing left on a side has zeros there.
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
    """Σ_l softmax_l(vectors·query) vectors over the slots in `mask`; zeros where there are none."""
    return (attention(query, vectors, mask)[:, None] @ vectors).squeeze(1)


def attention(query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
    """softmax_l(vectors·query) over the slots in `mask`: [B, L]; zeros where there are none."""
    logits = (vectors @ query).masked_fill(~mask, -torch.inf)
    logits = torch.where(mask.any(1, keepdim=True), logits, 0.0)
    return torch.softmax(logits, 1) * mask
