"""Inputs as people have them: what is missing, in which unit, in which encoding, in which container."""

import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pandas
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import TEST, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.readers.item_metadata import read_item_metadata
from llmdirect.data.readers.reviews import Reviews, read_reviews
from llmdirect.data.readers.sources import resolve_source
from review_files import review, write_lines

MISSING = ["", "NaN", "nan", "None", "NA", "N/A", "NULL", "null", "NaT", "<NA>", "\\N", None, float("nan")]


def summary(reviews: Reviews) -> dict[str, tuple[str, int, int]]:
    return {field.role: (field.field, field.read, field.missing) for field in reviews.fields}


@pytest.mark.parametrize("value", MISSING)
@pytest.mark.parametrize("role", ["user", "item", "text"])
def test_missing_values_are_bad_lines(tmp_path: Path, role: str, value: Any) -> None:
    good = [review(f"u{n}", f"i{n}", f"text {n}") for n in range(3)]
    path = write_lines(tmp_path / "raw.jsonl", [*good, {**good[0], role: value}])
    if role == "text" and value == "":
        assert read_reviews(path).frame.height == 4  # a review may have no text
        return
    with pytest.raises(
        DataError, match=rf"1 of 4 lines are bad.*\n  line 4: no {role} \({role} is missing\)"
    ):
        read_reviews(path)
    reviews = read_reviews(path, skip_bad_lines=True)
    assert (reviews.frame.height, reviews.bad_lines) == (3, 1)
    assert summary(reviews)[role] == (role, 3, 1)


def test_words_that_only_look_missing_stay(tmp_path: Path) -> None:
    records = [review("nancy", "none", "NONE"), review("naN", "nil", "na")]
    frame = read_reviews(write_lines(tmp_path / "raw.jsonl", records)).frame
    assert frame.select("user", "item", "text").rows() == [("nancy", "none", "NONE"), ("naN", "nil", "na")]


def test_ids_that_a_missing_value_made_floats(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("user,item,text\n12.0,a,t\n12,b,t\n7.0,1.0,t\n")
    frame = read_reviews(tmp_path / "raw.csv").frame
    assert frame["user"].to_list() == ["12", "12", "7"]
    assert frame["item"].to_list() == ["a", "b", "1.0"]  # no column of numbers


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [60_000_000_000, 75_000_000_000, 120_000_000_000],
            [60_000_000_000, 75_000_000_000, 120_000_000_000],
        ),
        ([1_500_000_000, 0, 1_600_000_000], [1_500_000_000_000, 0, 1_600_000_000_000]),
        ([20140228, 20141231], [1_393_545_600_000, 1_419_984_000_000]),
        ([20140228, 20141328, 20151301], [20_140_228_000, 20_141_328_000, 20_151_301_000]),
        (["2014-02-28", 1_393_545_600], [1_393_545_600_000, 1_393_545_600_000]),
    ],
)
def test_a_column_of_times_has_one_unit(tmp_path: Path, values: list[Any], expected: list[int]) -> None:
    records = [review("u", f"i{n}", time=value) for n, value in enumerate(values)]
    assert read_reviews(write_lines(tmp_path / "raw.jsonl", records)).frame["time_ms"].to_list() == expected


def test_the_newest_is_tested_whatever_the_unit(tmp_path: Path) -> None:
    records = [review("u", f"i{n}", f"text {n}", time=60_000_000_000 + n * 15_000_000_000) for n in range(5)]
    raw = write_lines(tmp_path / "raw.jsonl", records)
    prepare(raw, tmp_path / "out", split="leave-last-out")
    dataset = Dataset.open(tmp_path / "out")
    held_out = {
        code: [
            dataset.item_ids[item]
            for item in dataset.interactions.item_idx[dataset.interactions.split == code]
        ]
        for code in (VALID, TEST)
    }
    assert held_out == {VALID: ["i3"], TEST: ["i4"]}


