"""Pages as files."""

from __future__ import annotations

from pathlib import Path

from viz.errors import SceneError


def written(page: str, path: str | Path | None) -> str:
    """The page, which a file holds as well if one is named.

    Raises:
        SceneError: nothing can be written there.
    """
    if path is not None:
        try:
            Path(path).write_text(page, encoding="utf-8")
        except OSError as error:
            raise SceneError(
                f"cannot be written ({error.strerror or error}); choose another folder", path=path
            ) from error
    return page
