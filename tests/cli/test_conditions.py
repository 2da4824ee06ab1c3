"""No option is ignored in silence: each one without effect is refused, with the cure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperOption

from command_line import CommandLine
from llmdirect.cli.command import COMMANDS
from llmdirect.common.conditions import CONDITIONS, Condition, Excludes, Needs, check_conditions
from llmdirect.config import ModelConfig, TrainConfig, configure
from llmdirect.data.prepare import prepare
from llmdirect.explanation.explain import explain
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.recommend import recommend, recommend_new
from llmdirect.training.search import grid
from llmdirect.training.train import train
from run_helpers import make_dataset

ARGUMENTS = {
    "demo": (),
    "prepare": ("reviews.json", "--out", "data"),
    "precompute": ("data",),
    "consolidate": ("data",),
    "train": ("data",),
    "test": ("data",),
    "recommend": ("run",),
    "explain": ("run", "--user", "u1"),
    "aspects": ("run",),
    "grid": ("data",),
    "scoreboard": ("data",),
}
"""What each command cannot do without; nothing of it exists."""
CHOICES = {
    "split": ("random", "leave-last-out", "global-time"),
    "encoder": ("minilm", "lexical"),
    "engine": ("here", "ray"),
    "layout": ("store", "padded"),
    "objective": ("softmax", "bpr", "rating"),
    "collaborative": (True, False),
    "sampler": ("grid", "tpe"),
}
SAMPLES = {
    "split": "random",
    "interaction_columns": "user=a,item=b",
    "item_columns": "item=a",
    "fractions": "0.8,0.1,0.1",
    "interests": "1=+50%",
    "metric": "recall@10",
    "engine": "ray",
    "store": "minilm",
    "tokens": "content",
    "history_term": "ease",
    "damped_biases": False,
    "dtype": "float16",
    "lists_out": "lists.parquet",
    "metrics": "recall@10",
}


def typed(command: str, setting: str, value: object = None) -> list[str]:
    """An option of a command with a value; a setting without an option of its own is a --param."""
    options = {option.name: option for option in COMMANDS[command].params if isinstance(option, TyperOption)}
    value = SAMPLES.get(setting, 3) if value is None else value
    if setting not in options:
        return ["--param", f"{setting}={str(value).lower()}"]
    option = options[setting]
    if option.is_flag:
        return [option.secondary_opts[0] if value is False else option.opts[0]]
    return [max(option.opts, key=len), str(value)]


def flag(command: str, setting: str, value: object = None) -> str:
    """How a message names the setting."""
    words = typed(command, setting, value)
    return words[0] if words[0] != "--param" else words[1].partition("=")[0]


def fulfilled(command: str, condition: Condition) -> list[str]:
    if isinstance(condition, Excludes):
        return []
    return typed(command, condition.other, condition.values[0] if condition.values else None)


def violated(command: str, condition: Condition) -> Iterator[list[str]]:
    if isinstance(condition, Excludes):
        yield typed(command, condition.other)
    elif not condition.values:
        yield []
    else:
        for value in CHOICES[condition.other]:
            if value not in condition.values:
                yield typed(command, condition.other, value)


def documented() -> list[tuple[str, Condition, str]]:
    """Command, condition and setting: all that is documented, of options that the command has."""
    return [
        (command, condition, setting)
        for command, conditions in CONDITIONS.items()
        for condition in conditions
        for setting in condition.settings
        if (command, setting) != ("grid", "seed")  # of the Python function alone
        and not (isinstance(condition, Excludes) and condition.label)  # no option of the command line
    ]


def who(command: str, words: list[str]) -> list[str]:
    """For whom `recommend` is, where the options do not say it."""
    if command != "recommend" or {"--user", "--history", "--text"} & set(words):
        return []
    return ["--history", "i1"] if {"--encoder", "--device"} & set(words) else ["--user", "u1"]


@pytest.mark.parametrize(("command", "condition", "setting"), documented())
def test_an_option_without_effect_is_refused(
    cli: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    condition: Condition,
    setting: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    own = [other for other in CONDITIONS[command] if setting in other.settings]
    rest = [word for other in own if other != condition for word in fulfilled(command, other)]
    if isinstance(condition, Excludes):
        rest = []
    for without in violated(command, condition):
        words = [*typed(command, setting), *without, *rest]
        answer = cli(command, *ARGUMENTS[command], *words, *who(command, words))
        assert answer.code == 2, (words, answer.err)
        assert flag(command, setting) in answer.err
        assert flag(command, condition.other) in answer.err
        assert any(cure in answer.err for cure in ("leave", "alone", "give"))
    assert list(violated(command, condition))


@pytest.mark.parametrize(
    ("command", "setting"),
    sorted({(command, setting) for command, _, setting in documented() if command != "demo"}),
)
def test_an_option_with_effect_is_not_refused(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    own = [condition for condition in CONDITIONS[command] if setting in condition.settings]
    words = typed(command, setting) + [word for condition in own for word in fulfilled(command, condition)]
    if (command, setting) == ("consolidate", "dtype"):
        (tmp_path / "data/user_embeddings").mkdir(parents=True)
        words += ["--out", "joined"]
    answer = cli(command, *ARGUMENTS[command], *words, *who(command, words))
    assert answer.code == 1, answer.err  # past the options: nothing is there
    assert "no effect" not in answer.err


def test_help_shows_the_conditions(cli: CommandLine) -> None:
    told = " ".join(cli("grid", "--help").out.replace("│", " ").split())
    assert "Number of runs. Only with --sampler tpe." in told
    assert "(20)" in told
    options = {option.name: option for option in COMMANDS["recommend"].params}
    assert options["device"].help.endswith("Only with --text. Not with --user.")  # type: ignore[attr-defined]


def test_settings_at_their_defaults_are_not_refused() -> None:
    for command in CONDITIONS:
        check_conditions(command, {})
    for preset in ("default", "paper"):
        configure(preset, objective="rating")
        configure(preset, objective="rating", collaborative=False)


def test_library_functions_refuse_settings_without_effect(tmp_path: Path) -> None:
    here = tmp_path / "nothing"
    calls = [
        (lambda: prepare(here, here, split="leave-last-out", seed=1), "seed"),
        (lambda: prepare(here, here, split="leave-last-out", fractions=(0.7, 0.1, 0.2)), "fractions"),
        (lambda: prepare(here, here, split="global-time", seed=242), "seed"),
        (lambda: prepare(here, here, columns={"summary": "s"}), "columns"),
        (lambda: grid(here, here, trials=3), "trials"),
        (lambda: grid(here, here, seed=3), "seed"),
        (lambda: grid(here, here, params={"lr": [1e-3]}, settings={"lr": 1e-2}), "lr"),
        (lambda: evaluate(here, here, depth=5), "depth"),
        (lambda: recommend(here, ["u1"], dataset=here), "dataset"),
        (lambda: recommend_new(here, history=["i1"], encoder="minilm"), "encoder"),
        (lambda: recommend_new(here, history=["i1"], device="cpu"), "device"),
        (lambda: explain(here, "u1", ["i1"], k=3), "k"),
        (lambda: explain(here, "u1", device="cpu"), "device"),
        (lambda: configure(objective="rating", metric="ndcg@10"), "metric"),
        (lambda: configure(objective="rating", negatives=5), "negatives"),
        (lambda: configure(collaborative=False, ridge=3.0), "ridge"),
    ]  # fmt: skip
    for call, setting in calls:
        with pytest.raises(
            ValueError, match=f"^`{setting}`: .*no effect|`{setting}`: is searched too"
        ) as raised:
            call()
        assert type(raised.value) is ValueError, setting


def test_train_refuses_configurations_with_settings_without_effect(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    for model, training, setting in (
        (ModelConfig(collaborative=False, history_term="ease"), TrainConfig(), "history_term"),
        (ModelConfig(collaborative=False), TrainConfig(objective="rating", negatives=7), "negatives"),
        (ModelConfig(), TrainConfig(damped_biases=False), "damped_biases"),
    ):
        with pytest.raises(ValueError, match=f"`{setting}`: has no effect"):
            train(dataset, tmp_path / "run", model=model, training=training)


def test_what_is_given_twice_is_refused(cli: CommandLine) -> None:
    for words, told in (
        (("recommend", "run", "--user", "u", "--interest", "3=2,3=4"), "aspect 3 is given twice"),
        (("aspects", "run", "--rename", "3=a", "--rename", "3=b"), "aspect 3 is renamed twice"),
        (("aspects", "run", "--on", "3", "--off", "3,4"), "aspect 3 is in --off and in --on"),
        (("grid", "data", "--param", "num_epochs=2,3", "--num-epochs", "2"), "--num-epochs: is searched too"),
    ):  # fmt: skip
        answer = cli(*words)
        assert answer.code == 2
        assert told in answer.err


def test_a_percentage_without_sign_says_what_it_means(cli: CommandLine) -> None:
    answer = cli("recommend", "run", "--user", "u", "--interest", "3=50%")
    assert answer.code == 2
    assert "3=+50% multiplies the interest by 1.5, 3=-50% by 0.5" in answer.err
    assert "write 3=0.5" in answer.err


def test_needs_and_excludes_name_the_cure() -> None:
    needs = Needs(("trials",), "sampler", ("tpe",))
    assert needs.message("trials", {"sampler": "grid"}) == (
        '`trials`: has no effect with `sampler="grid"`; leave it out, or set `sampler="tpe"`'
    )
    assert Excludes(("k",), "item_ids").message("k", {}) == (
        "`k`: has no effect with `item_ids`; leave one of them out"
    )
    assert Excludes(("k",), "other", "another thing").message("k", {}) == (
        "`k`: has no effect with another thing; leave it out"
    )


def test_mixed_precision_on_a_cpu_is_refused(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in ((), ("--device", "cpu")):
        answer = cli("train", tmp_path, "--amp", *words)
        assert answer.code == 2
        assert "--amp: has no effect with --device cpu; leave it out" in answer.err
    assert configure(amp=False, device="cpu")[1].amp is False
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert configure(amp=True)[1].amp
