"""Processor time of commands of the shell: one prediction, and answers to what is wrong.

Each command is a process of its own; its user and system time is counted, so that other programs disturb little. The
first prediction compiles the kernels and is not counted. The path with torch is the same command with `--device cpu`,
in a process that hides the path without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.report import Bar, Row
from benchmarks.timing import Timing
from crystalframer.testing import prototypes

ONE, WRONG = 3.2, 1.0
"""Seconds of processor time."""
WITH_TORCH = "import sys; from crystalframer import batched, cli; batched.without_torch = lambda *_: None; "
COMMANDS = {
    "one CIF": "predict salt.cif",
    "no such file": "predict missing.cif",
    "no such option": "predict salt.cif --no-such-option",
    "wrong settings": "train --training.n-epochs 0",
    "no such data": "train --data.source missing.csv",
}


def seconds_of(words: Sequence[str], folder: Path, before: str = "") -> float:
    """Processor time of a command and its children, Linux and macOS."""
    run = before + f"from crystalframer import cli; import sys; sys.exit(cli.main({list(words)!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", run], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(parser("shell", __doc__ or ""), arguments)
    with session(options) as report, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prototypes()[0].write(folder / "salt.cif")
        candidates = {work: (words.split(), "") for work, words in COMMANDS.items()}
        candidates["one CIF, with torch"] = candidates["one CIF"][0], WITH_TORCH
        seconds: dict[str, list[float]] = {work: [] for work in candidates}
        for each in range(options.passes + 1):
            for work, (words, before) in candidates.items():
                taken = seconds_of(words, folder, before)
                seconds[work] += [taken] if each else []
        report.data |= {"name": "rock salt, 2 atoms, with the shipped weights"}
        for work, taken in seconds.items():
            report.rows.append(Row(work, "crystalframer", cf.__version__, "s", median(taken), Timing(tuple(taken))))
            if work != "one CIF, with torch":
                limit = ONE if work == "one CIF" else WRONG
                report.bars.append(Bar(f"{work}, processor time", median(taken), limit, "s"))


if __name__ == "__main__":
    main()
