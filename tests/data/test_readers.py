"""Readers: layouts, compression, reporting of bad lines, completeness."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect.common.errors import DataError
from llmdirect.data.readers import raw_files
from llmdirect.data.readers.encodings import NOT_UTF8
from llmdirect.data.readers.formats import parse_columns
from llmdirect.data.readers.json_file import _read_pieces
from llmdirect.data.readers.record_file import LINE
from llmdirect.data.readers.reviews import Reviews, read_reviews
from review_files import review, write_lines

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LAYOUTS: dict[str, dict[str, Any]] = {
    "amazon-2014": {
        "reviewerID": "U",
        "asin": "I",
        "reviewText": "Fine.",
        "overall": 4.0,
        "summary": "Ok",
        "helpful": [0, 1],
        "unixReviewTime": 1_393_545_600,
        "reviewTime": "02 28, 2014",
    },
    "amazon-2018": {
        "overall": 4.0,
        "verified": True,
        "reviewerID": "U",
        "asin": "I",
        "style": {"Color:": " Blue"},
        "reviewText": "Fine.",
        "summary": "Ok",
        "unixReviewTime": 1_393_545_600,
    },
    "amazon-2023": {
        "rating": 4.0,
        "title": "Ok",
        "text": "Fine.",
        "images": [],
        "asin": "variant",
        "parent_asin": "I",
        "user_id": "U",
        "timestamp": 1_393_545_600_000,
        "verified_purchase": True,
    },
    "yelp": {
        "review_id": "r",
        "user_id": "U",
        "business_id": "I",
        "stars": 4.0,
        "useful": 0,
        "text": "Fine.",
        "date": "2014-02-28 00:00:00",
    },
    "plain": {"user": "U", "item": "I", "text": "Fine.", "rating": 4, "time": "2014-02-28", "summary": "Ok"},
}
ROW = ("U", "I", "Fine.", 4.0, 1_393_545_600_000)
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def rows(reviews: Reviews) -> list[tuple[Any, ...]]:
    return reviews.frame.select("user", "item", "text", "rating", "time_ms").rows()


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_detection(tmp_path: Path, name: str) -> None:
    reviews = read_reviews(write_lines(tmp_path / "raw.json", [LAYOUTS[name]] * 2))
    assert (reviews.format, reviews.bad_lines, reviews.has_ratings) == (name, 0, True)
    assert rows(reviews) == [ROW, ROW]
    assert reviews.frame[LINE].to_list() == [1, 2]


@pytest.mark.parametrize("name", ["amazon-2014", "amazon-2018", "amazon-2023", "plain"])
def test_summary_precedes_text(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    title = "title" if name == "amazon-2023" else "summary"
    text = "text" if "text" in layout else "reviewText"
    records = [layout, {**layout, title: None}, {**layout, title: " "}, {**layout, text: ""}]
    reviews = read_reviews(write_lines(tmp_path / "raw.json", records), with_summary=True)
    assert reviews.frame["text"].to_list() == ["Ok\nFine.", "Fine.", "Fine.", "Ok"]


def test_missing_summary(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "raw.json", [LAYOUTS["yelp"]])
    cure = r'Name it: `columns={"summary": "FIELD"}`'
    with pytest.raises(DataError, match=rf"raw.json: `with_summary`, .*{cure}"):
        read_reviews(path, with_summary=True)


def test_optional_text_field(tmp_path: Path) -> None:
    without = {name: value for name, value in LAYOUTS["amazon-2018"].items() if name != "reviewText"}
    reviews = read_reviews(write_lines(tmp_path / "raw.json", [LAYOUTS["amazon-2018"], without]))
    assert reviews.frame["text"].to_list() == ["Fine.", ""]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("kind", [".json", ".csv", ".tsv", ""])
def test_compression_is_detected_by_content(tmp_path: Path, suffix: str, kind: str) -> None:
    table = [["user", "item", "text", "rating", "time"], ["U", "I", "Fine.", "4", "1393545600"]]
    if kind in (".json", ""):
        plain = json.dumps(LAYOUTS["plain"]).encode()  # no line end
    else:
        plain = "\r\n".join(("\t" if kind == ".tsv" else ",").join(line) for line in table).encode()
    for name in (f"raw{kind}{suffix}", f"named-wrongly{kind}.gz"):
        path = tmp_path / name
        path.write_bytes(COMPRESSIONS[suffix](plain))
        assert rows(read_reviews(path)) == [ROW]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_file_with_columns(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame(
        {
            "who": ["a", "b"],
            "what": [1, 2],
            "words": ['said "no",\nthen yes', "[b] {c}"],
            "stars": [4.5, None],
            "day": ["Tue Feb 28 10:00:00 +0100 2017", "2017-02-28T09:00Z"],
            "head": ["H", ""],
        }
    )
    path = tmp_path / f"raw{suffix}"
    write = {".jsonl": frame.write_ndjson, ".csv": frame.write_csv, ".parquet": frame.write_parquet}
    write[suffix](path)
    roles = {"user": "who", "item": "what", "text": "words", "rating": "stars", "time": "day"}
    reviews = read_reviews(path, columns={**roles, "summary": "head"}, with_summary=True)
    assert rows(reviews) == [
        ("a", "1", 'H\nsaid "no",\nthen yes', 4.5, 1_488_272_400_000),
        ("b", "2", "[b] {c}", None, 1_488_272_400_000),
    ]
    assert reviews.format == "columns"
    named = {name: roles[name] for name in ("user", "item", "text")}
    assert rows(read_reviews(path, columns=named))[0][3] == 4.5  # fields with usual names are used, too
    bare = read_reviews(path, columns={**named, "rating": ""})
    assert not bare.has_ratings
    assert rows(bare)[1] == ("b", "2", "[b] {c}", None, None)


def test_parquet_times(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a"], "item": ["i"], "text": ["t"], "time": ["2017-02-28"]})
    for dtype in (pl.Date(), pl.Datetime("us"), pl.Datetime("ns", "UTC")):
        times = frame["time"].str.to_date()
        frame.with_columns(times.cast(dtype)).write_parquet(tmp_path / "raw.parquet")
        assert rows(read_reviews(tmp_path / "raw.parquet")) == [("a", "i", "t", None, 1_488_240_000_000)]


def test_field_name_with_comma() -> None:
    assert parse_columns('user=who, "item=what, exactly",text=t') == {
        "user": "who",
        "item": "what, exactly",
        "text": "t",
    }


@pytest.mark.parametrize(
    ("rating", "expected"),
    [(4, 4.0), ("4.5", 4.5), ("4,5", 4.5), ("5,00", 5.0), (float("nan"), None), ("NA", None), ("null", None)],
)
def test_ratings(tmp_path: Path, rating: Any, expected: float | None) -> None:
    reviews = read_reviews(write_lines(tmp_path / "raw.json", [review("u", "i", rating=rating)]))
    assert reviews.frame["rating"].to_list() == [expected]


def test_parquet_numbers(tmp_path: Path) -> None:
    """Integer columns with missing values are often stored as floats."""
    frame = pl.DataFrame(
        {"user": [7.0, 8.5, 9.0], "item": [1, 2, 3], "text": "t", "rating": [float("nan"), 4.0, None]},
        strict=False,
    )
    frame.write_parquet(tmp_path / "raw.parquet")
    reviews = read_reviews(tmp_path / "raw.parquet").frame
    assert reviews["user"].to_list() == ["7", "8.5", "9"]
    assert reviews["item"].to_list() == ["1", "2", "3"]
    assert reviews["rating"].to_list() == [None, 4.0, None]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, 0),
        (-1.5, -1500),
        (3_999_999_999, 3_999_999_999_000),
        (4_000_000_000, 4_000_000_000),
        (1_393_545_600_250_000, 1_393_545_600_250),
        (1_393_545_600_250_000_000, 1_393_545_600_250),
        ("1393545600.25", 1_393_545_600_250),
        ("2014-02-28T00:00:00.125Z", 1_393_545_600_125),
        ("2014-02-28 02:00:00+02:00", 1_393_545_600_000),
        (20140228, 1_393_545_600_000),
        ("20140228", 1_393_545_600_000),
        (20141328, 20_141_328_000),
        ("  ", None),
        ("NaT", None),
        (None, None),
    ],
)
def test_times(tmp_path: Path, time: Any, expected: int | None) -> None:
    reviews = read_reviews(write_lines(tmp_path / "raw.json", [review("u", "i", time=time)]))
    assert reviews.frame["time_ms"].to_list() == [expected]


BAD_LINES = [
    ("not json", "not JSON (Expecting value at character 1)"),
    ('{"user": "u"', "not JSON (Expecting ',' delimiter at character 13)"),
    ("[1]", "not a JSON object but list"),
    (review("u", "i", None), "no text (text is missing)"),
    (review(None, "i"), "no user (user is missing)"),
    (review("u", " "), "no item (item is missing)"),
    (review("u", True), "item is bool, expected text or a number"),
    (review("u", "i", ["a"]), "text is list, expected text or a number"),
    (review("u", "i", True), "text is bool, expected text or a number"),
    (review("u", "i", "\ud800"), "text holds an unpaired surrogate, which is no character"),
    (review("u", "i", rating="five"), "rating 'five' is not a number"),
    (review("u", "i", rating="1,000"), "rating '1,000' is not a number"),
    (review("u", "i", rating=float("-inf")), "rating '-inf' is not finite"),
    (review("u", "i", rating=1e300), "is not finite"),
    (
        review("u", "i", time="soon"),
        "time 'soon' is neither a number since 1970, ISO 8601 (2006-01-02), nor like 'Mon",
    ),
    (review("u", "i", time="10/08/2013"), "time '10/08/2013' is ambiguous, as no time of the column tells"),
    (review("u", "i", time="31.02.2013"), "time '31.02.2013' is neither a number since 1970"),
    (review("u", "i", time=1e15), "is neither a number since 1970"),
    (b'{"user": "u", "item": "i", "text": "caf\xe9"}', "invalid UTF-8 at byte 40 of the line"),
]


def as_line(line: Any) -> bytes:
    text = json.dumps(line) if isinstance(line, dict) else line
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_bad_line_is_reported_or_skipped(tmp_path: Path, line: Any, reason: str) -> None:
    path = tmp_path / "raw.jsonl"
    good = [as_line(review(f"u{n}", "i", rating=n, time=n)) for n in range(4)]
    path.write_bytes(b"\n".join([*good[:2], b"", as_line(line), *good[2:]]))
    with pytest.raises(DataError) as caught:
        read_reviews(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: 1 of 5 lines are bad; mend them, or leave them out with `skip_bad_")
    assert "\n  line 4: " in message
    assert reason in message
    reviews = read_reviews(path, skip_bad_lines=True)
    assert reviews.bad_lines == 1
    assert reviews.frame["user"].to_list() == ["u0", "u1", "u2", "u3"]
    assert reviews.frame[LINE].to_list() == [1, 2, 5, 6]
    assert reviews.frame["rating"].to_list() == [0, 1, 2, 3]


def test_first_ten_bad_lines_are_shown(tmp_path: Path) -> None:
    lines = [json.dumps(review("u", f"i{n}")) if n % 2 else "x" for n in range(30)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="15 of 30 lines are bad") as caught:
        read_reviews(tmp_path / "raw.jsonl")
    shown = [line.split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert shown == [*(f"  line {n}" for n in range(1, 20, 2)), "  and 5 more"]


def test_csv_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    table = io.StringIO()
    csv.writer(table).writerows(
        [["user", "item", "text"], ["a", "i", "one\ntwo\n\nthree"], ["b", "i"], [], ["c", "i", "x" * 200_000]]
    )
    path.write_bytes(b"\xef\xbb\xbf" + table.getvalue().encode() + b"d,i,caf\xe9\r\ne,i,\r\n")
    with pytest.raises(DataError, match=r"raw.csv: 2 of 5 lines are bad") as caught:
        read_reviews(path)
    assert str(caught.value).splitlines()[1:] == [
        "  line 6: 2 fields, the header has 3",
        f"  line 9: {NOT_UTF8}",
    ]
    reviews = read_reviews(path, skip_bad_lines=True)
    assert reviews.frame[LINE].to_list() == [2, 8, 10]
    assert reviews.frame["text"].to_list() == ["one\ntwo\n\nthree", "x" * 200_000, ""]


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"user": st.text(min_size=1) | st.integers(), "item": st.text(min_size=1)},
            optional={
                "text": st.text() | st.none() | st.booleans() | st.lists(st.text()) | st.just("true"),
                "rating": st.integers(-9, 9) | st.floats(width=32) | st.text(max_size=3) | st.none(),
                "more": st.dictionaries(st.text(), st.text(), max_size=2),
            },
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_block_and_line_parsers_agree(records: list[dict[str, Any]], ascii: bool) -> None:
    """A bad line makes its block use the line parser, which must not change other lines."""
    fields = {"user": "user", "item": "item", "text": "text", "rating": "rating"}
    lines = [json.dumps(record, ensure_ascii=ascii).encode("utf-8", "surrogatepass") for record in records]

    def read(*lines: bytes) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
        parts = list(_read_pieces(io.BytesIO(b"\n".join(lines)), fields))
        frame = pl.concat([frame for frame, _ in parts])
        numbers = [None if value in (None, "") else value for value in frame["rating"]]
        # Adding 0.0 removes the sign of zeros.
        rating = pl.Series("rating", numbers, dtype=pl.String).cast(pl.Float32, strict=False) + 0.0
        return frame.with_columns(rating).rows(), [bad for _, part in parts for bad in part]

    quick, quick_bad = read(*lines)
    slow, slow_bad = read(*lines, b"no json")
    assert repr(quick) == repr(slow)  # repr, as NaN differs from NaN
    assert quick_bad == [bad for bad in slow_bad if bad[0] <= len(lines)]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_block_boundaries_do_not_change_result(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [as_line(review(f"u{n}", "i", "é" * (n % 50))) for n in range(40)]
    lines[7], lines[20], lines[39] = b"bad", b"", b"worse"
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(lines))
    expected = read_reviews(tmp_path / "raw.jsonl", skip_bad_lines=True)
    assert (expected.bad_lines, expected.frame.height) == (2, 37)
    monkeypatch.setattr(raw_files, "BLOCK_BYTES", block)
    reviews = read_reviews(tmp_path / "raw.jsonl", skip_bad_lines=True)
    assert reviews.frame.equals(expected.frame)
    assert reviews.bad_lines == 2


def test_first_of_repeated_keys_is_used(tmp_path: Path) -> None:
    line = b'{"user": "u", "item": "i", "text": "first", "text": "second"}'
    (tmp_path / "a.jsonl").write_bytes(line)
    (tmp_path / "b.jsonl").write_bytes(line + b"\nbad")
    for name in ("a.jsonl", "b.jsonl"):
        assert rows(read_reviews(tmp_path / name, skip_bad_lines=True))[0][2] == "first"


def test_columns_extend_detected_layout(tmp_path: Path) -> None:
    record = {"user_id": "U", "business_id": "I", "words": "Fine.", "stars": 4, "date": "2014-02-28"}
    reviews = read_reviews(write_lines(tmp_path / "raw.json", [record]), columns={"text": "words"})
    assert (reviews.format, rows(reviews)) == ("yelp", [ROW])
