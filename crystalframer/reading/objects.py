"""Structures in memory as crystals: pymatgen, ASE, dictionaries, rows and text.

`CONVERTERS` is the only place that knows the types. Deuterium and tritium are read as hydrogen. What the model cannot
represent (partial occupancy, unknown atoms, directions without periodicity) is an error, never a guess.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import SMALLEST_DISTANCE, Crystal, closest_pair
from crystalframer.elements import SYMBOLS, atomic_number
from crystalframer.errors import CrystalError, DataError
from crystalframer.libraries import reason
from crystalframer.reading import cif, optimade, poscar, stated
from crystalframer.reading.cells import OCCUPANCY_TOLERANCE
from crystalframer.reading.columns import (
    STRUCTURE_COLUMNS,
    has_id,
    holds_structures,
    is_missing,
    names_files,
    parsed_json,
    row_id,
)
from crystalframer.reading.encoded import plain_array
from crystalframer.reading.notices import left_out
from crystalframer.reading.text import decoded

_STRUCTURE_NAMES = (
    *(*STRUCTURE_COLUMNS, "sites", "lattice_mat", "numbers", "cell", "attributes", "species_at_sites", "@class"),
)
"""Names in a dictionary or row that is one structure."""
_SITE_ENTRIES = ("species", "abc", "label")
"""What is read of a site in a dictionary of pymatgen."""


def to_crystal(structure: Any, id: str = "") -> Crystal:
    """A structure in memory as a crystal, its positions wrapped into the cell.

    >>> from crystalframer.reading.objects import to_crystal
    >>> row = {"atomic_numbers": [55, 17], "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]], "lattice": 4.1 * np.eye(3)}
    >>> to_crystal(row, "salt").formula
    'CsCl'

    Args:
        structure: a `Crystal`, pymatgen `Structure` or ASE `Atoms`; CIF or JSON text; or a mapping or pandas row with
            `atomic_numbers`, `positions` (Cartesian, Å) or `frac_coords`, and `lattice` (rows, Å), flat or nested, or
            with a `structure` (or `atoms`): any of these, a dictionary of pymatgen, the `atoms` of JARVIS, a row of
            ASE. A structure of OPTIMADE.
        id: name of the crystal. Default: the source's own (an id column).

    Raises:
        CrystalError: no structure that the model can take; the message names the site and what to do.

    Warns:
        CrystalWarning: once, if the structure has oxidation states, charges or magnetic moments, which are left out.
    """
    return _converted(structure, id).wrapped()


def is_structure(value: object) -> bool:
    """Whether this is one structure, though some of them can be iterated over."""
    return any(is_instance(value, *kind) for kind in CONVERTERS)


def is_one_structure(names: Iterable[Any]) -> bool:
    """Whether names are those of the cells or entries of one structure, and not the ids of several."""
    names = list(map(str, names))
    known = (name in _STRUCTURE_NAMES or holds_structures(name) or names_files(name) for name in names)
    return any(known) or has_id(names)


def structure_columns(row: Mapping[Any, Any]) -> list[str]:
    """The columns of a row that hold a structure: those with such a name, filled or not; if there are none, and the row
    describes no structure itself, those whose cells are one, or else those that name a file.

    >>> structure_columns({"CIF": "...", "Path": "a.cif"}), structure_columns({"Path": "a.cif"})
    (['CIF'], ['Path'])
    """
    named = [name for name in row if holds_structures(name)]
    if named or _converter(row):
        return named
    return [name for name in row if _is_content(row[name])] or [name for name in row if names_files(name)]


def is_instance(value: object, module: str, name: str) -> bool:
    """`isinstance` without importing the module: an instance exists only once it is loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _converted(structure: Any, id: str) -> Crystal:
    for kind, convert in CONVERTERS.items():
        if is_instance(structure, *kind):
            return convert(structure, id)
    if is_missing(structure):
        raise CrystalError(f"{_name(id)}: there is no structure ({structure}); give one, or leave this out")
    kinds = "a pymatgen Structure, ASE Atoms, the path of a file, CIF text, or a row or dictionary with a structure"
    given = f"{' '.join(repr(structure).split()):.60} ({type(structure).__name__})"
    advice = "; of columns, make a pandas DataFrame first" if isinstance(structure, (list, tuple)) else ""
    raise CrystalError(f"{_name(id)}: {given} is no crystal structure; give {kinds}{advice}")


def _named(crystal: Crystal, id: str) -> Crystal:
    return crystal.called(id) if id and id != crystal.id else crystal


def _from_pymatgen(structure: Any, id: str) -> Crystal:
    numbers = []
    for index, site in enumerate(structure):
        where = f"{_name(id)}: site {index} ({getattr(site, '_label', None) or site.species_string})"
        occupancy: dict[int, float] = {}
        for element, amount in site.species.items():
            z = _element(element.symbol, where, index)
            occupancy[z] = occupancy.get(z, 0.0) + float(amount)
        numbers.append(_whole_atom(occupancy, where, index))
    _check_periodic(structure.lattice.pbc, id, "lattice.pbc")
    _mention_states(structure)
    for name, values in structure.site_properties.items():
        _check_occupancies(name, values, id)
    lattice = structure.lattice.matrix
    return Crystal(np.array(numbers, dtype=np.int64), _cartesian(structure.frac_coords, lattice), lattice, id)


def _mention_states(structure: Any) -> None:
    """Say what pymatgen knows of the sites and the model does not."""
    kinds = {kind for site in structure for kind in site.species}
    if any(getattr(kind, "oxi_state", None) for kind in kinds) or getattr(structure, "_charge", None):
        left_out("oxidation states and charges")
    moments = [getattr(kind, "spin", None) for kind in kinds]
    moments += structure.site_properties.get("magmom", ())
    if any(map(_is_moment, moments)):
        left_out("magnetic moments")


def _is_moment(value: Any) -> bool:
    """Whether a magnetic moment is there and not 0: a number, a vector, or an object (a dictionary) of pymatgen."""
    value = value.get("moment") if isinstance(value, Mapping) else getattr(value, "moment", value)
    return value is not None and bool(np.any(np.asarray(value, dtype=object)))


def _element(symbol: str, where: str, site: int) -> int:
    z = atomic_number(symbol)
    if z is None:
        raise CrystalError(f"{where}: {symbol[:40]!r} is no element; replace or remove the site", site=site)
    return z


def _whole_atom(occupancy: Mapping[int, float], where: str, site: int) -> int:
    """The element of a fully occupied site."""
    if not occupancy:
        raise CrystalError(f"{where} holds no atom: its occupancy is 0 or no number; correct or remove it", site=site)
    (z, amount), *others = occupancy.items()
    if not others and abs(amount - 1) <= OCCUPANCY_TOLERANCE:
        return z
    shares = ", ".join(f"{SYMBOLS[z - 1]} {amount:.4g}" for z, amount in occupancy.items())
    problem = f"is partly occupied ({shares}); the model needs whole atoms: make an ordered structure first"
    if sum(occupancy.values()) > 1 + OCCUPANCY_TOLERANCE:
        problem = f"holds several atoms ({shares}); remove duplicates, or the symmetry operations if all are listed"
    raise CrystalError(f"{where} {problem}", site=site)


def _from_ase(atoms: Any, id: str) -> Crystal:
    # Left by ASE's CIF reader, which keeps one element of a mixed site.
    mixed = atoms.info.get("occupancy")
    for site, shares in (mixed if isinstance(mixed, dict) else {}).items():
        if not isinstance(shares, Mapping) or not all(isinstance(share, (int, float)) for share in shares.values()):
            problem = f"{_name(id)}: occupancy of site {site} is {str(shares)[:40]!r}, not shares of elements"
            raise CrystalError(f"{problem}; correct or remove it", field="occupancy", value=shares)
        occupancy = {atomic_number(symbol) or 0: share for symbol, share in shares.items()}
        _whole_atom(occupancy, f"{_name(id)}: site {site}", int(site))
    for name, values in atoms.arrays.items():
        _check_occupancies(name, values, id)
    kinds = ("numbers", "positions", "initial_charges", "initial_magmoms")
    arrays = {name: atoms.arrays[name] for name in kinds if name in atoms.arrays}
    if np.any(getattr(atoms.calc, "results", {}).get("magmoms", 0)):
        left_out("magnetic moments")
    return _from_ase_row({**arrays, "cell": atoms.cell.array, "pbc": atoms.pbc}, id)


def _check_occupancies(name: str, values: Any, id: str) -> None:
    """That a property of the sites is no occupancy other than 1."""
    if not name.lower().removeprefix("site_").startswith("occup") and name.lower() != "occ":
        return
    try:
        shares = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
        partial = np.flatnonzero(~(np.abs(shares - 1) <= OCCUPANCY_TOLERANCE).all(axis=1))
    except (TypeError, ValueError):
        partial = np.arange(1)
    if partial.size:
        site = int(partial[0])
        problem = f"site {site} is partly occupied ({name} is {str(values[site])[:40]})"
        advice = "the model needs whole atoms: make an ordered structure first, or correct it"
        raise CrystalError(f"{_name(id)}: {problem}; {advice}", site=site, field=name)


def _from_ase_row(row: Mapping[str, Any], id: str) -> Crystal:
    """Atoms of ASE by the names of their arrays, as its databases and its JSON have them."""
    cell = _numbers({"cell": np.zeros(9), **row}, "cell", id)
    if cell.size == 9 and (not cell.reshape(3, 3).any(axis=1).all() or np.array_equal(cell.reshape(3, 3), np.eye(3))):
        # A cell of 1 Å stands for none in files of molecules.
        raise CrystalError(f'{_name(id)}: has no cell of three lattice vectors; set atoms.cell (Lattice="..." in XYZ)')
    advice = 'atoms.pbc = True (pbc="T T T" in XYZ) if the cell may repeat'
    _check_periodic(np.broadcast_to(plain_array(row.get("pbc", False)), 3), id, advice)
    for name, what in (("initial_charges", "oxidation states and charges"), ("initial_magmoms", "magnetic moments")):
        if name in row and np.any(_numbers(row, name, id)):
            left_out(what)
    return _from_row({"atomic_numbers": row["numbers"], "positions": row["positions"], "lattice": cell}, id)


def _check_periodic(pbc: Any, id: str, advice: str) -> None:
    periodic = [_is_true(value, "pbc", id) for value in pbc]
    if not all(periodic):
        problem = f"is periodic along {sum(periodic)} of its 3 lattice vectors, but the model needs all"
        raise CrystalError(f"{_name(id)}: {problem}; set {advice}", field="pbc")


def _from_text(text: str, id: str) -> Crystal:
    """One structure of CIF, POSCAR or JSON text."""
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        try:
            tree = parsed_json(text)
        except DataError as error:
            raise CrystalError(error.message, field=error.field) from error
        except (ValueError, RecursionError) as error:  # the latter of nested brackets
            advice = "it is a Python dictionary; write it by json.dumps" if text.lstrip("{ ").startswith("'") else ""
            raise CrystalError(f"{_name(id)}: not valid JSON ({advice or error}); make it again") from error
        return _from_mapping(tree, id)
    if poscar.is_poscar(text):
        return _converted(poscar.POSCAR.structures(text)[0], id)
    if not cif.is_cif(text):
        begin = f"text that begins with {text.strip()[:40]!r}"
        raise CrystalError(f"{_name(id)}: {begin} is neither CIF (`data_...`), POSCAR nor JSON; give one of these")
    structure, *others = cif.structures(text)
    if others:
        raise CrystalError(f"the CIF text holds {1 + len(others)} structures where one is expected; give one of them")
    if isinstance(structure, CrystalError):
        raise structure
    return _converted(structure, id)


def _from_mapping(row: Mapping[str, Any], id: str) -> Crystal:
    """The crystal of a row or dictionary, which may describe it itself, and in columns.

    Raises:
        CrystalError: as `to_crystal`, or two descriptions that differ.
    """
    id = id or row_id(row)
    columns = structure_columns(row)
    filled = [name for name in columns if not is_missing(row[name])]
    filled = [name for name in filled if _may_be_content(row[name])] or filled
    convert = _converter(row)
    if columns and not filled and not convert:
        problem = f"its {columns[0]} is empty; fill it, or remove the row"
        raise CrystalError(f"{_name(id)}: {problem}", field=columns[0])
    found = {name: _converted(row[name], id) for name in filled}
    if not found or convert:
        found["/".join(STRUCTURE_COLUMNS)] = _described(row, convert or _from_row, id)
    (first, crystal), *others = found.items()
    for name, other in others:
        if not stated.are_same(crystal, other):
            problem = f"{first} and {name} hold different cells ({_summary(crystal)}; {_summary(other)})"
            raise CrystalError(f"{_name(id)}: {problem}; keep the one that is meant, and remove the other", field=name)
    stated.check_content(row, crystal, _name(id))
    return crystal


def _summary(crystal: Crystal) -> str:
    volume = abs(float(np.linalg.det(crystal.lattice)))
    return f"{crystal.formula}, {len(crystal)} atoms, {volume:.5g} Å³"


def _is_content(cell: Any) -> bool:
    """Whether a cell is certainly a structure, whatever its column is called."""
    if isinstance(cell, str):
        return cif.is_cif(cell) or poscar.is_poscar(cell) or (cell.startswith("{") and '"lattice' in cell)
    if isinstance(cell, Mapping):
        return _converter(cell) is not None
    return any(is_instance(cell, *kind) for kind in _STRUCTURE_TYPES)


def _may_be_content(cell: Any) -> bool:
    """Whether a cell is more than a word or a number, which say something about a structure."""
    if isinstance(cell, str):
        return "\n" in cell or cell.lstrip().startswith("{")
    return is_structure(cell)


def _converter(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], Crystal] | None:
    """The function that makes a crystal of what a dictionary itself describes; None if that is nothing known."""
    if isinstance(row.get("attributes"), Mapping):
        return _from_optimade
    for names, convert in _DICTIONARIES.items():
        if row.get(names[0]) is not None and all(row.get(name) is not None for name in names[1:]):
            return convert
    return None


