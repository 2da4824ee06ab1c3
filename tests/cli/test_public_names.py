"""Public names of the package, and modules loaded by an import. mypy checks their types."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import warnings

import pytest

import llmdirect
from repository import ROOT

HEAVY = {"torch", "transformers", "polars", "numpy", "optuna", "tokenizers", "safetensors", "msgspec"}
STUB = ROOT / "python" / "llmdirect" / "__init__.pyi"


def defined_in() -> dict[str, str]:
    """Module of each name, from the imports of the stub."""
    return {
        alias.name: f"llmdirect.{node.module}"
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_and_dir_list_every_name() -> None:
    names = set(defined_in())
    assert set(llmdirect.__all__) == set(dir(llmdirect)) == names
    [listed] = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.Assign)]
    assert sorted(ast.literal_eval(listed.value)) == sorted(names)
    assert {"prepare", "train", "evaluate", "Dataset", "EmbeddingStore", "DataError", "__version__"} <= names


def test_no_submodule_shadows_public_name() -> None:
    """Importing a subpackage with the name of a function would replace the function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(llmdirect.__path__, "llmdirect."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    for name, module in defined_in().items():
        assert getattr(llmdirect, name) is getattr(sys.modules[module], name), name
        assert f"llmdirect.{name}" not in sys.modules


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        llmdirect.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import llmdirect",
        "import llmdirect; llmdirect.__version__, llmdirect.DataError, llmdirect.TrainConfig",
    ],
)
def test_import_loads_no_heavy_modules(statement: str) -> None:
    assert "llmdirect" in loaded_by(statement)
    assert not loaded_by(statement) & HEAVY


def test_help_loads_no_heavy_modules() -> None:
    help_screen = """
import sys
from llmdirect.cli import main
sys.argv = ["llmdirect", "--help"]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0
"""
    assert "llmdirect" in loaded_by(help_screen)
    assert not loaded_by(help_screen) & HEAVY


def loaded_by(statement: str) -> set[str]:
    """Top-level modules loaded by a fresh interpreter after the statement."""
    script = f"{statement}\nimport sys\nprint(*(name for name in sys.modules if '.' not in name))"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    return set(printed.splitlines()[-1].split())
