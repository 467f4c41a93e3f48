"""The quick way of reading CIF: what it takes it reads as pymatgen does, and it leaves the rest alone."""

from __future__ import annotations

import time
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter
from refusals import refused

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import SYMBOLS
from crystalframer.errors import CrystalError
from crystalframer.reading.cif import _space_group, check_size, read_plain_cif, what_is_missing
from crystalframer.reading.inputs import read
from crystalframer.testing import random_crystal

ANGLES = ("alpha", "beta", "gamma")

# One listed atom on a place of three images, with coordinates rounded to four digits: pymatgen's 1/3.
QUARTZ = """# a comment with 'quotes and _names
data_quartz
_publ_section_title
;
 A title of two lines, with _cell_length_a 3 and data
 loop_ in it
;
_journal_name_full 'Zeitschrift f"ur Kristallographie'
_chemical_formula_sum 'O2 Si'   # and a comment behind
_cell_length_a 4.9137(3)
_cell_length_b 4.9137(3)
_cell_length_c 5.4047(4)
_cell_angle_alpha 90
_cell_angle_beta 90.0
_cell_angle_gamma 120
_symmetry_space_group_name_H-M "P 32 2 1"
loop_
_symmetry_equiv_pos_site_id
_symmetry_equiv_pos_as_xyz
1 'x, y, z'
2 -y,x-y,z+2/3
3 -x+y,-x,1/3+Z
4 y,x,-z
5 x-y,-y,-z+.33333333333
6 -x,-x+y,-z+2/3
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0.4697(2) 0 0.66667 1
O1 O 0.4135 0.2669 0.7858 1.0
"""
ROWS = "Si1 Si 0.4697(2) 0 0.66667 1\nO1 O 0.4135 0.2669 0.7858 1.0\n"


def by_pymatgen(text: str) -> Crystal:
    return read(CifParser.from_str(text).parse_structures(primitive=False)[0])


