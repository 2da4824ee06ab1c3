"""A run's aspects as a table: their words, in whom and what they are highest; and what is decided of them."""

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

_EXAMPLES = 3


def aspect_overview(run: Path | str, examples: bool = False) -> Json:
    """The aspects of a run, merged ones as one, in the order of their numbers.

    examples: `example` of each aspect too, the sentence that says most of it (None without texts), out of the
    texts about the items in which it is highest; they are read from the run's store.

    Returns {"run", "aspects": [{"aspect", "name", "words" (most telling first), "off", "merged" (numbers of
    all that are this one), "share" (of what the items' texts say), "users", "items"}]}; the users and items
    are those in which the aspect is highest: {"user_id" or "item_id" and "title", "share"}.
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
                "words": [word for one in group for word in words[one]],
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
    """Changes RUN/aspects.json, after which rankings and explanations of the run honour it.

    rename: aspect -> name, empty for its words. merge: lists of aspects that become one; split takes such a
    group apart. off, on: switches. reset: forgets what was decided before. Raises ValueError for an aspect
    that is none.
    """
    trained = Trained.load(run, AspectEdits())
    folder, parameters = trained.run.path, trained.run.weights_hash
    aspects = trained.model.aspects
    edits = AspectEdits() if reset else AspectEdits.read(folder, parameters, aspects)
    edits = edits.split(split).rename(rename or {})
    for group in merge:
        edits = edits.merge(group)
    edits = edits.switch(off=off, on=on)
    edits.check(aspects)
    if edits == AspectEdits():
        (folder / FILE).unlink(missing_ok=True)
    else:
        edits.write(folder, parameters)
    return edits


def _shares(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, A]: share of each aspect in a row; zeros for zeros."""
    shares: NDArray[np.float64] = sizes / np.maximum(sizes.sum(1, keepdims=True), 1e-300)
    return shares


def _highest(values: NDArray[np.float64]) -> list[int]:
    """Rows of the largest values, at most three, the earlier of equals first."""
    rows: list[int] = np.argsort(-values, kind="stable")[:_EXAMPLES].tolist()
    return rows
