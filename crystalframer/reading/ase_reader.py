"""ASE's readers: quiet, with deuterium and tritium as hydrogen, and with errors of ours."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crystalframer.elements import ATOMIC_NUMBERS
from crystalframer.errors import CrystalError
from crystalframer.libraries import reason, require

_lock = threading.RLock()


def read_with_ase(source: Any, format: str, index: int | str) -> Any:
    """Atoms, or a list of them.

    Args:
        source: path or open file.
        format: ASE's name of the format.
        index: which structure, `":"` for all.

    Raises:
        CrystalError: ASE is not installed, or cannot read it.
    """
    ase_io = require("ase.io", "reading this file", "data", CrystalError)
    with _isotopes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ase_io.read(source, format=format, index=index, do_not_split_by_at_sign=True)
        except KeyError as error:
            if isinstance(error.args[0], str) and error.args[0].isalnum() and len(error.args[0]) <= 3:
                raise CrystalError(f"{error.args[0]!r} is no element; replace or remove its sites") from error
            raise CrystalError(f"cannot be read ({reason(error)}); check the file and its suffix") from error
        except Exception as error:  # readers of dozens of formats raise what they like
            raise CrystalError(f"cannot be read ({reason(error)}); check the file and its suffix") from error


@contextmanager
def _isotopes() -> Iterator[None]:
    """Let ASE know the symbols of deuterium and tritium for a while."""
    from ase.data import atomic_numbers

    with _lock:
        added = {symbol: ATOMIC_NUMBERS[symbol] for symbol in ("D", "T") if symbol not in atomic_numbers}
        atomic_numbers.update(added)
        try:
            yield
        finally:
            for symbol in added:
                del atomic_numbers[symbol]
