"""python benches/sequences.py FILE --out FOLDER [--rows NAMES] [--budget-minutes M]

NDCG@10 of rows of the scoreboard on a set of sequences, as sequential models are published: the last item of
each user is tested, the one before it is validation, all items are ranked but those that the user has.

A line of FILE (.gz) is a user: the user's number, then item numbers from the oldest to the newest. The
published sets of Amazon 2014 are those of S3-Rec. Without --budget-minutes a row has one trial: its first
settings.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path

from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.cli.console import Bars
from llmdirect.data.prepare import prepare

ROWS = "popularity,transition,temporal-ease,sasrec"
FIRST_TRIAL_MINUTES = 1e-6


def write_interactions(sequences: Path, path: Path) -> None:
    """Interactions as CSV; the time of an item is its position in the sequence."""
    with gzip.open(sequences, "rt") as lines, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        for line in lines:
            user, *items = line.split()
            writer.writerows((user, item, time) for time, item in enumerate(items, 1))


def main() -> None:
    """Prepare, measure and print a JSON line a row."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--budget-minutes", type=float, default=FIRST_TRIAL_MINUTES)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    interactions = args.out / "interactions.csv"
    write_interactions(args.file, interactions)
    prepare(None, args.out / "dataset", interactions=interactions, split="leave-last-out", progress=Bars())
    result = scoreboard(
        args.out / "dataset",
        rows=args.rows.split(","),
        protocols=["leave-last-out"],
        users="all",
        budget_minutes=args.budget_minutes,
        progress=Bars(),
    )
    for row in result["rows"]:
        print(json.dumps({"model": row["model"], **row["protocols"]["leave-last-out"]}))


if __name__ == "__main__":
    main()
