"""The data format of the CrystalFramer and Crystalformer authors: a pickled list with one dictionary per crystal.

A pickle can run any code when it is opened. So it is read by an unpickler that knows the few types such a file needs
and refuses every other by name; convert it once and keep the packed file.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from crystalframer.config import Target
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.labelled import pack_rows
from crystalframer.errors import DataError

_ALLOWED: dict[str, frozenset[str]] = {
    "builtins": frozenset(
        {
            "list",
            "dict",
            "tuple",
            "set",
            "frozenset",
            "str",
            "bytes",
            "bytearray",
            "int",
            "float",
            "complex",
            "bool",
            "object",
        }
    ),
    "collections": frozenset({"OrderedDict", "defaultdict"}),
    "copyreg": frozenset({"_reconstructor"}),
    "_codecs": frozenset({"encode"}),
    "numpy": frozenset({"ndarray", "dtype", "float64", "float32", "int64", "int32", "bool_"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "pymatgen.core.structure": frozenset({"Structure", "IStructure", "PeriodicSite"}),
    "pymatgen.core.lattice": frozenset({"Lattice"}),
    "pymatgen.core.sites": frozenset({"PeriodicSite"}),
    "pymatgen.core.composition": frozenset({"Composition"}),
    "pymatgen.core.periodic_table": frozenset({"Element", "Species", "Specie", "DummySpecies"}),
}
"""Module → the names in it that such a file may use. All of them only hold data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # as Python 2 wrote them
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which a file of crystals does not need and which could run any code; "
                "do not open it unless you trust its source, and then save its content in another format"
            )
        return super().find_class(module, name)


def convert_authors_pickle(
    path: str | Path | Mapping[str, str | Path], targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """A data set from the authors' pickled lists; `save` it to use it from then on.

        files = {"train": "train.pkl", "validation": "val.pkl", "test": "test.pkl"}
        convert_authors_pickle(files, [Target("formation_energy_peratom", "eV/atom")]).save("jarvis.parquet")

    Args:
        path: a pickle, or one for each part of a split. A crystal is a dictionary with an id (`jid`, `material_id`,
            `id`), a `structure` (pymatgen) or `atoms` (JARVIS dictionary), and labels.
        targets: the labels to keep. Default: all entries that are numbers.

    Raises:
        DataError: a file that is missing, truncated, not a list of dictionaries, or asks for anything but plain data
            (the name is given); crystals or labels that cannot be read.
    """
    files = path if isinstance(path, Mapping) else {"": path}
    rows = []
    for part, file in files.items():
        for entry in tqdm(unpickle(Path(file)), desc=f"reading {Path(file).name}", unit=" crystals", delay=2):
            rows.append({**entry, "split": part} if part else entry)
    return pack_rows(", ".join(str(file) for file in files.values()), rows, targets)


def unpickle(path: Path) -> list[dict[str, Any]]:
    """The dictionaries of a pickled list.

    Raises:
        DataError: the file is missing, truncated, not such a list, or asks for anything but plain data.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's, of how an older version wrote its objects
        try:
            entries = _Unpickler(file).load()
        except Exception as error:  # broken pickles raise what they like
            raise DataError(f"{path}: cannot be read as a pickle of crystals: {error}") from error
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError(f"{path}: expected a list with one dictionary per crystal, got a {type(entries).__name__}")
    if not entries:
        raise DataError(f"{path}: the list is empty; give a file with crystals")
    return [dict(entry) for entry in entries]
