"""Cells too large for their edges to exist at once: the same numbers, and traces of a part of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

import crystalframer as cf
from crystalframer import memory, ops
from crystalframer.config import FRAME_METHODS, FrameConfig, FrameMethod, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import prepare
from crystalframer.errors import CrystalError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import prototypes, random_crystal, supercell
from crystalframer.traces import CrystalTrace

SMALL = ModelConfig(n_layers=2, n_heads=2, d_model=16, d_feedforward=16, d_readout=8)
SALT = replace(prototypes()[4], id="NaCl")


def cube(crystal: Crystal, n: int) -> Crystal:
    return replace(supercell(crystal, (n, n, n)), id=f"{crystal.id} {n}³")


def model_of(method: FrameMethod) -> CrystalFramer:
    return CrystalFramer(replace(SMALL, frame=FrameConfig(method)), torch.Generator().manual_seed(1)).eval()


SHIPPED = cf.load()


@pytest.mark.parametrize(
    ("method", "implementation"),
    [*((method, name) for method in FRAME_METHODS for name in ("cpu", "reference")), ("max", "cuda"), ("pca", "cuda")],
)
def test_chunks_give_what_the_whole_gives(method: FrameMethod, implementation: ops.Implementation) -> None:
    if implementation == "cuda":
        pytest.importorskip("triton")
    model = model_of(method)
    device = "cuda" if implementation == "cuda" and torch.cuda.is_available() else "cpu"
    model = model.to(device) if implementation != "reference" else model.double()
    packed = prepare([random_crystal(0, 2), random_crystal(1, 5)], 4.0)
    with torch.inference_mode(), ops.use(implementation):
        whole = model.pooled_features(packed.batch([1], model.target_mean.dtype).to(device))
        chunks = model.pooled_features_in_chunks(ChunkedCrystal(packed, 1, 30))
    assert sum(1 for _ in ChunkedCrystal(packed, 1, 30)) > 1
    tolerance = 1e-12 if implementation == "reference" else 1e-6
    torch.testing.assert_close(chunks, whole, rtol=0, atol=tolerance * float(whole.abs().max()))


def test_weighted_sets_are_summed_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHIPPED.evaluation_config.frame.weighted_margin > 0
    whole = cf.predict(SALT, SHIPPED)
    monkeypatch.setattr("crystalframer.batched.MAX_EDGES", 300)
    parts = cf.predict(SALT, SHIPPED)
    np.testing.assert_allclose(parts[["band_gap"]], whole[["band_gap"]], atol=1e-5)


def test_a_large_cell_is_predicted_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value, interval and flag, beside crystals that go in batches; one of them is too close to be predicted."""
    strange = Crystal(SALT.atomic_numbers, SALT.positions * 0.7, SALT.lattice * 0.7, "squeezed")
    monkeypatch.setattr("crystalframer.batched.MAX_EDGES", 5000)
    structures = [SALT, cube(SALT, 3), random_crystal(3, 4), cube(strange, 2), strange]
    table = cf.predict(structures, SHIPPED).set_index("id")
    assert table.error.isna().all()
    columns = [name for name in table if name.startswith(("formation_energy", "band_gap"))]
    assert len(columns) == 6
    for small, large in (("NaCl", "NaCl 3³"), ("squeezed", "squeezed 2³")):
        np.testing.assert_allclose(
            table.loc[large, columns].astype(float), table.loc[small, columns].astype(float), atol=1e-5
        )
        assert table.outside_training[large] == table.outside_training[small]
    assert "small" in table.outside_training["squeezed"] and table.outside_training["NaCl"] is None


def test_memory_is_that_of_a_chunk_and_of_what_belongs_to_atoms(monkeypatch: pytest.MonkeyPatch) -> None:
    config, device = ModelConfig(), torch.device("cpu")
    whole = memory.memory_needed(config, 100_000, 10_000_000, device, torch.float32)
    parts = memory.memory_needed(config, 100_000, 10_000_000, device, torch.float32, max_edges=250_000)
    assert parts < whole / 5
    assert memory.memory_needed(config, 100, 10_000, device, torch.float32, max_edges=250_000) == memory.memory_needed(
        config, 100, 10_000, device, torch.float32
    )
    # What would be too much whole is predicted all the same.
    crystal = cube(SALT, 3)
    monkeypatch.setattr("crystalframer.memory.free_memory", lambda device: 5_000_000)
    assert "does not fit into memory" in cf.predict(crystal, SHIPPED).error[0]
    monkeypatch.setattr("crystalframer.batched.MAX_EDGES", 2000)
    assert cf.predict(crystal, SHIPPED).error[0] is None


