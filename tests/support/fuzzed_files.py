"""Structure files that went wrong, each from a number: valid ones of our own making, damaged in ways that files are.

A seed names its file for good: `damaged(seed)` makes it, `check(seed)` reads it. `tests/test_fuzz.py` tries some,
`scripts/fuzz.py` very many.
"""

from __future__ import annotations

import io
import json
import re
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import ase
import ase.io
import numpy as np
import rutile
from cif_texts import QUARTZ, text_of
from fuzzed_structures import model_of
from published_formats import jarvis_atoms, row_of
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

import crystalframer as cf
from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import SYMBOLS
from crystalframer.errors import CrystalError
from crystalframer.reading.inputs import iter_structures, read
from crystalframer.testing import random_crystal

T = TypeVar("T")

MOST_SECONDS = 30.0
"""Of processor time for one file, each way of reading it."""
MOST_MEMORY = 500
"""MB that reading one file may add to the most that the process ever had."""
SHARE_OF_PREDICTIONS = 0.05
LARGEST_FILE = 3_000_000
"""Bytes."""

# --- valid files ------------------------------------------------------------------------------------------------------

BY_GROUP = text_of(
    "salt",
    "5.64 5.64 5.64 90 90 90",
    ["Na1 0 0 0", "Cl1 .5 .5 .5"],
    "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225",
    columns=("label", "fract_x", "fract_y", "fract_z"),
)
MIXED = text_of(
    "alloy",
    "3.0 3.0 3.0 90 90 90",
    ["Fe1 Fe3+ 0 0 0 1", "O1 O2- 0.5 0.5 0.5 1"],
    "loop_\n_space_group_symop_operation_xyz\nx,y,z",
    "loop_\n_atom_type_symbol\n_atom_type_oxidation_number\nFe3+ 3\nO2- -2",
)


def _structure(seed: int, n_atoms: int) -> Structure:
    crystal = random_crystal(seed, n_atoms)
    return Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)


@cache
def corpus() -> tuple[tuple[str, bytes], ...]:
    """Name and content of valid files: CIF first, and most of them."""
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
    )
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cifs = [
            QUARTZ,
            BY_GROUP,
            MIXED,
            str(CifWriter(salt, symprec=0.01)),
            str(CifWriter(perovskite, symprec=0.01)),
            str(CifWriter(perovskite)),
            str(CifWriter(salt.copy(site_properties={"magmom": [1.0] * 8}), write_magmoms=True)),
            str(CifWriter(_structure(1, 30))),
            str(CifWriter(_structure(2, 1))) + BY_GROUP,
            _ase_text(_atoms(3, 12), "cif"),
        ]
        poscar = _structure(4, 6).to(fmt="poscar")
        cartesian = _ase_text(_atoms(5, 4), "vasp")
        frames = _ase_text(_atoms(6, 3), "extxyz") + _ase_text(_atoms(7, 2), "extxyz")
        others = [
            ("POSCAR", poscar),
            ("cartesian.vasp", cartesian),
            ("one.extxyz", _ase_text(_atoms(8, 5), "extxyz")),
            ("frames.xyz", frames),
            ("pymatgen.json", json.dumps(perovskite.as_dict())),
            ("row.json", json.dumps(row_of(random_crystal(9, 4)))),
            ("jarvis.json", json.dumps(jarvis_atoms(random_crystal(10, 4)))),
            ("table.jsonl", "".join(json.dumps(row_of(random_crystal(seed, 3))) + "\n" for seed in (11, 12))),
            ("ase.xsf", _ase_text(_atoms(13, 4), "xsf")),
            ("XDATCAR", _ase_text(_atoms(14, 3), "vasp-xdatcar")),
            ("rutile.pdb", rutile.PDB),
            ("rutile.res", rutile.SHELX),
            ("optimade.json", json.dumps(_optimade(random_crystal(15, 3)))),
        ]
    named = [(f"{number}.cif", text) for number, text in enumerate(cifs)]
    return tuple((name, text.encode()) for name, text in (*named, *others))


def _atoms(seed: int, n_atoms: int) -> ase.Atoms:
    crystal = random_crystal(seed, n_atoms)
    return ase.Atoms(crystal.atomic_numbers, positions=crystal.positions, cell=crystal.lattice, pbc=True)


def _ase_text(atoms: ase.Atoms, kind: str) -> str:
    file = io.BytesIO() if kind == "cif" else io.StringIO()
    ase.io.write(file, atoms, format=kind)
    text = file.getvalue()
    return text.decode() if isinstance(text, bytes) else text


