"""Other descriptions of a crystal: that they describe the same crystal, and that the measure finds what differs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sensitive_models import sensitive_model

from crystalframer.analysis.invariance import KINDS, Kind, changed, invariance, invariance_summary
from crystalframer.config import FrameConfig, FrameMethod, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.inputs import read
from crystalframer.testing import TOLERANCES, random_crystal

CRYSTALS = [random_crystal(seed, n_atoms) for seed, n_atoms in ((1, 3), (2, 5))]
DESCRIPTIONS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in ("mirror", "ties"))
CHANGE = "change/formation_energy_per_atom"


make_model = partial(sensitive_model, CRYSTALS)


def surroundings(crystal: Crystal) -> np.ndarray:
    """Sorted (Z, Z of the neighbour, distance) of all pairs within 5 Å, per atom of the crystal: no description."""
    batch = make_batch([crystal], 5.0, dtype=torch.float64)
    query, key = batch.edge_index.numpy()
    numbers = batch.atomic_numbers.numpy()
    pairs = np.column_stack([numbers[query], numbers[key], batch.edge_lengths.numpy().round(6)])
    return pairs[np.lexsort(pairs.T)]


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_changed_crystal_is_the_same_crystal_described_otherwise(kind: Kind, draw: int) -> None:
    crystal = CRYSTALS[1]
    other = changed(crystal, kind, draw)
    before, after = surroundings(crystal), surroundings(other)
    repeats = len(other) // len(crystal)
    np.testing.assert_allclose(after, np.repeat(before, repeats, axis=0), atol=3e-6)
    same = np.array_equal(other.lattice, crystal.lattice) and np.array_equal(other.positions, crystal.positions)
    assert not same or draw > 0  # an order of five atoms may repeat


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_draws_differ_and_repeat(kind: Kind) -> None:
    def written(draw: int) -> bytes:
        other = changed(CRYSTALS[1], kind, draw)
        return other.lattice.tobytes() + other.positions.tobytes() + other.atomic_numbers.tobytes()

    assert len({written(draw) for draw in range(8)}) >= 7
    assert written(3) == written(3)


@pytest.mark.parametrize("draw", range(4))
def test_mirror_images_are_mirror_images(draw: int) -> None:
    crystal, other = CRYSTALS[1], changed(CRYSTALS[1], "mirror", draw)
    matrix = np.linalg.lstsq(crystal.positions, other.positions, rcond=None)[0]
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(-1.0)


def test_cells_have_integer_combinations_of_the_vectors() -> None:
    crystal = CRYSTALS[0]
    for draw in range(50):
        transformation = changed(crystal, "cell", draw).lattice @ np.linalg.inv(crystal.lattice)
        np.testing.assert_allclose(transformation, transformation.round(), atol=1e-9)
        assert abs(np.linalg.det(transformation)) == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["max", "weighted-pca", "static-max", "none"])
def test_methods_that_see_the_crystal_do_not_change(method: FrameMethod) -> None:
    table = invariance(make_model(method), CRYSTALS, DESCRIPTIONS, n_draws=4)
    assert len(table) == 2 * 4 * len(DESCRIPTIONS)
    assert np.abs(table[CHANGE].to_numpy()).max() <= TOLERANCES["float32"]


def test_the_measure_finds_a_model_that_sees_the_cell() -> None:
    """Lattice frames turn with the crystal but differ in a supercell, which `crystalframer.frame_methods` documents."""
    largest = invariance_summary(invariance(make_model("lattice"), CRYSTALS))["largest/formation_energy_per_atom"]
    assert largest.loc["supercell"] > 100 * TOLERANCES["float32"]
    assert max(largest.loc[["rotation", "translation", "images", "order"]].tolist()) <= TOLERANCES["float32"]


def test_ties_are_decided_by_the_noise() -> None:
    """Noise draws the signs of principal axes; distances alone know none."""
    table = invariance(make_model("weighted-pca"), CRYSTALS, ["ties"], n_draws=6)
    assert np.abs(table[CHANGE].to_numpy()).max() > 100 * TOLERANCES["float32"]
    assert table.loc[table["id"] == "random-1", CHANGE].nunique() > 2
    assert np.abs(invariance(make_model("none"), CRYSTALS, ["ties"])[CHANGE].to_numpy()).max() == 0.0
    again = invariance(make_model("weighted-pca"), CRYSTALS, ["ties"], n_draws=6)
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_a_row_is_the_difference_of_two_predictions() -> None:
    targets = (Target("gap", "eV"), Target("bulk", "GPa"))
    model = make_model("pca", targets=targets)
    table = invariance(model, CRYSTALS, ["supercell", "rotation"], n_draws=2)
    assert table["kind"].tolist() == ["supercell"] * 4 + ["rotation"] * 4
    assert table["draw"].tolist() == [0, 0, 1, 1] * 2
    assert table["id"].tolist() == ["random-1", "random-2"] * 4
    assert table.attrs["units"] == {"change/gap": "eV", "change/bulk": "GPa"}
    row = table.iloc[3]  # supercell, draw 1, random-2
    pair = [CRYSTALS[1], changed(CRYSTALS[1], "supercell", 1)]
    with torch.no_grad():
        before, after = model(make_batch(pair, model.config.radius)).double().numpy()
    assert [row["change/gap"], row["change/bulk"]] == pytest.approx(list(after - before), abs=1e-6)
    assert abs(row["change/gap"]) > 1e-4


def test_the_summary_by_hand() -> None:
    table = pd.DataFrame(
        {
            "id": ["a", "a", "b", "b", "a", "b"],
            "kind": ["rotation"] * 4 + ["cell"] * 2,
            "draw": [0, 1, 0, 1, 0, 0],
            "change/gap": [1.0, 3.0, -7.0, 7.0, 0.5, np.nan],
        }
    )
    summary = invariance_summary(table)
    assert summary.index.tolist() == ["rotation", "cell"]
    assert summary.loc["rotation", "largest/gap"] == 7.0
    assert summary.loc["rotation", "std/gap"] == pytest.approx(((1.0 + 49.0) / 2) ** 0.5)
    assert summary.loc["cell"].isna().all()  # a prediction that is not finite is not passed over


PROTOTYPES = (229, 286, 77, 170, 34, 195, 152, 154)
"""Numbers in the AFLOW library of V₂Au₄, Ti₅Te₄, CeNiC₂, Sr₂CuO₄, CrB, Zr₂Si₄, α-boron, chalcostibite: sites with
mirror images, whose first axes tie."""


@pytest.fixture(scope="module")
def prototypes() -> list[Crystal]:
    library = pytest.importorskip("pymatgen.analysis.prototypes").AFLOW_PROTOTYPE_LIBRARY
    return [replace(read(library[n]["snl"].structure), id=str(n)) for n in PROTOTYPES]


@pytest.mark.parametrize(("precision", "bar"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=str)
def test_prototypes_of_high_symmetry_do_not_depend_on_how_they_are_turned(
    prototypes: list[Crystal], precision: torch.dtype, bar: float
) -> None:
    table = invariance(make_model().to(precision), prototypes, ["rotation", "cell"], n_draws=2, progress=False)
    moved = table[~(table[CHANGE].abs().to_numpy() < bar)]
    assert moved.empty, moved.to_string()


def test_without_the_tie_rule_prototypes_depend_on_how_they_are_turned(prototypes: list[Crystal]) -> None:
    model = make_model()
    plain = CrystalFramer(replace(model.config, frame=FrameConfig(tie_margin=0.0))).eval()
    plain.load_state_dict(model.state_dict())
    table = invariance(plain, prototypes[:3], ["rotation"], n_draws=2, progress=False)
    assert np.abs(table[CHANGE].to_numpy()).max() > 1e-3