# --- traces of a region -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_a_region_shows_what_the_whole_trace_shows(method: FrameMethod, tmp_path: Path) -> None:
    model, crystal = model_of(method), random_crystal(5, 20)
    whole = cf.trace(crystal, model)
    region = cf.trace(crystal, model, sites=[7, 3])
    region = CrystalTrace.load(region.save(tmp_path / "region.safetensors"))
    assert region.sites is not None and region.n_queries == 2 and region.sites[:2].tolist() == [7, 3]
    np.testing.assert_array_equal(region.atomic_numbers, whole.atomic_numbers[region.sites])
    assert region.prediction == pytest.approx(whole.prediction, abs=1e-5)
    for place, site in enumerate((7, 3)):
        mine, theirs = region.edge_index[0] == place, whole.edge_index[0] == site
        np.testing.assert_array_equal(region.sites[region.edge_index[1][mine]], whole.edge_index[1][theirs])
        np.testing.assert_allclose(region.edge_vectors[mine], whole.edge_vectors[theirs], atol=1e-5)
        for part, layer in zip(region.layers, whole.layers, strict=True):
            np.testing.assert_allclose(part.attention[mine], layer.attention[theirs], atol=2e-5)
            np.testing.assert_allclose(part.decay_length[place], layer.decay_length[site], atol=2e-5)
            np.testing.assert_allclose(part.atom_features[place], layer.atom_features[site], atol=2e-5)
            if part.frame is None or layer.frame is None:
                assert method == "none"
                continue
            np.testing.assert_allclose(part.frame.axes[place], layer.frame.axes[site], atol=1e-3)
            if part.frame.anchor_edges is not None and layer.frame.anchor_edges is not None:
                anchors = region.edge_vectors[part.frame.anchor_edges[place]]
                expected = whole.edge_vectors[layer.frame.anchor_edges[site]]
                np.testing.assert_allclose(anchors, expected, atol=1e-5)


def test_a_region_lies_together_wherever_the_cell_ends() -> None:
    crystal = cube(SALT, 4)
    region = cf.trace(crystal, model_of("max"), sites=[0])
    assert np.linalg.norm(region.positions - region.positions[0], axis=1).max() < 8.0
    assert not region.edge_image.any()
    assert repr(region).startswith(f"CrystalTrace 'NaCl 4³': a region of 1 atoms that see {region.n_atoms} atoms")


def test_atoms_within_a_distance_belong_to_the_region() -> None:
    region = cf.trace(SALT, model_of("max"), sites=[0], within=3.0)
    assert region.sites is not None
    assert sorted(region.sites[: region.n_queries]) == [0, 5, 6, 7]  # Na and its Cl, each of them once


@pytest.mark.parametrize(
    ("options", "fields", "words"),
    [
        ({"sites": [8]}, {"site": 8}, ["crystal 'NaCl'", "from 0 to 7"]),
        ({"sites": [-1]}, {"site": -1}, ["no site -1"]),
        ({"sites": []}, {}, ["no sites"]),
        ({"sites": [0], "within": 50.0}, {"field": "within"}, ["50", "radius"]),
    ],
)
def test_a_region_that_is_not_there_is_named(options: dict, fields: dict, words: list[str]) -> None:
    with refused(CrystalError, *words, **fields):
        cf.trace(SALT, model_of("max"), **options)


def test_a_trace_that_does_not_fit_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystalframer.memory.free_memory", lambda device: 1000)
    with pytest.raises(CrystalError, match=r"a trace of 8 atoms needs about .* choose fewer atoms"):
        cf.trace(SALT, model_of("max"))
