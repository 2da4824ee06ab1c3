"""Table of a run's aspects with top words, users and items, and edits of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect.aspects.evidence import example_sentence
from llmdirect.aspects.quality import item_sizes, top_words, usage_shares, user_sizes
from llmdirect.common.types import Json
from llmdirect.explanation.explainer import Explainer
from llmdirect.runs.aspect_edits import FILE, AspectEdits
from llmdirect.runs.trained import Trained

_TOP = 3
"""Users and items shown of each aspect."""


def aspect_overview(run: Path | str, examples: bool = False) -> Json:
    """Aspects of a run in the order of their indices, merged ones as one.

    Parameters
    ----------
    run
        Folder that `train` wrote.
    examples
        Whether to add the most typical sentence of each aspect (`example_sentence`), of the texts about its
        top items; reads the run's store.

    Returns
    -------
    overview
        {"run", "aspects": [{"aspect", "name", "words", "off", "merged", "share", "users", "items"}]}: top
        words first, `merged` indices of the group, `share` in the size of all items, and the users and items
        with the largest share of the aspect: {"user_id" or "item_id" and "title", "share"}.
    """
    explainer = Explainer.open(run) if examples else None
    trained = Trained.load(run) if explainer is None else explainer.trained
    edits, aspects = trained.edits, trained.model.aspects
    words = top_words(trained)
    usage = edits.combined(usage_shares(trained).tolist())
    off = edits.factors(aspects) == 0
    by_user = _shares(user_sizes(trained, trained.users.query.numpy()))
    by_item = _shares(item_sizes(trained))
    entries = []
    for aspect, share in usage.items():
        group = list(edits.group(aspect))
        users, items = by_user[:, group].sum(1), by_item[:, group].sum(1)
        example: Json = {}
        if explainer is not None:
            example["example"] = example_sentence(explainer, group, _highest(items))
        entries.append(
            {
                **example,
                "aspect": aspect,
                "name": trained.aspect_names[aspect],
                "words": [word for member in group for word in words[member]],
                "off": bool(off[aspect]),
                "merged": group,
                "share": share,
                "users": [
                    {"user_id": trained.users.ids[row], "share": float(users[row])} for row in _highest(users)
                ],
                "items": [
                    {
                        "item_id": trained.item_ids[row],
                        "title": trained.titles[row],
                        "share": float(items[row]),
                    }
                    for row in _highest(items)
                ],
            }
        )
    return {"run": str(run), "aspects": entries}


def edit_aspects(
    run: Path | str,
    *,
    rename: Mapping[int, str] | None = None,
    merge: Sequence[Sequence[int]] = (),
    split: Sequence[int] = (),
    off: Sequence[int] = (),
    on: Sequence[int] = (),
    reset: bool = False,
) -> AspectEdits:
    """Change the names, groups and switches of a run's aspects, in RUN/aspects.json.

    Parameters
    ----------
    run
        Folder that `train` wrote.
    rename
        Aspect -> name; an empty name restores its top words.
    merge
        Lists of aspects that become one.
    split
        Aspects whose groups are dissolved.
    off, on
        Aspects that are switched off, or on again.
    reset
        Whether to discard earlier edits first.

    Raises
    ------
    ValueError
        For an aspect that does not exist, or that is switched off and on at once.
    """
    if both := sorted(set(off) & set(on)):
        raise ValueError(f"aspect {both[0]} is in `off` and in `on`; leave it in one of them")
    trained = Trained.load(run, AspectEdits())
    folder, weights_hash = trained.run.path, trained.run.weights_hash
    aspects = trained.model.aspects
    edits = AspectEdits() if reset else AspectEdits.read(folder, weights_hash, aspects)
    edits = edits.split(split).rename(rename or {})
    for group in merge:
        edits = edits.merge(group)
    edits = edits.switch(off=off, on=on)
    edits.check(aspects)
    if edits == AspectEdits():
        (folder / FILE).unlink(missing_ok=True)
    else:
        edits.write(folder, weights_hash)
    return edits


def _shares(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, A] share of each aspect in its row; zeros for rows of zeros."""
    shares: NDArray[np.float64] = sizes / np.maximum(sizes.sum(1, keepdims=True), 1e-300)
    return shares


def _highest(values: NDArray[np.float64]) -> list[int]:
    """Rows of the largest values, at most three, the first of equals first."""
    rows: list[int] = np.argsort(-values, kind="stable")[:_TOP].tolist()
    return rows
