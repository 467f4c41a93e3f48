"""Space groups that a CIF names in any way: read as with all operations written out, or refused.

`python tests/reading/test_space_groups.py` tries all settings of gemmi's table and prints the counts; the test tries a
share.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import gemmi
import numpy as np
import pytest
from scipy.spatial import KDTree

from crystalframer.crystals.crystal import Crystal, closest_pair
from crystalframer.errors import CrystalError, CrystalWarning
from crystalframer.reading.inputs import read
from crystalframer.reading.space_groups import group_operations

SETTINGS = list(gemmi.spacegroup_table())
NAMED: dict[str, Callable[[gemmi.SpaceGroup], dict[str, str]]] = {
    "name with setting": lambda group: {"_space_group_name_H-M_alt": group.xhm()},
    "old item": lambda group: {"_symmetry_space_group_name_H-M": group.xhm().replace(":", " :")},
    "name": lambda group: {"_symmetry_space_group_name_H-M": group.hm},
    "name without spaces": lambda group: {"_symmetry_space_group_name_H-M": group.hm.replace(" ", "")},
    "short name": lambda group: {"_symmetry_space_group_name_H-M": group.short_name()},
    "name and number": lambda group: {
        "_symmetry_space_group_name_H-M": group.hm,
        "_symmetry_Int_Tables_number": str(group.number),
    },
    "Hall symbol": lambda group: {"_space_group_name_Hall": group.hall},
    "number": lambda group: {"_space_group_IT_number": str(group.number)},
}
PLACES = ("special", "general", "both")


def cell_of(group: gemmi.SpaceGroup, generator: np.random.Generator) -> gemmi.UnitCell:
    """A cell with the symmetry of the group and no more, lengths of 9 to 13 Å."""
    lengths = generator.uniform(9, 13, 3)
    metric = np.diag(lengths**2)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        metric[i, j] = metric[j, i] = generator.uniform(-0.25, 0.25) * lengths[i] * lengths[j]
    rotations = group_operations(group.hall)[:, :, :3]
    metric = (np.swapaxes(rotations, 1, 2) @ metric @ rotations).mean(axis=0)
    a, b, c = np.sqrt(np.diag(metric))
    angles = np.degrees(np.arccos([metric[1, 2] / (b * c), metric[0, 2] / (a * c), metric[0, 1] / (a * b)]))
    return gemmi.UnitCell(*np.round([a, b, c], 6), *np.round(angles, 6))


def sites_of(group: gemmi.SpaceGroup, places: str, cell: gemmi.UnitCell, generator: np.random.Generator) -> dict:
    """Label → position: one on a place of high symmetry, one on a general place, not too near to any image."""
    candidates = {"Na1": [[0, 0, 0]], "Cl1": [generator.uniform(0.05, 0.95, 3).round(4) for _ in range(200)]}
    chosen: dict[str, np.ndarray] = {}
    lattice = np.array(cell.orth.mat.tolist()).T
    for label in {"special": ("Na1",), "general": ("Cl1",), "both": ("Na1", "Cl1")}[places]:
        for position in candidates[label]:
            frac = np.concatenate([images(group, place) for place in (*chosen.values(), position)])
            if closest_pair(frac, lattice, 0.9) is None:
                chosen[label] = np.asarray(position, dtype=float)
                break
    return chosen


def images(group: gemmi.SpaceGroup, position: Iterable[float]) -> np.ndarray:
    operations = group_operations(group.hall)
    moved = (operations[:, :, :3] @ np.asarray(position, dtype=float) + operations[:, :, 3]).round(9) % 1.0
    return np.unique(moved.round(6) % 1.0, axis=0)


def cif(
    cell: gemmi.UnitCell, sites: dict[str, np.ndarray], items: dict[str, str], operations: Iterable[str] = ()
) -> str:
    lines = ["data_x"]
    for name, value in zip(("length_a", "length_b", "length_c"), (cell.a, cell.b, cell.c), strict=True):
        lines.append(f"_cell_{name} {value:.6f}")
    for name, value in zip(("alpha", "beta", "gamma"), (cell.alpha, cell.beta, cell.gamma), strict=True):
        lines.append(f"_cell_angle_{name} {value:.6f}")
    lines += [f'{name} "{value}"' if "'" in value else f"{name} '{value}'" for name, value in items.items()]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *map(repr, operations)] if operations else []
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_fract_{axis}" for axis in "xyz")]
    lines += [f"{label} {' '.join(map(str, position))}" for label, position in sites.items()]
    return "\n".join(lines) + "\n"


def are_same(first: Crystal, second: Crystal) -> bool:
    if len(first) != len(second) or not np.allclose(first.lattice, second.lattice, atol=1e-6):
        return False
    distances, nearest = KDTree(first.frac_coords % 1.0 % 1.0, boxsize=1.0).query(
        second.frac_coords % 1.0 % 1.0, p=np.inf
    )
    return bool((distances < 1e-4).all() and (first.atomic_numbers[nearest] == second.atomic_numbers).all())


def trials(settings: Iterable[gemmi.SpaceGroup]) -> Iterator[tuple[str, bool, str]]:
    """Way of naming, whether formula and Z are stated, and the outcome: `read`, `refused` or what is wrong."""
    for group in settings:
        generator = np.random.default_rng(group.number)
        cell = cell_of(group, generator)
        for places in PLACES:
            sites = sites_of(group, places, cell, generator)
            if not sites:
                continue
            right = read(cif(cell, sites, {}, [op.triplet() for op in group.operations()]))
            counts = np.bincount(right.atomic_numbers, minlength=18)
            units = np.gcd.reduce(counts[counts > 0])
            formula = " ".join(f"{symbol}{counts[z] // units}" for symbol, z in (("Na", 11), ("Cl", 17)) if counts[z])
            stated = {"_chemical_formula_sum": formula, "_cell_formula_units_Z": str(units)}
            for way, items in NAMED.items():
                for said in (False, True):
                    try:
                        found = read(cif(cell, sites, items(group) | (stated if said else {})))
                        outcome = "read" if are_same(found, right) else f"WRONG: {group.xhm()} {places}"
                    except CrystalError as error:
                        outcome = "refused"
                        if "-v" in sys.argv:
                            print(way, group.xhm(), places, said, error)
                    yield way, said, outcome


@pytest.mark.filterwarnings("ignore::crystalframer.errors.CrystalWarning")
def test_no_setting_of_a_group_is_taken_for_another() -> None:
    counts = Counter((said, outcome) for _, said, outcome in trials([*SETTINGS[1:3], *SETTINGS[7::17]]))
    assert not [outcome for _, outcome in counts if outcome.startswith("WRONG")]
    assert counts[True, "read"] >= 0.9 * (counts[True, "read"] + counts[True, "refused"])


if __name__ == "__main__":
    warnings.simplefilter("ignore", CrystalWarning)
    counted: Counter[tuple[str, bool, str]] = Counter(trials(SETTINGS))
    for (way, said, outcome), number in sorted(counted.items()):
        print(f"{way:20} {'formula and Z' if said else '':14} {outcome:40} {number:6}")
    n_read = sum(number for (_, said, outcome), number in counted.items() if said and outcome == "read")
    n_stated = sum(number for (_, said, _), number in counted.items() if said)
    print(f"of {n_stated:,} files that state formula and Z, {n_read / n_stated:.1%} are read")
    sys.exit(n_read < 0.9 * n_stated or any(outcome.startswith("WRONG") for _, _, outcome in counted))
