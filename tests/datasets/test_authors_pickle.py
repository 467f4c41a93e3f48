import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from refusals import refused

from crystalframer.config import DataConfig, Target
from crystalframer.datasets.authors_pickle import convert_authors_pickle
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import DataError

SALT = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
JARVIS = {
    "lattice_mat": [[4.0, 0, 0], [0, 4, 0], [0, 0, 4]],
    "coords": [[0, 0, 0], [2.0, 2, 2]],
    "elements": ["Na", "Cl"],
    "cartesian": True,
}
GOOD = [
    {"jid": "JVASP-1", "atoms": JARVIS, "formation_energy_peratom": np.float64(-1.5), "note": "x"},
    {"jid": "JVASP-2", "atoms": JARVIS, "formation_energy_peratom": "na", "note": "y"},
]


def dump(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


class Malicious:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_jarvis_dictionaries(tmp_path: Path, protocol: int) -> None:
    data = convert_authors_pickle(dump(tmp_path / "train.pkl", GOOD, protocol))
    assert data.ids.tolist() == ["JVASP-1", "JVASP-2"]
    assert list(data.targets) == ["formation_energy_peratom"]
    np.testing.assert_array_equal(data.targets["formation_energy_peratom"], [-1.5, np.nan])
    np.testing.assert_allclose(data[0].positions, SALT.cart_coords)


@pytest.mark.filterwarnings("ignore:oxidation states:crystalframer.CrystalWarning")
@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("oxidised", [False, True])
def test_pymatgen_structures(tmp_path: Path, protocol: int, oxidised: bool) -> None:
    structure = SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1}) if oxidised else SALT
    rows = [collections.OrderedDict(material_id="mp-1", structure=structure, gap=np.float32(2.0), flags=np.arange(3))]
    data = convert_authors_pickle(dump(tmp_path / "x.pkl", rows, protocol), [Target("gap", "eV")])
    assert data.formulas.tolist() == ["NaCl"] and data.ids.tolist() == ["mp-1"]
    assert data.targets["gap"].tolist() == [2.0] and data.units == {"gap": "eV"}


def test_files_of_a_split_become_one_packed_file(tmp_path: Path) -> None:
    files = {part: dump(tmp_path / f"{part}.pkl", [row]) for part, row in zip(("train", "test"), GOOD, strict=True)}
    convert_authors_pickle(files).save(tmp_path / "packed.parquet")
    parts = CrystalDataset.load(tmp_path / "packed.parquet").split(DataConfig(), 0)
    assert parts.train.ids.tolist() == ["JVASP-1"] and parts.test.ids.tolist() == ["JVASP-2"]


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), f"{os.name}.system"),
        (eval, ("open({marker!r}, 'w')",), "builtins.eval"),
        (exec, ("open({marker!r}, 'w')",), "builtins.exec"),
        (open, ("{marker}", "w"), "io.open"),
        (getattr, ("", "join"), "builtins.getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_by_name(
    tmp_path: Path, function: object, arguments: tuple, name: str, protocol: int
) -> None:
    marker = tmp_path / "ran"
    filled = [argument.format(marker=str(marker)) for argument in arguments]
    path = dump(tmp_path / "bad.pkl", [{"jid": "a", "atoms": Malicious(function, *filled)}], protocol)
    with refused(DataError, f"{name}, which a file of crystals does not need", path=path):
        convert_authors_pickle(path)
    assert not marker.exists()


def test_attributes_of_allowed_classes_are_refused(tmp_path: Path) -> None:
    # Protocol 4 can ask for a dotted name: a method that would open a file.
    text = b"\x80\x04\x8c\x17pymatgen.core.structure\x8c\x13Structure.from_file\x93\x8c\x05x.cif\x85R."
    (tmp_path / "bad.pkl").write_bytes(text)
    with refused(DataError, "pymatgen.core.structure.Structure.from_file", path="bad.pkl"):
        convert_authors_pickle(tmp_path / "bad.pkl")


@pytest.mark.parametrize(
    ("content", "row", "words"),
    [
        ({"a": 1}, None, ["a list", "got a dict"]),
        ([1, 2], None, ["a list with one dictionary per crystal"]),
        ([], None, ["empty"]),
        ([{"jid": "a", "atoms": {}}], None, ["row 1: crystal 'a'", "atomic_numbers"]),
        ([GOOD[0] | {"formation_energy_peratom": float("inf")}], 1, ["formation_energy_peratom", "'inf'"]),
        ([GOOD[0], GOOD[0]], 2, ["'JVASP-1'", "row 1"]),
    ],
)
def test_bad_content(tmp_path: Path, content: object, row: int | None, words: list[str]) -> None:
    with refused(DataError, *words, path="bad.pkl", row=row):
        convert_authors_pickle(dump(tmp_path / "bad.pkl", content))


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    path = dump(tmp_path / "bad.pkl", GOOD)
    path.write_bytes(path.read_bytes()[:-40])
    with refused(DataError, "cannot be read as a pickle", path=path):
        convert_authors_pickle(path)
    with refused(DataError, path="none.pkl"):
        convert_authors_pickle(tmp_path / "none.pkl")
    with refused(DataError, "did you mean", field="formation_energy_per_atom"):
        convert_authors_pickle(dump(tmp_path / "good.pkl", GOOD), ["formation_energy_per_atom"])
