"""Files as other programs write them: JSON arrays, headers, end marks, dates, pipes, splits of one's own."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas
import polars as pl
import pytest

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.common.progress import Task
from llmdirect.data import dataset_folder
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.readers import json_values
from llmdirect.data.readers.reviews import Reviews, read_interactions, read_reviews
from review_files import Record, review, write_lines

RECORDS = [review(f"u{n}", f"i{n % 2}", f"text {n}\nand \u00e9", rating=n) for n in range(5)]
ROLES = {"user": "0", "item": "1", "text": "2", "rating": "3"}


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(reviews: Reviews) -> list[tuple[Any, ...]]:
    return reviews.frame.select("user", "item", "text", "rating").rows()


def expected(records: list[Record] = RECORDS) -> list[tuple[Any, ...]]:
    return [(r["user"], r["item"], r["text"], float(r["rating"])) for r in records]


def test_fields_without_a_role_are_listed(tmp_path: Path, cli: CommandLine) -> None:
    records = [{**record, "created_at": 1, "helpful": [0, 1]} for record in RECORDS]
    raw = write_lines(tmp_path / "raw.jsonl", records)
    assert read_reviews(raw).not_used == ["created_at", "helpful"]
    answer = cli("prepare", raw, "--out", tmp_path / "out")
    assert "\nnot used: created_at, helpful\n" in answer.out
    answer = cli("prepare", raw, "--out", tmp_path / "out", "--json")
    assert json.loads(answer.out)["counts"]["sources"]["reviews"]["not_used"] == ["created_at", "helpful"]
    answer = cli("prepare", raw, "--out", tmp_path / "two", "--columns", "time=created_at")
    assert "\nnot used: helpful\n" in answer.out
    (tmp_path / "raw.csv").write_text(",user,item,text\n0,u,i,t\n")  # as pandas writes its index
    answer = cli("prepare", tmp_path / "raw.csv", "--out", tmp_path / "three")
    assert "\nnot used: (no name)\n" in answer.out


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", "", ".txt"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_json_arrays(
    tmp_path: Path, suffix: str, indent: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "_CHUNK_CHARS", chunk)
    path = written(tmp_path / f"raw{suffix}", b"\xef\xbb\xbf" + json.dumps(RECORDS, indent=indent).encode())
    reviews = read_reviews(path)
    assert rows(reviews) == expected()
    assert reviews.description == "a JSON array"
    separate = "\n".join(json.dumps(record, indent=2, ensure_ascii=False) for record in RECORDS)
    path = written(tmp_path / "raw.json", separate)
    reviews = read_reviews(path)
    assert rows(reviews) == expected()
    assert reviews.description == "JSON objects over several lines"


def test_json_arrays_of_pandas(tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    frame = pandas.DataFrame(RECORDS)
    frame.to_json(path, orient="records")
    assert rows(read_reviews(path)) == expected()
    path.write_text(json.dumps([{**RECORDS[0], "rating": float("nan")}, RECORDS[1]]))  # NaN is no JSON
    assert read_reviews(path).frame["rating"].to_list() == [None, 1.0]
    for orient, kind in (
        (None, r"a dictionary of columns \('user', 'item', 'text', 'rating'\)"),
        ("index", 'a dictionary of rows, as pandas writes it with orient="index"'),
        ("split", "a table split into columns and data"),
        ("table", "a table with a schema"),
    ):
        frame.to_json(path, orient=orient)  # type: ignore[call-overload]
        with pytest.raises(DataError, match=rf'raw.json: {kind}.*orient="records", lines=True'):
            read_reviews(path)
    frame.to_json(path, orient="values")
    with pytest.raises(DataError, match="record 1: not a JSON object but list"):
        read_reviews(path)
    path.write_text(json.dumps({"page": 1, "reviews": RECORDS}))
    with pytest.raises(DataError, match=r"whose 'reviews' is a list of records.*jq -c '\.\[\"reviews\"\]"):
        read_reviews(path)


def test_bad_records_of_json_arrays(tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([RECORDS[0], 5, {"user": "u"}, RECORDS[1]], indent=1))
    with pytest.raises(DataError, match=r"2 of 4 records are bad.*\n  record 2: not a JSON object but int"):
        read_reviews(path)
    reviews = read_reviews(path, skip_bad_lines=True)
    assert (rows(reviews), reviews.bad_lines) == (expected(RECORDS[:2]), 2)
    good = json.dumps(RECORDS, indent=1)
    path.write_text(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"raw.json: the JSON is cut: it ends inside of record [23]"):
        read_reviews(path)
    path.write_text(good[:-1])
    with pytest.raises(DataError, match=r"the JSON is cut"):
        read_reviews(path)
    path.write_text('[\n{"user": 1},\n{"user" 2}\n' + " " * 100 + "]")
    with pytest.raises(DataError, match=r"record 2 \(line 3\): not JSON \(Expecting ':' delimiter\)"):
        read_reviews(path)
    path.write_text('[{"user": 1},]')
    with pytest.raises(DataError, match=r"record 2 \(line 1\): not JSON \(a comma before the closing"):
        read_reviews(path)
    path.write_text('[{"user": 1}]\n[{"user": 1}]')
    with pytest.raises(DataError, match=r"line 2\): not JSON \(text after the end of the array"):
        read_reviews(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="the array is empty"):
        read_reviews(path)


@pytest.mark.parametrize("header", ["user_id,Product ID,review,stars", "wer,was,worte,punkte", "a,asin,b,c"])
def test_numbers_of_columns_beside_a_header(tmp_path: Path, header: str) -> None:
    path = written(tmp_path / "raw.csv", f"{header}\nu,i,fine,4\nv,i,good,5\n")
    with pytest.raises(DataError, match=r"raw.csv: line 1 looks like a header \(.*\); name the columns"):
        read_reviews(path, columns=ROLES)
    with pytest.raises(DataError, match="line 1 looks like a header"):
        read_interactions(path, columns={"user": "0", "item": "1", "weight": "3"})


def test_numbers_of_columns_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path / "raw.csv", "u,i,review,4,05/12/2019\nv,i,good,5,13/12/2019\n")
    assert read_reviews(path, columns={**ROLES, "time": "4"}).frame.height == 2
    path.write_text("u,i,fine,bad\nv,i,good,bad\n")
    with pytest.raises(DataError, match="2 of 2 lines are bad"):
        read_reviews(path, columns=ROLES)


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (["12.0", "12", "guest"], ["12", "12", "guest"]),
        (["12.0", "12", "guest", "admin", "x"], ["12.0", "12", "guest", "admin", "x"]),
        (["12.0", "1.5", "x"], ["12.0", "1.5", "x"]),
        (["12.0", "1e5", "x"], ["12.0", "1e5", "x"]),
        (["-3.00", "x"], ["-3", "x"]),
    ],
)
def test_ids_that_are_whole_numbers(tmp_path: Path, ids: list[str], read: list[str]) -> None:
    path = written(tmp_path / "raw.csv", "user,item,text\n" + "".join(f"{name},i,t\n" for name in ids))
    assert read_reviews(path).frame["user"].to_list() == read


def test_end_of_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path / "raw.tsv", "user\titem\ttext\nu\ti\tone\n\\.\n\n")
    reviews = read_reviews(path)
    assert (reviews.frame["text"].to_list(), reviews.bad_lines) == (["one"], 0)
    path.write_text("user\titem\ttext\nu\ti\tone\n\\.\nv\ti\ttwo\n")
    with pytest.raises(DataError, match="line 3: 1 fields, the header has 3"):  # nothing is swallowed
        read_reviews(path)


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_the_delimiter_that_excel_names(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "raw.csv", f"\ufeff{line}\nuser;item;text, or not, or so;rating\nu;i;a, b;4\n")
    columns = {"text": "text, or not, or so"}
    assert rows(read_reviews(path, columns=columns)) == [("u", "i", "a, b", 4.0)]
    written(path, f"{line}\nu;i;a, b;4\nv;i;c;5\n")
    assert read_reviews(path, columns=ROLES).frame.height == 2
    written(path, "sep=\\t\nuser\titem\ttext, or\nu\ti\tone\n")
    assert read_reviews(path, columns={"text": "text, or"}).frame.height == 1
    written(path, "sep=^\nuser^item\n")
    with pytest.raises(DataError, match=r"line 1: the delimiter '\^' is not read; write the file with"):
        read_reviews(path)


def test_one_field_for_two_roles(tmp_path: Path, cli: CommandLine) -> None:
    path = written(tmp_path / "raw.csv", "user,comment,title\nu,a,b\n")
    answer = cli("prepare", path, "--out", tmp_path / "out", "--columns", "text=comment,item=comment")
    assert (answer.code, "--columns: text and item are both 'comment'" in answer.err) == (2, True)
    with pytest.raises(ValueError, match="`interaction_columns`: user and item are both 'user'"):
        read_interactions(path, columns={"user": "user", "item": "user"})
    # A named field is not taken for another role, too.
    fields = read_reviews(path, columns={"item": "title", "text": "comment"}).fields
    assert [(field.role, field.field) for field in fields if field.role in ("item", "summary")] == [
        ("item", "title")
    ]
    with pytest.raises(DataError, match="no summary field is known"):
        read_reviews(path, columns={"item": "title"}, with_summary=True)


@pytest.mark.parametrize(
    ("values", "read", "unit"),
    [
        (
            ["31.12.2020", "1.2.2020 14:05", "01.02.2020 14:05:09"],
            ["2020-12-31T00:00:00", "2020-02-01T14:05:00", "2020-02-01T14:05:09"],
            "dates, day first",
        ),
        (
            ["05/12/2019", "05/12/2019 10:00 AM", "12/31/2019", "1/2/2019 12:30:01 am"],
            ["2019-05-12T00:00:00", "2019-05-12T10:00:00", "2019-12-31T00:00:00", "2019-01-02T00:30:01"],
            "dates, month first",
        ),
        (
            ["05/12/2019", "31/12/2019 9:05 PM", "2019-01-02"],
            ["2019-12-05T00:00:00", "2019-12-31T21:05:00", "2019-01-02T00:00:00"],
            "dates, day first",
        ),
    ],
)
def test_written_dates(tmp_path: Path, values: list[str], read: list[str], unit: str) -> None:
    records = [review("u", f"i{n}", time=value) for n, value in enumerate(values)]
    reviews = read_reviews(write_lines(tmp_path / "raw.jsonl", records))
    times = reviews.frame["time_ms"].cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%S")
    assert times.to_list() == read
    assert reviews.fields[-1].remark.split(", ", 1)[1].startswith(unit)


@pytest.mark.parametrize("values", [["05/12/2019", "06/12/2019"], ["13/12/2019", "12/13/2019"]])
def test_ambiguous_dates(tmp_path: Path, values: list[str]) -> None:
    records = [review("u", f"i{n}", time=value) for n, value in enumerate([*values, "2019-01-02"])]
    with pytest.raises(DataError, match=r"2 of 3 lines(.|\n)*is ambiguous, as .*write ISO 8601"):
        read_reviews(write_lines(tmp_path / "raw.jsonl", records))


class Labels:
    """Progress that keeps the names of the work."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    @contextmanager
    def task(self, label: str, total: float | None, unit: str) -> Iterator[Task]:
        self.labels.append(label)

        class Nothing:
            def advance(self, amount: float = 1) -> None: ...

            def note(self, text: str) -> None: ...

        yield Nothing()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"oops",
        b"[1",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"PAR1",
        b"ARROW1",
        b"user,item,text\nu,i",
        b"a b\nc",
    ],
)
def test_standard_input_is_named(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Stream)
    progress = Labels()
    with pytest.raises(DataError, match=r"^standard input: ") as caught:
        prepare("-", tmp_path / "out", progress=progress)
    assert "llmdirect-" not in str(caught.value)
    assert set(progress.labels) <= {"reading standard input"}
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    with pytest.raises(DataError, match=f"^/dev/fd/{read}: ") as caught:
        read_reviews(f"/dev/fd/{read}", encoding="utf-16" if content == b"oops" else None)
    assert "llmdirect-" not in str(caught.value)
    os.close(read)


