"""What the package refuses, told by the class and the fields of the error rather than by its wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crystalframer.errors import CrystalFramerError


@contextmanager
def refused(
    kind: type[CrystalFramerError],
    *words: Any,
    path: Path | str | None = None,
    row: int | None = None,
    site: int | None = None,
    field: str | None = None,
) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Expect an error of this kind, with these fields. What is not given may be anything.

    Args:
        kind: class of the error, or a base of it.
        words: names and values that the message must contain.
        path: the error's path, or only the name of the file.
    """
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    for name, wanted in (("row", row), ("site", site), ("field", field)):
        if wanted is not None:
            assert getattr(error, name) == wanted, f"{name} is {getattr(error, name)!r}, not {wanted!r}: {error}"
    if path is not None:
        assert error.path is not None, f"names no path: {error}"
        assert Path(path) in (Path(error.path), Path(Path(error.path).name)), f"names another path: {error}"
    for word in words:
        assert str(word) in str(error), f"{word!r} is not in: {error}"
