"""Invalid input: exit code 1, a message with file, line and solution, and nothing written."""

import fcntl
import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from command_line import CommandLine
from llmdirect.common.errors import BusyError, DataError
from llmdirect.data import prepare as documents
from llmdirect.data.prepare import prepare
from review_files import review, write_lines


def jsonl(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("reviews.json", GOOD)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("reviews.json"), io.BytesIO())
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"user": ["a"], "item": ["i"], "text": [["nested"]]}).write_parquet(buffer)
    return buffer.getvalue()


GOOD = jsonl(*(review(f"u{n % 4}", f"i{n}", f"text {n}", rating=5, time=n) for n in range(16)))
GZIPPED = gzip.compress(GOOD, mtime=0)
TIMELESS = jsonl(*(review("u", f"i{n}") for n in range(3)))
LATIN = b'{"user": "u", "item": "i", "text": "caf\xe9"}'


@dataclass
class Bad:
    """File, options, and words of the expected message after the file's path."""

    name: str
    content: bytes
    words: tuple[str, ...]
    options: tuple[str, ...] = ()


ENCODING = "not UTF-8; name the encoding of the file with --encoding"
MEND = ("are bad; mend them, or leave them out with --skip-bad-lines",)
CASES = [
    Bad("r.jsonl", GOOD + b"oops\n", ("1 of 17 lines", *MEND, "line 17: not JSON (Expecting value")),
    Bad("r.jsonl", GOOD + jsonl({"user": "a"}), (*MEND, "line 17: no item (item is missing)")),
    Bad("r.jsonl", GOOD + jsonl(review("u", "i", rating="five")), (*MEND, "line 17: rating 'five' is not a")),
    Bad("r.jsonl", GOOD + jsonl(review("u", "i", rating=float("inf"))), (*MEND, "'inf' is not finite")),
    Bad("r.jsonl", GOOD + LATIN, (*MEND, "line 17: invalid UTF-8 at byte 40 of the line")),
    Bad("r.csv", b"user,item,text\nu,i,caf\xe9\n", (*MEND, f"line 2: {ENCODING}")),
    Bad("r.csv", b'user,item,text\nu,i,"a "b", c\nu,j,t\n', (*MEND, "line 2: text after a closing quote")),
    Bad("r.jsonl", GOOD + jsonl(review("u", {"id": "i"})), (*MEND, "item is dict", "move its fields")),
    Bad("r.csv", b'user,item,text\nu,i,t\nu,j,"open\nx', (*MEND, "line 4: 1 fields, the header has 3")),
    Bad("r.csv", b"user,item,text,text\nu,i,t,t\n", ("line 1: column 'text' is there 2 times",)),
    Bad("r.csv", b"user,item,t\xe9xt\n", (f"line 1: {ENCODING}",)),
    Bad("r.jsonl", b"", ("the file is empty",)),
    Bad("r.jsonl.gz", gzip.compress(b""), ("the file is empty",)),
    Bad("r.csv", b"user,item,text\n", ("holds no review",)),
    Bad("r.jsonl", b"\n\n", ("no JSON object among the first 1,000 lines; every line is blank",)),
    Bad("r.jsonl", b"{}\n", ("not a known review format", "found: nothing", "--columns user=FIELD")),
    Bad("r.json", b'[\n{"user": "u"}]', ("cannot tell the item, text field; found: user",)),
    Bad("r.json", b'{\n "user": \n}', ("no JSON object among", "line 1: not JSON (Expecting property")),
    Bad("r.jsonl.gz", GZIPPED[:-30], ("the compressed stream is cut (the file ends after", "fetch the file")),
    Bad("r.jsonl.gz", GZIPPED[:5], ("the compressed stream is cut",)),
    Bad("r.jsonl.gz", GZIPPED[:-8] + bytes(8), ("the compressed stream is damaged (CRC", "fetch it again")),
    Bad("r.zip", zipped(), ("an archive or an Excel file; unpack it, or save its sheet as CSV",)),
    Bad("r.tar.gz", tarred(), ("an archive; unpack it and give the file inside",)),
    Bad("r.parquet", parquet()[:-20], ("damaged, not readable as Parquet", "fetch it again")),
    Bad("r.parquet", parquet(), ("column 'text' is large_list<element: large_string>, expected text",)),
    Bad("r.parquet.gz", gzip.compress(parquet()), ("a Parquet file inside a compressed one; unpack it",)),
    Bad("r.jsonl", GOOD, ("the 5-core of its 16 interactions is empty; lower --k-core",), ("--k-core", "5")),
    Bad("r.jsonl", TIMELESS, ("--split leave-last-out needs times; name their field: --columns time=FIELD",),
        ("--split", "leave-last-out")),
    Bad("r.jsonl", TIMELESS + GOOD, ("--split global-time needs a time for every review, 3 of 19 have none",
        "use --split random"), ("--split", "global-time")),
    Bad("r.jsonl", jsonl(*(review("u", f"i{n}", f"t{n}", time=7) for n in range(9))),
        ("global-time: 1 distinct times are too few", "use --split random"), ("--split", "global-time")),
    Bad("r.jsonl", TIMELESS, ("--positive rating>=4, but no rating field is known; name it with",
        "--columns rating=FIELD"),
        ("--positive", "rating>=4")),
    Bad("r.jsonl", GOOD, ("no positive is left in train", "loosen --positive"), ("--positive", "rating<5")),
    Bad("r.jsonl", GOOD, ("no field 'who' (--columns user=who); found: user, item, text",),
        ("--columns", "user=who")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{n}-{case.name}" for n, case in enumerate(CASES)])
def test_invalid_files(tmp_path: Path, cli: CommandLine, case: Bad) -> None:
    path, out = tmp_path / case.name, tmp_path / "out"
    path.write_bytes(case.content)
    answer = cli("prepare", path, "--out", out, *case.options)
    assert answer.code == 1
    assert answer.out == ""
    assert f"{path}: " in answer.err
    message = answer.err[answer.err.index("error: ") :]
    assert [word for word in case.words if word not in message] == [], message
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "half"), "--split: 'half' is unknown; one of random, leave-last-out, global-time"),
        (("--seed", "-1"), "--seed: -1, expected 0 to 2^64 - 1"),
        (("--k-core", "-1"), "--k-core: -1, expected 0 (off) or more"),
        (("--passage-unit", "word"), "--passage-unit: 'word' is unknown; one of review, document"),
        (("--fractions", "0.9,0.1"), "--fractions: '0.9,0.1' is not TRAIN,VALID,TEST, such as 0.7,0.1,0.2"),
        (("--fractions", "0,0.5,0.5"), "must add up to 1, train above 0"),
        (("--fractions", "nan,0.5,0.5"), "must add up to 1, train above 0"),
        (("--positive", "stars>3"), "--positive: 'stars>3' is not of the form rating>=4"),
        (("--columns", "user"), "--columns: 'user' is not ROLE=FIELD"),
        (("--columns", "who=user"), "--columns: unknown role 'who'; the roles are user, item, text"),
        (("--columns", "user=a,user=b"), "--columns: user is given twice"),
    ],
)
def test_invalid_options(tmp_path: Path, cli: CommandLine, options: tuple[str, ...], words: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD)
    answer = cli("prepare", path, "--out", tmp_path / "out", *options)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert list(tmp_path.iterdir()) == [path]


