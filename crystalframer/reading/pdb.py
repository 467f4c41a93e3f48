"""PDB files: the asymmetric unit of one model, expanded by the group that CRYST1 names.

The format says little: coordinates have three decimals, elements may be missing. What would be a guess is refused.
"""

from __future__ import annotations

import gemmi
import numpy as np

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError
from crystalframer.libraries import reason
from crystalframer.reading.cells import OCCUPANCY_TOLERANCE, expanded, lattice_of
from crystalframer.reading.notices import left_out
from crystalframer.reading.space_groups import Symmetry, group_operations, settings_of
from crystalframer.reading.text import TextFormat

_CELL_TOLERANCE = 1e-3
"""Relative, of the metric of a cell by SCALE and by CRYST1."""

PDB = TextFormat(lambda text: [_read(text)])


def _read(text: str) -> Crystal:
    _check_lines(text)
    try:
        structure = gemmi.read_pdb_string(text)
    except (RuntimeError, ValueError) as error:
        raise CrystalError(f"cannot be read as PDB ({reason(error)}); check the file") from error
    if len(structure) != 1:
        problem = f"holds {len(structure)} models, which may be steps, parts or alternatives"
        raise CrystalError(f"{problem}; write the one that is meant to a file of its own", field="MODEL")
    group = _group(structure)
    if any(not operator.given for operator in structure.ncs):
        raise CrystalError("has MTRIX records: not all atoms are listed; it cannot be read", field="MTRIX")
    atoms = [found.atom for found in structure[0].all()]
    numbers = np.array([_element(site, atom) for site, atom in enumerate(atoms)], dtype=np.int64)
    if any(atom.charge for atom in atoms):
        left_out("oxidation states and charges")
    lattice = lattice_of(structure.cell)
    frac = np.array([structure.cell.fractionalize(atom.pos).tolist() for atom in atoms]).reshape(-1, 3)
    labels = [atom.name for atom in atoms]
    sites, frac = expanded(labels, frac, np.zeros_like(frac), lattice, group_operations(group.hall))
    return Crystal(numbers[sites], frac @ lattice, lattice)


def _check_lines(text: str) -> None:
    """Refuse what gemmi passes over or guesses."""
    site, last = 0, ""
    for line in text.split("\n"):
        if line.startswith(("REMARK 465", "REMARK 470")):
            raise CrystalError("says that atoms are missing (REMARK 465 or 470); complete it", field=line[:10])
        if line.startswith("END"):
            last = line.rstrip()
        if line.startswith(("ATOM", "HETATM")):
            if last == "END":
                raise CrystalError("lists atoms after END; write each structure to a file of its own", field="END")
            if not line[76:78].strip():
                problem = f"site {site} ({line[12:16].strip()}) names no element in columns 77 and 78"
                raise CrystalError(f"{problem}, and its name is not certain; add it", site=site)
            site += 1
    if not last:
        raise CrystalError("ends without END; was it cut short?", field="END")


def _group(structure: gemmi.Structure) -> gemmi.SpaceGroup:
    """The space group, once it is certain that the cell and the group are those of the crystal."""
    cell, name = gemmi.UnitCell(*structure.cell.parameters), structure.spacegroup_hm.strip()
    if max(cell.a, cell.b, cell.c) <= 1:
        raise CrystalError("has no cell (no CRYST1, or a cell of 1 Å, which stands for none)", field="CRYST1")
    if not name:
        problem = "CRYST1 names no space group: are all atoms of the cell listed? If so, write P 1"
        raise CrystalError(problem, field="CRYST1")
    try:
        settings = settings_of(Symmetry(names=(name,)), lattice_of(cell))
    except CrystalError as error:
        raise CrystalError(f"CRYST1: {error.message}", field="CRYST1", value=name) from error
    if len(settings) != 1:
        problem = f"the space group {name!r} has two origins, and PDB does not say which is meant"
        raise CrystalError(f"{problem}; use CIF", field="CRYST1", value=name)
    by_scale, by_lengths = lattice_of(structure.cell), lattice_of(cell)
    difference = by_scale @ by_scale.T - by_lengths @ by_lengths.T
    if not np.abs(difference).max() <= _CELL_TOLERANCE * np.abs(by_lengths).max() ** 2:
        raise CrystalError("SCALE and CRYST1 give different cells; correct one of them", field="SCALE")
    return settings[0]


def _element(site: int, atom: gemmi.Atom) -> int:
    where = f"site {site} ({atom.name}, atom {atom.serial})"
    if atom.has_altloc():
        raise CrystalError(f"{where} has an alternate location; the model needs one place for each atom", site=site)
    if not abs(atom.occ - 1) <= OCCUPANCY_TOLERANCE:
        problem = f"has occupancy {atom.occ:.4g}; the model needs whole atoms: make an ordered structure first"
        raise CrystalError(f"{where} {problem}", site=site)
    if atom.element.atomic_number == 0:
        raise CrystalError(f"{where} is no atom of an element; correct or remove it", site=site)
    return atom.element.atomic_number