def test_progress_names_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(b"user,item,text\nu,i,t\n")

    monkeypatch.setattr(sys, "stdin", Stream)
    progress = Labels()
    read_reviews("-", progress=progress)
    assert progress.labels == ["reading standard input"]


def test_a_file_for_two_splits(tmp_path: Path, cli: CommandLine) -> None:
    train = write_lines(tmp_path / "train.jsonl", RECORDS)
    test = write_lines(tmp_path / "test.jsonl", RECORDS[:2])
    copy = write_lines(tmp_path / "copy.jsonl", RECORDS[:2])
    answer = cli("prepare", train, "--out", tmp_path / "out", "--valid", train, "--test", test)
    assert (
        answer.code,
        "train.jsonl: is the same file for train and validation (--valid)" in answer.err,
    ) == (
        1,
        True,
    )
    with pytest.raises(DataError, match=r"test.jsonl: is the same file for validation and test \(`test`\)"):
        prepare(train, tmp_path / "out", valid=test, test=test)
    with pytest.raises(DataError, match=r"test.jsonl: has the same content as .*copy.jsonl for valid"):
        prepare(train, tmp_path / "out", valid=copy, test=test)
    frame = pandas.DataFrame(RECORDS)
    with pytest.raises(DataError, match="the table: is the same file for train and test"):
        prepare(frame, tmp_path / "out", test=frame)


