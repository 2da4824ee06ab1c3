"""Dialects of delimited text: tables that programs write are read back equal, and no line is swallowed."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmdirect.data.prepare import prepare
from llmdirect.data.readers.dialects import Dialect, choose_dialect, read_records
from llmdirect.data.readers.headers import choose_delimiter
from llmdirect.data.readers.reviews import Reviews, read_reviews

HEADER = ["user", "item", "text", "rating"]
LETTERS = st.text(alphabet="ab \"'\\,;|\t\n\r.é琴😀", max_size=12)
ROWS = st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=8)


def numbered(text: str) -> list[tuple[int, str]]:
    """Lines of a table after its header."""
    return list(enumerate(text.split("\n"), start=1))[1:]


def read_back(text: str, delimiter: str) -> tuple[Dialect, list[list[str]]]:
    """Dialect found in a table, and its records; fails where one is bad."""
    lines = numbered(text)
    dialect = choose_dialect(lambda: iter(lines), delimiter, len(HEADER))
    records = list(read_records(iter(lines), dialect, len(HEADER)))
    assert [record.reason for record in records if record.reason] == []
    return dialect, [record.values for record in records]


def looks_like_records(record: str, delimiter: str) -> bool:
    """Whether each line of a record with line breaks has its width, so that the file has two meanings."""
    parts = record.split("\n")
    return len(parts) > 1 and all(part.count(delimiter) == len(HEADER) - 1 for part in parts)


def table(rows: list[tuple[str, str]]) -> list[list[str]]:
    return [[f"u{n}", item, text, str(n % 5)] for n, (item, text) in enumerate(rows)]


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from(",;|\t"), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_doubled_quotes_are_read_back(
    rows: list[tuple[str, str]], delimiter: str, line_end: str, all_quoted: bool
) -> None:
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([HEADER, *table(rows)])
    assume("\\" not in written.getvalue())  # before a quote it would have two meanings
    assume(not any(looks_like_records(delimiter.join(record), delimiter) for record in table(rows)))
    _, records = read_back(written.getvalue(), delimiter)
    assert records == table(rows)


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from(",;|\t"), st.sampled_from(["\n", "\r\n"]))
def test_escaped_quotes_are_read_back(rows: list[tuple[str, str]], delimiter: str, line_end: str) -> None:
    plain = str.maketrans("", "", '"\\')
    rows = [(item.translate(plain), 'he said "' + text.replace("\\", "") + '"') for item, text in rows]
    assume(not any(looks_like_records(delimiter.join(record), delimiter) for record in table(rows)))
    written = io.StringIO(newline="")
    writer = csv.writer(
        written,
        delimiter=delimiter,
        lineterminator=line_end,
        quoting=csv.QUOTE_ALL,
        doublequote=False,
        escapechar="\\",
    )
    writer.writerows([HEADER, *table(rows)])
    dialect, records = read_back(written.getvalue(), delimiter)
    assert dialect.quote == "backslash"
    assert records == table(rows)


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from(["\n", "\r\n"]))
def test_tab_files_without_quotes_are_read_back(rows: list[tuple[str, str]], line_end: str) -> None:
    clean = str.maketrans("", "", "\t\n\r")
    rows = [(item.translate(clean).replace('"', ""), text.translate(clean)) for item, text in rows]
    texts = [text for _, text in rows if text]
    assume(not all(text.startswith('"') and text.endswith('"') for text in texts))  # else a quoted column
    assume(not any('""' in text or '\\"' in text for text in texts))
    written = "".join("\t".join(record) + line_end for record in [HEADER, *table(rows)])
    dialect, records = read_back(written, "\t")
    assert dialect.quote == "none"
    assert records == table(rows)


def test_quotes_at_the_ends_of_two_texts_swallow_no_row(tmp_path: Path) -> None:
    for delimiter in "\t,":
        lines = [[f"u{n}", f"i{n}", f"word {n}", "4"] for n in range(60)]
        lines[10][2] = '"' + lines[10][2]
        lines[40][2] += '"'
        path = tmp_path / "raw.csv"
        path.write_text("\n".join(delimiter.join(line) for line in [HEADER, *lines]))
        reviews = read_reviews(path)
        assert reviews.frame.height == 60
        assert reviews.frame["text"][10] == '"word 10'
        assert "without quotes" in reviews.description


@pytest.mark.parametrize("quote", ["double", "backslash"])
def test_a_stray_quote_costs_one_line(tmp_path: Path, quote: str) -> None:
    mark = '""' if quote == "double" else '\\"'
    lines = [f'"u{n}","i{n}","said {mark}{n}{mark},\nand left","4"' for n in range(30)]
    lines[7] = '"u7","i7","an "open" one","4"'
    lines[20] = '"u20","i20","never closed,"4"'
    path = tmp_path / "raw.csv"
    path.write_text("\n".join([",".join(HEADER), *lines]))
    reviews = read_reviews(path, skip_bad_lines=True)
    assert reviews.bad_lines == 2
    assert reviews.frame["user"].to_list() == [f"u{n}" for n in range(30) if n not in (7, 20)]
    assert reviews.frame["text"][0] == 'said "0",\nand left'


def test_quotes_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_text('user,item,text\nu,i,"fine"\nv,i,good\n')

    def texts(quote: str | None) -> list[str]:
        return read_reviews(path, quote=quote).frame["text"].to_list()

    assert texts("none") == ['"fine"', "good"]
    assert texts("double") == texts(None) == ["fine", "good"]
    with pytest.raises(ValueError, match="`quote`: 'single' is unknown; one of none, double, backslash"):
        prepare(path, tmp_path / "out", quote="single")


def columns_of(reviews: Reviews) -> list[tuple[object, ...]]:
    return reviews.frame.select("user", "item", "text", "rating", "time_ms").rows()


def test_files_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::1193::fine: really::5::978300760\n1::661::good::3::978302109\n")
    columns = {"user": "0", "item": "1", "text": "2", "rating": "3", "time": "4"}
    assert columns_of(read_reviews(path, columns=columns)) == [
        ("1", "1193", "fine: really", 5.0, 978_300_760_000),
        ("1", "661", "good", 3.0, 978_302_109_000),
    ]
    for delimiter in ",\t;|":
        path.write_text(delimiter.join(["1", "1193", "fine"]) + "\n" + delimiter.join(["2", "7", "good"]))
        assert read_reviews(path, columns=dict(list(columns.items())[:3])).frame.height == 2


def test_recbole_atomic_files(tmp_path: Path) -> None:
    path = tmp_path / "books.inter"
    path.write_text("user_id:token\titem_id:token\treview:token_seq\trating:float\nu\ti\tfine book\t4\n")
    assert columns_of(read_reviews(path)) == [("u", "i", "fine book", 4.0, None)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "::"])
def test_delimiters_are_found(delimiter: str) -> None:
    lines = [delimiter.join(["user", "item", "text"]), delimiter.join(["u", "i", "a, b; c | d"])]
    assert choose_delimiter(lines, header=True) == delimiter


def test_blanks_around_values(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_text('user, item, text\nu1, i1, word 1\nu1 , i2, "a, b"\n')
    assert read_reviews(path).frame.select("user", "item").rows() == [("u1", "i1"), ("u1", "i2")]