def _optimade(crystal: Crystal) -> dict[str, object]:
    symbols = [SYMBOLS[z - 1] for z in crystal.atomic_numbers]
    attributes = {
        "lattice_vectors": crystal.lattice.tolist(),
        "cartesian_site_positions": crystal.positions.tolist(),
        "species_at_sites": symbols,
        "species": [{"name": name, "chemical_symbols": [name], "concentration": [1.0]} for name in set(symbols)],
        "dimension_types": [1, 1, 1],
    }
    return {"data": [{"id": "x", "type": "structures", "attributes": attributes}]}


# --- damage -----------------------------------------------------------------------------------------------------------

N_CIFS = 10
EXTREMES = (
    *(b"0", b"-1", b"1e-300", b"1e300", b"-1e300", b"1e20", b"1e999", b"nan", b"inf", b"-inf", b"?", b".", b""),
    *(b"1/3", b"0.33333", b"180", b"179.9999", b"1e-9", b"99999", b"100000", b"2147483648", b"9223372036854775808"),
    *(b"1000000000", b"10000000", b"1(999999999)", b"0x10", b"1_000", b"9" * 400, b"9" * 5000, b"1e", b"--1"),
    *("\u0661".encode(), b"True", b"null", b"[]", b"1,5"),
)
TOKENS = (
    *(b"loop_", b"data_", b"data_x", b"save_", b"save_x", b"stop_", b"global_", b";", b"'", b'"', b"#", b"\n;\n"),
    *(b"_cell_length_a 3", b"_atom_site_label", b"_atom_site_fract_x", b"_atom_site_occupancy", b"[", b"{", b"]", b"}"),
    *(b"_symmetry_equiv_pos_as_xyz", b"_space_group_magn.number_BNS 1.1", b"_chemical_formula_sum 'H1e9'"),
    *(b"Fe", b"Uuo", b"D", b"X", b"Wat", b"Lattice=", b'pbc="T F T"', b"Properties=species:S:1:pos:R:3", b"Selective"),
)
OPERATIONS = (
    *(b"x,y", b"x,y,z,w", b"x/0,y,z", b"x+1/0,y,z", b"2x,y,z", b"x,x,x", b"0,0,0", b"x+1e9,y,z", b"x+0.123,y,z"),
    *(b"1/2+x,1/3+y,z/7", b"-x,-y,-z", b"__import__('os'),y,z", b"x**x**x,y,z", b"x,y,z,+1", b"((((x)))),y,z", b","),
)
LONG = (
    *(b"x", b"1 ", b"'", b"(", b"[", b"-x,", b"_a ", b"\\", b"\t", b"9", b"\xc3", b"{", b"\n"),
    *(b"loop_\n", b"loop_ _a\n", b"save_f\n", b"data_d\n", b'{"a":', b'{"sites":['),
)
"""What comes very many times in a row."""
ENCODINGS = ("utf-16", "utf-32", "utf-8-sig", "cp037", "utf-7")

PARTS = (
    *[(rb"(?<![\w.])-?\d+(\.\d+)?", EXTREMES)] * 3,
    (rb"'?[^',\n]{0,9}[xyz][^',\n]{0,9},[^,\n]{0,9},[^',\n]{0,9}'?", OPERATIONS),
    (rb"\S+\s*", TOKENS),
    *[(rb"[^\n]*\n", TOKENS)] * 2,
)
"""Numbers, symmetry operations, words and lines, and what may come in the place of one."""

Damage = Callable[[bytes, np.random.Generator], bytes]


def damaged(seed: int) -> tuple[str, bytes]:
    """Name and content of the file of a seed."""
    rng = np.random.default_rng(seed)
    files = corpus()
    number = rng.integers(N_CIFS) if rng.random() < 0.75 else rng.integers(N_CIFS, len(files))
    name, data = files[number]
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        data = DAMAGES[rng.integers(len(DAMAGES))](data, rng)[:LARGEST_FILE]
    return name, data


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    spoilt = np.frombuffer(data, np.uint8).copy()
    if len(spoilt):
        places = rng.integers(len(spoilt), size=rng.integers(1, 6))
        spoilt[places] = rng.integers(256, size=len(places)) if rng.random() < 0.5 else spoilt[places] ^ 1
    return spoilt.tobytes()


