"""State of a training: all that an exact resume needs."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.model.direct import Direct
from llmdirect.model.initialise import initialise
from llmdirect.runs.folder import RunFolder
from llmdirect.text.lexicon import Lexicon
from llmdirect.training.ema import ParameterEma
from llmdirect.training.inputs import TrainInputs
from llmdirect.training.optimiser import load_optimiser, optimiser_tensors, parameter_groups
from llmdirect.training.schedule import Schedule, ScheduleState

logger = logging.getLogger(__name__)

_TOPIC_TOKENS = 20_000
"""Tokens on which the aspects are initialised."""

_RATING_TEMPERATURE = 0.03
"""Initial scale, in stars, of the text term next to fitted biases of ratings."""


@dataclass(eq=False)
class TrainState:
    """Model, optimiser, parameter average, random numbers and schedule."""

    training: TrainConfig
    model: Direct
    optimiser: torch.optim.AdamW
    ema: ParameterEma
    generator: torch.Generator
    schedule: Schedule

    @classmethod
    def new(cls, inputs: TrainInputs, config: ModelConfig, training: TrainConfig) -> "TrainState":
        """Initial parameters from the train texts, before the first epoch."""
        generator = torch.Generator().manual_seed(training.seed)
        model = _new_model(inputs, config, training)
        _initialise(model, inputs, training, generator)
        model.to(inputs.device)
        optimiser, ema = _new_optimiser(model, training), ParameterEma(model, training.ema_decay)
        return cls(training, model, optimiser, ema, generator, Schedule(config, training))

    @classmethod
    def load(
        cls, run: RunFolder, inputs: TrainInputs, config: ModelConfig, training: TrainConfig
    ) -> "TrainState":
        """State of a run after its last committed epoch.

        Raises
        ------
        DataError
            If a file of the run is missing or damaged.
        """
        values = run.values("last/state")
        schedule = Schedule(config, training, ScheduleState.from_json(values))
        model = _new_model(inputs, config, training).to(inputs.device)
        run.load_parameters(model, "last/model", run.tensors("last/model"))
        optimiser = _new_optimiser(model, training, schedule.state.lr_drops)
        load_optimiser(optimiser, run.tensors("last/optimiser"))
        ema = ParameterEma(model, training.ema_decay)
        if "last/mean" in run.manifest["files"]:
            ema.load(run.tensors("last/mean"), values["updates"])
        generator = torch.Generator()
        generator.set_state(torch.tensor(values["generator"], dtype=torch.uint8))
        logger.info("%s: resumed after epoch %s", run.path, schedule.state.epoch)
        return cls(training, model, optimiser, ema, generator, schedule)

    def save(self, run: RunFolder, lexicon: Lexicon, best: Mapping[str, Tensor] | None) -> None:
        """Commit the state to the run, with `best` as the parameters of the best epoch if given."""
        files = {
            "last/model": run.write("last/model", self.model.state_dict()),
            "last/optimiser": run.write("last/optimiser", optimiser_tensors(self.optimiser)),
            "last/state": run.write("last/state", self._to_json()),
        }
        if "best/lexicon" not in run.manifest["files"]:
            files["best/lexicon"] = run.write("best/lexicon", lexicon.to_tensors())
        if self.training.ema_decay:
            files["last/mean"] = run.write("last/mean", self.ema.parameters)
        if best is not None:
            files["best/model"] = run.write("best/model", best)
            run.drop("best/tables", "best/catalogue")  # they are of other parameters
        run.commit(files, history=[record.to_json() for record in self.schedule.state.history])

    def restore_best(self, run: RunFolder) -> None:
        """Take the parameters of the best epoch, with a new optimiser and parameter average."""
        run.load_parameters(self.model, "best/model", run.tensors("best/model"))
        self.model.collaboration.zero_()  # selected again once training has ended
        self.ema = ParameterEma(self.model, self.training.ema_decay)
        self.optimiser = _new_optimiser(self.model, self.training, self.schedule.state.lr_drops)

    def _to_json(self) -> Json:
        generator = self.generator.get_state().tolist()
        return {**self.schedule.state.to_json(), "generator": generator, "updates": self.ema.updates}


def _new_model(inputs: TrainInputs, config: ModelConfig, training: TrainConfig) -> Direct:
    """A model with random parameters of the seed; fitted rating biases get no gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = Direct(config, inputs.view.dim, inputs.dataset.num_users, inputs.dataset.num_items)
    if inputs.biases is not None:
        for parameter in (model.bias, model.user_bias, model.item_bias):
            parameter.requires_grad_(False)
    return model


def _initialise(
    model: Direct, inputs: TrainInputs, training: TrainConfig, generator: torch.Generator
) -> None:
    view, documents = inputs.view, inputs.documents
    has_text = (view.lengths > 0).cpu()
    has_document = documents.item_weight > 0
    means = (documents.pooled[has_document] / documents.item_weight[has_document, None]).float().cpu()
    sample = torch.randperm(int(has_text.sum()), generator=generator)
    rows = has_text.nonzero()[:, 0][sample]
    enough = int(torch.searchsorted(view.lengths.cpu()[rows].cumsum(0), _TOPIC_TOKENS)) + 1
    tokens, mask = view.tokens(rows[:enough])
    initialise(model, view.pooled.cpu()[has_text], means, tokens[mask], training.seed)
    with torch.no_grad():
        if inputs.biases is not None:
            model.bias.fill_(inputs.biases.mean)
            model.user_bias.copy_(inputs.biases.user)
            model.item_bias.copy_(inputs.biases.item)
            model.log_temperature.fill_(math.log(_RATING_TEMPERATURE))
        elif training.predicts_ratings:
            model.bias.fill_(float(view.pair_rating[~torch.isnan(view.pair_rating)].mean()))


def _new_optimiser(model: Direct, training: TrainConfig, lr_drops: int = 0) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameter_groups(model, training.lr * 0.1**lr_drops, training.weight_decay))
