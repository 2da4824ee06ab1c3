"""Settings of the model and of its training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Final, get_args

from llmdirect.choices import HistoryTermKind, ObjectiveName, Preset, ScoreFormName, Sentiment, UserSide
from llmdirect.common.conditions import check_conditions
from llmdirect.common.ranges import Range, check_settings

HISTORY_TERMS = get_args(HistoryTermKind)[1:]
"""Kinds of the collaborative term, simplest first."""

PROJECTION = 64
"""Dimensions of the mention space, as published."""
AUXILIARY = ("contrastive", "rate", "orthogonality", "anchor")
"""Weights of the auxiliary losses."""
HISTORY = 30
"""Maximum number of items, and of passages, of a user that are read, newest first, as published."""
MAX_WIDTH = 1 << 16
"""Maximum of aspects * channels."""

LIKED = Range(-1e12, 1e12)
"""Range of the smallest liked rating."""
_WEIGHT = Range(0, 1e9)
_EPOCHS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of DIRECT; `for_preset` gives the two documented ones."""

    preset: Preset = "default"
    score_form: ScoreFormName = "cosine"
    """cosine: text term q·P / (|q| |P| tau). ratio: q·P / (q·Q + eps), interests in (0, 1)."""
    aspects: Annotated[int, Range(1, 4096)] = 16
    channels: Annotated[int, Range(0, 4096)] = 0
    """Channels of an aspect; 0: as many as bring aspects * channels to min(dim, 384)."""
    sentiment: Sentiment = "linear"
    """linear: a vector of channels for each aspect. mlp: one value for all, tanh(MLP(h)), as published."""
    user: UserSide = "history"
    equal_reviews: bool = False
    """Reviews have equal weight (mean over tokens); otherwise tokens have, and long reviews weigh more."""
    popularity: bool = True
    """Item bias is alpha * log(n + 1), alpha learned; otherwise a learned bias for each item."""
    collaborative: bool = True
    """Adds an item-item term of the user's history, weighted on validation; of a large catalogue the most
    popular items only (`ease.MAX_ITEMS`)."""
    history_term: HistoryTermKind = "auto"
    """Kind of that term: EASE with text similarity, and with it random walks, or text neighbours by the
    trained text term (cosine form). auto: the kind that ranks best on validation."""
    lexicon: Annotated[int, Range(0, 4096)] = 64
    """Dimensions of static word vectors, appended to the token embeddings; 0: none."""
    ridge: Annotated[float, Range(0, 1e12, above=True)] | None = None
    """L2 regularisation of EASE; None: selected on left-out train pairs."""
    word_similarity: Annotated[float, _WEIGHT] | None = None
    """Weight in EASE of the similarity of the items' words; None: selected as the ridge is."""
    embedding_similarity: Annotated[float, _WEIGHT] | None = None
    """Weight in EASE of the similarity of the items' mean embeddings."""
    batch_norm: bool = False
    """Batch normalisation of interests, as published; otherwise layer normalisation (ratio form)."""

    @classmethod
    def for_preset(cls, preset: Preset, **changes: Any) -> "ModelConfig":
        """The preset with some settings changed; None leaves a setting as it is."""
        if preset == "default":
            base = cls()
        elif preset == "paper":
            base = cls(
                preset="paper",
                score_form="ratio",
                aspects=5,
                channels=1,
                sentiment="mlp",
                user="both",
                equal_reviews=False,
                popularity=False,
                collaborative=False,
                lexicon=0,
                batch_norm=True,
            )
        else:
            raise ValueError(f"`preset`: {preset!r}, expected one of {', '.join(get_args(Preset))}")
        changes = {name: value for name, value in changes.items() if value is not None}
        if "channels" not in changes and (
            changes.get("score_form", base.score_form) == "ratio"
            or changes.get("sentiment", base.sentiment) == "mlp"
        ):
            changes["channels"] = 1
        if changes.get("score_form") == "cosine":
            changes.setdefault("batch_norm", False)
        return replace(base, **changes)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.aspects * self.channels > MAX_WIDTH:
            raise ValueError(
                f"`channels`: {self.channels}, expected at most {MAX_WIDTH // self.aspects} with "
                f"{self.aspects} aspects"
            )
        by_cosines = self.collaborative and self.history_term == "ease+neighbours"
        if by_cosines and self.score_form != "cosine":
            raise ValueError(
                '`history_term`: text neighbours need the cosine form; set `score_form="cosine"`'
            )
        if self.batch_norm and self.score_form == "cosine":
            raise ValueError("`batch_norm`: belongs to the ratio form, whose interests it normalises")
        if self.channels != 1 and (self.score_form == "ratio" or self.sentiment == "mlp"):
            raise ValueError(
                "the ratio form and the mlp sentiment have one channel an aspect: set `channels=1`"
            )

    def width(self, dim: int) -> tuple[int, int]:
        """(aspects A, channels C) on embeddings of `dim` numbers."""
        channels = self.channels or max(1, min(dim, 384) // self.aspects)
        return self.aspects, channels


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of DIRECT."""

    objective: ObjectiveName = "softmax"
    """softmax: over the catalogue, or sampled. bpr: against negatives. rating: squared error of ratings."""
    negatives: Annotated[int, Range(0, 65_536)] = 0
    """Sampled negatives per positive; 0 with softmax: the whole catalogue."""
    num_epochs: Annotated[int, Range(1, _EPOCHS)] = 40
    batch_size: Annotated[int, Range(1, 1 << 24)] = 256
    """Pairs of an update on pooled text; on tokens, pairs are divided among the updates of `token_budget`."""
    lr: Annotated[float, Range(0, 1e3, above=True)] = 1e-3
    weight_decay: Annotated[float, _WEIGHT] = 0.0
    clip: Annotated[float, Range(0, 1e9, above=True)] = 1.0
    ema_decay: Annotated[float, Range(0, 1, below=True)] = 0.99
    """Decay of the exponential moving average of the parameters, which is validated and ranks; 0: the last
    parameters themselves."""
    history_dropout: Annotated[float, Range(0, 1, below=True)] = 0.7
    """Share of a user's history (and passages) hidden at random from each training pair."""
    train_on_duplicates: bool = False
    """Whether to train on pairs whose text their user posted elsewhere too. Copies stay in train together, so
    no such pair is evaluated."""
    patience: Annotated[int, Range(1, _EPOCHS)] = 5
    """Epochs without a better validation score after which the learning rate drops, from the best state."""
    max_lr_drops: Annotated[int, Range(0, 1000)] = 2
    """Times the learning rate drops to a tenth before training stops."""
    token_epochs: Annotated[int, Range(0, _EPOCHS)] = 0
    """Epochs on tokens after the pooled ones; they train mentions. Needs the linear sentiment."""
    token_budget: Annotated[int, Range(1, 1 << 30)] = 1 << 15
    """Tokens read with gradient for one update of an epoch on tokens."""
    contrastive: Annotated[float, _WEIGHT] = 0.0
    """gamma 1: contrastive loss between the item's document and the true review."""
    rate: Annotated[float, _WEIGHT] = 0.0
    """gamma 2: rate reduction of mention vectors."""
    orthogonality: Annotated[float, _WEIGHT] = 0.0
    """gamma 3: orthogonality of aspects."""
    anchor: Annotated[float, _WEIGHT] = 0.0
    """Weight of the rating loss that ties the sign of the sentiment to stars."""
    damped_biases: bool = True
    """Rating objective: biases of users and items are damped means, from which each rating is left out;
    otherwise they are trained with the other parameters, as published."""
    liked: Annotated[float, LIKED] | None = None
    """Rating objective: smallest rating that counts as liked in auc, accuracy and f1; None: by the scale of
    the ratings."""
    metric: str = "ndcg@10"
    """Metric that validation watches (rating objective: always mse)."""
    seed: Annotated[int, Range(0, (1 << 63) - 1)] = 0
    device: str = "auto"
    amp: bool = True
    """Mixed precision where the device is a GPU."""

    @property
    def predicts_ratings(self) -> bool:
        """Whether scores are predicted ratings; otherwise they rank."""
        return self.objective == "rating"

    @property
    def watched(self) -> str:
        """The metric by which validation selects the best epoch."""
        return "mse" if self.predicts_ratings else self.metric

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the watched metric is better."""
        return self.predicts_ratings

    @classmethod
    def for_preset(cls, preset: Preset, **changes: Any) -> "TrainConfig":
        """The preset's training with some settings changed; None leaves a setting as it is."""
        _check_choice("preset", preset, Preset)
        base = cls()
        if preset == "paper":
            base = cls(
                objective="bpr",
                negatives=1,
                weight_decay=1e-6,
                history_dropout=0.0,
                train_on_duplicates=True,
                ema_decay=0.0,
                patience=2,
                num_epochs=25,
                token_budget=4096,
                contrastive=5e-3,
                rate=1e-6,
                orthogonality=2.5,
                damped_biases=False,
            )
        changes = {name: value for name, value in changes.items() if value is not None}
        if changes.get("objective", base.objective) == "bpr" and not changes.get("negatives", base.negatives):
            changes["negatives"] = 1
        return replace(base, **changes)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.objective == "bpr" and self.negatives < 1:
            raise ValueError("the bpr objective needs at least one negative a positive")


RENAMED: Final[Mapping[str, str]] = {
    "form": "score_form",
    "vote": "equal_reviews",
    "word_likeness": "word_similarity",
    "embedding_likeness": "embedding_similarity",
    "setup": "objective",
    "averaging": "ema_decay",
    "copies": "train_on_duplicates",
    "decays": "max_lr_drops",
    "refine_epochs": "token_epochs",
    "fitted_biases": "damped_biases",
}
"""Settings under the names that run folders up to version 3 have."""
_RENAMED_VALUES: Final = {("objective", "default"): "rating", ("history_term", "found"): "auto"}


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a run folder of an earlier version keeps them, under their present names and values."""
    named = {RENAMED.get(name, name): value for name, value in settings.items()}
    return {name: _RENAMED_VALUES.get((name, value), value) for name, value in named.items()}


def configure(preset: Preset = "default", **settings: Any) -> tuple[ModelConfig, TrainConfig]:
    """Both configurations of a preset with some settings changed, by name; None leaves one as it is.

    Raises ValueError for a setting that cannot be, or has no effect with the others.

    Ratings have nothing to do with popularity: the rating objective learns a bias for each item and has no
    collaborative term, unless `popularity` or `collaborative` are given.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("objective") == "rating":
        settings = {"popularity": False, "collaborative": False, **settings}
    in_model = ModelConfig.__dataclass_fields__.keys()
    model = {name: value for name, value in settings.items() if name in in_model}
    training = {name: value for name, value in settings.items() if name not in in_model}
    configs = ModelConfig.for_preset(preset, **model), TrainConfig.for_preset(preset, **training)
    check_conditions("train", settings, to_json(configs[0]) | to_json(configs[1]))
    if settings.get("amp"):
        _check_mixed_precision(configs[1].device)
    return configs


def _check_mixed_precision(device: str) -> None:
    """ValueError where the device, the CPU or Metal, has no mixed precision here."""
    from llmdirect.common.devices import find_device  # imports torch

    if (kind := find_device(device).type) != "cuda":
        raise ValueError(
            f'`amp`: has no effect with `device="{kind}"`; leave it out, or set `device="cuda"` on a machine '
            "with a GPU"
        )


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"`{name}`: {value!r}, expected one of {', '.join(get_args(choices))}")


def to_json(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """Plain values, as in the manifest of a run."""
    return asdict(config)


def setting_names() -> set[str]:
    """Names of all settings that a search may vary: all but preset and device."""
    names = {field.name for config in (ModelConfig, TrainConfig) for field in fields(config)}
    return names - {"preset", "device"}