def assert_same(found: Crystal | None, expected: Crystal) -> None:
    assert found is not None
    found = read(found)
    np.testing.assert_array_equal(found.atomic_numbers, expected.atomic_numbers)
    np.testing.assert_allclose(found.lattice, expected.lattice, atol=1e-12)
    difference = found.frac_coords - expected.frac_coords
    np.testing.assert_allclose(difference - np.round(difference), 0.0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_as_people_publish_it() -> None:
    crystal = read_plain_cif(QUARTZ)
    assert crystal is not None and np.bincount(crystal.atomic_numbers)[[8, 14]].tolist() == [6, 3]
    assert_same(crystal, by_pymatgen(QUARTZ))


STRUCTURES = {
    "rock salt": Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "spinel": Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(8.08), ["Mg", "Al", "O"], [[1 / 8] * 3, [0.5] * 3, [0.2624] * 3]
    ),
    "wurtzite": Structure.from_spacegroup(
        "P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.3819]]
    ),
    "elements of one electronegativity": Structure(
        Lattice.from_parameters(4, 5, 6, 80, 95, 110),
        ["Rh", "Pd", "H", "Ru"],
        [[0, 0, 0], [0.5] * 3, [0.2] * 3, [0.8] * 3],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
@pytest.mark.parametrize("symprec", [None, 0.01])
@pytest.mark.parametrize("name", STRUCTURES)
def test_files_of_pymatgen_with_and_without_symmetry(name: str, symprec: float | None) -> None:
    text = str(CifWriter(STRUCTURES[name], symprec=symprec))
    assert_same(read_plain_cif(text), by_pymatgen(text))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(4))
def test_files_of_ase(seed: int, tmp_path: Path) -> None:
    crystal = random_crystal(seed, 12)
    symbols = [SYMBOLS[z - 1] for z in crystal.atomic_numbers]
    ase.io.write(tmp_path / "x.cif", ase.Atoms(symbols, crystal.positions, cell=crystal.lattice, pbc=True))
    text = (tmp_path / "x.cif").read_text()
    assert_same(read_plain_cif(text), by_pymatgen(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data_quartz", "data_quartz\n_a 1\ndata_two"),
        ("O1 O ", "O1 O2- "),
        ("O1 O ", "D1 D "),
        ("O1 O ", "He1 He "),
        ("O1 O ", "X1 X "),
        ("1.0\n", "0.5\n"),
        ("1.0\n", "?\n"),
        ("0.7858", "?"),
        ("0.7858", "nan"),
        ("_cell_angle_gamma 120", ""),
        ("_cell_angle_gamma 120", "_cell_angle_gamma 190"),
        ("_cell_angle_gamma 120", "_cell_angle_gamma 0"),
        ("_cell_length_c 5.4047(4)", "_cell_length_c 0"),
        ("-y,x-y,z+2/3", "-y,x-y"),
        ("-y,x-y,z+2/3", "-y,x-y,2z"),
        ("-y,x-y,z+2/3", "-y,x-y,z+1/0"),
        ("-y,x-y,z+2/3", "-y,x-y,sin(z)"),
        ("_symmetry_equiv_pos_as_xyz", "_unknown"),
        ("_atom_site_label", "_atom_site_moment_label"),
        (ROWS, f"{ROWS}Si2 Si 0.4697 0 0.66667 1\n"),
        (ROWS, f"{ROWS}Si2 Si 0.4697 0\n"),
        (ROWS, ""),
        ("_cell_angle_beta 90.0", "_cell_angle_beta 90.0 90"),
        ("_cell_angle_beta 90.0", "_cell_angle_beta 90.0\n_cell_angle_beta 91"),
        ("_cell_angle_gamma 120", "_cell_angle_gamma 120 loop_ loop_"),
        ("_cell_angle_gamma 120", "_cell_angle_gamma 120\nsave_frame"),
    ],
)
def test_what_is_not_plain_is_left_to_others(old: str, new: str) -> None:
    assert old in QUARTZ
    assert read_plain_cif(QUARTZ.replace(old, new)) is None


@pytest.mark.parametrize(
    "text", ["", "\n", "hello", "data_", "data_x", "data_x loop_", "data_x _a", "'", "data_x\n;\n"]
)
def test_what_is_no_cif_is_left_to_others(text: str) -> None:
    assert read_plain_cif(text) is None


def test_every_cut_of_a_file_is_told_or_left_to_others() -> None:
    """Wherever a file ends, no crystal with fewer atoms comes out of it."""
    whole = read_plain_cif(QUARTZ)
    assert whole is not None
    cuts = [read_plain_cif_or_error(QUARTZ[:length]) for length in range(len(QUARTZ))]
    told = [cut for cut in cuts if isinstance(cut, str)]
    read = [cut for cut in cuts if isinstance(cut, Crystal)]
    assert all("_chemical_formula_sum is 'O2 Si'" in message for message in told) and told
    assert len(read) == len("\n") + len(".0") and all(len(crystal) == len(whole) for crystal in read)


def read_plain_cif_or_error(text: str) -> Crystal | str | None:
    try:
        return read_plain_cif(text)
    except CrystalError as error:
        return str(error)


@pytest.mark.parametrize(
    ("formula", "is_right"), [("'Si3 O6'", True), ("'Si1.0 O2'", True), ("?", True), ("'C x'", True)]
)
def test_formulas_of_any_number_of_units_and_such_as_say_nothing(formula: str, is_right: bool) -> None:
    assert (read_plain_cif(QUARTZ.replace("'O2 Si'", formula)) is not None) == is_right


@pytest.mark.parametrize("formula", ["'O3 Si'", "'Si'", "'O2 Si H'"])
@pytest.mark.parametrize("rows", ["{}", "{}D1 D 0.1 0.2 0.3 1\n"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_formula_is_an_error_whoever_reads_the_file(formula: str, rows: str) -> None:
    text = QUARTZ.replace("'O2 Si'", formula).replace(ROWS, rows.format(ROWS))
    if formula == "'O2 Si H'" and "D1" in rows:
        text = text.replace("'O2 Si H'", "'O2 Si'")
    with refused(CrystalError, "Si3", "O6", field="_chemical_formula_sum"):
        read(text)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("_cell_angle_beta 90.0", "275", "180 degrees"),
        ("_cell_angle_beta 90.0", "0", "180 degrees"),
        ("_cell_length_c 5.4047(4)", "0", "100,000 Å"),
        ("_cell_length_c 5.4047(4)", "1e300", "100,000 Å"),
        ("_cell_length_c 5.4047(4)", "nan", "number"),
        ("_cell_length_c 5.4047(4)", "?", "number"),
    ],
)
def test_a_cell_that_cannot_be_is_named(field: str, value: str, limit: str) -> None:
    name = field.split()[0]
    with refused(CrystalError, f"'{value}'", limit, field=name):
        read(QUARTZ.replace(field, f"{name} {value}"))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (
            "_cell_angle_beta",
            "it lacks _cell_angle_beta, _cell_angle_gamma, the loop of atom sites (_atom_site_label, ",
        ),
        ("loop_\n_atom_site_label", "it lacks the loop of atom sites (_atom_site_label, _atom_site_fract_x, "),
        ("_atom_site_fract_z", "it lacks the loop of atom sites (_atom_site_fract_z)"),
        ("_atom_site_occupancy", "line 26 ('loop_'): empty loop with _atom_site_label"),
        ("0.2669", "line 26 ('loop_'): Wrong number of values in loop _atom_site_*"),
    ],
)
def test_a_file_that_was_cut_short_says_what_it_lacks(end: str, reason: str, tmp_path: Path) -> None:
    text = QUARTZ[: QUARTZ.index(end)]
    if end == "_atom_site_occupancy":
        text += f"{end}\n"
    assert reason in what_is_missing(text)
    (tmp_path / "cut.cif").write_text(text)
    with refused(CrystalError, reason, "cut short", path="cut.cif"):
        read(tmp_path / "cut.cif")
    assert what_is_missing(QUARTZ) == ""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("_cell_angle_beta 90.0", "_cell_angle_beta 90.0 91", "line 14 ('_cell_angle_beta 90.0 91'): parse error"),
        ("_cell_angle_beta 90.0", "_cell_angle_beta 90\n_cell_angle_beta 91", "duplicate tag _cell_angle_beta"),
        ("_cell_length_c 5.4047(4)", "_cell_length_c", "line 12 ('_cell_length_c'): _cell_length_c has no value"),
        ("'Zeit", "Zeit'", "parse error"),
        (" loop_ in it\n;", " loop_ in it\n", "unterminated text field"),
    ],
)
def test_a_mistake_in_a_file_is_shown_with_its_line(old: str, new: str, reason: str) -> None:
    assert old in QUARTZ and reason in what_is_missing(QUARTZ.replace(old, new))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_formula_in_a_loop_is_no_formula() -> None:
    text = QUARTZ.replace("_chemical_formula_sum 'O2 Si'", "loop_\n_chemical_formula_sum\n'O2 Si'\n'O4 Si2'")
    assert len(read(text)) == 9


