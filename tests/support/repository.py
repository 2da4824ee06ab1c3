"""Paths in the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BENCHES = ROOT / "benches"
GOLDEN = ROOT / "tests" / "golden"
