"""Training loop: epochs, validation, checkpoints, resume."""

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.collaborative.selection import fit_ease_candidates, select_term
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.common.errors import DataError
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import VALID, Dataset
from llmdirect.evaluation.protocol import by_user, rating_means, squared_errors
from llmdirect.model.direct import Direct
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.initialise import initialise
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.left_out import train_left_out
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.model.token_tables import PooledTable, Table, read_all
from llmdirect.model.train_view import TrainView
from llmdirect.model.word_types import WordTypes
from llmdirect.ranking.metrics import mean_metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.runs.export import ranking_files
from llmdirect.runs.folder import RunFolder
from llmdirect.store.store import EmbeddingStore
from llmdirect.text.lexicon import Lexicon
from llmdirect.training.ema import ParameterEma
from llmdirect.training.epoch import Epochs
from llmdirect.training.objective import Objective
from llmdirect.training.optimiser import load_optimiser, optimiser_tensors, parameter_groups
from llmdirect.training.rating_bias import RatingBiases
from llmdirect.training.schedule import Schedule, TrainState
from llmdirect.training.tensorboard import flat

logger = logging.getLogger(__name__)

_TOPIC_TOKENS = 20_000
"""Tokens from which the aspects start."""

_RATING_TEMPERATURE = 0.03
"""Stars that the text term is worth at first, where its cosine is 1 and biases are there already."""