def test_invalid_paths(tmp_path: Path, cli: CommandLine) -> None:
    good, out = tmp_path / "r.jsonl", tmp_path / "out"
    good.write_bytes(GOOD)
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((tmp_path / "none.jsonl", "--out", out), f"{tmp_path / 'none.jsonl'}: not found; expected a file"),
        ((tmp_path / "empty", "--out", out), f"{tmp_path / 'empty'}: a folder without data files; expected"),
        ((tmp_path / "*.csv", "--out", out), f"{tmp_path / '*.csv'}: not found; expected a"),
        ((good, good, "--out", out), f"{good}, {good}: a file is named twice"),
        ((good, "--out", out, "--items", tmp_path / "no"), f"{tmp_path / 'no'}: not found; expected a file"),
        ((good, "--out", good), f"{good}: is a file; --out names a folder"),
    ):  # fmt: skip
        answer = cli("prepare", *arguments)
        assert (answer.code, answer.out) == (2 if "twice" in words else 1, "")
        assert words in answer.err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "empty", good]
    assert good.read_bytes() == GOOD


def test_missing_argument_is_usage_error(tmp_path: Path, cli: CommandLine) -> None:
    assert cli("prepare", tmp_path / "r.jsonl").code == 2


def test_skipped_lines_are_counted(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD + b"oops\n" + LATIN)
    answer = cli("prepare", path, "--out", tmp_path / "out", "--skip-bad-lines", "--json")
    assert answer.code == 0
    result = json.loads(answer.out)
    assert (result["counts"]["bad_lines"], result["counts"]["interactions"]) == (2, 16)
    assert "bad lines skipped" in cli("prepare", path, "--out", tmp_path / "out", "--skip-bad-lines").out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_dataset_of_other_options_is_kept(tmp_path: Path, cli: CommandLine) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_bytes(GOOD)
    prepare(path, out)
    before = snapshot(out)
    answer = cli("prepare", path, "--out", out, "--seed", 7, "--k-core", 2)
    assert (answer.code, answer.out) == (1, "")
    assert f"{out}: holds a dataset of other options (different: k_core, seed)" in answer.err
    assert "choose another --out, or replace it with --overwrite" in answer.err
    assert snapshot(out) == before
    again = cli("prepare", path, "--out", out, "--json")
    assert json.loads(again.out)["status"] == "unchanged"
    assert snapshot(out) == before
    assert cli("prepare", path, "--out", out, "--seed", 7, "--overwrite").code == 0
    replaced = snapshot(out)
    prepare(path, tmp_path / "fresh", seed=7)
    assert replaced == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("manifest", ['{"format": "llmdirect-run", "version": 1}', '{"name": "x"}', "[]"])
