"""Arrays inside JSON, as ASE and monty (pymatgen) encode them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def plain_array(value: Any) -> Any:
    """The array that a dictionary encodes; any other value as it is.

    ASE writes `{"__ndarray__": [shape, kind, numbers]}`, and a cell as `{"array": ...}`; monty writes
    `{"@class": "array", "data": ...}`.

    Raises:
        KeyError, TypeError, ValueError: the dictionary encodes no array.
    """
    if not isinstance(value, Mapping):
        return value
    if "__ndarray__" in value:
        shape, kind, numbers = value["__ndarray__"]
        return np.array(numbers, dtype=kind).reshape(shape)
    return value["data"] if value.get("@class") == "array" else plain_array(value["array"])
