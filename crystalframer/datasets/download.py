"""Files from the network: downloaded once into a cache folder, resumed where a download stopped, and checked."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from crystalframer._version import __version__
from crystalframer.errors import DataError
from crystalframer.files import writing

CACHE_VARIABLE = "CRYSTALFRAMER_CACHE"
TIMEOUT = 60
"""Seconds without a sign of life from the server."""
ATTEMPTS = 4
"""Connections that may break, or answers that say the server is busy, before giving up."""
PAUSE = 2.0
"""Seconds before the second attempt; doubled each time."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file at a public address."""

    name: str
    """Name under which it is kept."""
    url: str
    """Address of the download; empty if only a person with a browser can download it."""
    page: str = ""
    """Address where a person finds it. Default: `url`."""
    sha256: str = ""
    """Published checksum. Where none is known, the one of the first download is recorded and compared from then on."""


def cache_folder() -> Path:
    """The folder of downloads: `$CRYSTALFRAMER_CACHE`, else `crystalframer` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "crystalframer"


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Return the path of the file in this folder, after downloading it if it is not yet there.

    A download that stopped is kept as `NAME.partial`, and the next call continues it.

    Raises:
        DataError: no network, an answer that is not the file, or a wrong checksum; the message says what to download
            where by hand.
    """
    path = folder / file.name
    if not path.exists():
        if not file.url:
            raise DataError(f"cannot be downloaded by a program. {_by_hand(file, path)}", path=path)
        advice = f"{file.name} cannot be kept there; choose another folder for downloads with ${CACHE_VARIABLE}"
        with writing(folder, DataError, advice):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        _download(file, path)
    _check(file, path)
    return path


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """The answer to a GET request; only http and https are followed, and from https only https.

    Raises:
        DataError: another scheme, or a password in the address.
        urllib.error.URLError: no connection, or an answer that is an error.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        # Not repeated here: messages end up in logs.
        raise DataError(
            f"the address of {parts.hostname} has a name or a password before the @; it would stand in configs, "
            "messages and logs: leave it out, or ask a provider that needs none",
            value=parts.hostname,
        )
    if parts.scheme not in ("http", "https"):
        raise DataError("is no address on the web; give one that begins with https:// or http://", path=url)
    request = urllib.request.Request(url, headers={"User-Agent": f"crystalframer/{__version__}", **(headers or {})})
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web only, and never from https to http, whose answers anyone on the way could change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        parts = urlsplit(newurl)
        if parts.scheme not in ("http", "https") or (req.type, parts.scheme) == ("https", "http"):
            fp.close()
            # Without the path, which may hold a key of the moment.
            refused = f"and sends on to {parts.scheme}://{parts.hostname}, which is not followed"
            raise urllib.error.HTTPError(req.full_url, code, refused, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def reason(error: Exception) -> str:
    """The reason of a failed request, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return str(error) or type(error).__name__


def is_passing(error: Exception) -> bool:
    """Whether another attempt may help: a broken connection, or a server that is busy or in trouble."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429) or error.code >= 500
    return isinstance(error, (ConnectionError, TimeoutError, http.client.HTTPException))


def _download(file: RemoteFile, path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(file, partial)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if is_passing(error) and attempt < ATTEMPTS:
                time.sleep(PAUSE * 2 ** (attempt - 1))
                continue
            kept = ""
            if partial.exists() and partial.stat().st_size:
                kept = f" {partial.stat().st_size:,} bytes are kept; the same command goes on from there."
            message = f"download failed ({reason(error)}).{kept} {_by_hand(file, path)}"
            raise DataError(message, path=file.url) from error
        partial.replace(path)
        _tag_of(partial).unlink(missing_ok=True)
        return


def _receive(file: RemoteFile, partial: Path) -> None:
    """Try once to download the part of the file that is still missing."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _tag_of(partial).exists():
            headers["If-Range"] = _tag_of(partial).read_text()
    try:
        answer = open_url(file.url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # Nothing lies beyond what we have: complete, or a leftover of another version.
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return
        partial.unlink()
        raise ConnectionError("the file has changed; starting anew") from error
    with answer:
        total = _total_size(answer, start)
        if answer.status == 200:
            start = 0
        _tag_of(partial).unlink(missing_ok=True)
        if tag := answer.headers.get("ETag", ""):
            _tag_of(partial).write_text(tag)
        with (
            partial.open("ab" if start else "wb") as output,
            tqdm(desc=file.name, total=total, initial=start, unit="B", unit_scale=True, delay=2) as bar,
        ):
            while chunk := answer.read(_CHUNK):
                output.write(chunk)
                bar.update(len(chunk))
    received = partial.stat().st_size
    if total is not None and received != total:
        raise ConnectionError(f"the connection ended after {received:,} of {total:,} bytes")


def _total_size(answer: Any, start: int) -> int | None:
    """Bytes of the whole file, as far as the server says."""
    length = answer.headers.get("Content-Length")
    if answer.status == 200:
        return int(length) if length else None
    span = answer.headers.get("Content-Range", "")
    if answer.status == 206 and span.startswith(f"bytes {start}-"):
        total = span.rpartition("/")[2]
        return int(total) if total.isdigit() else None
    raise OSError(f"the server answers {answer.status} with {span or 'no file'}")


def _tag_of(partial: Path) -> Path:
    """The version of the file that a partial download belongs to."""
    return partial.with_name(f"{partial.name}.etag")


def _check(file: RemoteFile, path: Path) -> None:
    """Compare with the published checksum, or with that of the first download."""
    record = path.with_name(f"{path.name}.checksum.json")
    found = sha256(path)
    expected, of = file.sha256, "the published checksum"
    if not expected and record.exists():
        expected, of = json.loads(record.read_text())["sha256"], "the checksum recorded at the first download"
    if expected and found != expected:
        raise DataError(
            f"SHA-256 is {found}, but {of} is {expected}; the file is damaged or another version: delete it, and the "
            "next call downloads it again",
            path=path,
            field="sha256",
            value=found,
        )
    if not record.exists():
        record.write_text(json.dumps({"sha256": found, "url": file.url, "published": bool(file.sha256)}))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_hand(file: RemoteFile, path: Path) -> str:
    return f"To do it by hand: download {file.page or file.url} with a browser and save it as {path}; then try again."