def _described(row: Mapping[str, Any], convert: Callable[[Mapping[str, Any], str], Crystal], id: str) -> Crystal:
    """The crystal of a dictionary that describes it itself, and does not contradict itself."""
    if convert is _from_row and "@class" in row:
        kind = str(row["@class"])[:40]
        raise CrystalError(
            f"{_name(id)}: a {kind} holds no crystal structure; give a Structure, or an entry that has one"
        )
    crystal = convert(row, id)
    if convert not in (_from_dictionary, _from_optimade):  # which have other names, or these with other meanings
        stated.check_geometry(row, crystal, _name(id))
    return crystal


def _from_row(row: Mapping[str, Any], id: str) -> Crystal:
    """A row with atomic numbers, coordinates and lattice."""
    is_fractional = is_missing(row.get("positions")) and not is_missing(row.get("frac_coords"))
    coordinates = "frac_coords" if is_fractional else "positions"
    absent = [name for name in ("atomic_numbers", coordinates, "lattice") if is_missing(row.get(name))]
    if absent:
        lacking = "structure" if len(absent) == 3 else " and no ".join(absent)
        needed = "structure, cif, poscar or atoms; or file with paths; or atomic_numbers, lattice and positions"
        columns = ", ".join(map(str, row))[:200]
        problem = f"has no {lacking}; it needs a column {needed} (or frac_coords). Its columns are: {columns}"
        raise CrystalError(f"{_name(id)}: {problem}", field=absent[0])
    numbers, lattice, positions = (_numbers(row, name, id) for name in ("atomic_numbers", "lattice", coordinates))
    meant = f"3 for each of {numbers.size} atoms"
    for name, values, size, what in (
        ("lattice", lattice, 9, "three vectors"),
        (coordinates, positions, 3 * numbers.size, meant),
    ):
        if values.size != size:
            problem = f"{name} must be {size} numbers ({what}), got {values.size}; correct it"
            raise CrystalError(f"{_name(id)}: {problem}", field=name)
    if not (np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 1e9)).all():
        problem = f"atomic_numbers must be whole numbers, got {str(numbers.tolist())[:200]}"
        raise CrystalError(f"{_name(id)}: {problem}", field="atomic_numbers")
    lattice, positions = lattice.reshape(3, 3), positions.reshape(-1, 3)
    if is_fractional:
        positions = _cartesian(positions, lattice)
    return Crystal(numbers.ravel().astype(np.int64), positions, lattice, id)


