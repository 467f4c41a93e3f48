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
    name = ase_io.formats.ioformats[format].description
    with _isotopes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ase_io.read(source, format=format, index=index, do_not_split_by_at_sign=True)
        except Exception as error:  # readers of dozens of formats raise what they like
            symbol = error.args[0] if isinstance(error, KeyError) else None
            if isinstance(symbol, str) and symbol.isalnum() and len(symbol) <= 3:
                raise CrystalError(f"{symbol!r} is no element; replace or remove its sites") from error
            raise CrystalError(
                f"cannot be read as {name} ({reason(error)}); is it complete, and its suffix right?"
            ) from error


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
