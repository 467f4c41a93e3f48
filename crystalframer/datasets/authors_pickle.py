"""The data format of the CrystalFramer and Crystalformer authors: a pickled list with one dictionary per crystal.

A pickle can run any code when it is opened. So the unpickler here knows only the few types that such a file needs, and
refuses all others by name. Convert a pickle once and keep the packed file.
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
from crystalframer.datasets.labelled import from_rows
from crystalframer.errors import DataError

_ALLOWED = {
    "builtins": "list dict tuple set frozenset str bytes bytearray int float complex bool object",
    "collections": "OrderedDict defaultdict",
    "copyreg": "_reconstructor",
    "_codecs": "encode",
    "numpy": "ndarray dtype float64 float32 int64 int32 bool_",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.numeric": "_frombuffer",
    "pymatgen.core.structure": "Structure IStructure PeriodicSite",
    "pymatgen.core.lattice": "Lattice",
    "pymatgen.core.sites": "PeriodicSite",
    "pymatgen.core.composition": "Composition",
    "pymatgen.core.periodic_table": "Element Species Specie DummySpecies",
}
"""Module → the names in it that such a file may use. All of them only hold data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)  # as Python 2 wrote them
        if name not in _ALLOWED.get(module, "").split():
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which a file of crystals does not need and which could run any code; "
                "do not open it unless you trust its source, and then save its content in another format"
            )
        return super().find_class(module, name)


def convert_authors_pickle(
    path: str | Path | Mapping[str, str | Path], targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """Make a data set from the authors' pickled lists; `save` it to use it from then on.

        files = {"train": "train.pkl", "validation": "val.pkl", "test": "test.pkl"}
        convert_authors_pickle(files, [Target("formation_energy_peratom", "eV/atom")]).save("jarvis.parquet")

    Args:
        path: a pickle, or one for each part (train, validation, test) of a split. A crystal is a dictionary with an id
            (`jid`, `material_id`, `id`), a `structure` (pymatgen) or `atoms` (JARVIS dictionary), and labels.
        targets: the labels to keep. Default: all entries that are numbers.

    Raises:
        DataError: a file that is missing, truncated, not a list of dictionaries, or asks for anything but plain data
            (the name is given); crystals or labels that cannot be read.
    """
    files = path if isinstance(path, Mapping) else {"": path}
    rows = []
    for part, file in files.items():
        for cells in tqdm(unpickle(Path(file)), desc=f"reading {Path(file).name}", unit=" crystals", delay=2):
            rows.append({**cells, "split": part} if part else cells)
    return from_rows(", ".join(str(file) for file in files.values()), rows, targets)


def unpickle(path: Path) -> list[dict[str, Any]]:
    """Read the dictionaries of a pickled list.

    Raises:
        DataError: the file is missing, truncated, not such a list, or asks for anything but plain data.
    """
    if not path.is_file():
        raise DataError("no such file; check the path", path=path)
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's, of how an older version wrote its objects
        try:
            rows = _Unpickler(file).load()
        except Exception as error:  # a broken pickle can raise any error
            raise DataError(f"cannot be read as a pickle of crystals: {error}", path=path) from error
    if not isinstance(rows, (list, tuple)) or not all(isinstance(cells, Mapping) for cells in rows):
        raise DataError(f"expected a list with one dictionary per crystal, got a {type(rows).__name__}", path=path)
    if not rows:
        raise DataError("the list is empty; give a file with crystals", path=path)
    return [dict(cells) for cells in rows]