def _from_dictionary(tree: Mapping[str, Any], id: str) -> Crystal:
    """The crystal of `Structure.as_dict()`. Of the properties of its sites, only whether they have moments is read.

    Of these pymatgen would make objects of any class that they name, and import its module for that, which runs it.
    """
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sites = [{name: site[name] for name in _SITE_ENTRIES if name in site} for site in tree["sites"]]
            structure = Structure.from_dict({"lattice": tree["lattice"], "sites": sites})
            moments = [(site.get("properties") or {}).get("magmom") for site in tree["sites"]]
        except Exception as error:
            raise CrystalError(f"not a pymatgen structure ({reason(error)}); write it by Structure.as_dict") from error
    if tree.get("charge"):
        left_out("oxidation states and charges")
    if any(map(_is_moment, moments)):
        left_out("magnetic moments")
    crystal = _from_pymatgen(structure, id)
    stated.check_parameters(tree["lattice"], crystal.lattice, _name(id))
    if all("xyz" in site for site in tree["sites"]):
        xyz = _numbers({"xyz": [site["xyz"] for site in tree["sites"]]}, "xyz", id)
        stated.check_positions("xyz", xyz.reshape(-1, 3), crystal, _name(id))
    return crystal


def _from_molecule(tree: Mapping[str, Any], id: str) -> Crystal:
    raise CrystalError(
        f"{_name(id)}: has sites but no lattice (a molecule?); the model needs a crystal", field="lattice"
    )


