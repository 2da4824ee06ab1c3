"""`llmdirect prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from llmdirect.choices import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.cli.console import Bars, JsonFlag, emit, literal, print_text, stdout
from llmdirect.cli.flags import with_flags

if TYPE_CHECKING:
    from llmdirect.common.types import Json
    from llmdirect.data.prepare import PrepareResult


def prepare(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REVIEWS",
            help="Files of raw reviews, plain or compressed, a folder of them, or - for standard input.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DATASET", help="Folder of the dataset to write.")],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE=FIELD,…",
            help="Fields of your file by role: user, item, text, rating, time, summary. "
            "Numbers from 0 are the columns of a file without a header. An empty field leaves a role out. "
            "Put a pair that contains a comma in double quotes.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Encoding of text files, such as cp1252 or gbk. (default: UTF-8)"),
    ] = None,
    quote: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Quotes of CSV files: none, double (a quote is written twice) or backslash. "
            "(default: found in the file)",
        ),
    ] = None,
    raw_text: Annotated[
        bool,
        typer.Option("--raw-text", help="Leave texts as they are; by default HTML is removed from them."),
    ] = False,
    k_core: Annotated[
        int, typer.Option(help="Keep only users and items with at least this many interactions; 0 keeps all.")
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split into train, validation and test: random, leave-last-out or global-time.",
            show_default="random",
        ),
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="Your own split: field with train, valid or test for each review."
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Your own split: reviews for validation; REVIEWS are then train."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Your own split: reviews for the test; REVIEWS are then train."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of the split.", show_default=str(DEFAULT_SEED))
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VALID,TEST",
            help="Shares of the three splits; they add up to 1.",
            show_default=",".join(map(str, DEFAULT_FRACTIONS)),
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help='Which interactions count as positive, such as "rating>=4". (default: all)'
        ),
    ] = None,
    passage_unit: Annotated[
        str,
        typer.Option(
            help="Text that is encoded as one passage: review, or document (all reviews of a user or item)."
        ),
    ] = "review",
    interactions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Interactions without text, such as orders, beside reviews or alone."
        ),
    ] = None,
    interaction_columns: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE=FIELD,…",
            help="Fields of the interactions by role: user, item, rating, time, weight.",
        ),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File of items: titles, descriptions, categories, features, prices, image addresses.",
        ),
    ] = None,
    item_columns: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE=FIELD,…",
            help="Fields of the file of items by role: item, title, description, categories, features, "
            "price, image.",
        ),
    ] = None,
    only_reviewed_items: Annotated[
        bool,
        typer.Option(
            "--only-reviewed-items",
            help="Leave out items that have no review; by default they can be recommended, too.",
        ),
    ] = False,
    with_summary: Annotated[
        bool, typer.Option("--with-summary", help="Put the summary of a review before its text.")
    ] = False,
    skip_bad_lines: Annotated[
        bool,
        typer.Option(
            "--skip-bad-lines",
            help="Skip lines that cannot be read, and print their number, instead of stopping.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a dataset in the folder that was prepared differently."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Turn raw reviews into a dataset: user and item indices, splits, texts.

    JSON lines or arrays, CSV, Parquet and Feather are read. The layouts of Amazon, Yelp, Google Local,
    Goodreads, Steam, MovieLens and RecBole are recognised; name other fields with --columns.

    Examples:

      llmdirect prepare reviews_Musical_Instruments_5.json.gz --out instruments

      llmdirect prepare books.csv --out books --k-core 3 --columns user=reader,item=isbn,text=comment

      llmdirect prepare reviews.csv --interactions orders.csv --out shop
    """
    from llmdirect.data.prepare import prepare as work
    from llmdirect.data.readers.formats import parse_columns

    result = work(
        source or None,
        out,
        columns=parse_columns(columns),
        encoding=encoding,
        quote=quote,
        raw_text=raw_text,
        k_core=k_core,
        split=split,
        split_column=split_column,
        valid=valid,
        test=test,
        seed=seed,
        fractions=_fractions(fractions) if fractions is not None else None,
        positive=positive,
        passage_unit=passage_unit,
        interactions=interactions,
        interaction_columns=parse_columns(interaction_columns, "interaction_columns"),
        items=items,
        item_columns=parse_columns(item_columns, "item_columns"),
        only_reviewed_items=only_reviewed_items,
        with_summary=with_summary,
        skip_bad_lines=skip_bad_lines,
        overwrite=overwrite,
        progress=Bars(),
    )
    if as_json:
        emit(result.to_json())
    else:
        _show_prepared(result)


