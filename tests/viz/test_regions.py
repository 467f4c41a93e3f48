"""Pictures of a region, a few atoms of a large cell: they show the same as pictures of the whole cell."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_traces import perovskite, whole_and_region

import viz
from crystalframer.analysis import coordination_shells
from crystalframer.testing import supercell
from viz.encoding import encode

SITES = [61, 62, 63]
"""Ti of the middle cell of 3 × 3 × 3, and two O beside it."""


WHOLE, REGION = whole_and_region(supercell(perovskite(), (3, 3, 3)), SITES)


SCENE = viz.scene_from_trace(REGION)


def test_the_region_and_atoms_bonded_to_it_are_drawn() -> None:
    assert SCENE.is_region and SCENE.n_queries == 3 < SCENE.n_atoms
    assert SCENE.labels[:3] == ("Ti#61", "O#62", "O#63") and SCENE.formula == "TiO2"
    symbols = [SCENE.elements[site].symbol for site in SCENE.drawn_site]
    assert symbols[:3] == ["Ti", "O", "O"]
    # Ti has 6 O, of which 2 belong to the region; each of these has another Ti. Sr is too far to count as bonded.
    assert sorted(symbols[3:]) == ["O"] * 4 + ["Ti"] * 2
    assert len(SCENE.cell_edges) == 0
    assert [len(solid.key) for solid in SCENE.polyhedra] == [6]


def in_order(vectors: np.ndarray) -> np.ndarray:
    return vectors[np.lexsort(vectors.round(6).T)]


def test_attention_of_an_atom_is_that_in_the_whole_crystal() -> None:
    complete = viz.scene_from_trace(WHOLE)
    for place, site in enumerate(SITES):
        mine, theirs = viz.strongest_edges(SCENE, 1, 0, place), viz.strongest_edges(complete, 1, 0, site)
        np.testing.assert_allclose(mine.weight, theirs.weight)
        # Equal weights have no order.
        np.testing.assert_allclose(in_order(mine.ends - mine.start), in_order(theirs.ends - theirs.start), atol=1e-9)
        a, b = viz.attention_by_distance(SCENE, 1, 0, place), viz.attention_by_distance(complete, 1, 0, site)
        np.testing.assert_allclose(a.attention, b.attention)
    matrix = viz.attention_matrix(SCENE, 1, 0)
    np.testing.assert_allclose(matrix, viz.attention_matrix(complete, 1, 0)[np.ix_(SITES, SITES)])
    assert matrix.shape == (3, 3) and (matrix.sum(axis=1) < 1).all()
    mean = viz.attention_by_distance(SCENE, 1, 0)
    assert mean.attention.sum() == pytest.approx(1.0)


def test_measures_are_those_of_the_whole() -> None:
    mine, theirs = viz.layer_table(REGION), viz.layer_table(WHOLE)
    theirs = theirs[theirs.atom.isin(SITES)].reset_index(drop=True)
    assert len(mine) == 2 * 2 * 3 and mine.label[0] == "Ti#61"
    columns = mine.columns.difference(["atom", "label"])
    np.testing.assert_allclose(mine[columns].astype(float), theirs[columns].astype(float), atol=1e-9)


def test_motifs_are_those_of_the_whole() -> None:
    mine, theirs = coordination_shells(REGION), coordination_shells(WHOLE, sites=SITES)
    assert [shell.label for shell in mine] == [shell.label for shell in theirs]
    assert mine[0].name == "octahedron"
    for a, b in zip(mine, theirs, strict=True):
        assert sorted(np.linalg.norm(a.vectors, axis=1)) == pytest.approx(sorted(np.linalg.norm(b.vectors, axis=1)))
        assert (a.edges >= 0).all()


def test_pictures_can_be_made() -> None:
    shapes = viz.drawing(SCENE, 0, 0, 0, frames="all")
    assert {arrow.atom for arrow in shapes.arrows} == {0, 1, 2}
    assert not [stick for stick in shapes.sticks if stick.role == "cell"]
    assert viz.attention_grid(SCENE, 0).to_dict()["data"][0]["x"] == ["Ti#61", "O#62", "O#63"]
    assert viz.structure_figure(SCENE, 0, 0, 0).axes
    header, _ = encode(SCENE)
    assert header["arrays"]["decayLength"]["shape"] == [2, 2, 3]
    assert header["arrays"]["edgeStart"]["shape"] == [4]
    explorer = viz.AttentionExplorer(SCENE, atom=2)
    assert explorer.atom == 2
    assert [option[1] for option in viz.MotifExplorer([REGION])._site.options] == [0, 1, 2]