class Trainer:
    def __init__(
        self,
        dataset: Dataset,
        store: EmbeddingStore,
        run: RunFolder,
        config: ModelConfig,
        training: TrainConfig,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.dataset, self.run, self.training, self.progress = dataset, run, training, progress
        plain = TrainView.from_dataset(dataset, store, progress=progress)
        self.texts = dataset.passages.text.gather(plain.passage_idx)
        """Of the view's passages."""
        lexicon = self._find_lexicon(plain, config.lexicon)
        self.view = plain.with_lexicon(lexicon, self.texts).to(device)
        self.documents = ItemDocuments(self.view, config.equal_reviews)
        self.generator = torch.Generator().manual_seed(training.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.model = Direct(config, self.view.dim, dataset.num_users, dataset.num_items)
        fitted = training.objective == "rating" and training.damped_biases and not config.popularity
        self.biases = RatingBiases.fit(self.view) if fitted else None
        self._initialise()
        self.model.to(device)
        words = self._words() if training.rate else None
        objective = Objective(training, self.generator, words, self.biases)
        self.epochs = Epochs(self.model, self.documents, objective, training, self.generator)
        self.schedule = Schedule(config, training)
        self.optimiser = self._new_optimiser()
        self.mean = ParameterEma(self.model, training.ema_decay)
        self.table: Table | None = None  # what the present parameters make of all passages, where known
        if self.run.manifest["files"]:
            self._resume()

    @property
    def course(self) -> TrainState:
        """Of the schedule."""
        return self.schedule.course

    def _find_lexicon(self, plain: TrainView, size: int) -> Lexicon:
        """What the run has kept, since numbers found anew may have other signs; else that of the view."""
        if "best/lexicon" in self.run.manifest["files"]:
            return Lexicon.from_tensors(self.run.tensors("best/lexicon"))
        if not size:  # nothing to count words for
            return Lexicon.none()
        return WordSimilarity(plain, self.texts).lexicon(plain, size)

    def _initialise(self) -> None:
        view, documents = self.view, self.documents
        written = (view.lengths > 0).cpu()
        owned = documents.item_weight > 0
        means = (documents.pooled[owned] / documents.item_weight[owned, None]).float().cpu()
        sample = torch.randperm(int(written.sum()), generator=self.generator)
        rows = written.nonzero()[:, 0][sample]
        enough = int(torch.searchsorted(view.lengths.cpu()[rows].cumsum(0), _TOPIC_TOKENS)) + 1
        tokens, mask = view.tokens(rows[:enough])
        initialise(self.model, view.pooled.cpu()[written], means, tokens[mask], self.training.seed)
        if self.biases is not None:
            self._fit_biases(self.biases)
        elif self.training.objective == "rating":
            ratings = view.pair_rating[~torch.isnan(view.pair_rating)]
            with torch.no_grad():
                self.model.bias.fill_(float(ratings.mean()))

    def _fit_biases(self, found: RatingBiases) -> None:
        """Sets and keeps them; the text term starts small beside them."""
        model = self.model
        with torch.no_grad():
            model.bias.fill_(found.mean)
            model.user_bias.copy_(found.user)
            model.item_bias.copy_(found.item)
            model.log_temperature.fill_(math.log(_RATING_TEMPERATURE))
        for parameter in (model.bias, model.user_bias, model.item_bias):
            parameter.requires_grad_(False)

    def _words(self) -> WordTypes:
        return WordTypes.from_view(self.view, self.texts, self.progress)

    def _new_optimiser(self) -> torch.optim.AdamW:
        lr = self.training.lr * 0.1**self.course.lr_drops
        return torch.optim.AdamW(parameter_groups(self.model, lr, self.training.weight_decay))

    def _resume(self) -> None:
        state = self.run.values("last/state")
        course = {name: value for name, value in state.items() if name not in ("generator", "updates")}
        self.schedule.course = TrainState(**course)
        self.model.load_state_dict(self.run.tensors("last/model"))
        self.optimiser = self._new_optimiser()
        load_optimiser(self.optimiser, self.run.tensors("last/optimiser"))
        self.mean = ParameterEma(self.model, self.training.ema_decay)
        if "last/mean" in self.run.manifest["files"]:
            self.mean.load(self.run.tensors("last/mean"), state["updates"])
        self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))
        logger.info("%s: found with %s epochs done", self.run.path, self.course.epoch)

    def fit(self, writer: Any) -> None:
        """Runs epochs until the course has ended, committing each one."""
        course = self.course
        if (
            self.run.finished
            and not self._has_next_epoch()
            and self.run.is_complete("best/tables", "best/catalogue")
        ):
            return
        with self.progress.task("Training", self.schedule.epochs, "epochs") as task:
            task.advance(course.epoch)
            while self._has_next_epoch():
                started = time.monotonic()
                course.epoch += 1
                losses = self.epochs.run(
                    course.epoch, self.table or self._read_table(), self.optimiser, self.mean
                )
                if not np.isfinite(losses["loss"]):
                    raise DataError(
                        f"{self.run.path}: the loss is {losses['loss']} in epoch {course.epoch}; lower --lr "
                        f"(now {self.training.lr})"
                    )
                with self.mean.taken_by(self.model):
                    table = self._read_table()
                    figures = self._validate(table)
                    parameters = {name: value.clone() for name, value in self.model.state_dict().items()}
                self.table = None if self.training.ema_decay else table
                entry = {
                    "epoch": course.epoch,
                    "phase": course.phase,
                    "lr": self.optimiser.param_groups[0]["lr"],
                    "losses": losses,
                    **figures,
                    "seconds": round(time.monotonic() - started, 3),
                }
                drops = course.lr_drops
                improved = self.schedule.record(entry)
                if course.lr_drops > drops:
                    self._restart()
                self._commit(parameters, improved)
                task.note(f"{self.training.watched} {self.schedule.value(entry):.4f}")
                task.advance()
                for name, value in flat(entry):
                    writer.add_scalar(name, value, course.epoch)
        self._finish()

    def _has_next_epoch(self) -> bool:
        phase = self.course.phase
        goes_on = self.schedule.has_next_epoch()
        if self.course.phase != phase:
            self._restart()
        return goes_on

    def _restart(self) -> None:
        """From the best state, at the learning rate of the course."""
        self._take_best()
        self.optimiser = self._new_optimiser()

    def _read_table(self) -> Table:
        if self.course.phase == "pooled":
            return PooledTable(self.model, self.documents)
        return read_all(self.model, self.documents)

    def _validate(self, table: Table) -> Json:
        """Train, each pair left out, and validation, side by side; of text and biases alone."""
        self.model.eval()
        with torch.no_grad():
            scores = CatalogueScores(self.model, self.documents, table, None)
            return self._figures(scores, export_tables(scores))

    def _figures(self, scores: CatalogueScores, ranking: ScoreTables) -> Json:
        if self.training.lower_is_better:
            return {"valid": self._valid(ranking)}
        metric = self.training.metric
        return {"train_left_out": {metric: train_left_out(scores, metric)}, "valid": self._valid(ranking)}

    def _valid(self, ranking: ScoreTables) -> dict[str, float]:
        if self.training.lower_is_better:
            return rating_means(ranking, self.dataset, VALID)
        return mean_metrics(by_user(ranking, self.dataset, VALID, [self.training.metric]))

    def _gains(self, ranking: ScoreTables) -> NDArray[np.float64]:
        """What validation says by user (ratings: by rating), the more the better."""
        if self.training.lower_is_better:
            return -squared_errors(ranking, self.dataset, VALID)
        values = by_user(ranking, self.dataset, VALID, [self.training.metric])[self.training.metric]
        return values[~np.isnan(values)]  # the AUC of somebody whose candidates are all relevant

    def _take_best(self) -> None:
        self.model.load_state_dict(self.run.tensors("best/model"))
        self.model.collaboration.zero_()  # found anew once training has ended
        self.mean = ParameterEma(self.model, self.training.ema_decay)
        self.table = None

    def _commit(self, validated: dict[str, Tensor], improved: bool) -> None:
        files = {
            "last/model": self.run.write("last/model", self.model.state_dict()),
            "last/optimiser": self.run.write("last/optimiser", optimiser_tensors(self.optimiser)),
            "last/state": self.run.write("last/state", self._state_json()),
        }
        if "best/lexicon" not in self.run.manifest["files"]:
            files["best/lexicon"] = self.run.write("best/lexicon", self.view.lexicon.tensors())
        if self.training.ema_decay:
            files["last/mean"] = self.run.write("last/mean", self.mean.parameters)
        if improved:
            files["best/model"] = self.run.write("best/model", validated)
            self.run.drop("best/tables", "best/catalogue")  # they were made of other parameters
        self.run.commit(files, history=self.course.history)

    def _state_json(self) -> Json:
        generator = self.generator.get_state().tolist()
        return {**vars(self.course), "generator": generator, "updates": self.mean.updates}

    def _finish(self) -> None:
        """Ranks with the best state once more and keeps all that ranking needs."""
        self._take_best()
        self.model.eval()
        if self.course.history[self.course.best_epoch - 1]["phase"] == "pooled":
            table: Table = PooledTable(self.model, self.documents)
        else:
            table = read_all(self.model, self.documents)
        with torch.no_grad():
            collaboration, balanced = self._collaborate(table)
            scores = CatalogueScores(self.model, self.documents, table, collaboration)
            tables, catalogue = ranking_files(scores, self.dataset, self._words())
        files = {
            "best/model": self.run.write("best/model", self.model.state_dict()),
            "best/tables": self.run.write("best/tables", tables),
            "best/catalogue": self.run.write("best/catalogue", catalogue | {"balanced": balanced}),
        }
        self.run.commit(files, history=self.course.history, finished=True)

    def _collaborate(self, table: Table) -> tuple[HistoryTerm | None, Json]:
        """The collaborative term as the data ask for it, with its weight in the model; and its figures."""
        config = self.model.config
        if not config.collaborative:
            return None, {}
        started = time.monotonic()
        with self.progress.task("Collaborative term", 2, "steps") as task:
            words = WordSimilarity(self.view, self.texts)
            embeddings = EmbeddingSimilarity(self.documents, self.model.centre[: self.view.store.dim])
            eases = fit_ease_candidates(self.documents, (words, embeddings), config)
            task.advance()
            text = CatalogueScores(self.model, self.documents, table, None)
            logits = self.training.objective != "rating"
            found = select_term(text, eases, config.history_term, self._gains, logits)
            self.model.collaboration.fill_(found.weight)
            figures = {
                **self._figures(CatalogueScores(self.model, self.documents, table, found.term), found.tables),
                "collaboration": {
                    "made_of": found.name,
                    "weight": found.weight,
                    "spread": found.spread,
                    "ridge": found.ease.ridge,
                    "likeness": dict(zip(("words", "embeddings"), found.ease.likeness, strict=True)),
                    "seconds": round(time.monotonic() - started, 3),
                },
            }
            task.advance()
        return found.term, figures

    def result(self) -> Json:
        """What `train` returns."""
        course = self.course
        ended = "best/catalogue" in self.run.manifest["files"]
        balanced = self.run.values("best/catalogue")["balanced"] if ended else {}
        best = {**course.history[course.best_epoch - 1], **balanced}
        balancing = balanced["collaboration"]["seconds"] if balanced else 0.0
        return {
            "metric": self.training.watched,
            "best_value": self.schedule.value(best),
            "best_epoch": course.best_epoch,
            "epochs": course.epoch,
            "best": best,
            "history": course.history,
            "seconds": round(sum(entry["seconds"] for entry in course.history) + balancing, 1),
        }