def test_the_layout_that_fills_most_roles_is_taken(tmp_path: Path) -> None:
    record = {
        "user_id": "1",
        "name": "A",
        "time": 1_534_000_000_000,
        "rating": 1,
        "text": "pie",
        "gmap_id": "g",
    }
    path = write_lines(tmp_path / "raw.jsonl", [record])
    for columns in (None, {"item": "gmap_id"}):
        reviews = read_reviews(path, columns=columns)
        assert reviews.frame["time_ms"].to_list() == [1_534_000_000_000]
        assert summary(reviews)["time"] == ("time", 1, 0)
        assert reviews.has_ratings
    assert "time" not in summary(read_reviews(path, columns={"time": ""}))


@pytest.mark.parametrize("named", [False, True])
def test_fields_that_appear_late_are_read(tmp_path: Path, named: bool) -> None:
    score, day = ("score one", "tag des") if named else ("rating", "time")
    records = [review(f"u{n}", "i") for n in range(1500)]
    records += [{**review(f"u{n}", "i"), score: 4, day: 1_500_000_000} for n in range(1500, 1510)]
    path = write_lines(tmp_path / "raw.jsonl", records)
    reviews = read_reviews(path, columns={"rating": score, "time": day} if named else None)
    assert summary(reviews)["rating"] == (score, 10, 1500)
    assert summary(reviews)["time"] == (day, 10, 1500)


def test_python_literals_and_booleans(tmp_path: Path) -> None:
    lines = [
        "{u'username': u'a', u'product_id': 7, u'text': u'it\\'s \u00e9', "
        "u'recommend': True, u'date': '2017-01-01'}",
        "{'username': 'b', 'product_id': '8', 'text': \"no\", 'recommend': False, 'date': None}",
        "{'username': 'c', 'product_id': open('x')}",
    ]
    path = tmp_path / "steam.json"
    path.write_text("\n".join(lines))
    reviews = read_reviews(path, skip_bad_lines=True)
    assert reviews.frame.select("user", "item", "text", "rating").rows() == [
        ("a", "7", "it's \u00e9", 1.0),
        ("b", "8", "no", 0.0),
    ]
    assert reviews.frame["time_ms"].to_list() == [1_483_228_800_000, None]
    assert (reviews.bad_lines, reviews.description) == (1, "Python literals, one a line")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "gbk", "utf-8-sig", "shift_jis"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_encodings(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = (
        "user,item,text\nu0,i0,\u672c\n"
        if suffix == ".csv"
        else '{"user":"u0","item":"i0","text":"\u672c"}\n'
    )
    path = tmp_path / f"raw{suffix}"
    path.write_bytes(text.encode(encoding))
    marked = encoding in ("utf-16", "utf-32", "utf-8-sig")
    reviews = read_reviews(path, encoding=None if marked else encoding)
    assert reviews.frame["text"].to_list() == ["\u672c"]


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_bytes("user,item,text\nu0,i0,\u7434\u5f26\n".encode("gbk"))
    with pytest.raises(DataError, match="line 2: not UTF-8; name the encoding of the file with `encoding`"):
        read_reviews(path)
    path.write_bytes(b"user,item,text\nu0,i0,\x81\xff\n")
    with pytest.raises(DataError, match=r"raw.csv: not shift_jis at byte 2\d or shortly before"):
        read_reviews(path, encoding="shift_jis")
    with pytest.raises(ValueError, match="`encoding`: 'latin-99' is unknown"):
        prepare(path, tmp_path / "out", encoding="latin-99")


def arrow_table() -> pa.Table:
    return pa.table(
        {
            "user": pa.array([1, 2, None]),
            "item": pa.array(["a", "b", "c"]).dictionary_encode(),
            "text": ["x", "y", "z"],
            "rating": pa.array([True, False, None]),
            "time": pa.array([1_504_031_426_000_000, None, 0], pa.timestamp("us", tz="+05:30")),
        }
    )


@pytest.mark.parametrize("container", ["parquet", "feather", "arrow", "pandas", "polars", "lazy"])
def test_tables_of_columns(tmp_path: Path, container: str) -> None:
    table = arrow_table()
    source: Any = tmp_path / "raw"
    if container == "parquet":
        pyarrow.parquet.write_table(table, source)
    elif container == "feather":
        pyarrow.feather.write_feather(table, source)
    elif container == "arrow":
        source = table
    else:
        naive = table.set_column(4, "time", table["time"].cast(pa.timestamp("us", tz="UTC")))
        source = naive.to_pandas() if container == "pandas" else pl.from_arrow(naive)
        source = source.lazy() if container == "lazy" else source
    reviews = read_reviews(source, skip_bad_lines=True)
    assert reviews.frame.select("user", "item", "text", "rating", "time_ms").rows() == [
        ("1", "a", "x", 1.0, 1_504_031_426_000),
        ("2", "b", "y", 0.0, None),
    ]
    assert reviews.bad_lines == 1


def test_a_hugging_face_dataset(tmp_path: Path) -> None:
    class Rows:
        """The part of `datasets.Dataset` that is used."""

        def with_format(self, kind: str) -> "Rows":
            assert kind == "arrow"
            return self

        def __getitem__(self, rows: slice) -> pa.Table:
            return arrow_table()[rows]

    assert read_reviews(Rows(), skip_bad_lines=True).frame.height == 2


def test_a_data_frame_is_prepared_once(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "text": ["x", "y", "z"]})
    assert prepare(frame, tmp_path / "out").status == "written"
    assert prepare(frame.copy(), tmp_path / "out").status == "unchanged"
    frame.loc[2, "text"] = "other"
    with pytest.raises(DataError, match="different: source"):
        prepare(frame, tmp_path / "out")