def plain_cif(n_operations: int, n_sites: int, coordinates: str = "0.{site:05d} 0.2 0.3") -> str:
    cell = "".join(f"_cell_length_{axis} 50\n_cell_angle_{name} 90\n" for axis, name in zip("abc", ANGLES, strict=True))
    operations = "".join(f"'x,y,z+{n}/{n_operations}'\n" for n in range(n_operations))
    sites = "".join(f"Na {coordinates.format(site=site)}\n" for site in range(n_sites))
    return (
        f"data_x\n{cell}loop_\n_symmetry_equiv_pos_as_xyz\n{operations}loop_\n_atom_site_label\n"
        f"_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n{sites}"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (plain_cif(24, 100_000), "100,000 sites and 24 symmetry operations make too many atoms"),
        (plain_cif(24, 2000, "0.1 0.2 0.3"), "2,000 sites and 24 symmetry operations make too many atoms"),
        (plain_cif(1, 2, "0.1 0.2 0.3").replace("'x,y,z+0/1'\n", "'x,y,z'\n" * 15_000), "2 sites and 15,000"),
        (plain_cif(1, 20_000, "0.1 0.2 0.3"), "20,000 sites and 1 symmetry operations make too many atoms"),
        (
            plain_cif(24, 2000, "0.1 0.2 0.3").replace("as_xyz", "as_xyz_"),
            "2,000 sites and 24 symmetry operations make too many atoms",
        ),
    ],
)
def test_more_atoms_than_any_file_means_are_refused_in_seconds(text: str, reason: str) -> None:
    started = time.process_time()
    with refused(CrystalError, reason):
        read(text)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("name", ["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz_"])
