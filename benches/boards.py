"""python benches/boards.py DATA --out FOLDER [--sets NAME,…] [--splits N] [--budget-minutes M] [--page FILE]

All tables of docs/quality.md: the scoreboard of each set in every protocol, the encoders, and the published
sets of sequences. What is measured is kept in FOLDER, so a killed run goes on; the page says which sets are
still missing. DATA holds the raw files; a set whose file is not there is left out.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sequences import write_interactions

from llmdirect.benchmark.encoders import compare_encoders
from llmdirect.benchmark.rows import ROWS
from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.benchmark.table import caption, label, summary_cells, verdicts
from llmdirect.cli.console import Bars
from llmdirect.common.files import write_atomic
from llmdirect.data.prepare import prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.store.consolidation import consolidate

ENCODER: Final = "minilm"
MAIN: Final = ("random", "leave-last-out", "global-time")
COLD: Final = ("cold-items", "new-users")
ENCODERS: Final = ("none", "lexical", ENCODER)
YARDSTICK: Final = ("popularity", "transition", "temporal-ease", "sasrec", "llmdirect")
FIRST_TRIAL: Final = 1e-6
TEMPLATE: Final = Path(__file__).with_name("quality.template.md")


@dataclass(frozen=True)
class Set:
    """A data set of the page."""

    file: str
    title: str
    is_new: bool
    """Whether no default or search space was chosen with it."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of `prepare`."""


SETS: Final = {
    "instruments": Set(
        "reviews_Musical_Instruments_5.json.gz", "Amazon Musical Instruments 2014, 5-core", False
    ),
    "magazine": Set("Magazine_Subscriptions_5.json.gz", "Amazon Magazine Subscriptions 2018, 5-core", False),
    "goodreads": Set("goodreads_reviews.json.gz", "Goodreads sample, 3-core", False, {"k_core": 3}),
    "rt": Set("rt_critics_5.json.gz", "Rotten Tomatoes critics, 5-core", True),
    "steam": Set("steam_3.json.gz", "Steam reviews, 3-core, without times", True),
}
SEQUENCES: Final = {
    "beauty": ("beauty_2014_sequences.txt.gz", "Amazon Beauty 2014", 0.0531),
    "toys": ("toys_2014_sequences.txt.gz", "Amazon Toys 2014", 0.0580),
}
"""File, title, and the published NDCG@10 of SASRec with a sampled softmax (arXiv 2508.06450)."""


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", default=",".join((*SETS, *SEQUENCES)))
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--budget-minutes", type=float, default=10.0)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    boards = Boards(args.data, args.out, args.splits, args.budget_minutes, args.rows.split(","))
    for name in args.sets.split(","):
        boards.measure_sequences(name) if name in SEQUENCES else boards.measure(name)
        if args.page:
            write_page(args.page, args.out)
    if args.page:
        write_page(args.page, args.out)


@dataclass(frozen=True)
class Boards:
    """Measurements of all sets, each written to a JSON file when it is complete."""

    data: Path
    out: Path
    splits: int
    minutes: float
    rows: list[str]

    def measure(self, name: str) -> None:
        """Prepare, encode and measure a set of reviews."""
        chosen, folder = SETS[name], self.out / name
        if not (self.data / chosen.file).exists():
            return
        prepare(self.data / chosen.file, folder / "dataset", progress=Bars(), **chosen.options)
        encoded = precompute(folder / "dataset", encoder=ENCODER, progress=Bars())
        if not encoded.consolidated:
            consolidate(folder / "dataset", progress=Bars())
        common = {"out": folder / "results", "store": str(encoded.store), "progress": Bars()}
        board: dict[str, Any] = {"rows": self.rows, "splits": self.splits, "budget_minutes": self.minutes}
        if name == "steam":  # without times
            self._keep(name, "board", scoreboard(folder / "dataset", **board, **common))
        else:
            self._keep(name, "board", scoreboard(folder / "dataset", protocols=MAIN, **board, **common))
            timed = {**board, "splits": None, "protocols": ["leave-last-out"], "query_time": "event"}
            self._keep(name, "event", scoreboard(folder / "dataset", **timed, **common))
        self._keep(name, "cold", scoreboard(folder / "dataset", protocols=COLD, **board, **common))
        encoders = compare_encoders(
            folder / "dataset", ENCODERS, out=folder / "results", splits=self.splits, progress=Bars()
        )
        self._keep(name, "encoders", encoders)

    def measure_sequences(self, name: str) -> None:
        """Measure a published set of sequences, the rows with their first settings."""
        file, folder = SEQUENCES[name][0], self.out / name
        if not (self.data / file).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        interactions = folder / "interactions.csv"
        write_interactions(self.data / file, interactions)
        prepare(None, folder / "dataset", interactions=interactions, split="leave-last-out", progress=Bars())
        result = scoreboard(
            folder / "dataset",
            out=folder / "results",
            rows=YARDSTICK,
            protocols=["leave-last-out"],
            users="all",
            budget_minutes=FIRST_TRIAL,
            progress=Bars(),
        )
        self._keep(name, "board", result)

    def _keep(self, name: str, part: str, result: dict[str, Any]) -> None:
        text = json.dumps(result, indent=1).encode() + b"\n"
        write_atomic(self.out / f"{name}-{part}.json", lambda file: file.write(text))


