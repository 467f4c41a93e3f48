"""The crystals of the six-property training: labels of three sources joined, and strained copies.

Crystals with a known bulk modulus get copies at other volumes. Their formation energy is that of the crystal plus the
energy of strain by the equation of state of Birch and Murnaghan (Phys. Rev. 71, 809 (1947)) with B′ = 4:

    ΔE = 9/8 V₀ K ((V₀/V)^(2/3) - 1)²

This is exact for cubic crystals whose atoms all lie on positions fixed by symmetry: they get more copies than others,
where atoms and axes would relax. The volume of the structure is taken as V₀. Copies have no other label.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from jaxtyping import Float
from tqdm.auto import tqdm

from crystalframer.config import Target

TARGETS = (
    Target("formation_energy_per_atom", "eV/atom"),
    Target("band_gap", "eV"),
    Target("is_metal", kind="class", classes=("non-metal", "metal")),
    Target("log10_bulk_modulus", "log10 GPa"),
    Target("log10_shear_modulus", "log10 GPa"),
    Target("refractive_index"),
)
STRUCTURE = ["material_id", "formula", "atomic_numbers", "frac_coords", "lattice", "n_atoms", "volume", "spacegroup"]
ELASTIC_OPTICAL = {
    "log10_K_VRH_GPa": "log10_bulk_modulus",
    "log10_G_VRH_GPa": "log10_shear_modulus",
    "refractive_index": "refractive_index",
}
COPY = "-strained-"
"""In the ids of copies."""
SMALLEST_VOLUME, LARGEST_VOLUME = 0.82, 1.10
"""Volumes of the copies, in those of their crystals."""
N_EXACT, N_OTHERS = 6, 2
"""Copies of a cubic crystal without free coordinates, and of any other."""
GPA = 1.0 / 160.2176634
"""In eV/Å³."""
SAME_POSITION = 0.01
"""In cell vectors."""


def joined(main: Path, elastic_optical: Path, split: str) -> pandas.DataFrame:
    """The crystals of one part with all six labels; a missing label is empty.

    Args:
        main: `mp2018_train.parquet` or `mp2018_val.parquet`.
        elastic_optical: moduli and refractive indices of some of the same crystals.
        split: the part of `elastic_optical` to take: `train` or `validation`.
    """
    table = pandas.read_parquet(main, columns=[*STRUCTURE, "formation_energy_per_atom", "band_gap"])
    table["is_metal"] = np.where(table["band_gap"] > 0.0, "non-metal", "metal")
    others = pandas.read_parquet(elastic_optical)
    others = others.loc[(others["split"] == split) & others["material_id"].isin(table["material_id"])].copy()
    # The bulk moduli of these compounds are a test of the trained model: all their polymorphs stay without one.
    held_out = others["formula"].isin(others.loc[others["textbook"], "formula"])
    others.loc[held_out, "log10_K_VRH_GPa"] = np.nan
    columns = others.loc[:, ["material_id", *ELASTIC_OPTICAL]].rename(columns=ELASTIC_OPTICAL)
    return table.merge(columns, on="material_id", how="left", validate="one_to_one")


def strained(table: pandas.DataFrame, seed: int = 0) -> pandas.DataFrame:
    """Copies of the crystals with a bulk modulus at random volumes, labelled with their formation energy."""
    generator = np.random.default_rng(seed)
    copies = []
    rows = table.loc[table["log10_bulk_modulus"].notna()].to_dict("records")
    for row in tqdm(rows, desc="strained copies", unit=" crystals", delay=2, leave=False):
        modulus = 10.0 ** row["log10_bulk_modulus"] * GPA
        for n in range(N_EXACT if row["spacegroup"] >= 195 and is_fixed(row) else N_OTHERS):
            volume = generator.uniform(SMALLEST_VOLUME, LARGEST_VOLUME)
            energy = strain_energy(modulus, row["volume"] / row["n_atoms"], volume)
            copies.append(
                {name: row[name] for name in STRUCTURE}
                | {
                    "material_id": f"{row['material_id']}{COPY}{n + 1}",
                    "lattice": np.asarray(row["lattice"]) * volume ** (1 / 3),
                    "volume": row["volume"] * volume,
                    "formation_energy_per_atom": row["formation_energy_per_atom"] + energy,
                }
            )
    return pandas.DataFrame(copies)


def strain_energy(modulus: float, volume: float, ratio: float) -> float:
    """ΔE in the unit of modulus × volume, at `ratio` times the volume.

    >>> round(strain_energy(89 * GPA, 20.4, 0.95), 4)  # silicon, eV/atom
    0.0153
    """
    return 9.0 / 8.0 * volume * modulus * (ratio ** (-2.0 / 3.0) - 1.0) ** 2


def is_fixed(row: dict[Any, Any]) -> bool:
    """Whether symmetry fixes the positions of all atoms: no direction is left unchanged by all that keep an atom."""
    import spglib

    lattice = np.asarray(row["lattice"], dtype=float).reshape(3, 3)
    positions = np.asarray(row["frac_coords"], dtype=float).reshape(-1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        symmetry = spglib.get_symmetry((lattice, positions, list(row["atomic_numbers"])), symprec=0.01)  # type: ignore[arg-type]
    if symmetry is None:
        return False
    return all(free_directions(symmetry["rotations"], symmetry["translations"], r) == 0 for r in positions)


def free_directions(
    rotations: Float[np.ndarray, "n 3 3"], translations: Float[np.ndarray, "n 3"], position: Float[np.ndarray, " 3"]
) -> int:
    """The number of directions in which an atom can move without lowering the symmetry: the trace of a projector."""
    shift = rotations @ position + translations - position
    keeps = np.abs(shift - np.round(shift)).max(axis=1) < SAME_POSITION
    return round(float(np.trace(rotations[keeps].mean(axis=0))))
