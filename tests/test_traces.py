"""Traces outlive the model: one file, read back the same, and clear when it is not one."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from synthetic_traces import perovskite, synthetic_trace, weighted_trace, with_dead_head

import viz
from crystalframer.config import FrameConfig, FrameMethod
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import TraceError
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset
from crystalframer.testing import random_crystal
from crystalframer.traces import CrystalTrace


def trace(method: FrameMethod = "max") -> CrystalTrace:
    config = dataclasses.replace(preset("tiny").config.model, frame=FrameConfig(method))
    return CrystalFramer(config).trace(make_batch([random_crystal(0, 3)], config.radius))[0]


@pytest.mark.parametrize("method", ["max", "weighted-pca", "lattice", "none"])
def test_round_trip(method: FrameMethod, tmp_path: Path) -> None:
    before = trace(method)
    after = CrystalTrace.load(before.save(tmp_path / "x.safetensors"))
    np.testing.assert_equal(dataclasses.asdict(after), dataclasses.asdict(before))


@pytest.mark.parametrize("both_hands", [False, True])
def test_sets_and_axes_without_direction_are_kept(both_hands: bool, tmp_path: Path) -> None:
    before = weighted_trace(perovskite(), both_hands=both_hands)
    after = CrystalTrace.load(before.save(tmp_path / "x.safetensors"))
    np.testing.assert_equal(dataclasses.asdict(after), dataclasses.asdict(before))
    assert {layer.frame.unsigned_axis for layer in after.layers if layer.frame} == {2 if both_hands else None}


def test_an_older_file_holds_sets_of_one(tmp_path: Path) -> None:
    path = trace().save(tmp_path / "x.safetensors")
    rewritten(path, schema_version=2, unsigned_axes=DROPPED)
    frame = CrystalTrace.load(path).layers[1].frame
    assert frame is not None and frame.members is None and frame.unsigned_axis is None
    assert frame.anchor_edges is not None
    assert frame.sets.sizes.tolist() == [1] * 6 and (frame.sets.weights == 1).all()
    np.testing.assert_array_equal(frame.sets.axes.reshape(3, 2, 3, 3), frame.axes)
    np.testing.assert_array_equal(frame.sets.anchor_edges, frame.anchor_edges.reshape(6, 2))


@pytest.mark.parametrize("damage", [lambda n: n[:-1], lambda n: n + 1, lambda n: np.where(n == n[1], 0, n)])
def test_sets_that_do_not_fit_are_refused(damage: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    path = weighted_trace(perovskite()).save(tmp_path / "x.safetensors")
    changes: dict[str, Any] = {"layers.1.frame.members.offsets": damage}
    rewritten(path, **changes)
    with refused(TraceError, path=path, field="layers.1.frame.members"):
        CrystalTrace.load(path)


@pytest.mark.parametrize(
    ("array", "damage"),
    [
        ("offsets", lambda n: n[:, None]),
        ("weights", lambda w: w[:, None]),
        ("weights", lambda w: np.nan * w),
        ("weights", lambda w: -w),
        ("weights", lambda w: 2 * w),
        ("axes", lambda a: a[:, :2]),
        ("axes", lambda a: a.reshape(-1, 9)),
        ("anchor_edges", lambda e: e[:, 0]),
    ],
)
def test_sets_of_another_shape_or_weight_are_refused(
    array: str, damage: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    path = weighted_trace(perovskite()).save(tmp_path / "x.safetensors")
    rewritten(path, **{f"layers.1.frame.members.{array}": damage})
    with refused(TraceError, path=path, field="layers.1.frame.members"):
        CrystalTrace.load(path)


@pytest.mark.parametrize("array", ["offsets", "weights", "axes"])
def test_sets_without_one_of_their_arrays_are_no_single_frames(array: str, tmp_path: Path) -> None:
    path = weighted_trace(perovskite()).save(tmp_path / "x.safetensors")
    field = f"layers.1.frame.members.{array}"
    rewritten(path, field)
    with refused(TraceError, path=path, field=field):
        CrystalTrace.load(path)


def test_derived_geometry() -> None:
    found = trace()
    assert (found.n_atoms, found.n_layers, found.n_heads) == (3, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(found.edge_vectors, axis=1), found.edge_lengths)
    assert found.n_edges == len(found.edge_lengths)


def test_it_introduces_itself_in_a_line() -> None:
    found = dataclasses.replace(trace(), id="x", prediction={"gap": 1.25}, units={"gap": "eV"})
    assert repr(found) == f"CrystalTrace 'x': 3 atoms, {found.n_edges:,} edges, 2 layers with 2 heads; gap = 1.25 eV"
    assert repr(found.layers[0]) == f"LayerTrace: {found.n_edges:,} edges, 2 heads, max frames"
    assert repr(found.layers[0].frame) == "FrameTrace: max frames of 3 atoms, 2 heads"


def test_a_file_is_named_as_what_it_is_and_its_folder_made(tmp_path: Path) -> None:
    with refused(TraceError, "x.safetensors", path="x.npz"):
        trace().save(tmp_path / "x.npz")
    assert CrystalTrace.load(trace().save(tmp_path / "deep" / "x.safetensors")).n_layers == trace().n_layers


def test_a_trace_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trace().save(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def fill_disk(file: Path, content: bytes) -> int:
        with file.open("wb") as opened:
            opened.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with refused(TraceError, "No space left", path=path):
        trace("none").save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


DROPPED = object()


def rewritten(path: Path, drop: str = "", /, **changes: object) -> None:
    """Change fields of the header of the file or the numbers in an array, or leave an array or a field out."""
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["crystal_trace"]) | changes
    arrays = {name: values for name, values in load_file(path).items() if name != drop}
    arrays |= {name: header.pop(name)(arrays[name]) for name in {*header} & {*arrays}}
    kept = {name: value for name, value in header.items() if value is not DROPPED}
    save_file(arrays, path, {"crystal_trace": json.dumps(kept)})


ANCHORS = "layers.0.frame.anchor_edges"


@pytest.mark.parametrize(
    ("damage", "word", "field"),
    [
        (Path.unlink, "no such file", None),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a readable trace", None),
        (lambda path: save_file({"a": np.zeros(1)}, path), "crystalframer trace", None),
        (lambda path: save_file(load_file(path), path, {"crystal_trace": "{"}), "header", None),
        (lambda path: rewritten(path, "layers.1.attention"), "", "layers.1.attention"),
        (lambda path: rewritten(path, **{"layers.1.attention": lambda a: a[:3]}), "shape", "layers.1.attention"),
        (lambda path: rewritten(path, edge_index=lambda e: e.T), "shape", "edge_index"),
        (lambda path: rewritten(path, positions=lambda p: p[:, :2]), "shape", "positions"),
        (lambda path: rewritten(path, edge_index=lambda e: e + 1), "atoms", "edge_index"),
        (lambda path: rewritten(path, **{ANCHORS: lambda e: e - 10**6}), "edges", ANCHORS),
        (lambda path: rewritten(path, frame_methods=["none", "none"]), "frames", "layers.0.frame"),
        (lambda path: rewritten(path, schema_version=0), "header", None),
        (lambda path: rewritten(path, schema_version=True), "header", None),
        (lambda path: rewritten(path, schema_version=99), "99", "schema_version"),
        (lambda path: rewritten(path, schema_version="2"), "header", None),
        (lambda path: rewritten(path, frame_methods=5), "header", None),
        (lambda path: rewritten(path, frame_methods=[["max"]]), "header", None),
        (lambda path: rewritten(path, id=5), "header", None),
        (lambda path: rewritten(path, units=[]), "header", None),
        (lambda path: rewritten(path, units={"gap": None}), "header", None),
        (lambda path: rewritten(path, prediction={"gap": "<b>"}), "header", None),
        (lambda path: rewritten(path, unsigned_axes=[2]), "header", None),
        (lambda path: rewritten(path, unsigned_axes=[2, "e3"]), "header", None),
    ],
)
def test_a_file_that_is_no_trace(
    damage: Callable[[Path], object], word: str, field: str | None, tmp_path: Path
) -> None:
    path = trace().save(tmp_path / "x.safetensors")
    damage(path)
    with refused(TraceError, word, path=path, field=field):
        CrystalTrace.load(path)


def test_frames_are_dead_where_no_attention_leaves_the_atom() -> None:
    trace = synthetic_trace(perovskite())
    assert not trace.dead_frames.any()
    itself = viz.self_attention_share(trace)
    np.testing.assert_allclose(trace.outgoing_attention, 1 - itself, atol=1e-12)
    for outgoing, is_dead in ((9e-4, True), (1.1e-3, False)):
        changed = with_dead_head(trace, 1, 2, outgoing)
        np.testing.assert_allclose(changed.outgoing_attention[1, 2], outgoing)
        assert changed.dead_frames[1, 2].all() == is_dead and changed.dead_frames.sum() == 5 * is_dead
