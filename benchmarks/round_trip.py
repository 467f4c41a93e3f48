"""Crystals written by pymatgen, ASE and gemmi, and read again: how many are read, and as the same crystal.

The crystals are the prototypes of `crystalframer.testing` and crystals of mp2018_val, in their conventional cells. Each
is written by every program in every format: all atoms, and as CIF also with symmetry. What is read is the same crystal
if `StructureMatcher` finds so and the prediction, averaged over ties, is the same.

The command ends with status 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalFramerError
from crystalframer.reading.inputs import read
from crystalframer.testing import prototypes

LEAST_READ = 99.0
"""Percent."""
STEADY = 1e-5
"""Change of a prediction by the rounding of a file, in the unit of the target (eV/atom)."""
SYMMETRY_TOLERANCE = 1e-3
"""Å."""
DIGITS = 12
"""Of numbers that gemmi writes."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("round_trip", __doc__ or "")
    inputs.add_options(parser, n_crystals=300)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


def measure(options: argparse.Namespace, report: Report) -> None:
    known = prototypes()[: 4 if options.quick else None]
    sample = inputs.sample(options, most=max(1, options.crystals - len(known)))
    report.data["name"] = f"{len(known)} prototypes; {sample.name}"
    model = cf.load(device=options.device)
    crystals = [conventional(crystal) for crystal in (*known, *sample.dataset)]
    trips = [trip(crystals, name, model) for name in tqdm(WRITERS, "formats", delay=2)]
    n_trips, n_read = sum(trip.n_crystals for trip in trips), sum(trip.n_read for trip in trips)
    for found in trips:
        program, _, work = found.name.partition(": ")
        details: Mapping[str, float] = {
            "written": found.n_crystals,
            "read": found.n_read,
            "another crystal": found.n_other,
            "another prediction": found.n_moved,
            "largest change": found.largest_change,
        }
        report.rows.append(Row(work, program, version(program), "% read", found.percent_read, details=details))
        report.notes += [f"{found.name}: {problem}" for problem in found.problems]
    report.bars += [
        Bar("read", 100.0 * n_read / n_trips, LEAST_READ, "%", at_most=False),
        Bar("read as another crystal", sum(trip.n_other for trip in trips), 0, "crystals"),
        Bar("read with another prediction", sum(trip.n_moved for trip in trips), 0, "crystals"),
    ]


@dataclass(frozen=True)
class Trip:
    """What became of crystals in one format."""

    name: str
    n_crystals: int
    n_read: int
    n_other: int
    """Read as another crystal."""
    n_moved: int
    """Read with another prediction."""
    largest_change: float
    """Of a prediction, in the unit of the target."""
    problems: list[str]

    @property
    def percent_read(self) -> float:
        return 100.0 * self.n_read / self.n_crystals


def trip(crystals: Sequence[Crystal], name: str, model: Any) -> Trip:
    """Write and read crystals, and compare what is read with what was written."""
    written, again, problems = [], [], []
    n_other = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, crystal in enumerate(crystals):
            path = Path(folder) / f"{number}{SUFFIXES[name.partition(': ')[2]]}"
            with quiet():
                WRITERS[name](crystal, path)
            try:
                found = read(path)
            except CrystalFramerError as error:
                problems.append(f"{crystal.formula}: {error.message}")
                continue
            if not is_same(crystal, found):
                n_other += 1
                problems.append(f"{crystal.formula}: read as another crystal, {len(crystal)} and {len(found)} atoms")
            written.append(crystal)
            again.append(found)
    changes = np.abs(_predicted(again, model) - _predicted(written, model))
    return Trip(
        name,
        n_crystals=len(crystals),
        n_read=len(again),
        n_other=n_other,
        n_moved=int((changes >= STEADY).sum()),
        largest_change=float(changes.max(initial=0.0)),
        problems=[
            *problems,
            *(
                f"{crystal.formula}: the prediction changes by {change:.1e}"
                for crystal, change in zip(written, changes, strict=True)
                if change >= STEADY
            ),
        ],
    )


def is_same(one: Crystal, other: Crystal) -> bool:
    """Whether two cells hold the same crystal, of the same size."""
    if len(one) != len(other) or one.formula != other.formula:
        return False
    matcher = StructureMatcher(ltol=0.001, stol=0.001, angle_tol=0.01, primitive_cell=False, scale=False)
    with quiet():
        return matcher.fit(one.to_pymatgen(), other.to_pymatgen())


