"""Requirements of settings: on each other and on the dataset."""

import numpy as np

from llmdirect.choices import DEFAULT_FRACTIONS
from llmdirect.common.conditions import check_conditions
from llmdirect.common.errors import DataError
from llmdirect.config import ModelConfig, TrainConfig, to_json
from llmdirect.data.dataset import TRAIN, VALID, Dataset
from llmdirect.model.forms import score_form
from llmdirect.ranking.metrics import parse_metric


def check_setup(dataset: Dataset, model: ModelConfig, training: TrainConfig) -> None:
    """Check settings against each other and against the dataset.

    Raises
    ------
    ValueError
        If settings contradict each other.
    DataError
        If the dataset lacks what the settings need: ratings, a validation split.
    """
    rows = dataset.interactions
    parse_metric(training.metric)
    _check_effect(model, training)
    if idle := _losses_without_effect(model, training):
        names = " and ".join(f"`{name}`" for name in idle)
        raise ValueError(
            f"{names}: acts on the mentions of tokens, which only epochs on tokens train; set "
            "`token_epochs=5` too"
        )
    if model.sentiment == "mlp" and training.token_epochs:
        raise ValueError("token_epochs: every epoch of the mlp sentiment is on tokens; leave it at 0")
    if not ((rows.split == VALID) & rows.positive).any():
        fractions = dataset.manifest["options"]["fractions"]
        cure = f"prepare it with `fractions={DEFAULT_FRACTIONS}`"
        if fractions is None or fractions[1]:
            cure = (
                "users have one from three reviews on (liked ones with `positive`); prepare with `k_core=3`"
            )
        raise DataError(f"{dataset.path}: no positive in the validation split; {cure}")
    if training.predicts_ratings or training.anchor:
        if np.isnan(rows.rating).all():
            raise DataError(f'{dataset.path}: has no ratings, which `objective="rating"` and `anchor` need')
        for split, name in ((TRAIN, "train"), (VALID, "valid")):
            if not (~np.isnan(rows.rating) & (rows.split == split)).any():
                raise DataError(f"{dataset.path}: no rating in {name}, so ratings cannot be learned")
    if training.predicts_ratings and not rows.positive.all():
        raise DataError(
            f"{dataset.path}: was prepared with `positive={dataset.manifest['options']['positive']}`, but "
            '`objective="rating"` learns all ratings, low ones too; prepare it without `positive`'
        )


def _check_effect(model: ModelConfig, training: TrainConfig) -> None:
    """Check that settings other than those of the preset have an effect."""
    effective = to_json(model) | to_json(training)
    preset = to_json(ModelConfig.for_preset(model.preset)) | to_json(
        TrainConfig.for_preset(model.preset, objective=training.objective)
    )
    changed = {name: value for name, value in effective.items() if value != preset[name]}
    check_conditions("train", changed, effective)


def _losses_without_effect(model: ModelConfig, training: TrainConfig) -> list[str]:
    """Auxiliary losses with a weight, of parameters that no score depends on."""
    if model.sentiment != "linear" or training.token_epochs:
        return []
    # The interests of the ratio form are read in mention space.
    losses = ["orthogonality"] if score_form(model).profiles_in_mention_space else ["rate", "orthogonality"]
    return [name for name in losses if getattr(training, name)]
