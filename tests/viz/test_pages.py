"""Pages as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from viz.errors import SceneError
from viz.pages import written


def test_a_page_is_returned_and_written_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert written("é", None) == written("é", path) == path.read_text(encoding="utf-8") == "é"
    assert written("again", str(path)) == path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SceneError, match=r"file/page.html: cannot be written"):
        written("page", tmp_path / "file" / "page.html")
