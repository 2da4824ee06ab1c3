"""Explanations of a run: of a user's best items, of one item beside another, and what would change it."""

from collections.abc import Sequence
from pathlib import Path

from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.explanation.comparison import compare
from llmdirect.explanation.counterfactual import counterfactual as fewest_words
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.reencoding import Reencoder
from llmdirect.runs.inputs import load_run_encoder


def explain(
    run: Path | str,
    user_id: str,
    item_ids: Sequence[str] | None = None,
    *,
    k: int = 3,
    than: str | None = None,
    counterfactual: int | None = None,
    dataset: Path | str | None = None,
    model: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Json:
    """Explains the score of `item_ids` for a user, or of the user's `k` best items.

    than: another item, beside which each of them is laid. counterfactual: the words without which each would
    not be among so many best, checked with the language model, which lies at `model` if its name is not
    enough. dataset: where the run's dataset lies now, if it was moved.

    Returns {"explanations": […], "model": …, "dataset": …}; `Explainer.explain` documents an entry, which
    has `than` (`comparison.compare`) and `counterfactual` (`counterfactual.counterfactual`) where asked.
    Raises MissingError for an unknown user or item, MismatchError where dataset or store have changed,
    ValueError for an item that cannot drop out of the best.
    """
    if isinstance(item_ids, str):
        raise ValueError(f"item_ids is {item_ids!r}, expected a list of ids")
    if than in (item_ids or []):
        raise ValueError(f"than: {than} is the item itself; name another one")
    explainer = Explainer.open(run, dataset)
    trained = explainer.trained
    user = trained.user_idx(user_id)
    candidates = explainer.candidates(user)
    if item_ids is None:
        items = candidates[:k].tolist()
    else:
        items = [trained.item_idx(item_id) for item_id in item_ids]
    other = None if than is None else explainer.explain(user, trained.item_idx(than), candidates)
    reader = None
    if counterfactual is not None:
        reader = Reencoder(explainer, load_run_encoder(trained.run, model, device))
    entries = []
    with progress.task("Explaining", len(items), "items") as task:
        for item in items:
            entry = explainer.explain(user, item, candidates, history_words=True)
            if other is not None:
                entry["than"] = compare(entry, other)
            if reader is not None and counterfactual is not None:
                entry["counterfactual"] = fewest_words(explainer, reader, user, item, counterfactual)
            entries.append(entry)
            task.advance()
    return explainer.result(entries)
