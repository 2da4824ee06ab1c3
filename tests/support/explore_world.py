"""Dataset with hostile strings, runs trained on it, and a client of its pages."""

import json
from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from llmdirect.common.errors import MissingError
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.explanation.explainer import Explainer
from llmdirect.explore.app import make_app
from llmdirect.explore.people import Person, WhatIf
from model_helpers import write_embeddings
from run_helpers import fit, write_reviews

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "</textarea><img src=x onerror=alert(1)>",
    "a/../b?c=d&e=%2F#f",
    "&lt;b&gt; ü \u202e rtl",
]
"""Parts of ids, titles and texts."""


def hostile_reviews(folder: Path) -> tuple[Path, Path]:
    """Reviews and items in which every string contains markup or control characters."""
    lines = write_reviews(folder / "plain.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for number, record in enumerate(records):
        record["reviewerID"] += HOSTILE[int(record["reviewerID"][1:]) % len(HOSTILE)]
        record["asin"] += HOSTILE[int(record["asin"][1:]) % len(HOSTILE)]
        record["reviewText"] += HOSTILE[number % len(HOSTILE)]
    items = sorted({record["asin"] for record in records})
    raw, titles = folder / "hostile.json", folder / "items.json"
    raw.write_text("".join(json.dumps(record) + "\n" for record in records))
    titles.write_text(
        "".join(json.dumps({"asin": item, "title": f"T {item}"}) + "\n" for item in items[: len(items) // 2])
    )
    return raw, titles


def explored(folder: Path) -> Callable[[str], Explainer]:
    """Function that returns the explainer of a shape, trained on hostile reviews on first use."""
    raw, titles = hostile_reviews(folder)
    prepare(raw, folder / "data", items=titles, raw_text=True)  # cleaning would take their markup
    texts = Dataset.open(folder / "data").passages.text.to_list()
    write_embeddings(folder / "data/stores/random", texts, dim=12)
    kept: dict[str, Explainer] = {}

    def explainer(shape: str) -> Explainer:
        if shape not in kept:
            fit(folder / "data", folder / shape, shape)
            kept[shape] = Explainer.open(folder / shape)
        return kept[shape]

    return explainer


def no_encoder() -> object:
    raise MissingError("no language model here")


def client(explainer: Explainer, **options: object) -> TestClient:
    app = make_app(explainer, no_encoder, **options)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


def person(explainer: Explainer, user: int, **changes: object) -> Person:
    alone = explainer.trained.for_user(user)
    return Person.from_run(explainer, alone, ("user", alone.users.ids[0]), WhatIf(**changes))  # type: ignore[arg-type]


USED = ["default", "both", "ratio", "paper"]
