"""The encoded bytes hold the arrays of the scene. (How the browser uses them: tests/browser.)"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from viz import Scene
from viz.encoding import ALIGNMENT, AXIS_SCALE, encode

HALF = 2.0**-11
"""Relative rounding of float16."""


def decoded(scene: Scene) -> dict[str, np.ndarray]:
    header, data = encode(scene)
    found = {}
    for name, place in header["arrays"].items():
        count = int(np.prod(place["shape"]))
        found[name] = np.frombuffer(data, place["dtype"], count, place["offset"]).reshape(place["shape"])
    return found


def test_edges_of_each_atom_lie_together_with_their_attention(scene: Scene) -> None:
    shuffled = np.random.default_rng(1).permutation(len(scene.edge_lengths))
    mixed = replace(
        scene,
        edge_index=scene.edge_index[:, shuffled],
        edge_image=scene.edge_image[shuffled],
        attention=scene.attention[..., shuffled],
    )
    arrays = decoded(mixed)
    for atom in range(scene.n_atoms):
        mine = slice(arrays["edgeStart"][atom], arrays["edgeStart"][atom + 1])
        expected = np.flatnonzero(mixed.edge_index[0] == atom)
        np.testing.assert_array_equal(arrays["edgeKey"][mine], mixed.edge_index[1, expected])
        np.testing.assert_array_equal(arrays["edgeImage"][mine], mixed.edge_image[expected])
        # Below 6e-5 float16 has steps of 6e-8.
        np.testing.assert_allclose(arrays["attention"][..., mine], mixed.attention[..., expected], rtol=HALF, atol=6e-8)


def test_equal_attention_stays_equal(scene: Scene) -> None:
    attention = np.full_like(scene.attention, 1 / 37)
    assert len(np.unique(decoded(replace(scene, attention=attention))["attention"])) == 1


def test_frames_are_sent_as_two_axes(scene: Scene) -> None:
    assert scene.frames is not None
    axes = decoded(scene)["axes"] / AXIS_SCALE
    np.testing.assert_allclose(axes, scene.frames[..., :2, :], atol=0.51 / AXIS_SCALE)
    np.testing.assert_allclose(np.cross(axes[..., 0, :], axes[..., 1, :]), scene.frames[..., 2, :], atol=1e-4)


def test_no_frames_without_a_frame_method(scene: Scene) -> None:
    assert "axes" not in decoded(replace(scene, frames=None, method="none"))


def test_polyhedra_stand_where_the_scene_has_them(perovskite_scene: Scene) -> None:
    arrays = decoded(perovskite_scene)
    (solid,) = perovskite_scene.polyhedra
    assert (arrays["vertexCenter"] == solid.center).all()
    np.testing.assert_array_equal(arrays["vertexKey"], solid.key)
    np.testing.assert_array_equal(arrays["vertexImage"], solid.image)
    np.testing.assert_array_equal(arrays["faces"], solid.faces)


def test_vertices_of_several_polyhedra_are_counted_through(perovskite_scene: Scene) -> None:
    (solid,) = perovskite_scene.polyhedra
    arrays = decoded(replace(perovskite_scene, polyhedra=(solid, solid)))
    np.testing.assert_array_equal(arrays["faces"][len(solid.faces) :], solid.faces + len(solid.key))
    np.testing.assert_array_equal(arrays["rims"][len(solid.rims) :], solid.rims + len(solid.key))


def test_no_polyhedra(perovskite_scene: Scene) -> None:
    arrays = decoded(replace(perovskite_scene, polyhedra=()))
    assert arrays["faces"].shape == (0, 3) and arrays["vertexKey"].shape == (0,)


def test_arrays_are_aligned_and_the_header_is_plain_json(scene: Scene) -> None:
    header, data = encode(scene)
    assert json.loads(json.dumps(header))["labels"] == list(scene.labels)
    assert all(place["offset"] % ALIGNMENT == 0 for place in header["arrays"].values())
    assert len(data) % ALIGNMENT == 0


@pytest.mark.parametrize("name", ["formation energy per atom"])
def test_predictions_have_their_unit(scene: Scene, name: str) -> None:
    header, _ = encode(scene)
    assert header["prediction"] == [{"name": name, "value": "−3.5", "unit": "eV/atom", "interval": None}]