@pytest.mark.parametrize("kind", [pa.time64("us"), pa.duration("s"), pa.list_(pa.int64())])
def test_a_column_of_another_kind_is_named(tmp_path: Path, kind: pa.DataType) -> None:
    value: Any = [[1]] if pa.types.is_list(kind) else [1]
    table = pa.table({"user": ["u"], "item": ["i"], "text": ["t"], "time": pa.array(value, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "raw.parquet")
    with pytest.raises(
        DataError, match=r"column 'time' is .*, expected dates, timestamps, or numbers"
    ) as error:
        read_reviews(tmp_path / "raw.parquet")
    assert "\n" not in str(error.value)


def test_options_that_no_file_needs_are_refused(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "raw.jsonl", [review("u", "i")])
    with pytest.raises(ValueError, match="`quote`: no file of delimited text is read"):
        prepare(lines, tmp_path / "out", quote="none")
    with pytest.raises(ValueError, match="`encoding`: no text file is read"):
        prepare(arrow_table(), tmp_path / "out", encoding="gbk")
    (tmp_path / "items.csv").write_text("item,title\ni,A\n")
    prepare(lines, tmp_path / "out", items=tmp_path / "items.csv", quote="none")


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    for content, word in (
        (pickle.dumps([1]), "a pickle"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"<!DOCTYPE html>", "an HTML page"),
        (b"\x89HDF\r\n", "an HDF5 file"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"raw: {word}"):
            read_reviews(path)


def parts(folder: Path) -> list[Path]:
    return [
        write_lines(folder / f"part-{n}.jsonl", [review(f"u{n}", f"i{m}", rating=m) for m in range(3)])
        for n in range(3)
    ]


def test_several_files_a_folder_and_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    files = parts(folder)
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.csv").write_text("x")
    expected = read_reviews(files).frame
    assert expected.height == 9
    for source in (folder, str(folder / "part-*"), [files[0], str(folder / "part-[12].jsonl")]):
        assert read_reviews(source).frame.equals(expected)
    files[1].write_text('{"user": "u", "item": "i"}\n')
    with pytest.raises(
        DataError, match=r"part-1.jsonl: no field 'text' for the text, which other files have"
    ):
        read_reviews(folder)
    files[1].write_text('{"user": "u", "item": "i", "text": "t"}\noops')
    with pytest.raises(DataError, match=r"1 of 8 lines are bad.*\n  .*part-1.jsonl: line 2: not JSON"):
        read_reviews(folder)
    assert read_reviews(folder, skip_bad_lines=True).bad_lines == 1


def test_a_dataset_inside_the_folder_is_left_out(tmp_path: Path) -> None:
    parts(tmp_path)
    first = prepare(tmp_path, tmp_path / "dataset")
    assert first.counts["interactions"] == 9
    assert prepare(tmp_path, tmp_path / "dataset").status == "unchanged"
    with pytest.raises(DataError, match="as of a prepared dataset; give raw files"):
        prepare(tmp_path / "dataset", tmp_path / "other")


def test_standard_input(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(
        json.dumps(review(f"u{n}", f"i{m}", f"{n} {m}")) + "\n" for n in range(4) for m in range(4)
    )

    class Stream:
        buffer = io.BytesIO(content.encode())

    monkeypatch.setattr(sys, "stdin", Stream)
    answer = cli("prepare", "-", "--out", tmp_path / "out", "--json")
    assert json.loads(answer.out)["counts"]["interactions"] == 16


def test_names_with_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text('user_id,item_id,text,"rating, stars"\n1,1,"a, b",5\n2,1,b,4\n')
    reviews = read_reviews(tmp_path / "raw.csv", columns={"rating": "rating, stars"})
    assert reviews.frame.select("text", "rating").rows() == [("a, b", 5.0), ("b", 4.0)]


def test_lines_that_end_in_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_bytes(b'user,item,text\ru,i,"a, b"\rv,i,c\r')
    assert read_reviews(tmp_path / "raw.csv").frame["text"].to_list() == ["a, b", "c"]


def test_dumps_of_databases(tmp_path: Path) -> None:
    (tmp_path / "copy.tsv").write_text(
        "user\titem\ttext\trating\nu\ti\tone\\ntwo\\tC:\\\\new\t\\N\nv\ti\tx\t4\n"
    )
    reviews = read_reviews(tmp_path / "copy.tsv")
    assert reviews.frame.select("text", "rating").rows() == [("one\ntwo\tC:\\new", None), ("x", 4.0)]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2019-05-01 10:00:00 UTC", 1_556_704_800_000),
        ("2019-05", 1_556_668_800_000),
        (2019, 1_546_300_800_000),
    ],
)
def test_more_dates(tmp_path: Path, time: object, expected: int) -> None:
    path = write_lines(tmp_path / "raw.jsonl", [review("u", "i", time=time)])
    assert read_reviews(path).frame["time_ms"].to_list() == [expected]


def test_frames_as_programs_make_them() -> None:
    huge = pandas.DataFrame({"user": [12345678901234567890123, 5], "item": [1, 2], "text": ["a", "b"]})
    assert read_reviews(huge).frame["user"].to_list() == ["12345678901234567890123", "5"]
    unnamed = pandas.DataFrame([["1", "2", "a"]])
    assert read_reviews(unnamed, columns={"user": 0, "item": 1, "text": 2}).frame.height == 1
    twice = pandas.DataFrame([["1", "2", "a", "b"]], columns=["user", "item", "text", "text"])
    with pytest.raises(DataError, match="column 'text' is there 2 times"):
        read_reviews(twice)
    for series in (pandas.Series(["a"]), pl.Series(["a"])):
        with pytest.raises(DataError, match="Series: expected a path or a table"):
            read_reviews(series)


def test_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: a named pipe; read it as standard input"):
        read_reviews(tmp_path / "pipe")
    read, write = os.pipe()
    os.write(write, json.dumps(review("u", "i", "through a pipe")).encode())
    os.close(write)
    assert read_reviews(f"/dev/fd/{read}").frame["text"].to_list() == ["through a pipe"]
    os.close(read)


def test_a_table_that_is_none() -> None:
    with pytest.raises(DataError, match="dict: expected a path or a table"):
        resolve_source({"user": ["a"]})


def test_the_cause_of_an_empty_validation(tmp_path: Path, cli: CommandLine) -> None:
    same = [review(f"u{n % 5}", f"i{n}") for n in range(30)]
    answer = cli("prepare", write_lines(tmp_path / "same.jsonl", same), "--out", tmp_path / "same")
    assert "30 of 30 reviews have the text of another review" in answer.out
    single = [review(f"u{n}", "i", f"text {n}") for n in range(30)]
    answer = cli("prepare", write_lines(tmp_path / "single.jsonl", single), "--out", tmp_path / "single")
    assert "users with three reviews or more have one there" in answer.out
    # The cure works: reviews without text are no copies.
    emptied = [{**record, "text": ""} for record in same]
    answer = cli(
        "prepare", write_lines(tmp_path / "empty.jsonl", emptied), "--out", tmp_path / "empty", "--json"
    )
    assert json.loads(answer.out)["counts"]["per_split"] == {"train": 20, "valid": 5, "test": 5}


def test_prepare_shows_the_fields(tmp_path: Path, cli: CommandLine) -> None:
    records = [review(f"u{n % 3}", f"i{n}", f"text {n}", rating=n % 5 or None, time=n) for n in range(12)]
    path = write_lines(tmp_path / "raw.jsonl", records)
    answer = cli("prepare", path, "--out", tmp_path / "out")
    rows = [line.split() for line in answer.out.splitlines()]
    assert answer.out.startswith("reviews: 12 records, 0 of them bad; JSON lines; layout: plain")
    assert ["role", "field", "read", "missing", "odd", "values"] in rows
    assert ["rating", "rating", "9", "3", "0", "1", "to", "4"] in rows
    [time] = [row for row in rows if row[:1] == ["time"]]
    assert time[:5] == ["time", "time", "12", "0", "12"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["good", "no user", "oops", "", "5", '{"user": "u"']), min_size=1, max_size=30)
)
def test_every_record_is_read_or_bad(tmp_path_factory: pytest.TempPathFactory, kinds: list[str]) -> None:
    path = tmp_path_factory.mktemp("raw") / "raw.jsonl"
    lines = {"good": json.dumps(review("u", "i")), "no user": json.dumps(review(None, "i"))}
    path.write_text("\n".join([lines["good"], *(lines.get(kind, kind) for kind in kinds)]))
    reviews = read_reviews(path, skip_bad_lines=True)
    assert reviews.frame.height == 1 + kinds.count("good")
    assert reviews.frame.height + reviews.bad_lines == 1 + sum(kind != "" for kind in kinds)