def test_overwrite_keeps_foreign_files(tmp_path: Path, manifest: str) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_bytes(GOOD)
    out.mkdir()
    (out / "manifest.json").write_text(manifest)
    for overwrite in (False, True):
        with pytest.raises(DataError, match=rf"{out / 'manifest.json'}: "):
            prepare(path, out, overwrite=overwrite)
    assert snapshot(out) == {"manifest.json": manifest.encode()}


def _flip_byte(out: Path) -> None:
    path = next(out.glob("interactions-*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _break_manifest(out: Path) -> None:
    (out / "manifest.json").write_text("{")


def _strip_manifest(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))


@pytest.mark.parametrize("damage", [_flip_byte, _break_manifest, _strip_manifest])
def test_overwrite_repairs_damaged_dataset(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_bytes(GOOD)
    prepare(path, out)
    before = snapshot(out)
    damage(out)
    assert snapshot(out) != before
    assert prepare(path, out, overwrite=True).status == "written"
    assert snapshot(out) == before


@pytest.mark.parametrize("lost", ["users-*", "passages-*"])
def test_lost_table_is_written_again(tmp_path: Path, lost: str) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_bytes(GOOD)
    prepare(path, out)
    before = snapshot(out)
    next(out.glob(lost)).unlink()
    assert prepare(path, out).status == "written"
    assert snapshot(out) == before


def test_second_writer(tmp_path: Path, cli: CommandLine) -> None:
    path, out = write_lines(tmp_path / "r.jsonl", [review(f"u{n}", "i") for n in range(3)]), tmp_path / "out"
    out.mkdir()
    hold = (
        "import fcntl, sys; handle = open(sys.argv[1], 'wb'); fcntl.flock(handle, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(out / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        answer = cli("prepare", path, "--out", out)
        assert (answer.code, answer.out) == (1, "")
        assert f"error: {out}: another llmdirect process is writing here; wait for it" in answer.err
        with pytest.raises(BusyError, match="another llmdirect process"):
            prepare(path, out)
        assert [name.name for name in out.iterdir()] == [".lock"]
        holder.kill()
    assert prepare(path, out).status == "written"


def test_slower_writer_keeps_existing_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_bytes(GOOD)
    build = documents.build_tables

    def overtaken(*arguments: object, **options: object) -> object:
        tables = build(*arguments, **options)  # type: ignore[arg-type]  # passed on as they come
        monkeypatch.setattr(documents, "build_tables", build)
        assert prepare(path, out).status == "written"
        return tables

    monkeypatch.setattr(documents, "build_tables", overtaken)
    assert prepare(path, out).status == "unchanged"
    with (out / ".lock").open("wb") as handle:  # lock released
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_damaged_parquet(tmp_path: Path) -> None:
    """Any wrong byte: an error that names the file, or a readable file."""
    buffer = io.BytesIO()
    pl.DataFrame({"user": ["a", "b"] * 50, "item": range(100), "text": [f"t {n}" for n in range(100)]}
                 ).write_parquet(buffer)  # fmt: skip
    good, path = buffer.getvalue(), tmp_path / "r.parquet"
    refused = 0
    for position in range(4, len(good), 61):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            prepare(path, tmp_path / "out", overwrite=True)
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  # not every damage is an error
    assert refused > 3
