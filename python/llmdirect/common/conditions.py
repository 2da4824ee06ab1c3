"""Settings that have an effect only with others, or only without them.

`CONDITIONS` lists them by command. The functions behind the commands check it, `--help` shows it, and one
test goes over it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Needs:
    """Settings without effect unless another setting is given, or has one of some values."""

    settings: tuple[str, ...]
    other: str
    values: tuple[object, ...] = ()
    """Values of `other`; empty: any that is given."""

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings have an effect."""
        value = settings.get(self.other)
        return value in self.values if self.values else value is not None

    def message(self, setting: str, settings: Mapping[str, Any]) -> str:
        """Error of a setting that is given in vain, with the cure."""
        if not self.values:
            return (
                f"`{setting}`: has no effect without `{self.other}`; give `{self.other}` too, or leave it out"
            )
        present = _literal(self.other, settings.get(self.other))
        return f"`{setting}`: has no effect with {present}; leave it out, or set {self.alternatives}"

    @property
    def alternatives(self) -> str:
        """What the settings need, for a message or help text."""
        return " or ".join(_literal(self.other, value) for value in self.values) or f"`{self.other}`"


@dataclass(frozen=True)
class Excludes:
    """Settings without effect where another setting is given."""

    settings: tuple[str, ...]
    other: str
    label: str = ""
    """What the other is, where it is no setting of its own."""

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings have an effect."""
        return settings.get(self.other) is None

    def message(self, setting: str, settings: Mapping[str, Any]) -> str:
        """Error of a setting that is given in vain, with the cure."""
        cure = "leave it out" if self.label else "leave one of them out"
        return f"`{setting}`: has no effect with {self.excluded}; {cure}"

    @property
    def excluded(self) -> str:
        """What the settings do not go with, for a message or help text."""
        return self.label or f"`{self.other}`"


Condition = Needs | Excludes

_OF_MODELS: Final = ("device", "token_budget", "max_length", "revision", "estimate_only", "engine")
"""Settings of `precompute` for language models alone."""

CONDITIONS: Final[Mapping[str, tuple[Condition, ...]]] = {
    "scoreboard": (Excludes(("rows", "budget_minutes", "runs", "query_time", "store"), "encoders"),),
    "demo": (Excludes(("num_users", "num_items"), "data"),),
    "prepare": (
        Needs(("seed",), "split", ("random",)),
        Needs(("fractions",), "split", ("random", "global-time")),
        Excludes(("split", "seed", "fractions", "valid", "test"), "split_column"),
        Excludes(("split", "seed", "fractions"), "valid"),
        Excludes(("split", "seed", "fractions"), "test"),
        Needs(("interaction_columns",), "interactions"),
        Needs(("item_columns", "only_reviewed_items"), "items"),
    ),
    "precompute": (
        Needs(("workers",), "engine", ("ray",)),
        Needs(("embedding_ids",), "embeddings"),
        Needs(("dimensions",), "encoder", ("lexical",)),
        Excludes(
            (
                *("tokens", "token_budget", "shard_tokens", "store", "engine", "estimate_only"),
                "embeddings",
            ),
            "check",
        ),
        Excludes((*_OF_MODELS, "encoder", "tokens"), "embeddings"),
        Excludes((*_OF_MODELS, "shard_tokens"), "registered_encoder", "a registered encoder"),
        Excludes((*_OF_MODELS, "shard_tokens", "project"), "lexical_encoder", '`encoder="lexical"`'),
    ),
    "consolidate": (
        Needs(("dtype",), "layout", ("store",)),
        Excludes(("store", "keep_shards"), "out"),
    ),
    "train": (
        Needs(("metric", "negatives"), "objective", ("softmax", "bpr")),
        Needs(("damped_biases", "liked"), "objective", ("rating",)),
        Needs(("history_term", "ridge", "word_similarity", "embedding_similarity"), "collaborative", (True,)),
    ),
    "test": (
        Needs(("depth",), "lists_out"),
        Excludes(("liked",), "metrics"),
        Excludes(("liked",), "ranking_run", "a run that ranks"),
    ),
    "recommend": (
        Excludes(("history", "texts", "encoder", "device"), "user_ids"),
        Excludes(("interests", "new_only"), "history"),
        Excludes(("interests", "new_only"), "texts"),
        Needs(("encoder", "device"), "texts"),
        Needs(("dataset",), "new_only"),
    ),
    "explain": (Excludes(("k",), "item_ids"), Needs(("encoder", "device"), "counterfactual")),
    "aspects": (Needs(("other_runs",), "quality"),),
    "grid": (Needs(("trials", "seed"), "sampler", ("tpe",)),),
}
"""Conditions of each command that has any, by names of Python parameters."""


def condition_note(command: str, setting: str) -> str:
    """Conditions of a setting as sentences of a help text; empty where it has none."""
    own = [condition for condition in CONDITIONS.get(command, ()) if setting in condition.settings]
    needed = [condition.alternatives for condition in own if isinstance(condition, Needs)]
    excluded = [condition.excluded for condition in own if isinstance(condition, Excludes)]
    sentences = [f"Only with {' and '.join(needed)}."] if needed else []
    return " ".join(sentences + ([f"Not with {' or '.join(excluded)}."] if excluded else []))


def check_conditions(
    command: str, settings: Mapping[str, Any], effective: Mapping[str, Any] | None = None
) -> None:
    """Check that every setting that is given has an effect.

    Parameters
    ----------
    command
        Name in `CONDITIONS`.
    settings
        Settings by name; None is one that is not given.
    effective
        Settings with their defaults, on which the conditions depend; by default the same.

    Raises
    ------
    ValueError
        If a setting is given in vain.
    """
    effective = settings if effective is None else effective
    for condition in CONDITIONS[command]:
        for setting in condition.settings:
            if settings.get(setting) is not None and not condition.holds(effective):
                raise ValueError(condition.message(setting, effective))


def _literal(name: str, value: object) -> str:
    """`name=value` in backticks, a text in double quotes."""
    return f'`{name}="{value}"`' if isinstance(value, str) else f"`{name}={value}`"
