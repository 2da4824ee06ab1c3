"""Explain stage: a user's top items, comparisons with another item, counterfactuals."""

from collections.abc import Sequence
from pathlib import Path

from llmdirect.common.conditions import check_conditions
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.explanation.comparison import compare
from llmdirect.explanation.counterfactual import counterfactual as find_counterfactual
from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.reencoding import Reencoder
from llmdirect.runs.inputs import load_run_encoder


def explain(
    run: Path | str,
    user_id: str,
    item_ids: Sequence[str] | None = None,
    *,
    k: int | None = None,
    than: str | None = None,
    counterfactual: int | None = None,
    dataset: Path | str | None = None,
    encoder: str | None = None,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Explain the scores of items for a user.

    Parameters
    ----------
    run
        Folder that `train` wrote.
    item_ids
        External ids; the user's top `k` items by default.
    k
        Number of those items; by default 3.
    than
        External id of another item to compare each with.
    counterfactual
        Size of the top list for which words are found whose deletion drops the item out of it, checked with
        the run's encoder.
    dataset
        Present location of the run's dataset, where it was moved.
    encoder
        Location of the run's encoder, where its id does not suffice; read for `counterfactual` alone.
    device
        Device of the encoder, for `counterfactual` alone; by default "auto".

    Returns
    -------
    result
        {"explanations": [...], "model": ..., "dataset": ...}; `Explainer.explain` documents an entry, which
        has `than` (`comparison.compare`) and `counterfactual` where requested.

    Raises
    ------
    MissingError
        For an unknown user or item.
    MismatchError
        If dataset, store or encoder are not those of the run.
    ValueError
        For an item that is not in the top list of `counterfactual`, and for settings without effect.
    """
    if isinstance(item_ids, str):
        raise ValueError(f"`item_ids`: {item_ids!r}, expected a list of ids")
    settings = {"item_ids": item_ids, "k": k, "counterfactual": counterfactual}
    check_conditions("explain", {**settings, "encoder": encoder, "device": device})
    if than in (item_ids or []):
        raise ValueError(f"`than`: {than} is the item itself; name another one")
    explainer = Explainer.open(run, dataset)
    trained = explainer.trained
    user = trained.user_idx(user_id)
    candidates = explainer.candidates(user)
    if item_ids is None:
        items = candidates[: 3 if k is None else k].tolist()
    else:
        items = [trained.item_idx(item_id) for item_id in item_ids]
    other = None if than is None else explainer.explain(user, trained.item_idx(than), candidates)
    reader = None
    if counterfactual is not None:
        reader = Reencoder(explainer, load_run_encoder(trained.run, encoder, device or "auto"))
    entries = []
    with progress.task("Explaining", len(items), "items") as task:
        for item in items:
            entry = explainer.explain(user, item, candidates, history_words=True)
            if other is not None:
                entry["than"] = compare(entry, other)
            if reader is not None and counterfactual is not None:
                entry["counterfactual"] = find_counterfactual(explainer, reader, user, item, counterfactual)
            entries.append(entry)
            task.advance()
    return explainer.result(entries)
