"""The README's quick start runs as printed, is as short as it says, and its links and commands lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crystalframer.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def quick_start() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    return code


def test_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    exec(compile(quick_start(), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "TiO2" in printed and "formation_energy_per_atom" in printed
    assert "of predicting the training mean" in printed
    assert (tmp_path / "frame.pdf").read_bytes().startswith(b"%PDF")


def test_quick_start_is_twelve_lines() -> None:
    assert len([line for line in quick_start().splitlines() if line]) <= 12


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 6
    for link in links:
        assert (ROOT / link).exists(), link


def test_table_names_presets_and_the_papers_numbers() -> None:
    for name, preset in PRESETS.items():
        for error in preset.published_mae.values():
            assert f"| {error:g}" in README or f"| {error}" in README, (name, error)
        if preset.published_mae:
            assert f"`{name}`" in README


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
