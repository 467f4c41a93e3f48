"""Space groups, unique sites and cells of textbook crystals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_traces import synthetic_trace
from textbook_crystals import TEXTBOOK

from crystalframer.testing import supercell
from viz import Scene, scene_from_trace
from viz.encoding import encode
from viz.symmetry import symmetry

NAMES = {known.name: known for known in TEXTBOOK}


def scene_of(name: str, repeats: tuple[int, int, int] = (1, 1, 1)) -> Scene:
    crystal = supercell(NAMES[name].crystal, repeats)
    return scene_from_trace(synthetic_trace(crystal, radius=4.0, n_layers=1, n_heads=1))


@pytest.mark.parametrize("name", [known.name for known in TEXTBOOK if len(known.crystal) < 100])
def test_space_group_and_unique_sites_are_those_that_made_the_crystal(name: str) -> None:
    known, found = NAMES[name], symmetry(scene_of(name))
    assert found.space_group.split()[0] == known.space_group.split(":")[0]
    number = known.structure.site_properties["number"]
    assert {frozenset(site.atoms) for site in found.sites} == {
        frozenset(np.flatnonzero(np.array(number) == n).tolist()) for n in range(len(known.atoms))
    }


def test_wyckoff_letters_count_in_the_conventional_cell() -> None:
    """Also in a supercell, where each site has eight times as many atoms."""
    for repeats in ((1, 1, 1), (2, 2, 2)):
        found = symmetry(scene_of("rutile TiO2", repeats))
        assert [site.name for site in found.sites] == ["Ti 2a", "O 4f"]
    assert [len(site.atoms) for site in found.sites] == [16, 32]


@pytest.mark.parametrize(("name", "share"), [("copper", 1 / 4), ("iron", 1 / 2), ("calcite CaCO3", 1 / 3)])
def test_the_primitive_cell_of_a_centred_one(name: str, share: float) -> None:
    given, primitive = symmetry(scene_of(name)).cells
    assert (given.name, primitive.name) == ("as given", "primitive")
    np.testing.assert_array_equal(given.vectors, np.eye(3))
    assert abs(np.linalg.det(primitive.vectors)) == pytest.approx(share)


def test_the_conventional_cell_of_a_supercell() -> None:
    cells = {cell.name: cell for cell in symmetry(scene_of("rutile TiO2", (2, 2, 2))).cells}
    assert abs(np.linalg.det(cells["conventional"].vectors)) == pytest.approx(1 / 8)


def test_a_region_has_no_symmetry() -> None:
    found = symmetry(replace(scene_of("copper"), is_region=True))
    assert found.space_group == "" and [cell.name for cell in found.cells] == ["as given"]
    assert [site.name for site in found.sites] == ["Cu1", "Cu2", "Cu3", "Cu4"]


def test_the_page_gets_sites_and_cells() -> None:
    header, _ = encode(scene_of("copper"))
    assert header["sites"] == [{"name": "Cu 4a", "atoms": [0, 1, 2, 3]}]
    assert [cell["name"] for cell in header["cells"]] == ["as given", "primitive"]
