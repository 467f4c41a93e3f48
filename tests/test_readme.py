"""The README's quick start does what it says and is short; tests/test_docs.py runs all code of all pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import blocks, python_of


def test_quick_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notebooks").symlink_to(Path(__file__).parents[1] / "notebooks")
    monkeypatch.chdir(tmp_path)
    exec(compile(python_of("README.md"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "TiO2" in printed and "formation_energy_per_atom" in printed
    assert "of predicting the training mean" in printed
    assert (tmp_path / "frame.pdf").read_bytes().startswith(b"%PDF")


def test_quick_start_is_twelve_lines() -> None:
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line]) <= 12
