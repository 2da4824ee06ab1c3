"""Source distribution, the wheel built from it, and the command in an empty environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from repository import ROOT

TOOLS = Path(sys.executable).parent

# Compiles the extension.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Standard output of a command; fails with its standard error."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "VIRTUAL_ENV": sys.prefix, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(TOOLS / "maturin", "sdist", "--out", out)
    [archive] = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel built from the source distribution alone; compiled dependencies are shared."""
    out = tmp_path_factory.mktemp("wheel")
    # A fixed path, because cargo caches builds by the path of the sources.
    sources = ROOT / "target" / "packaging"
    shutil.rmtree(sources, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(sources, filter="data")
    [folder] = sources.iterdir()
    for path in folder.rglob("*.rs"):
        path.touch()  # equal times in the archive would hide changes from cargo
    run(
        TOOLS / "maturin",
        "build",
        "--release",
        "--locked",
        *("--out", out),
        cwd=folder,
        CARGO_TARGET_DIR=str(ROOT / "target"),
    )
    shutil.rmtree(sources)
    [archive] = out.iterdir()
    return archive


def test_sdist_contains_build_inputs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    rust = {str(path.relative_to(ROOT)) for path in (ROOT / "rust").rglob("*.rs")}
    assert "rust/core/src/lib.rs" in rust
    assert names >= rust
    assert names >= {"LICENSE", "README.md", "Cargo.lock", "Cargo.toml", "pyproject.toml"}
    assert names >= {"rust/core/Cargo.toml", "rust/python/Cargo.toml", "python/llmdirect/py.typed"}
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    assert not [name for name in names if name.startswith(("tests/", "target/", ".venv/"))]


def test_wheel_contains_package_types_and_extension(wheel: Path) -> None:
    assert "-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata_name] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = BytesParser().parsebytes(archive.read(metadata_name))
    package = {
        f"llmdirect/{path.relative_to(ROOT / 'python' / 'llmdirect')}"
        for path in (ROOT / "python" / "llmdirect").rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert names >= package
    assert "llmdirect/__init__.pyi" in package
    assert names >= {"llmdirect/py.typed", "llmdirect/_core.pyi", "llmdirect/_core.abi3.so"}
    for license in ("LICENSE", "LICENSE-ICU4X"):
        assert [name for name in names if name.endswith(f"licenses/{license}")]
    assert metadata["License-Expression"] == "MIT AND Unicode-3.0"
    assert metadata["Requires-Python"] == ">=3.11"
    required = {line.partition(">")[0] for line in metadata.get_all("Requires-Dist")}
    assert required >= {"lazy-loader", "numpy", "polars", "torch", "transformers", "typer"}


def test_command_runs_with_wheel_only(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    uv = shutil.which("uv", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    assert uv, "uv is missing: `make setup` installs it"
    run(uv, "venv", "--quiet", "--offline", "--python", sys.executable, venv)
    # Named explicitly, as uv would otherwise follow VIRTUAL_ENV.
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", venv / "bin" / "python", wheel)
    own = Path(
        run(venv / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    # The dependencies are borrowed; a path that comes from a .pth file is not searched for more of them, so
    # the editable install of this checkout stays out.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = "import llmdirect, llmdirect._core as core; print(llmdirect.__file__, core.__file__, sep='\\n')"
    files = run(venv / "bin" / "python", "-c", script, cwd=tmp_path).splitlines()
    assert [Path(file) for file in files] == [own / "llmdirect/__init__.py", own / "llmdirect/_core.abi3.so"]
    screen = run(venv / "bin" / "llmdirect", "--help", cwd=tmp_path)
    for command in ("prepare", "precompute", "consolidate"):
        assert command in screen
    assert (
        run(venv / "bin" / "python", "-m", "llmdirect", "--help", cwd=tmp_path).split()
        == screen.replace("llmdirect [OPTIONS]", "python -m llmdirect [OPTIONS]").split()
    )
