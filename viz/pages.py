"""Pages as files."""

from __future__ import annotations

from pathlib import Path

from crystalframer import files
from viz.errors import SceneError


def written(page: str, path: str | Path | None) -> str:
    """The page, which a file holds as well if one is named.

    Raises:
        SceneError: nothing can be written there.
    """
    if path is not None:
        with files.writing(Path(path), SceneError):
            files.write(Path(path), page)
    return page