def conventional(crystal: Crystal) -> Crystal:
    """The conventional cell, with atoms where the symmetry puts them: writing with symmetry then moves none."""
    structure = crystal.to_pymatgen()
    with quiet():
        for _ in range(3):  # once more finds symmetry that was just beyond the tolerance
            structure = SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE).get_refined_structure()
    return read(structure)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of other programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _predicted(crystals: Sequence[Crystal], model: Any) -> np.ndarray:
    if not crystals:
        return np.empty(0)
    table = cf.predict(list(crystals), model, progress=False)
    return table[model.config.target_names[0]].to_numpy()


def _atoms(crystal: Crystal) -> Any:
    return AseAtomsAdaptor.get_atoms(crystal.to_pymatgen(), msonable=False)


def _write_by_ase(crystal: Crystal, path: Path, format: str, **options: Any) -> None:
    import ase.io

    ase.io.write(path, _atoms(crystal), format=format, **options)


def _write_json(crystal: Crystal, path: Path) -> None:
    path.write_text(json.dumps(crystal.to_pymatgen().as_dict()), encoding="utf-8")


def _write_by_gemmi(crystal: Crystal, path: Path) -> None:
    _gemmi_cif(crystal.to_pymatgen(), ["x,y,z"], path)


def _write_by_gemmi_with_symmetry(crystal: Crystal, path: Path) -> None:
    analyzer = SpacegroupAnalyzer(crystal.to_pymatgen(), symprec=SYMMETRY_TOLERANCE)
    symmetrized = analyzer.get_symmetrized_structure()
    sites = [group[0] for group in symmetrized.equivalent_sites]
    operations = [operation.as_xyz_str() for operation in analyzer.get_symmetry_operations()]
    _gemmi_cif(Structure.from_sites(sites), operations, path)


def _gemmi_cif(structure: Any, operations: Sequence[str], path: Path) -> None:
    block = gemmi.cif.Document().add_new_block("crystal")
    for name, value in zip(("length_a", "length_b", "length_c"), structure.lattice.abc, strict=True):
        block.set_pair(f"_cell_{name}", f"{value:.{DIGITS}g}")
    for name, value in zip(("alpha", "beta", "gamma"), structure.lattice.angles, strict=True):
        block.set_pair(f"_cell_angle_{name}", f"{value:.{DIGITS}g}")
    loop = block.init_loop("_space_group_symop_", ["operation_xyz"])
    for operation in operations:
        loop.add_row([gemmi.cif.quote(operation)])
    loop = block.init_loop("_atom_site_", ["label", "type_symbol", "fract_x", "fract_y", "fract_z"])
    for number, site in enumerate(structure, start=1):
        symbol = site.specie.symbol
        loop.add_row([f"{symbol}{number}", symbol, *(f"{x:.{DIGITS}f}" for x in site.frac_coords)])
    path.write_text(block.as_string(), encoding="utf-8")


def _write_by_pymatgen(crystal: Crystal, path: Path, **options: Any) -> None:
    crystal.to_pymatgen().to(filename=str(path), **options)


WRITERS: dict[str, Callable[[Crystal, Path], None]] = {
    "pymatgen: CIF": _write_by_pymatgen,
    "pymatgen: CIF with symmetry": lambda crystal, path: _write_by_pymatgen(crystal, path, symprec=SYMMETRY_TOLERANCE),
    "pymatgen: POSCAR": lambda crystal, path: _write_by_pymatgen(crystal, path, fmt="poscar"),
    "pymatgen: JSON": _write_json,
    "ase: CIF": lambda crystal, path: _write_by_ase(crystal, path, "cif"),
    "ase: POSCAR": lambda crystal, path: _write_by_ase(crystal, path, "vasp", direct=True),
    "ase: extended XYZ": lambda crystal, path: _write_by_ase(crystal, path, "extxyz"),
    "ase: JSON": lambda crystal, path: _write_by_ase(crystal, path, "json"),
    "gemmi: CIF": _write_by_gemmi,
    "gemmi: CIF with symmetry": _write_by_gemmi_with_symmetry,
}
"""Program and format → function that writes a crystal."""
SUFFIXES = {"CIF": ".cif", "CIF with symmetry": ".cif", "POSCAR": ".vasp", "JSON": ".json", "extended XYZ": ".extxyz"}


if __name__ == "__main__":
    main()
