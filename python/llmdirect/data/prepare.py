"""Preparation of a dataset from raw reviews."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llmdirect.choices import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.common.conditions import check_conditions
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result
from llmdirect.data.dataset import GIVEN, Dataset
from llmdirect.data.dataset_folder import (
    complete_manifest,
    hash_of_other_readers,
    remove_unreferenced,
    unreferenced_tables,
    write_tables,
)
from llmdirect.data.readers.raw_files import base_name
from llmdirect.data.readers.source_reader import SourceReader, check_own_split
from llmdirect.data.readers.sources import Source, check_text_options, resolve_source
from llmdirect.data.splits import Fractions, check_split
from llmdirect.data.tables import PASSAGE_UNITS, PositiveRule, build_tables

_log = logging.getLogger(__name__)
EMPTY_VALID_NOTE: Final = (
    "no review is in valid, so nothing can be trained: users with three reviews or more have one there "
    "(`k_core=3` keeps only those)"
)
COPIES_NOTE: Final = (
    "no review is in valid, so nothing can be trained: {copies:,} of {interactions:,} reviews have the text "
    "of another review of the same user or item, and copies stay in one split; empty the texts that many "
    'people share, such as "good"'
)
DOCUMENT_NOTE: Final = (
    "passage unit document: the text of a user or an item is one passage, so the review that is being scored "
    "cannot be taken out of it; training pairs see their own review"
)

SAME_NOTE: Final = (
    "prepared again, as another version of the readers wrote the dataset that was here; it came out the same"
)
OTHER_NOTE: Final = (
    "prepared again, as another version of the readers wrote the dataset that was here; it came out "
    "different, so run `llmdirect precompute` and `llmdirect train` again, too"
)


@dataclass(frozen=True)
class PrepareResult(Result):
    """The prepared dataset of a call of `prepare`."""

    status: Literal["written", "unchanged"]
    """Unchanged: the folder held the same dataset, complete."""
    dataset: Path
    """Folder of the dataset."""
    hash: str
    """Content hash of the dataset: 32 hex digits."""
    options: Json
    """Options by name, the input files by their hashes."""
    counts: Json
    """Numbers of users, items, interactions, …, as in the manifest."""
    notes: list[str]
    """Consequences of the options that need attention."""


def prepare(
    source: Source | None,
    out: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    quote: str | None = None,
    raw_text: bool = False,
    k_core: int = 0,
    split: str | None = None,
    split_column: str | None = None,
    valid: Source | None = None,
    test: Source | None = None,
    seed: int | None = None,
    fractions: Fractions | None = None,
    positive: str | None = None,
    passage_unit: str = "review",
    interactions: Source | None = None,
    interaction_columns: Mapping[str, str] | None = None,
    items: Source | None = None,
    item_columns: Mapping[str, str] | None = None,
    only_reviewed_items: bool = False,
    with_summary: bool = False,
    skip_bad_lines: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> PrepareResult:
    """Prepare a dataset from raw reviews: read, filter, split, and write it into a folder.

    Of a repeated (user, item) pair the last interaction is kept. The folder changes in one step: a killed
    process leaves the old dataset or none, and the next call writes the same bytes. A complete dataset of
    the same input and options is left as it is, unless another version of the readers wrote it.

    Parameters
    ----------
    source
        Reviews: a file of JSON lines, CSV, Parquet or Feather, plain or compressed, a folder of such files, a
        pattern, "-" for standard input, or several of these; or a table of pandas, Polars, Arrow or Hugging
        Face datasets. None where there are interactions without text alone.
    out
        Folder of the dataset.
    columns
        Field of each role: user, item, text, rating, time, summary; by default known formats are recognised.
        "" leaves a role out. Numbers from 0 are the columns of a file without a header.
    encoding
        Encoding of text files; by default UTF-8, or that of a byte order mark.
    quote
        Quotes of CSV files: "none", "double" (a quote is written twice) or "backslash"; by default found in
        the file.
    raw_text
        Leave texts as they are; by default entities and tags of HTML, and characters that are not shown, are
        cleaned, and letters composed (NFC).
    k_core
        Minimum number of interactions of every user and item, 0 for no minimum.
    split
        "random" (by user; the default), "leave-last-out" or "global-time".
    split_column
        Field with a split of one's own: train, valid or test for each review.
    valid, test
        Reviews of these splits; `source` is then train.
    seed
        Seed of the random split.
    fractions
        Shares of train, valid and test; not used by leave-last-out.
    positive
        Rule of positive interactions such as "rating>=4"; by default all are positive.
    passage_unit
        "review" (a passage per review), or "document" (a passage per user and per item, of train reviews).
    interactions
        Interactions without text, such as orders, from the same kinds of sources. A pair that has a review as
        well is one interaction.
    interaction_columns
        Field of each role of `interactions`: user, item, rating, time, weight.
    items
        Titles, descriptions, categories, features, prices and image addresses of items, from the same kinds
        of sources. Items that no review or interaction names are candidates without interactions.
    item_columns
        Field of each role of `items`: item, title, description, categories, features, price, image.
    only_reviewed_items
        Leave out items that have no review and no interaction.
    with_summary
        Put the summary of a review before its text.
    skip_bad_lines
        Leave out lines that cannot be used instead of raising an error.
    overwrite
        Replace any dataset in `out`, a damaged one too.
    progress
        Receiver of progress reports.

    Raises
    ------
    ValueError
        If an option is invalid.
    OSError
        If a file cannot be read or written.
    DataError
        If the files hold something they must not hold, or `out` holds a dataset of other options.
    BusyError
        If another process writes into `out`.

    Examples
    --------
    >>> prepare("reviews.json.gz", "reviews", k_core=5).counts["users"]  # doctest: +SKIP
    1429
    """
    out = Path(out)
    given = {
        "split": split,
        "split_column": split_column,
        "valid": valid,
        "test": test,
        "seed": seed,
        "fractions": fractions,
        "interactions": interactions,
        "interaction_columns": interaction_columns,
        "items": items,
        "item_columns": item_columns,
        "only_reviewed_items": only_reviewed_items or None,
    }
    has_split = not (split_column is None and valid is None and test is None)
    split = split or (GIVEN if has_split else "random")
    check_conditions("prepare", given, given | {"split": "random" if has_split else split})
    if columns and "summary" in columns and not with_summary:
        raise ValueError("`columns`: the summary has no effect without `with_summary=True`")
    if source is None and (interactions is None or has_split):
        raise ValueError("no reviews are given" + ("" if has_split else ", nor `interactions`"))
    seed = DEFAULT_SEED if seed is None else seed
    fractions = fractions or DEFAULT_FRACTIONS
    _check_options(k_core, split, seed, fractions, passage_unit)
    rule = PositiveRule.parse(positive)
    sources = {
        name: resolve_source(part)
        for name, part in (
            ("source", source),
            ("valid", valid),
            ("test", test),
            ("interactions", interactions),
            ("items", items),
        )
        if part is not None
    }
    check_text_options(list(sources.values()), encoding, quote)
    digests = {name: part.digest() for name, part in sources.items()}
    check_own_split(sources, digests)
    options: Json = {
        "columns": dict(columns) if columns else None,
        "encoding": encoding,
        "fractions": None if split in ("leave-last-out", GIVEN) else list(fractions),
        "interaction_columns": dict(interaction_columns) if interaction_columns else None,
        "item_columns": dict(item_columns) if item_columns else None,
        "items": None,
        "k_core": k_core,
        "positive": str(rule) if rule else None,
        "quote": quote,
        "raw_text": raw_text,
        "seed": seed,
        "skip_bad_lines": skip_bad_lines,
        "source": None,
        "split": split,
        "split_column": split_column,
        **({"only_reviewed_items": True} if only_reviewed_items else {}),
        "unit": passage_unit,
        "with_summary": with_summary,
        **digests,
    }
    if complete := complete_manifest(out, options, overwrite):
        if unreferenced_tables(out, complete):  # a process was killed after its commit
            with single_writer(out):
                remove_unreferenced(out, complete)
        return _prepare_result(out, complete, "unchanged")
    replaced = None if overwrite else hash_of_other_readers(out)
    reader = SourceReader(sources, encoding, quote, skip_bad_lines, raw_text, progress)
    reviews = reader.reviews(columns, with_summary, split_column)
    orders = reader.interactions(interaction_columns)
    tables = build_tables(
        reviews,
        orders,
        k_core=k_core,
        split=split,
        seed=seed,
        fractions=fractions,
        positive=rule,
        passage_unit=passage_unit,
        metadata=reader.item_metadata(item_columns, reviews or orders, only_reviewed_items),
    )
    with single_writer(out):
        if complete := complete_manifest(out, options, overwrite):  # by another process, meanwhile
            return _prepare_result(out, complete, "unchanged")
        manifest = write_tables(out, options, tables)
    if passage_unit == "document":
        _log.warning(DOCUMENT_NOTE)
    return _prepare_result(out, manifest, "written", replaced)


def open_or_prepare(path: Path | str, progress: Progress = SILENT) -> Dataset:
    """Open a dataset, or prepare a raw file with default options into the folder `./<name>/` and open that.

    Parameters
    ----------
    path
        Folder of a dataset, or file of reviews.
    progress
        Receiver of progress reports.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    DataError
        If the dataset is damaged or the file cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        return Dataset.open(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; give a dataset folder or a file of reviews")
    out = Path(base_name(path))
    if out.resolve() == path.resolve():
        raise ValueError(
            f"{path}: the folder for its dataset would have the same name; add a suffix to the file"
        )
    _log.info("%s: a raw file; preparing it into %s", path, out)
    prepare(path, out, progress=progress)
    return Dataset.open(out)


def _check_options(k_core: int, split: str, seed: int, fractions: Fractions, passage_unit: str) -> None:
    if k_core < 0:
        raise ValueError(f"`k_core`: {k_core}, expected 0 (off) or more")
    if passage_unit not in PASSAGE_UNITS:
        raise ValueError(f"`passage_unit`: {passage_unit!r} is unknown; one of {', '.join(PASSAGE_UNITS)}")
    if split != GIVEN:
        check_split(split, seed, fractions)


def _empty_valid_note(counts: Json) -> str:
    """Why no interaction is in valid."""
    copies = counts["copies_kept_together"]["interactions"]
    if 2 * copies > counts["interactions"]:
        return COPIES_NOTE.format(copies=copies, interactions=counts["interactions"])
    return EMPTY_VALID_NOTE


def _prepare_result(
    out: Path, manifest: Json, status: Literal["written", "unchanged"], replaced: str | None = None
) -> PrepareResult:
    """Result of `prepare`; `replaced` is the hash of a dataset that another version of the readers wrote."""
    options = manifest["options"]
    notes = [DOCUMENT_NOTE] if options["unit"] == "document" else []
    if replaced is not None:
        notes.append(SAME_NOTE if replaced == manifest["hash"] else OTHER_NOTE)
    for role, number in manifest["counts"].get("shared_ids", {}).items():
        if not number:
            notes.append(
                f"reviews and interactions have no {role} in common; compare how both files write its ids"
            )
    if not manifest["counts"]["per_split"]["valid"] and (
        options["fractions"] is None or options["fractions"][1]
    ):
        notes.append(_empty_valid_note(manifest["counts"]))
    return PrepareResult(
        status=status,
        dataset=out,
        hash=manifest["hash"],
        options=options,
        counts=manifest["counts"],
        notes=notes,
    )
