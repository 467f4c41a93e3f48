from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from file_server import FileServer
from refusals import refused

from crystalframer.datasets import download
from crystalframer.datasets.download import RemoteFile, cache_folder, fetch
from crystalframer.errors import DataError

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def server(server: FileServer) -> FileServer:
    server.files["data.zip"] = CONTENT
    return server


def remote(server: FileServer, **changes: str) -> RemoteFile:
    return RemoteFile(**({"name": "data.zip", "url": server.url("data.zip")} | changes))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_once_and_then_needs_no_network(server: FileServer, tmp_path: Path) -> None:
    file = remote(server)
    path = fetch(file, tmp_path / "deep")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "deep") == ["data.zip", "data.zip.checksum.json"]
    server.files.clear()
    assert fetch(file, tmp_path / "deep") == path
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [1000, 500]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=1000-", "bytes=1500-"]
    assert names(tmp_path) == ["data.zip", "data.zip.checksum.json"]


def test_what_was_received_is_kept_for_the_next_call(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [100] * download.ATTEMPTS
    with refused(DataError, "400 of 102,400 bytes", "400 bytes are kept", f"save it as {tmp_path / 'data.zip'}"):
        fetch(remote(server), tmp_path)
    assert (tmp_path / "data.zip.partial").read_bytes() == CONTENT[:400]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=400-"


def test_a_part_of_another_version_is_not_continued(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [100] * download.ATTEMPTS
    with pytest.raises(DataError):
        fetch(remote(server), tmp_path)
    server.files["data.zip"] = CONTENT[::-1]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_server_that_knows_no_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [1000]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("n_bytes", [len(CONTENT), len(CONTENT) + 7])
def test_a_part_that_is_complete_or_too_long(server: FileServer, tmp_path: Path, n_bytes: int) -> None:
    (tmp_path / "data.zip.partial").write_bytes((CONTENT + bytes(7))[:n_bytes])
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.status = [503, 429]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "n_requests"), [(404, 1), (403, 1), (500, download.ATTEMPTS)])
def test_an_answer_that_is_an_error(server: FileServer, tmp_path: Path, status: int, n_requests: int) -> None:
    server.status = [status] * n_requests
    with refused(DataError, f"answers {status}", "download the page with a browser"):
        fetch(remote(server, page="the page"), tmp_path)
    assert len(server.requests) == n_requests
    assert names(tmp_path) == []


def test_no_network(tmp_path: Path, server: FileServer) -> None:
    file = RemoteFile("data.zip", "http://127.0.0.1:1/data.zip")
    place = tmp_path / "data.zip"
    with refused(DataError, "no connection", f"save it as {place}"):
        fetch(file, tmp_path)
    place.write_bytes(CONTENT)  # by hand
    assert fetch(file, tmp_path) == place


def test_a_file_that_only_a_person_can_download(tmp_path: Path) -> None:
    with refused(DataError, "download https://example.org/project", path="a.pkl"):
        fetch(RemoteFile("a.pkl", "", page="https://example.org/project"), tmp_path)


def test_published_checksum(server: FileServer, tmp_path: Path) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(remote(server, sha256=right), tmp_path).exists()
    with refused(DataError, right, "published checksum is 00", path="data.zip", field="sha256"):
        fetch(remote(server, sha256="00"), tmp_path)


def test_the_checksum_of_the_first_download_holds(server: FileServer, tmp_path: Path) -> None:
    path = fetch(remote(server), tmp_path)
    record = json.loads((tmp_path / "data.zip.checksum.json").read_text())
    assert record == {"sha256": hashlib.sha256(CONTENT).hexdigest(), "url": server.url("data.zip"), "published": False}
    path.write_bytes(b"changed")
    with refused(DataError, "recorded at the first download", path=path, field="sha256"):
        fetch(remote(server), tmp_path)


def test_only_the_web_is_asked(tmp_path: Path) -> None:
    with refused(DataError, "https://", path="file:///etc/passwd"):
        fetch(RemoteFile("passwd", "file:///etc/passwd"), tmp_path)


def test_redirects_are_followed_on_the_web_alone(server: FileServer, tmp_path: Path) -> None:
    server.redirects = {"old.zip": server.url("data.zip"), "bad.zip": "ftp://127.0.0.1/data.zip?signature=sesame"}
    assert fetch(remote(server, url=server.url("old.zip")), tmp_path / "good").read_bytes() == CONTENT
    with refused(DataError, "302 and sends on to ftp://127.0.0.1, which is not followed") as caught:
        fetch(remote(server, url=server.url("bad.zip")), tmp_path / "bad")
    assert "sesame" not in str(caught.value)
    assert names(tmp_path / "bad") == []


def test_what_was_asked_for_in_secret_is_not_sent_in_the_open() -> None:
    asked, follow = Request("https://example.org/a"), download._Redirects().redirect_request
    assert follow(asked, io.BytesIO(), 302, "", {}, "https://example.net/b").full_url == "https://example.net/b"
    with pytest.raises(HTTPError, match=r"sends on to http://example\.net, which is not followed"):
        follow(asked, io.BytesIO(), 302, "", {}, "http://example.net/b")


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with refused(DataError, "example.org", "password") as caught:
        fetch(RemoteFile("data.zip", "https://me:sesame@example.org/data.zip"), tmp_path)
    assert "sesame" not in str(caught.value)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CRYSTALFRAMER_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "crystalframer"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "crystalframer"
    monkeypatch.setenv("CRYSTALFRAMER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
