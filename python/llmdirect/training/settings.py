"""Settings of model and training by name, parsed from NAME=VALUE."""

from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from llmdirect.config import RENAMED, ModelConfig, TrainConfig, setting_names

ALIASES = {"g1": "contrastive", "g2": "rate", "g3": "orthogonality", "aspc_num": "aspects"}
"""Names of the published scripts."""
Value = bool | int | float | str


def parse_params(texts: Sequence[str]) -> dict[str, list[Value]]:
    """{"lr": [0.001, 0.0001]} of "lr=0.001,0.0001"; ValueError for an unknown name or a bad value."""
    params: dict[str, list[Value]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        name = ALIASES.get(name, name)
        if not equals or not values:
            raise ValueError(f"`param` {text!r}: expected name=value,value")
        if name in RENAMED:
            raise ValueError(f"`param` {text!r}: {name} is called {RENAMED[name]} now")
        if name not in setting_names():
            names = ", ".join(sorted(setting_names()))
            raise ValueError(f"`param` {text!r}: no setting {name!r}; there are {names}")
        if name in params:
            raise ValueError(f"`param` {text!r}: {name} is given twice")
        params[name] = [_value(name, part.strip(), text) for part in values.split(",")]
    return params


def _value(name: str, text: str, source: str) -> Value:
    hints = get_type_hints(ModelConfig) | get_type_hints(TrainConfig)
    # An optional setting (float | None) has a value here.
    kind = next((each for each in (bool, float) if each in get_args(hints[name])), hints[name])
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text) if kind in (int, float) else _choice(text, get_args(kind))
    except (KeyError, ValueError):
        expected = getattr(kind, "__name__", None) or " or ".join(get_args(kind))
        raise ValueError(f"`param` {source!r}: {text!r} is no value of {name} ({expected})") from None


def _choice(text: str, choices: tuple[Any, ...]) -> str:
    if choices and text not in choices:
        raise ValueError
    return text


def parse_settings(texts: Sequence[str]) -> dict[str, Value]:
    """{"clip": 0.5} of "clip=0.5": one value each; ValueError as `parse_params`, and for several values."""
    params = parse_params(texts)
    for name, values in params.items():
        if len(values) > 1:
            raise ValueError(f"`param` {name}: {len(values)} values, expected one; grid tries several")
    return {name: values[0] for name, values in params.items()}
