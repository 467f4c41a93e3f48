from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server

from crystalframer.datasets import download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """A server of files, asked without a proxy and without pauses; downloads are kept in a folder of the test."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("CRYSTALFRAMER_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with file_server() as served:
        yield served
