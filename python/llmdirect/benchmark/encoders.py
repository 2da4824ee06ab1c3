"""What an encoder is worth on a dataset: the default model on the embeddings of several."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from llmdirect.benchmark.benchmark import METRIC, Benchmark, default_protocols, write_json
from llmdirect.benchmark.measure import measure_row
from llmdirect.benchmark.rows import OURS, ROWS
from llmdirect.benchmark.scoreboard import (
    DEFAULT_SPLITS,
    check_protocols,
    number_of_splits,
    splits_of,
)
from llmdirect.benchmark.summary import UserMeans, user_means
from llmdirect.common.files import digest
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.encoding.precompute import precompute
from llmdirect.evaluation.development import UserHalf
from llmdirect.evaluation.statistics import bootstrap_mean, bootstrap_ratio
from llmdirect.store.consolidation import consolidate
from llmdirect.store.lexical import LEXICAL
from llmdirect.store.no_text import write_empty_store
from llmdirect.store.store import EmbeddingStore

NONE: Final = "none"
"""Name of an encoder that reads nothing: the dataset without its texts."""
COLD: Final = ("cold-items", "new-users")
"""Protocols beside those of the dataset, where text is all or most of what is known."""


def compare_encoders(
    dataset: Path | str,
    encoders: Sequence[str],
    *,
    out: Path | str | None = None,
    protocols: Sequence[str] | None = None,
    splits: int | None = None,
    users: UserHalf = "report",
    progress: Progress = SILENT,
) -> Json:
    """Measure the default model on the embeddings of several encoders, and say whether they differ.

    Parameters
    ----------
    dataset
        A prepared dataset, or a file of reviews.
    encoders
        Names as `precompute` takes them, and "none" for no text. The others are compared with "lexical",
        which needs no language model, or with the first one where it is missing.
    out
        Folder of results, by default DATASET/scoreboard. Stores are written to the dataset.
    protocols
        As in `scoreboard`; by default those of the dataset, cold-items and new-users.
    splits, users
        As in `scoreboard`.

    Returns
    -------
    {"encoders": [{"encoder", "seconds", "bytes", "protocols": {protocol: {"metrics": {"mean", "low",
    "high"}, "ratio", "failed"}}}], "mark", "verdicts", …}; the ratio is to the mark, paired by user;
    "seconds" is the time of encoding, None where the store was there before.

    Raises
    ------
    ValueError
        If an encoder is named twice, or a protocol is unknown.
    """
    names = list(encoders)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`encoders`: {', '.join(names)}, expected two or more different names")
    opened = open_or_prepare(dataset, progress)
    chosen = list(protocols or [*default_protocols(opened), *COLD])
    check_protocols(chosen)
    count = DEFAULT_SPLITS if splits is None else number_of_splits(splits, chosen)
    folder = Path(out) if out is not None else opened.path / "scoreboard"
    rows: list[Json] = []
    per_user: dict[str, dict[str, UserMeans]] = {}
    with single_writer(folder):
        for name in names:
            store, encoding = _encode(opened, name, folder, progress)
            figures: dict[str, Json] = {}
            per_user[name] = {}
            for protocol in chosen:
                splits_read = splits_of(opened, protocol, count)
                if name == NONE:  # of the same splits, which depend on copies of texts
                    splits_read = [without_text(split) for split in splits_read]
                benchmark = Benchmark(
                    protocol=protocol,
                    dataset=opened,
                    splits=splits_read,
                    store=store,
                    out=folder,
                    progress=progress,
                    rows=ROWS,
                    tuning_seconds=0.0,
                    users=users,
                )
                results = measure_row(benchmark, OURS)
                if isinstance(results, str):
                    figures[protocol] = {"failed": results}
                    continue
                per_user[name][protocol] = user_means(results)
                values = per_user[name][protocol][METRIC]
                figures[protocol] = {"failed": None, "metrics": bootstrap_mean(values)}
            rows.append({"encoder": name, **encoding, "protocols": figures})
    mark = LEXICAL if LEXICAL in names else names[0]
    for row in rows:
        for protocol, figures_of in row["protocols"].items():
            figures_of["ratio"] = _ratio(per_user, row["encoder"], mark, protocol)
    result: Json = {
        "encoders": rows,
        "mark": mark,
        "protocols": chosen,
        "splits": count,
        "users": users,
        "dataset": str(opened.path),
        "verdicts": [verdict(row, mark) for row in rows if row["encoder"] != mark],
    }
    write_json(folder / "encoders.json", result)
    return result


def _ratio(
    per_user: Mapping[str, Mapping[str, UserMeans]], name: str, mark: str, protocol: str
) -> dict[str, float] | None:
    if name == mark or protocol not in per_user[name] or protocol not in per_user[mark]:
        return None
    return bootstrap_ratio(per_user[name][protocol][METRIC], per_user[mark][protocol][METRIC])


def verdict(row: Json, mark: str) -> str:
    """A sentence on an encoder beside the mark, which says no more than the intervals do."""
    name, ratios = row["encoder"], {p: f["ratio"] for p, f in row["protocols"].items() if f["ratio"]}
    above = [protocol for protocol, ratio in ratios.items() if ratio["low"] > 1]
    below = [protocol for protocol, ratio in ratios.items() if ratio["high"] < 1]
    parts = []
    if above:
        parts.append(f"ranks better than {mark} in {_listed(above, ratios)}")
    if below:
        parts.append(f"ranks worse in {_listed(below, ratios)}")
    rest = [protocol for protocol in ratios if protocol not in (*above, *below)]
    if rest:
        parts.append(f"no difference is shown in {_listed(rest, ratios)}")
    return f"{name}: {'; '.join(parts) or 'was not measured'}"


def _listed(protocols: Sequence[str], ratios: Mapping[str, dict[str, float]]) -> str:
    return ", ".join(
        f"{protocol} ({ratios[protocol]['mean']:.2f}, {ratios[protocol]['low']:.2f}-"
        f"{ratios[protocol]['high']:.2f})"
        for protocol in protocols
    )


def _encode(dataset: Dataset, encoder: str, folder: Path, progress: Progress) -> tuple[EmbeddingStore, Json]:
    """Store of an encoder, and the time and bytes of encoding."""
    if encoder == NONE:
        store = write_empty_store(without_text(dataset), folder / "stores" / NONE)
        return store, {"seconds": 0.0, "bytes": 0}
    record = folder / f"encoded-{digest(encoder)[:8]}.json"
    started = time.monotonic()
    result = precompute(dataset.path, encoder=encoder, progress=progress)
    if not result.consolidated:
        consolidate(dataset.path, store=str(result.store), progress=progress)
        if not record.exists():
            write_json(record, {"seconds": round(time.monotonic() - started, 1)})
    seconds = json.loads(record.read_bytes())["seconds"] if record.exists() else None
    store = EmbeddingStore.open(result.store)
    size = sum(path.stat().st_size for path in store.path.iterdir() if path.is_file())
    return store, {"seconds": seconds, "bytes": size}


def without_text(dataset: Dataset) -> Dataset:
    """The dataset with empty texts, in memory."""
    passages = dataset.passages
    empty = pl.Series("text", np.full(len(passages), ""), dtype=pl.String)
    return replace(
        dataset,
        base_hash=digest(dataset.base_hash, "without text"),
        passages=replace(passages, text=empty),
    )
