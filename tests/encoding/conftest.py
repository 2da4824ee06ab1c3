"""Fixtures of the encoding tests."""

import shutil
from pathlib import Path

import pytest

from precompute_helpers import make_usual_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_usual_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def dataset(prepared: Path, tmp_path: Path) -> Path:
    """Copy of the prepared dataset."""
    return Path(shutil.copytree(prepared, tmp_path / "dataset"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders are cached in the folder of the test."""
    monkeypatch.setenv("LLMDIRECT_CACHE", str(tmp_path / "cache"))
