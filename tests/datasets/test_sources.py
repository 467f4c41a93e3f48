from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from crystalframer.config import DataConfig, Target
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.sources import dataset
from crystalframer.errors import DataError


@pytest.fixture(scope="module")
def demo() -> CrystalDataset:
    return dataset("demo")


def test_demo_is_what_its_description_says(demo: CrystalDataset) -> None:
    assert len(demo) == 502
    assert len(np.unique(demo.atomic_numbers)) == 68
    assert (demo.n_atoms <= 20).sum() == 373
    labels = {name: (int(np.isfinite(demo.targets[name]).sum()), demo.units[name]) for name in demo.targets}
    assert labels == {
        "formation_energy_per_atom": (502, "eV/atom"),
        "band_gap": (502, "eV"),
        "energy_above_hull": (502, "eV/atom"),
        "bulk_modulus": (270, "GPa"),
        "shear_modulus": (270, "GPa"),
    }
    assert "JARVIS" in demo.provenance.source and "NIST" in demo.provenance.licence


def test_demo_holds_known_crystals(demo: CrystalDataset) -> None:
    salt = demo[demo.ids.tolist().index("JVASP-23862")]
    assert sorted(salt.atomic_numbers.tolist()) == [11, 17]
    assert salt.targets["formation_energy_per_atom"] == pytest.approx(-1.93651)
    lengths = np.linalg.norm(neighbor_list(salt, 4.0).edge_vectors, axis=1)
    assert lengths[lengths > 0].min() == pytest.approx(2.82, abs=0.06)  # Na-Cl in rock salt, experiment 2.82 Å


def test_demo_crystals_are_sound(demo: CrystalDataset) -> None:
    for crystal in demo:
        frac = crystal.frac_coords
        assert (frac > -1e-12).all() and (frac < 1 + 1e-12).all(), crystal.id
        # The shortest bond there can be is that of H2.
        difference = frac[:, None] - frac[None]
        distances = np.linalg.norm((difference - np.round(difference)) @ crystal.lattice, axis=2)
        assert distances[~np.eye(len(crystal), dtype=bool)].min(initial=9.0) > 0.7, crystal.id


def test_demo_split_is_the_official_one_and_its_baseline_known(demo: CrystalDataset) -> None:
    parts = demo.split(DataConfig(), seed=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (398, 50, 54)
    assert "JVASP-5" in parts.test.ids and "JVASP-278" in parts.validation.ids
    labels = {
        name: getattr(parts, name).targets["formation_energy_per_atom"] for name in ("train", "validation", "test")
    }
    errors = {name: np.abs(values - labels["train"].mean()).mean() for name, values in labels.items()}
    assert errors == pytest.approx({"train": 0.9840, "validation": 0.9815, "test": 1.0850}, abs=5e-5)


def test_demo_is_small_and_described() -> None:
    folder = Path(__file__).parents[2] / "crystalframer" / "datasets" / "demo"
    assert (folder / "demo.parquet").stat().st_size < 500_000
    text = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("MIT", "NIST", "jarvis-tools", "jarvis-leaderboard", "doi:10.1038", "eV/atom"):
        assert part in text


def test_demo_with_chosen_targets() -> None:
    assert list(dataset("demo", targets=[Target("band_gap", "eV")]).targets) == ["band_gap"]
    with refused(DataError, "did you mean 'band_gap'?", field="bandgap"):
        dataset("demo", targets=["bandgap"])


def test_paths(tmp_path: Path, demo: CrystalDataset) -> None:
    demo.select([0, 1]).save(tmp_path / "two.parquet")
    assert dataset(tmp_path / "two.parquet").ids.tolist() == demo.ids[:2].tolist()
    assert dataset(str(tmp_path / "two.parquet")).provenance == demo.provenance


def test_unknown_sources(tmp_path: Path) -> None:
    with refused(DataError, "did you mean 'demo'?", field="source"):
        dataset("dmo")
    with refused(DataError, path="demo", field="labels"):
        dataset("demo", labels="labels.csv")
    (tmp_path / "x.txt").write_text("hello")
    with refused(DataError, ".csv", path="x.txt"):
        dataset(tmp_path / "x.txt")