def _from_optimade(entry: Mapping[str, Any], id: str) -> Crystal:
    """A structure of OPTIMADE, or its attributes."""
    kind = entry.get("type", "structures")
    if kind != "structures":
        raise CrystalError(f"{_name(id)}: an OPTIMADE entry of type {kind!r:.40}, not of `structures`", field="type")
    try:
        row = optimade.plain_row(entry.get("attributes", entry))
    except CrystalError as error:
        raise CrystalError(f"{_name(id)}: {error}", site=error.site, field=error.field, value=error.value) from error
    except (TypeError, AttributeError, ValueError) as error:
        raise CrystalError(f"{_name(id)}: not a structure of OPTIMADE ({reason(error)}); get it again") from error
    crystal = _from_row(row, id)
    stated.check_content(entry.get("attributes", entry), crystal, _name(id))
    return crystal


def _from_jarvis(atoms: Mapping[str, Any], id: str) -> Crystal:
    """The `atoms` dictionary of JARVIS: lattice_mat, coords, elements, cartesian."""
    for name in ("elements", "coords"):
        if name not in atoms:
            raise CrystalError(f"{_name(id)}: its JARVIS atoms have no {name!r}; add it", field=name)
    elements = enumerate(map(str, atoms["elements"]))
    numbers = [_element(symbol, f"{_name(id)}: site {site}", site) for site, symbol in elements]
    coordinates = "positions" if _is_true(atoms.get("cartesian", False), "cartesian", id) else "frac_coords"
    row = {"atomic_numbers": numbers, coordinates: atoms["coords"], "lattice": atoms["lattice_mat"]}
    crystal = _from_row(row, id)
    if "cartesian" not in atoms:
        _check_fractional(crystal, id)
    return crystal


