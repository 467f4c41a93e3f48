"""The peers' own Python environment, made when it is first needed and kept.

It sees the packages of the environment that runs the benchmark, so that peers compute with the same torch as ours and
nothing large is downloaded twice; what the peers need beside them goes into their own folder only.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from crystalframer.datasets.download import cache_folder


class InstallError(RuntimeError):
    """A library of a peer could not be installed; the message says how to try by hand."""


class PeerEnvironment:
    """A virtual environment with the libraries of peers."""

    def __init__(self, python: Path | None = None) -> None:
        """Args: python: an interpreter that has all libraries already; nothing is installed then."""
        self._given = python
        base = f"{sys.prefix} {sys.version} torch {metadata.version('torch')}"
        self.folder = cache_folder() / "benchmarks" / f"peers-{hashlib.sha256(base.encode()).hexdigest()[:12]}"

    @property
    def python(self) -> Path:
        return self._given or self.folder / "bin" / "python"

    def ensure(self, requirement: str) -> None:
        """Install a library unless it is there.

        Raises:
            InstallError: pip or venv failed; what they said stands above on the screen.
        """
        done = self.folder / f"{requirement}.installed"
        if self._given is not None or done.exists():
            return
        if not self.python.exists():
            print(f"making an environment for peers in {self.folder}", file=sys.stderr, flush=True)
            self._call(sys.executable, "-m", "venv", "--clear", str(self.folder))
        site = self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        # Another torch would be another benchmark, and on Linux gigabytes of CUDA.
        held = self.folder / "constraints.txt"
        held.write_text(f"torch=={metadata.version('torch')}\n", encoding="utf-8")
        print(f"installing {requirement} into it (a few minutes at most; once)", file=sys.stderr, flush=True)
        self._call(str(self.python), "-m", "pip", "install", "--constraint", str(held), requirement)
        done.touch()

    def _call(self, *command: str) -> None:
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InstallError(
                f"{error}. Try it by hand, or name an interpreter that has the libraries with --peer-python"
            ) from error