def test_causes_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    for content, message in (
        ("user item text\nu i fine\n", r"line 1: no delimiter .*'user item text'.*tabs or commas"),
        (
            "user,item,text\n1,u,i,a\n2,u,i,b\n",
            r"one field more than the header \(4 and 3\), as row names",
        ),
        ('"user","item","text"\n"1","u","i","a, b"\n"2","v","i","b"\n', "row names of R"),
        ("user,item,text\nu,i,a,\nu,j,b,\n", "every line has a delimiter at its end"),
    ):
        written(path, content)
        with pytest.raises(DataError, match=message):
            read_reviews(path)
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        chinese = "\u7528\u6237,\u7269\u54c1,\u6587\u672c\n" + "7,8,\u4e00\u672c\u597d\u4e66\n" * 9
        for content in ("user,item,text\nu,i,\u672c\n", json.dumps(RECORDS), chinese):
            written(path, content.encode(encoding))
            with pytest.raises(DataError, match=f'without a byte order mark; .*`encoding="{encoding}"`'):
                read_reviews(path)


def test_texts_with_commas_are_no_row_names(tmp_path: Path) -> None:
    path = written(tmp_path / "raw.csv", "user,item,text\nu,i,a, b\nu,j,c, d\n")
    with pytest.raises(DataError, match="line 2: 4 fields, the header has 3"):
        read_reviews(path)


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        ("user_id product_id text date", "plain"),
        ("user_id item_id review", "plain"),
        ("username product_id text date", "steam"),
        ("user_id parent_asin text", "amazon-2023"),
        ("reviewerID asin reviewText", "amazon-2014"),
        ("reviewerID asin reviewText vote", "amazon-2018"),
        ("user_id business_id text date", "yelp"),
        ("user_id gmap_id text time", "google-local"),
        ("userId movieId tag timestamp", "movielens"),
        ("User-ID ISBN review", "book-crossing"),
    ],
)
def test_layouts_are_named_where_they_are_evident(tmp_path: Path, names: str, layout: str) -> None:
    fields = names.split()
    values = ["2019-01-02" if name in ("date", "time", "timestamp") else "1" for name in fields]
    path = written(tmp_path / "raw.csv", f"{','.join(fields)}\n{','.join(values)}\n")
    assert read_reviews(path).format == layout


