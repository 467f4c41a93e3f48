"""The gallery of the documentation: what its words say of each crystal is so, and its pages are whole."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import crystalframer as cf
from crystalframer.analysis import find_bonds
from crystalframer.elements import SYMBOLS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "docs/_ext")
    return importlib.import_module("gallery")


def coordination(path: Path) -> dict[str, list[int]]:
    """Coordination numbers of each element."""
    crystal = cf.read(path)
    bonds = find_bonds(crystal.atomic_numbers, crystal.positions, crystal.lattice)
    found: dict[str, set[int]] = {}
    for site, number in enumerate(crystal.atomic_numbers.tolist()):
        found.setdefault(SYMBOLS[number - 1], set()).add(len(bonds.shell(site)[0]))
    return {symbol: sorted(numbers) for symbol, numbers in found.items()}


def test_there_are_thirty_crystals_each_with_its_source_and_place(gallery: Any) -> None:
    crystals = gallery.crystals()
    assert len(crystals) >= 30
    assert {crystal.path for crystal in crystals} == set(gallery.STRUCTURES.glob("*.cif"))
    assert all(re.search(r"\(\d{4}\)", crystal.source) for crystal in crystals)
    groups = re.findall(r"{gallery} (\w+)", (ROOT / "docs/gallery.md").read_text(encoding="utf-8"))
    assert len(set(groups)) == len(groups) and set(groups) == {crystal.group for crystal in crystals}


def test_coordination_is_as_the_gallery_says(gallery: Any) -> None:
    wrong = []
    for crystal in gallery.crystals():
        found = coordination(crystal.path)
        wrong += [
            (crystal.file, element, found[element])
            for element, numbers in crystal.coordination.items()
            if found[element] != numbers
        ]
    assert wrong == []


def test_lengths_that_the_words_name_are_in_the_crystal(gallery: Any) -> None:
    """Every length that is written with two decimals is, to 0.01 Å, one between two neighbours."""
    wrong = []
    for crystal in gallery.crystals():
        structure = cf.read(crystal.path)
        bonds = find_bonds(structure.atomic_numbers, structure.positions, structure.lattice)
        lengths = structure.positions[bonds.key] + bonds.image @ structure.lattice - structure.positions[bonds.site]
        found = (lengths**2).sum(axis=1) ** 0.5
        named = {float(word) for word in re.findall(r"\d\.\d\d(?=(?: and \d\.\d\d)* Å|\) on)", crystal.look)}
        wrong += [(crystal.file, length) for length in named if abs(found - length).min() > 0.006]
    assert wrong == [("graphite", 3.35)]  # the next layer, which is not bonded


def test_a_page_says_what_to_look_for_and_has_a_thumbnail(gallery: Any, tmp_path: Path) -> None:
    (salt,) = (crystal for crystal in gallery.crystals() if crystal.file == "NaCl")
    gallery.write_pages(tmp_path, [salt])
    page = (tmp_path / "NaCl.html").read_text(encoding="utf-8")
    assert salt.look in page and salt.source in page and "of its attention stays" in page
    shares = [int(share) for share in re.findall(r"(\d+)%", page.partition("At first")[2].partition("beyond")[0])]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=1)
    assert (tmp_path / "NaCl.png").read_bytes().startswith(b"\x89PNG")
    link = re.search(r'href="_gallery/(.*?)"', gallery.card(salt))
    assert link is not None and (tmp_path / link[1]).exists()
