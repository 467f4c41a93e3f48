"""What a record says twice of its crystal (number of atoms, formula, lengths, coordinates) must agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import atomic_number
from crystalframer.errors import CrystalError
from crystalframer.reading.cells import FORMULA_TOLERANCE
from crystalframer.reading.cif import formula_counts
from crystalframer.reading.columns import is_missing, is_number, word
from crystalframer.reading.encoded import plain_array

_COUNTS = ("nsites", "natoms", "numsites", "numatoms", "numberofatoms", "numberofsites")
_FORMULAS = (
    *("formula", "formulapretty", "prettyformula", "reducedformula", "formulareduced", "fullformula"),
    *("chemicalformula", "chemicalformulareduced", "composition", "compositionreduced"),
)
_SYSTEMS = ("chemsys", "chemicalsystem")
_MATRICES = ("lattice", "cell", "lattice_mat", "lattice_vectors")
_NUMBERS = ("atomic_numbers", "numbers")
_LENGTHS, _ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")
_PARAMETERS = (*_LENGTHS, "abc", *_ANGLES, "angles")
_RELATIVE, _ABSOLUTE = 2e-3, 6e-3
"""Å: lengths may be rounded to two decimals."""
_DEGREES = 0.1
_DISTANCE = 0.05
"""Å by which two coordinates of an atom may differ."""
_SAME_SHAPE, _SAME_PLACE = 1e-3, 0.02
"""Relative difference of squared lengths, and Å between atoms, of one cell written in two formats: a relaxation moves
more.
"""


def check_content(record: Mapping[str, Any], crystal: Crystal, name: str) -> None:
    """Compare the number of atoms, the formula and the elements that a record states with its crystal.

    Args:
        name: of the crystal, for the message.

    Raises:
        CrystalError: the record contradicts itself; both sides are named.
    """
    found = Counter(crystal.atomic_numbers.tolist())
    for key, value in record.items():
        column = word(key)
        if column in _COUNTS and is_number(value) and not is_missing(value):
            _refuse_unless(float(value) == len(crystal), name, key, value, f"there are {len(crystal)} atoms")
        elif column in _FORMULAS and (counts := _counts(value)):
            n_units = len(crystal) / sum(counts.values())
            differences = [abs(found[z] - n_units * counts.get(z, 0.0)) for z in {*counts, *found}]
            _refuse_unless(max(differences) <= FORMULA_TOLERANCE, name, key, value, f"the atoms are {crystal.formula}")
        elif column == "elements" and (elements := _elements(value)):
            is_same = set(elements) == set(found)
            if len(elements) == len(crystal):  # one for each atom
                is_same = Counter(elements) == found
            _refuse_unless(is_same, name, key, value, f"the atoms are {crystal.formula}")
        elif column in _SYSTEMS and isinstance(value, str) and (elements := _elements(value.split("-"))):
            _refuse_unless(set(elements) == set(found), name, key, value, f"the atoms are {crystal.formula}")


def check_geometry(record: Mapping[str, Any], crystal: Crystal, name: str) -> None:
    """Compare all lattices, lattice parameters, coordinates and atomic numbers of one record with its crystal.

    Raises:
        CrystalError: as `check_content`.
    """
    for key in _several(record, _MATRICES):
        matrix = _array(record[key], 9)
        if matrix is not None:
            is_same = np.allclose(matrix.reshape(3, 3), crystal.lattice, rtol=_RELATIVE, atol=_ABSOLUTE)
            _refuse_unless(is_same, name, key, record[key], f"the lattice is {crystal.lattice.tolist()}")
    for key in _several(record, _NUMBERS):
        numbers = _array(record[key], len(crystal))
        is_same = numbers is not None and np.array_equal(numbers, crystal.atomic_numbers)
        _refuse_unless(is_same, name, key, record[key], f"the atoms are {crystal.atomic_numbers.tolist()}")
    check_parameters(record, crystal.lattice, name)
    for key in _several(record, ("positions", "frac_coords")):
        coordinates = _array(record[key], 3 * len(crystal))
        if coordinates is None:
            problem = f"{key} has not three numbers for each of the {len(crystal)} atoms; correct or remove it"
            raise CrystalError(f"{name}: {problem}", field=key)
        stated = coordinates.reshape(-1, 3)
        check_positions(key, stated @ crystal.lattice if key == "frac_coords" else stated, crystal, name)


def check_parameters(record: Mapping[str, Any], lattice: Float[np.ndarray, "3 3"], name: str) -> None:
    """Compare lengths and angles that stand beside a lattice with it.

    Raises:
        CrystalError: as `check_content`.
    """
    if all(record.get(key) is None for key in _PARAMETERS):
        return
    lengths = np.linalg.norm(lattice, axis=1)
    cosines = np.array([lattice[i] @ lattice[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))])
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    beside = f"the lattice has {', '.join(f'{value:.6g}' for value in (*lengths, *angles))}"
    for keys, whole, values in ((_LENGTHS, "abc", lengths), (_ANGLES, "angles", angles)):
        given = _array([record.get(key) for key in keys], 3), _array(record.get(whole), 3)
        for key, numbers in zip((", ".join(keys), whole), given, strict=True):
            tolerance = _ABSOLUTE + _RELATIVE * lengths if keys is _LENGTHS else _DEGREES
            is_same = numbers is None or (np.abs(numbers - values) <= tolerance).all()
            _refuse_unless(is_same, name, key, None if numbers is None else numbers.tolist(), beside)


def check_positions(key: str, positions: Float[np.ndarray, "n_atoms 3"], crystal: Crystal, name: str) -> None:
    """Compare Cartesian positions with those of the crystal, up to lattice vectors.

    Raises:
        CrystalError: as `check_content`.
    """
    frac = (positions - crystal.positions) @ np.linalg.inv(crystal.lattice)
    distances = np.linalg.norm((frac - np.round(frac)) @ crystal.lattice, axis=1)
    for site in np.flatnonzero(~(distances <= _DISTANCE))[:1].tolist():
        problem = f"{key} of site {site} differs by {distances[site]:.3g} Å from its other coordinates"
        raise CrystalError(f"{name}: {problem}; correct or remove one", site=site, field=key)


def are_same(first: Crystal, second: Crystal) -> bool:
    """Whether two crystals are the same cell with the same atoms, perhaps rotated and in another order."""
    from scipy.spatial import KDTree

    shapes = [crystal.lattice @ crystal.lattice.T for crystal in (first, second)]
    if len(first) != len(second) or not np.allclose(*shapes, rtol=_SAME_SHAPE, atol=_ABSOLUTE):
        return False
    tolerance = _SAME_PLACE / np.linalg.norm(first.lattice, axis=1).max()
    for z in {*first.atomic_numbers.tolist(), *second.atomic_numbers.tolist()}:
        frac = [crystal.frac_coords[crystal.atomic_numbers == z] % 1.0 % 1.0 for crystal in (first, second)]
        if len(frac[0]) != len(frac[1]):
            return False
        distances, partners = map(np.asarray, KDTree(frac[0], boxsize=1.0).query(frac[1]))
        if (distances > tolerance).any() or len(np.unique(partners)) < len(partners):
            return False
    return True


def _several(record: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Those of the keys that are filled, if they are more than one."""
    filled = [key for key in keys if key in record and not is_missing(record[key])]
    return filled if len(filled) > 1 else []