ITEM_FILES = {
    "movies.csv": "movieId,title\ni1,A &amp; B\n",
    "recbole.item": "item_id:token\ttitle:token_seq\ni1\tA &amp; B\n",
    "pandas.csv": "parent_asin,title,description\ni1,A &amp; B,\"['one', 'two']\"\ni2,nan,[]\n",
    "numpy.csv": "parent_asin,title,description\ni1,A &amp; B,\"['one' 'two']\"\n",
    "lines.jsonl": '{"asin": "i1", "title": "A &amp; B", "description": ["one", "two"]}\n',
}


@pytest.mark.parametrize("name", ITEM_FILES)
def test_item_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(ITEM_FILES[name])
    metadata = read_item_metadata(tmp_path / name, ["i1", "i2"])
    assert metadata.titles == ["A & B", None]
    assert metadata.descriptions == ["one\ntwo" if "description" in metadata.fields else "", ""]


def test_columns_of_item_files_can_be_named(tmp_path: Path, cli: CommandLine) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [review("u", f"i{n}", f"text {n}") for n in range(4)])
    (tmp_path / "items.csv").write_text("key,label,about\ni1,A,long\n")
    named = ("--item-columns", "item=key,title=label,description=about")
    answer = cli("prepare", raw, "--out", tmp_path / "out", "--items", tmp_path / "items.csv", *named)
    assert answer.code == 0
    assert Dataset.open(tmp_path / "out").item_titles == [None, "A", None, None]
    answer = cli("prepare", raw, "--out", tmp_path / "no", "--items", tmp_path / "items.csv")
    assert "cannot tell the field of the item ids; found: key, label, about" in answer.err
    assert "--item-columns item=FIELD" in answer.err
    answer = cli("prepare", raw, "--out", tmp_path / "no", "--item-columns", "item=key")
    assert (answer.code, "--item-columns" in answer.err) == (2, True)
