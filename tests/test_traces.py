"""Traces outlive the model: one file, read back the same, and clear when it is not one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from safetensors.numpy import load_file, save_file

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
    assert_same(before, after)


def assert_same(a: object, b: object) -> None:
    assert type(a) is type(b)
    for field in dataclasses.fields(a):  # type: ignore[arg-type]
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
        elif isinstance(left, tuple):
            assert len(left) == len(right)
            for one, other in zip(left, right, strict=True):
                assert_same(one, other)
        elif dataclasses.is_dataclass(left):
            assert_same(left, right)
        else:
            assert left == right


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


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(TraceError, "cannot be written", path=tmp_path / "file" / "x.safetensors"):
        trace().save(tmp_path / "file" / "x.safetensors")


def test_no_such_file(tmp_path: Path) -> None:
    with refused(TraceError, "no such file", path="absent.safetensors"):
        CrystalTrace.load(tmp_path / "absent.safetensors")


def test_damaged_file(tmp_path: Path) -> None:
    path = trace().save(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with refused(TraceError, "not a readable trace", path=path):
        CrystalTrace.load(path)


def test_other_safetensors_file(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")
    with refused(TraceError, "crystalframer trace", path="x.safetensors"):
        CrystalTrace.load(tmp_path / "x.safetensors")


def rewritten(path: Path, drop: str = "", **changes: object) -> Path:
    """The file with fields of its header changed and an array left out."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["crystal_trace"]) | changes
    arrays = {name: values for name, values in load_file(path).items() if name != drop}
    save_file(arrays, path, {"crystal_trace": json.dumps(header)})
    return path


def test_newer_schema(tmp_path: Path) -> None:
    path = rewritten(trace().save(tmp_path / "x.safetensors"), schema_version=99)
    with refused(TraceError, 99, path=path, field="schema_version"):
        CrystalTrace.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": "2"},
        {"frame_methods": 5},
        {"frame_methods": [["max"]]},
        {"id": 5},
        {"units": []},
        {"units": {"gap": None}},
        {"prediction": {"gap": "<b>"}},
    ],
)
def test_a_header_of_other_things_is_an_error(changes: dict, tmp_path: Path) -> None:
    path = rewritten(trace().save(tmp_path / "x.safetensors"), **changes)
    with refused(TraceError, "header", path=path):
        CrystalTrace.load(path)


def test_a_header_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    path = trace().save(tmp_path / "x.safetensors")
    save_file(load_file(path), path, {"crystal_trace": "{"})
    with refused(TraceError, "header", path=path):
        CrystalTrace.load(path)


def test_missing_array(tmp_path: Path) -> None:
    path = rewritten(trace().save(tmp_path / "x.safetensors"), drop="layers.1.attention")
    with refused(TraceError, path=path, field="layers.1.attention"):
        CrystalTrace.load(path)
