"""Datasets and raw files made to hang, to fill the memory or to lead elsewhere."""

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llmdirect.common import expansion
from llmdirect.common.errors import DataError
from llmdirect.common.files import file_inside, open_regular, read_manifest, write_hashed
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.readers.raw_files import detect_format, open_decompressed
from review_files import review, write_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = [review(f"u{u}", f"i{i}", f"text {u} {i}", time=u * i) for u in range(4) for i in range(5)]
    prepare(write_lines(tmp_path / "raw.jsonl", raw), tmp_path / "out")
    return tmp_path / "out"


def table(folder: Path, name: str) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / str(manifest["files"][name]["name"])


def edit_entry(folder: Path, table: str, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][table].update(changes)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../out/x.parquet", "/etc/passwd", "a/b", "..", "", "a\0b", "a\n", "a\\b"])
def test_names_are_confined_to_the_folder(folder: Path, name: str) -> None:
    edit_entry(folder, "users", name=name)
    with pytest.raises(DataError, match=r"`files.users.name`: expected the plain name of a file"):
        Dataset.open(folder)
    with pytest.raises(DataError, match="is not the name of a file in this folder"):
        file_inside(folder, name.removesuffix("\n") if "\n" not in name else "a/b")


def test_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    path = table(folder, "users")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=rf"{path.name}: is a symbolic link to .*elsewhere, outside its folder"
    ):
        Dataset.open(folder)
    path.unlink()
    (tmp_path / "elsewhere").rename(folder / "kept")
    path.symlink_to("kept")
    assert Dataset.open(folder).num_users == 4


DEVICES: dict[str, Callable[[Path], None]] = {
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", DEVICES)
def test_what_never_ends_is_not_opened(folder: Path, tmp_path: Path, kind: str) -> None:
    (folder / "manifest.json").unlink()
    DEVICES[kind](folder / "manifest.json")
    with pytest.raises(DataError, match=f"manifest.json: is {kind}, expected a regular file"):
        Dataset.open(folder)
    DEVICES[kind](tmp_path / "raw")
    with pytest.raises(DataError, match=f"raw: is {kind}"):
        open_regular(tmp_path / "raw")
    with pytest.raises(DataError, match=f"raw: is {kind}"):
        detect_format(tmp_path / "raw")


@pytest.mark.timeout(20)
def test_a_table_that_is_a_pipe(folder: Path) -> None:
    path = table(folder, "items")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=f"{path.name}: is a named pipe"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"version": NaN}', "{", "\xff", '{"version": 1e999}', "1" * 5000]
)
def test_manifests_that_are_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"manifest.json: (not valid JSON|format is)"):
        read_manifest(tmp_path, "f", 1, "make")


def test_a_version_that_is_true(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "f", "version": true}')
    with pytest.raises(DataError, match="version True, this release reads 1"):
        read_manifest(tmp_path, "f", 1, "make")


def test_a_compressed_file_has_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "_FREE_BYTES", 1 << 20)
    path = tmp_path / "reviews.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(8 << 20)))
    with (
        pytest.raises(
            DataError, match=r"reviews.jsonl.gz: .* beyond the budget of .*LLMDIRECT_MAX_EXPANSION"
        ),
        open_decompressed(path) as file,
    ):
        file.read()
    monkeypatch.setenv("LLMDIRECT_MAX_EXPANSION", "2000")
    with open_decompressed(path) as file:
        assert len(file.read()) == 8 << 20
    monkeypatch.setenv("LLMDIRECT_MAX_EXPANSION", "many")
    with (
        pytest.raises(ValueError, match="LLMDIRECT_MAX_EXPANSION=many: expected a whole number"),
        open_decompressed(path) as file,
    ):
        file.read()


def test_parquet_has_a_budget(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "_FREE_BYTES", 1 << 20)
    raw = tmp_path / "raw.parquet"
    pl.DataFrame({"text": ["x" * (4 << 20)]}).write_parquet(raw, compression="zstd")
    assert raw.stat().st_size < 10_000
    with pytest.raises(
        DataError, match=r"raw.parquet: .* bytes expand to 4,194,\d+ or more, beyond the budget"
    ):
        detect_format(raw)
    (folder / table(folder, "users").name).unlink()
    users = pl.DataFrame({"user_id": ["u"] * (1 << 20)})  # a run of one value: next to nothing on disk
    entry = write_hashed(folder, "users", ".parquet", users.write_parquet)
    edit_entry(folder, "users", **entry)
    with pytest.raises(DataError, match=r"users-.*parquet: .* expand to 16,777,216 or more"):
        Dataset.open(folder)


@pytest.mark.parametrize("codec", ["uncompressed", "snappy", "zstd", "lz4", "gzip"])
def test_the_stated_size_of_a_parquet_file(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "table.parquet"
    texts = [f"{zlib.crc32(bytes([n % 251])):x} text" for n in range(5000)]
    frame = pl.DataFrame({"a": texts, "b": range(5000), "c": [[n] for n in range(5000)]})
    frame.write_parquet(path, compression=codec, row_group_size=1000)  # type: ignore[arg-type]
    with path.open("rb") as file:
        footer = expansion._footer(file, path.stat().st_size)
    assert 5000 * 2 * 16 <= expansion._stated_bytes(footer) <= 5000 * 100
    expansion.check_parquet(path)


def test_damaged_footers_are_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": [1, 2, 3]}).write_parquet(path)
    good = path.read_bytes()
    for position in range(4, len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        with contextlib.suppress(DataError):  # a number that became a large one
            expansion.check_parquet(path)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        expansion.check_parquet(path)
