"""End of a training: the collaborative term and the ranking tables of the best epoch."""

import time

import numpy as np
import torch

from llmdirect.collaborative.selection import SelectedTerm, fit_ease_candidates, select_term
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.common.progress import Progress
from llmdirect.model.direct import Direct
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.token_tables import Table
from llmdirect.runs.export import ranking_files
from llmdirect.runs.folder import RunFolder
from llmdirect.training.epoch import read_table
from llmdirect.training.inputs import TrainInputs
from llmdirect.training.results import CollaborationRecord, TermFigures
from llmdirect.training.state import TrainState
from llmdirect.training.validation import Validator


def finish(run: RunFolder, state: TrainState, inputs: TrainInputs, progress: Progress) -> None:
    """Select the collaborative term for the best epoch and commit all that ranking needs."""
    state.restore_best(run)
    model, validator = state.model, Validator(inputs.dataset, state.training)
    model.eval()
    with torch.no_grad():
        table = read_table(model, inputs.documents, state.schedule.best.phase)
        selected, started = None, time.monotonic()
        if model.config.collaborative:
            selected = _select_term(model, inputs, table, validator, progress)
            model.collaboration.fill_(selected.weight)
        scores = CatalogueScores(model, inputs.documents, table, None if selected is None else selected.term)
        figures = (
            {} if selected is None else _term_figures(selected, scores, validator, inputs, started).to_json()
        )
        tables, catalogue = ranking_files(scores, inputs.dataset, inputs.word_types(progress))
    catalogue["balanced"] = figures
    files = {
        "best/model": run.write("best/model", model.state_dict()),
        "best/tables": run.write("best/tables", tables),
        "best/catalogue": run.write("best/catalogue", catalogue),
    }
    history = [record.to_json() for record in state.schedule.state.history]
    run.commit(files, history=history, finished=True)


def _select_term(
    model: Direct, inputs: TrainInputs, table: Table, validator: Validator, progress: Progress
) -> SelectedTerm:
    with progress.task("Collaborative term", 2, "steps") as task:
        words = WordSimilarity(inputs.view, inputs.texts)
        embeddings = EmbeddingSimilarity(inputs.documents, model.centre[: inputs.view.store.dim])
        num_reviewed = len(np.unique(inputs.dataset.interactions.item_idx))
        eases = fit_ease_candidates(inputs.documents, (words, embeddings), model.config, num_reviewed)
        task.advance()
        text = CatalogueScores(model, inputs.documents, table, None)
        logits = not validator.training.predicts_ratings
        selected = select_term(text, eases, model.config.history_term, validator.gains, logits)
        task.advance()
        return selected


def _term_figures(
    selected: SelectedTerm,
    scores: CatalogueScores,
    validator: Validator,
    inputs: TrainInputs,
    started: float,
) -> TermFigures:
    """Figures of the best epoch with the term; scores: with the term, at its weight."""
    train_left_out, valid = validator.train_left_out(scores), validator.valid(selected.tables)
    weights = dict(zip(("words", "embeddings"), selected.ease.text_weights, strict=True))
    has_input = {
        "words": bool((inputs.texts.str.strip_chars() != "").any()),
        "embeddings": bool((inputs.view.lengths > 0).any()),
    }
    return TermFigures(
        train_left_out=train_left_out,
        valid=valid,
        collaboration=CollaborationRecord(
            made_of=selected.name,
            weight=selected.weight,
            spread=selected.spread,
            ridge=selected.ease.ridge,
            similarity={name: weight for name, weight in weights.items() if has_input[name]},
            seconds=round(time.monotonic() - started, 3),
        ),
    )
