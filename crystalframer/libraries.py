"""Libraries that are loaded on first use, and that need not be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crystalframer.errors import CrystalFramerError


def require(module: str, purpose: str, extra: str, kind: type[CrystalFramerError]) -> Any:
    """A module of another library.

    Args:
        purpose: what it is needed for: `"reading an ASE database"`.
        extra: name of the extra of this package that brings it.
        kind: class of the error.

    Raises:
        CrystalFramerError: of this `kind`: the library is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        raise kind(f"{purpose} needs {library}: pip install 'crystalframer[{extra}]'") from error


def reason(error: Exception) -> str:
    """The message of another library, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
