"""A web server on this machine that serves files as a data repository does, and fails as one does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """What is served, what goes wrong, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path → content."""
    cut_after: list[int | None] = field(default_factory=list)
    """For each coming answer: bytes after which the connection breaks; None or no entry: it does not."""
    status: list[int] = field(default_factory=list)
    """For each coming answer: an error to give instead."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path → address that its answer sends on to."""
    ranges: bool = True
    """Whether a request for a part of a file is understood."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request."""
    address: str = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def tag(self, path: str) -> str:
        return f'"{hash(self.files[path])}"'


@contextmanager
def file_server() -> Iterator[FileServer]:
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append((self.path, dict(self.headers)))
            if served.status:
                self.send_error(served.status.pop(0))
                return
            path = self.path.lstrip("/")
            if path in served.redirects:
                self.send_response(302)
                self.send_header("Location", served.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path not in served.files:
                self.send_error(404)
                return
            content, start = served.files[path], 0
            asked = self.headers.get("Range")
            if asked and served.ranges and self.headers.get("If-Range", served.tag(path)) == served.tag(path):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", served.tag(path))
            self.end_headers()
            cut = served.cut_after.pop(0) if served.cut_after else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