def test_line_breaks_in_a_header(tmp_path: Path) -> None:
    path = written(tmp_path / "raw.csv", 'user,item,"the\r\nreview, as\n\nwritten"\nu,i,"a\nb"\nv,i,c\n')
    reviews = read_reviews(path, columns={"text": "the review, as written"})
    assert reviews.frame["text"].to_list() == ["a\nb", "c"]
    assert reviews.frame["#line"].to_list() == [5, 7]
    written(path, 'user,item,"text\nu,i,fine"\nv,i,good\n')  # a stray quote swallows no line
    with pytest.raises(DataError, match='found: user, item, "text'):
        read_reviews(path)


def test_other_versions_of_the_readers(
    tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [review(f"u{n % 5}", f"i{n % 7}", f"text {n}") for n in range(35)]
    raw, out = write_lines(tmp_path / "raw.jsonl", records), tmp_path / "out"
    first = prepare(raw, out)
    assert prepare(raw, out).status == "unchanged"
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["readers"]  # as before there was the entry
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert Dataset.open(out).num_users == 5
    answer = cli("prepare", raw, "--out", out)
    assert "note: prepared again, as another version of the readers" in answer.out
    assert "it came out the same" in answer.out
    again = prepare(raw, out)
    assert (again.status, again.hash, again.notes) == ("unchanged", first.hash, [])
    monkeypatch.setattr(dataset_folder, "READERS_VERSION", 99)
    result = prepare(raw, out)
    assert (result.status, len(result.notes)) == ("written", 1)
    (out / "manifest.json").write_text(
        json.dumps({**json.loads((out / "manifest.json").read_text()), "readers": 1, "hash": "0" * 32})
    )
    assert "it came out different" in prepare(raw, out).notes[0]
