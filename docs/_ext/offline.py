"""Fail the build if a page would ask the network for a script, a style, a font, a picture or a frame."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

REQUEST = re.compile(
    r"""<(?:script|img|iframe|source|video|embed|object)\b[^>]*?\b(?:src|data)=["'](?:https?:)?//[^"']+"""
    r"""|<link\b(?![^>]*rel=["']canonical)[^>]*?\bhref=["'](?:https?:)?//[^"']+"""
    r"""|(?:@import|url\()\s*["']?(?:https?:)?//[^"')]+""",
    flags=re.IGNORECASE,
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at the pages when the build is done."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        found = requests(Path(app.outdir))
        if found:
            raise ExtensionError("these pages ask the network:\n" + "\n".join(found))


def requests(folder: Path) -> list[str]:
    """What the pages and styles of a folder would load from the network, one line for each."""
    files = [path for suffix in ("html", "css") for path in sorted(folder.rglob(f"*.{suffix}"))]
    return [
        f"{path.relative_to(folder)}: {match.group()}"
        for path in files
        for match in REQUEST.finditer(path.read_text(encoding="utf-8"))
    ]