def _show_fields(result: "PrepareResult") -> None:
    """Tables of the fields that were read."""
    for name, source in result.counts["sources"].items():
        _show_source(name, source)


def _show_source(name: str, source: "Json") -> None:
    from llmdirect.data.readers.formats import field_list

    records = source["rows_read"] + source["bad_lines"]
    bad = f"{records:,} records, {source['bad_lines']:,} of them bad"
    print_text(f"{name}: {bad}; {source['description']}; layout: {source['format']}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("role", style="bold")
    table.add_column("field")
    for name in ("read", "missing", "odd"):
        table.add_column(name, justify="right")
    table.add_column("values", style="dim")
    for field in source["fields"]:
        numbers = (f"{field[name]:,}" for name in ("read", "missing", "odd"))
        table.add_row(field["role"], literal(field["field"]), *numbers, field["remark"])
    stdout().print(table)
    if source["not_used"]:
        print_text(f"not used: {field_list(source['not_used'])}")
    stdout().print()


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"`fractions`: {text!r} is not TRAIN,VALID,TEST, such as 0.7,0.1,0.2") from None
    return train, valid, test


def _show_prepared(result: "PrepareResult") -> None:
    from llmdirect.data.dataset import SPLIT_NAMES

    counts = result.counts
    _show_fields(result)
    core, copies = counts["k_core_removed"], counts["copies_kept_together"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")

    def line(name: str, value: str, remark: str = "") -> None:
        table.add_row(name, value, remark)

    line("users", f"{counts['users']:,}")
    line("items", f"{counts['items']:,}")
    line("interactions", f"{counts['interactions']:,}", f"{counts['positives']:,} positive")
    for name in SPLIT_NAMES:
        number = counts["per_split"][name]
        line(f"  {name}", f"{number:,}", f"{number / counts['interactions']:.1%}")
    line("density", f"{counts['density']:.3%}")
    if counts["median_words"] is not None:
        line("words per review", f"{counts['median_words']:.0f}", "median")
    line("passages", f"{counts['passages']:,}")
    line("duplicates dropped", f"{counts['duplicates_dropped']:,}", "the last of each user and item stays")
    line(
        "copies kept together",
        f"{copies['interactions']:,}",
        f"in {copies['groups']:,} groups, one split each",
    )
    line("empty texts", f"{counts['empty_texts']:,}")
    if counts["without_rating"]:
        line("without rating", f"{counts['without_rating']:,}")
    if result.options["k_core"]:
        line(
            "k-core removed", f"{core['interactions']:,}", f"{core['users']:,} users, {core['items']:,} items"
        )
    if counts["bad_lines"]:
        line("bad lines skipped", f"{counts['bad_lines']:,}")
    if metadata := counts.get("item_metadata"):
        line(
            "items with metadata",
            f"{metadata['items_found']:,}",
            f"{metadata['descriptions']:,} descriptions; fields: {', '.join(metadata['fields'].values())}",
        )
        if alone := metadata.get("items_without_interactions"):
            line("items without a review", f"{alone:,}", "candidates, too; --only-reviewed-items drops them")
    stdout().print(table)
    for note in result.notes:
        print_text(f"note: {with_flags(note)}")
    word = "is complete already, nothing changed" if result.status == "unchanged" else "written"
    print_text(f"{result.dataset}: {word} ({result.hash[:12]})")