def test_an_endless_symmetry_operation_is_refused_in_seconds(name: str) -> None:
    """pymatgen would look for its end for hours."""
    text = plain_cif(3, 2).replace("x,y,z+1/3", f"0,{'9' * 9000},z").replace("_symmetry_equiv_pos_as_xyz", name)
    started = time.process_time()
    with refused(CrystalError, "operation 2", "'0,999", "9,004", field=name):
        read(text)
    assert time.process_time() - started < 20


def test_a_group_that_is_only_named_is_made_once() -> None:
    """pymatgen takes seconds to make the group of rock salt."""
    text = plain_cif(1, 1).replace("'x,y,z+0/1'", "").replace("loop_\n_symmetry_equiv_pos_as_xyz\n", "")
    text = text.replace("data_x\n", "data_x\n_symmetry_space_group_name_H-M 'F m -3 m'\n")
    _space_group.cache_clear()
    assert len(read(text)) == 48  # Wyckoff position i, since 0.2 + 0.3 = 1/2
    made = _space_group.cache_info().misses
    assert len(read(text)) == 48 and _space_group.cache_info().misses == made


def test_operations_by_the_name_of_the_group_count_as_well() -> None:
    fields = {"_atom_site_label": ["Na"] * 100, "_space_group_name_H-M_alt": "F m -3 m"}
    with refused(CrystalError, "100 sites and 192 symmetry operations"):
        check_size(fields)
    check_size(fields | {"_space_group_name_H-M_alt": "P -1"})


def test_an_error_quotes_only_the_beginning_of_an_endless_number() -> None:
    with refused(CrystalError, "'9999", field="_cell_angle_alpha") as caught:
        read(QUARTZ.replace("_cell_angle_alpha 90", "_cell_angle_alpha " + "9" * 5000))
    assert len(str(caught.value)) < 200


def test_blank_lines_cost_nothing() -> None:
    started = time.process_time()
    assert "no block of data" in what_is_missing("\n" * 300_000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [("\n" * 300_000, None), ("\t" * 300_000, "has 300,000 characters"), (" \n" * 9999, None)],
)
def test_gaps_and_long_lines_cost_no_hours(spoilt: str, reason: str | None) -> None:
    """Such as pymatgen would brood over, which reads the file because of the word in its comment."""
    text = QUARTZ.replace("data_quartz\n", f"data_quartz # _cell_modulation\n{spoilt}\n")
    started = time.process_time()
    if reason is None:
        assert len(read(text)) == 9
    else:
        with refused(CrystalError, "line ", reason):
            read(text)
    assert time.process_time() - started < 20


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("parameters", [(3, 4, 5, 70, 80, 95), (3, 4, 5, 110, 60, 120), (5, 4, 3, 90, 90, 90)])
def test_lattice_vectors_lie_as_those_of_pymatgen(parameters: tuple[float, ...]) -> None:
    structure = Structure(Lattice.from_parameters(*parameters), ["Na"], [[0.1, 0.2, 0.3]])
    crystal = read_plain_cif(str(CifWriter(structure, significant_figures=12)))
    assert crystal is not None
    np.testing.assert_allclose(crystal.lattice, structure.lattice.matrix, atol=1e-10)
