"""Checksums inside the files that belong to weights: that of the weights, and their own.

The settings, the domain and the intervals of a model belong to its weights alone. Beside other weights, or with one
wrong bit, they would still look like numbers. Settings of format 1 and files of release 0.1 have no checksums and are
taken as they are; saving the model again adds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from crystalframer.errors import CheckpointError, UncertaintyError

OWN, OF_WEIGHTS = "sha256", "weights_sha256"


def sealed(description: Mapping[str, Any], weights: str, arrays: bytes = b"") -> dict[str, Any]:
    """The description with both checksums.

    >>> opened(sealed({"n_crystals": 3}, "12ab"), "12ab")
    {'n_crystals': 3}

    Args:
        description: what JSON can hold.
        weights: SHA-256 of the file of the weights.
        arrays: what the file holds beside the description.
    """
    named = {**description, OF_WEIGHTS: weights}
    return {**named, OWN: _digest(named, arrays)}


def opened(found: Mapping[str, Any], weights: str | None, arrays: bytes = b"") -> dict[str, Any]:
    """The description without its checksums, once they agree.

    Args:
        weights: as in `sealed`; None: do not compare.

    Raises:
        CheckpointError: the content has changed since it was written, or it belongs to other weights.
    """
    description = {name: value for name, value in found.items() if name not in (OWN, OF_WEIGHTS)}
    if len(description) == len(found):
        return description
    named = {name: value for name, value in found.items() if name != OWN}
    if found.get(OWN) != _digest(named, arrays):
        raise CheckpointError("damaged or changed: the SHA-256 that it states is not its own", field=OWN)
    if weights is not None and found.get(OF_WEIGHTS) != weights:
        raise CheckpointError(
            "belongs to other weights: the SHA-256 that it states is not theirs", field=OF_WEIGHTS, value=weights
        )
    return description


def to_bytes(name: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], weights: str | None) -> bytes:
    """The content of a safetensors file of arrays, with a description that is sealed if `weights` is given.

    Args:
        name: what the file holds: the key of the description.
        weights: as in `sealed`; None: without checksums.
    """
    from safetensors.numpy import save

    arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    described = description if weights is None else sealed(description, weights, flat(arrays))
    return save(arrays, {name: json.dumps(described)})


def from_bytes(name: str, content: bytes, weights: str | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a file that `to_bytes` gave.

    Raises:
        CheckpointError: as `opened`.
        ValueError, KeyError, TypeError, AttributeError: the content is not that of such a file, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return opened(json.loads(header["__metadata__"][name]), weights, flat(arrays)), arrays


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say of a file that it is not what it should be, or damaged, where its content does not fit.

    Raises:
        UncertaintyError: from within, or in place of what a wrong content raises.
    """
    try:
        yield
    except UncertaintyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UncertaintyError(f"not {what} of a model, or damaged ({error!r})") from error


def flat(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Names, types, shapes and values of arrays, one after another."""
    parts = []
    for name, array in sorted(arrays.items()):
        parts += [f"{name} {array.dtype.str} {array.shape}\n".encode(), array.tobytes()]
    return b"".join(parts)


def _digest(described: Mapping[str, Any], arrays: bytes) -> str:
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + b"\0" + arrays).hexdigest()
