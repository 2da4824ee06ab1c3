"""Inputs of a training that are fixed before the first update."""

import logging
from dataclasses import dataclass

import polars as pl
import torch

from llmdirect.collaborative.similarity import WordSimilarity
from llmdirect.common.progress import Progress
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import Dataset
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.train_view import TrainView
from llmdirect.model.word_types import WordTypes
from llmdirect.runs.folder import RunFolder
from llmdirect.store.store import EmbeddingStore
from llmdirect.text.lexicon import Lexicon
from llmdirect.training.rating_bias import RatingBiases

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainInputs:
    """Texts, item documents and rating biases of the train split. R passages of its view."""

    dataset: Dataset
    view: TrainView
    """With the lexicon, on the device of training."""
    texts: pl.Series
    """[R] text of each passage of the view."""
    documents: ItemDocuments
    biases: RatingBiases | None
    """Damped biases of users and items; None where biases are learned or there are none."""

    @property
    def device(self) -> torch.device:
        """Device of the training."""
        return self.view.pooled.device

    def word_types(self, progress: Progress) -> WordTypes:
        """Mean token embedding of each word of the texts."""
        return WordTypes.from_view(self.view, self.texts, progress)


def build_inputs(
    dataset: Dataset,
    store: EmbeddingStore,
    run: RunFolder,
    model: ModelConfig,
    training: TrainConfig,
    device: torch.device,
    progress: Progress,
) -> TrainInputs:
    """Pool the train passages; fit lexicon and rating biases.

    Parameters
    ----------
    run
        Its lexicon is taken where it has one: one that is fitted again may have other signs.

    Raises
    ------
    DataError
        If the store lacks a passage of the dataset, or train has no positive.
    """
    pooled = TrainView.from_dataset(dataset, store, progress=progress)
    texts = dataset.passages.text.gather(pooled.passage_idx)
    if not (pooled.lengths > 0).any():
        logger.warning(
            "%s: no passage in train has text, so the text term is zero; the model ranks by popularity and "
            "co-occurrence",
            dataset.path,
        )
    lexicon = load_or_fit_lexicon(run, pooled, texts, model.lexicon)
    view = pooled.with_lexicon(lexicon, texts).to(device)
    damped = training.predicts_ratings and training.damped_biases and not model.popularity
    return TrainInputs(
        dataset,
        view,
        texts,
        ItemDocuments(view, model.equal_reviews),
        RatingBiases.fit(view) if damped else None,
    )


def load_or_fit_lexicon(run: RunFolder, view: TrainView, texts: pl.Series, size: int) -> Lexicon:
    """The lexicon of the run, or else that of the view; `size` numbers a word, 0 for none."""
    if "best/lexicon" in run.manifest["files"]:
        return Lexicon.from_tensors(run.tensors("best/lexicon"))
    if not size or view.store.keyed_by != "text":  # no words to count, or no tokens of words
        return Lexicon.empty()
    return WordSimilarity(view, texts).lexicon(view, size)
