"""Files of all other formats, as far as ASE reads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystalframer.errors import CrystalError
from crystalframer.libraries import reason, require
from crystalframer.reading.entry import Entry, Start, numbered


def entries(path: Path, start: Start) -> Iterator[Entry]:
    return numbered(_frames(path)[start.n_before :], start)


def starts(path: Path) -> Iterator[Start]:
    return map(Start, range(len(_frames(path))))


def count(path: Path) -> int | None:
    return None


def _frames(path: Path) -> list[Any]:
    ase_io = require("ase.io", f"reading {path.name}", "data", CrystalError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ase_io.read(path, index=":")
        except Exception as error:  # readers of dozens of formats raise what they like
            raise CrystalError(f"cannot be read ({reason(error)}); check the file and its suffix") from error
