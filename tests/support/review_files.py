"""Raw review files: small generated ones, and real ones if present."""

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from repository import ROOT

DATA = Path(os.environ.get("LLMDIRECT_DATA") or ROOT / ".." / "shared" / "data")
INSTRUMENTS = "reviews_Musical_Instruments_5.json.gz"
GOODREADS = "goodreads_reviews.json.gz"
MAGAZINES = "Magazine_Subscriptions_5.json.gz"
Record = dict[str, Any]


def real(name: str) -> Path:
    """A real data set; skips the test where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in {DATA} (set LLMDIRECT_DATA)")
    return path


def review(user: object, item: object, text: object = "good", **more: object) -> Record:
    """A record of the plain layout; rating and time where given."""
    return {"user": user, "item": item, "text": text, **more}


def write_lines(path: Path, records: Iterable[Record]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def random_reviews(
    seed: int, users: int = 30, items: int = 25, rows: int = 300, texts: int = 60
) -> list[Record]:
    """Repeated pairs, copied and empty texts, tied times."""
    rng = random.Random(seed)
    return [
        review(
            f"u{rng.randrange(users)}",
            f"i{rng.randrange(items)}",
            rng.choice(["", "  ", *(f"Text  number {n}" for n in range(texts)), f"text number {n % texts}"]),
            rating=rng.randint(1, 5),
            time=1_500_000_000 + rng.randrange(40) * 0.25,
        )
        for n in range(rows)
    ]