def _refuse_unless(is_same: bool | np.bool_, name: str, key: str, value: Any, other: str) -> None:
    if not is_same:
        shown = " ".join(str(value).split())[:80]
        raise CrystalError(
            f"{name}: {key} is {shown}, but {other[:200]}; correct or remove one", field=key, value=value
        )


def _counts(value: Any) -> dict[int, float]:
    """Z → atoms of a formula, or of amounts by element; empty for one that cannot be read."""
    if isinstance(value, str):
        return formula_counts(value)
    if not isinstance(value, Mapping):
        return {}
    amounts = {atomic_number(str(symbol)): amount for symbol, amount in value.items() if not is_missing(amount)}
    if None in amounts or not all(map(is_number, amounts.values())):
        return {}
    counts = {z: float(amount) for z, amount in amounts.items() if z is not None}
    return counts if sum(counts.values()) > 0 else {}


def _elements(value: Any) -> list[int]:
    """Z of symbols in a list; empty for anything else."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    symbols = [*value] if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes)) else []
    numbers = [atomic_number(symbol) for symbol in symbols if isinstance(symbol, str)]
    return [z for z in numbers if z] if len(symbols) == len(numbers) and None not in numbers else []


def _array(value: Any, size: int) -> Float[np.ndarray, " size"] | None:
    """A record's numbers if there are so many of them."""
    try:
        value = json.loads(value) if isinstance(value, str) else plain_array(value)
        array = np.array(value.tolist() if isinstance(value, np.ndarray) else value, dtype=np.float64).ravel()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return array if array.size == size and np.isfinite(array).all() else None