def write_page(page: Path, folder: Path) -> None:
    """Write docs/quality.md from the results that are there."""
    lines: list[str] = []
    missing: list[str] = []
    for name, chosen in SETS.items():
        board = _read(folder, name, "board")
        if board is None:
            missing.append(chosen.title)
            continue
        lines += [f"## {chosen.title}", "", _provenance(chosen), "", *_board(board), ""]
        for part, title in PARTS.items():
            if result := _read(folder, name, part):
                lines += [f"### {title}", "", *_board(result), ""]
        if result := _read(folder, name, "encoders"):
            lines += ["### What the encoder is worth", "", *_encoders(result), ""]
    sequences = {name: board for name in SEQUENCES if (board := _read(folder, name, "board"))}
    missing += [title for name, (_, title, _) in SEQUENCES.items() if name not in sequences]
    if missing:
        lines += ["## Not measured yet", "", *(f"- {title}" for title in missing), ""]
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("<!-- sets -->", "\n".join(lines))
    text = text.replace("<!-- sequences -->", "\n".join(_sequences(sequences)))
    write_atomic(page, lambda file: file.write(text.encode()))


def _read(folder: Path, name: str, part: str) -> dict[str, Any] | None:
    path = folder / f"{name}-{part}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _provenance(chosen: Set) -> str:
    if chosen.is_new:
        return "No default, setting or search space was chosen with this set."
    return "The defaults of llmdirect were chosen on the validation of this set."


def _board(result: dict[str, Any]) -> list[str]:
    protocols = list(result["protocols"])
    lines = [_line(["model", *(cell for protocol in protocols for cell in (protocol, "ratio"))])]
    lines.append("|---|" + "---:|" * (2 * len(protocols)))
    for row in result["rows"]:
        cells = [cell for protocol in protocols for cell in summary_cells(row["protocols"][protocol])]
        lines.append(_line([label(row), *cells]))
    return [*lines, "", *(f"- {sentence}" for sentence in verdicts(result)), "", caption(result)]


def _encoders(result: dict[str, Any]) -> list[str]:
    lines = [_line(["encoder", *result["protocols"], "s", "MB"])]
    lines.append("|---|" + "---:|" * (len(result["protocols"]) + 2))
    for row in result["encoders"]:
        cells = [
            f"{figures['metrics']['mean']:.4f}" if figures.get("metrics") else "-"
            for figures in row["protocols"].values()
        ]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(_line([row["encoder"], *cells, seconds, f"{row['bytes'] / 1e6:.1f}"]))
    return [*lines, "", *(f"- {sentence}" for sentence in result["verdicts"])]


def _sequences(boards: Mapping[str, dict[str, Any]]) -> list[str]:
    if not boards:
        return ["Not measured yet.", ""]
    lines = [_line(["", *(SEQUENCES[name][1] for name in boards)]), "|---|" + "---:|" * len(boards)]
    published = [f"{SEQUENCES[name][2]:.4f}" for name in boards]
    lines.append(_line(["published SASRec, sampled softmax", *published]))
    for position, model in enumerate(YARDSTICK):
        rows = [board["rows"][position]["protocols"]["leave-last-out"] for board in boards.values()]
        lines.append(_line([model, *(summary_cells(row)[0] for row in rows)]))
    return [*lines, ""]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


PARTS: Final = {
    "event": "Queries at the time of the tested event",
    "cold": "Cold items and new users",
}
if __name__ == "__main__":
    main()
