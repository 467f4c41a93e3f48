"""The py3Dmol page works without a network and shows the shapes of the drawing."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from viz import Scene, drawing, structure_view
from viz.structure_views import SCRIPT, VERSION


def calls(page: str, name: str) -> list:
    """Arguments of every call of a viewer's function that takes one JSON argument."""
    return [json.loads(text) for text in re.findall(rf"\.{name}\((.*)\);\n", page)]


@pytest.fixture
def page(scene: Scene) -> str:
    return str(structure_view(scene, 0, 1, 1).write_html())


def without_script(page: str) -> str:
    return re.sub(r"data:text/javascript;base64,[A-Za-z0-9+/=]+", "", page)


def test_the_page_carries_its_script_and_names_no_address(page: str) -> None:
    encoded = re.search(r"loadScriptAsync\('data:text/javascript;base64,([A-Za-z0-9+/=]+)'\)", page)
    assert encoded and base64.b64decode(encoded[1]) == SCRIPT.read_bytes()
    assert not re.search(r"https?:|//cdn|src=", without_script(page).replace("tag.src = uri", ""))


def test_the_script_is_the_release_that_py3dmol_expects() -> None:
    """Or a newer one: what a newer py3Dmol calls the script may not know, and then that release is to be vendored."""
    import py3Dmol

    expected = re.search(r"3dmol@([\d.]+)/", inspect.getsource(py3Dmol))
    assert expected and tuple(map(int, expected[1].split("."))) <= tuple(map(int, VERSION.split(".")))
    digest = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert digest == "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"
    assert "BSD-3-Clause" in SCRIPT.with_name("3Dmol-LICENSE.txt").read_text(encoding="utf-8")


def test_arrows_are_the_axes(scene: Scene, page: str) -> None:
    assert scene.frames is not None
    arrows = calls(page, "addArrow")
    assert len(arrows) == 3 * scene.n_atoms
    first = drawing(scene, 0, 1, 1, frames="all").arrows[0]
    np.testing.assert_allclose([arrows[0]["start"][k] for k in "xyz"], first.start, atol=1e-4)
    np.testing.assert_allclose([arrows[0]["end"][k] for k in "xyz"], first.end, atol=1e-4)


def test_atoms_bonds_and_lines(scene: Scene, page: str) -> None:
    shapes = drawing(scene, 0, 1, 1, frames="all")
    (atoms,) = calls(page, "addAtoms")
    assert [atom["properties"]["label"] for atom in atoms] == [ball.label for ball in shapes.balls]
    np.testing.assert_allclose([[a[k] for k in "xyz"] for a in atoms], [b.center for b in shapes.balls], atol=1e-4)
    bonds = {frozenset(s.ends) for s in shapes.sticks if s.role == "bond" and s.ends}
    assert {frozenset((n, m)) for n, atom in enumerate(atoms) for m in atom["bonds"]} == bonds
    n_others = sum(stick.role != "bond" for stick in shapes.sticks)
    assert len(calls(page, "addCylinder")) == n_others


def test_polyhedra(perovskite_scene: Scene) -> None:
    page = str(structure_view(perovskite_scene, 0, 1, 1, polyhedra="all").write_html())
    meshes, solids = calls(page, "addCustom"), drawing(perovskite_scene, 0, 1, 1, polyhedra="all").solids
    assert len(meshes) == len(solids) > 0
    for mesh, solid in zip(meshes, solids, strict=True):
        corners = np.array([[point[k] for k in "xyz"] for point in mesh["vertexArr"]]).reshape(-1, 3, 3)
        np.testing.assert_allclose(corners, solid.vertices[solid.faces], atol=1e-4)
        assert mesh["faceArr"] == list(range(3 * len(solid.faces)))
        # Normals point away from the middle.
        outward = corners.mean(axis=1) - solid.vertices.mean(axis=0)
        normals = np.array([[point[k] for k in "xyz"] for point in mesh["normalArr"]])[::3]
        assert (np.sum(outward * normals, axis=1) > 0).all()
        assert mesh["opacity"] < 1 and mesh["color"] == solid.color
    assert len(calls(page, "addLine")) == sum(len(solid.rims) for solid in solids)


def test_axis_labels_are_text_as_well_as_colour(page: str) -> None:
    labels = re.findall(r'\.addLabel\("([^"]+)",', page)
    assert [json.loads(f'"{label}"') for label in labels[:3]] == ["e₁", "e₂", "e₃"]


def test_orthographic(page: str) -> None:
    assert '.setProjection("orthographic")' in page


def test_a_page_opens_from_disk(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "scene.html"
    with path.open("w", encoding="utf-8") as file:
        structure_view(scene, 0, None, 1).write_html(file)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<html>") and not calls(text, "addArrow")