def _check_fractional(crystal: Crystal, id: str) -> None:
    """Refuse coordinates of JARVIS without a flag that are probably Cartesian. Its authors leave out that of
    fractional ones.
    """
    frac = crystal.frac_coords
    if ((frac >= 0) & (frac < 1)).all():
        return
    overlap = closest_pair(frac % 1.0 % 1.0, crystal.lattice, SMALLEST_DISTANCE)
    if (frac < -1).any() or (frac > 2).any() or overlap is not None:
        problem = "its JARVIS atoms do not say whether coords are fractional, and they look Cartesian"
        advice = 'add "cartesian": true (Å) or false'
        raise CrystalError(f"{_name(id)}: {problem} (up to {np.abs(frac).max():.3g}); {advice}", field="cartesian")


def _is_true(value: Any, name: str, id: str) -> bool:
    """True or false, also as number or as text, as tables hold them."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if (word := str(value).strip().lower()) not in known:
        raise CrystalError(f"{_name(id)}: {name} is {value!r:.40}; it must be true or false", field=name, value=value)
    return known[word]


def _cartesian(
    frac: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n_atoms 3"]:
    with np.errstate(all="ignore"):  # what is not finite is refused as such
        return frac @ lattice


def _numbers(row: Mapping[str, Any], name: str, id: str) -> Float[np.ndarray, "..."]:
    value = row[name]
    try:
        value = json.loads(value) if isinstance(value, str) else value
        value = plain_array(value)
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.tolist()  # rows of rows, as parquet gives them
        return np.array(value, dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        problem = f"{name} cannot be read as numbers ({error}); give a list, such as [11, 17]"
        raise CrystalError(f"{_name(id)}: {problem}", field=name) from error


def _name(id: str) -> str:
    return f"crystal {id!r}" if id else "crystal"


_STRUCTURE_TYPES: dict[tuple[str, str], Callable[[Any, str], Crystal]] = {
    ("crystalframer.crystals.crystal", "Crystal"): _named,
    ("crystalframer.reading.entry", "CellContent"): lambda content, id: Crystal(*content, id=id),
    ("pymatgen.core.structure", "IStructure"): _from_pymatgen,
    ("ase.atoms", "Atoms"): _from_ase,
}
CONVERTERS: dict[tuple[str, str], Callable[[Any, str], Crystal]] = {
    **_STRUCTURE_TYPES,
    ("pymatgen.entries.computed_entries", "ComputedStructureEntry"): lambda entry, id: _converted(
        entry.structure, id or str(entry.entry_id or "")
    ),
    ("pydantic", "BaseModel"): lambda document, id: _from_mapping(dict(document), id),  # of the Materials Project
    ("pandas", "Series"): lambda row, id: _from_mapping(row.to_dict(), id),
    ("collections.abc", "Mapping"): _from_mapping,
    ("builtins", "str"): _from_text,
    ("builtins", "bytes"): lambda text, id: _from_text(decoded(text), id),
}
"""Module and name of a type → function that makes a crystal of it. A library need not be loaded, nor installed."""

_DICTIONARIES: dict[tuple[str, ...], Callable[[Mapping[str, Any], str], Crystal]] = {
    ("sites", "lattice"): _from_dictionary,
    ("sites",): _from_molecule,
    ("lattice_mat",): _from_jarvis,
    ("lattice_vectors", "species_at_sites"): _from_optimade,
    ("numbers", "positions"): _from_ase_row,
    ("atoms_json",): lambda row, id: _converted(row["atoms_json"], id),
    ("atomic_numbers", "lattice"): _from_row,
}
"""Names that a dictionary has → function that makes a crystal of it; the first that fits."""