def _rewrite(data: bytes, rng: np.random.Generator) -> bytes:
    """Some numbers, operations, words or lines in a row become none, others, or very many."""
    pattern, others = PARTS[rng.integers(len(PARTS))]
    found = list(re.finditer(pattern, data[:100_000]))
    if not found:
        return data
    first = int(rng.integers(len(found)))
    last = min(first + int(rng.choice([0, 0, 0, 1, 2])), len(found) - 1)
    start, end = found[first].start(), found[last].end()
    old, other = data[start:end], others[rng.integers(len(others))]
    times = min(int(rng.choice([1, 1, 20, 500, 5000])), 1 + LARGEST_FILE // len(old))
    match rng.integers(8):
        case 0:
            new = b""
        case 1 | 2:
            new = other
        case 3:
            new = old + other + (b"\n" if rng.random() < 0.8 else b" ")
        case 4:
            new = found[rng.integers(len(found))][0]
        case 5:
            new = old * (1 + times)
        case 6:  # with other last digits: very many sites, atoms or operations that are no repetition
            new = b"".join(re.sub(rb"\d(?=\D*$)", b"%05d" % int(rng.integers(100000)), old) for _ in range(times))
        case _:
            new = old + LONG[rng.integers(len(LONG))] * int(rng.choice([2, 100, 5000, 300_000]))
    return data[:start] + new + data[end:]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def _reencode(data: bytes, rng: np.random.Generator) -> bytes:
    return data.decode("latin-1").encode(ENCODINGS[rng.integers(len(ENCODINGS))], errors="replace")


def _newlines(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b" ", b"\x0b", b"\x00")[rng.integers(6)])


def _splice(data: bytes, rng: np.random.Generator) -> bytes:
    other = corpus()[rng.integers(len(corpus()))][1]
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other)) :]


DAMAGES: tuple[Damage, ...] = (*[_rewrite] * 12, _flip, _cut, _reencode, _newlines, _splice)


# --- what must hold ---------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Import and compile what reading needs, so that time and memory of a case are its own."""
    cf.predict([read(QUARTZ)], model_of("max"), progress=False)  # compiles, before files are timed
    for name, data in corpus():
        check_file(name, data, with_prediction=True)


def check(seed: int) -> str:
    """Read the file of a seed in every way, and say what came of it.

    Raises:
        AssertionError: something did not hold. Any other error is a finding as well.
    """
    return check_file(*damaged(seed), with_prediction=np.random.default_rng((seed, 1)).random() < SHARE_OF_PREDICTIONS)


def check_file(name: str, data: bytes, with_prediction: bool) -> str:
    peak = _peak_memory()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", cf.CrystalWarning)  # of oxidation states
        path = Path(folder) / name
        path.write_bytes(data)
        records = _timed(lambda: list(iter_structures(path)))
        assert records, "no record for the file"
        for record in records:
            assert (record.crystal is None) != (record.error is None), record
            if record.error is not None:
                assert name in record.error, f"the error does not name the file: {record.error}"
                assert "MemoryError" not in record.error and "RecursionError" not in record.error, record.error
                assert len(record.error) < 3000, f"an error of {len(record.error)} characters: {record.error[:200]}"
        try:
            _timed(lambda: read(path))
        except CrystalError as error:
            one = len(records) == 1 and records[0].crystal is not None
            assert not one, f"iter_structures reads it, read does not: {error}"
        if with_prediction:
            _check_folder(path)
    grown = _peak_memory() - peak
    assert grown < MOST_MEMORY, f"took {grown:.0f} MB more than anything before"
    if records[0].error is None:
        return f"{path.suffix or name} read, {'one' if len(records) == 1 else 'several'}"
    return f"{path.suffix or name} refused"


def _check_folder(path: Path) -> None:
    """Predicted with a good file beside it, whose row stands as if it were alone."""
    good = path.with_name("good.cif")
    good.write_text(QUARTZ)
    model = model_of("max")
    name = model.config.target_names[0]
    table = _timed(lambda: cf.predict(path.parent, model, progress=False))
    for value, error in zip(table[name], table["error"], strict=True):
        assert np.isfinite(value) if error is None else np.isnan(value) and error, f"value {value}, error {error!r}"
        assert error is None or "the prediction failed" not in error, error
    ours = table[name].to_numpy()[table["id"].to_numpy() == "good"]
    assert len(ours) == 1 and np.isfinite(ours[0]), "a good file beside it has no prediction"


def _timed(run: Callable[[], T]) -> T:
    started = time.process_time()
    result = run()
    seconds = time.process_time() - started
    assert seconds < MOST_SECONDS, f"took {seconds:.0f} s"
    return result


def _peak_memory() -> float:
    """MB that this process had at most so far (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
