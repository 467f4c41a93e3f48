"""Compare the speed of this source tree with that of another one.

    python -m benchmarks.compare ../before training --rounds 7 --batch 64 --budget 5 --data demo

    python -m benchmarks.compare ../before training --preset-here crystalframer-2

    python -m benchmarks.compare ../before shipped --rounds 3

    python -m benchmarks.compare ../before ready --rounds 3

Each round runs the benchmark once in each tree, in separate processes, so that a busy machine slows both equally. Other
options are passed to the benchmark. With `--preset-here`, this tree runs another model than the other one, on the same
crystals. `shipped` and `ready` need no benchmark of that name in the other tree. The exit code is 1 if this tree is
slower than `--within` allows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.report import table
from benchmarks.timing import Timing, ratio

HERE = Path(__file__).resolve().parents[1]
OF_THIS = ("ready", "shipped")
"""Benchmarks that are run from this tree in both, since the other one need not have them."""


def measure(tree: Path, benchmark: str, options: Sequence[str], folder: Path) -> dict[str, float]:
    """Work → seconds of `crystalframer` in this tree. `folder` keeps its compiled kernels between calls."""
    output = folder / "result.json"
    output.unlink(missing_ok=True)
    program = (
        [str(HERE / "benchmarks" / f"{benchmark}.py")] if benchmark in OF_THIS else ["-m", f"benchmarks.{benchmark}"]
    )
    command = [sys.executable, *program, *options, "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(folder)}
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if not output.exists():  # with a result, status 1 says that a bar was missed
        sys.exit(f"error: benchmarks.{benchmark} in {tree} ended with {result.returncode}:\n{result.stderr}")
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    timed = [row for row in rows if row["candidate"] == "crystalframer" and "seconds" in row]
    return {row["work"]: Timing(tuple(row["seconds"])).median for row in timed}


def compare(
    other: Path, benchmark: str, options: Sequence[str], rounds: int, only_here: Sequence[str] = ()
) -> dict[str, tuple[Timing, Timing]]:
    """Work → times of this tree and of the other one, round by round.

    Args:
        only_here: further options of the benchmark in this tree.
    """
    seconds: dict[tuple[Path, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=2 * rounds, desc=benchmark, unit="run") as bar:
        folders = {tree: Path(folder, name) for tree, name in ((HERE, "this"), (other, "other"))}
        for path in folders.values():
            path.mkdir()
        for number in range(rounds):
            for tree in (HERE, other) if number % 2 == 0 else (other, HERE):
                given = [*options, *(only_here if tree == HERE else ())]
                for work, value in measure(tree, benchmark, given, folders[tree]).items():
                    seconds[tree, work].append(value)
                bar.update()
    timings = {key: Timing(tuple(values)) for key, values in seconds.items()}
    shared = [work for tree, work in timings if tree == HERE and (other, work) in timings]
    return {work: (timings[HERE, work], timings[other, work]) for work in shared}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("other", type=Path, help="root folder of the other tree")
    parser.add_argument("benchmark", choices=("attention", "training", "prediction", "scaling", "loader", *OF_THIS))
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default: 7)")
    parser.add_argument("--within", type=float, default=0.03, help="allowed slow-down of this tree (default: 0.03)")
    parser.add_argument("--preset-here", help="preset of this tree, for `training` (default: as in the other tree)")
    options, passed_on = parser.parse_known_args(arguments)
    only_here = ["--preset", options.preset_here] if options.preset_here else []
    other = options.other.resolve()
    if options.benchmark not in OF_THIS and not (other / "benchmarks" / f"{options.benchmark}.py").exists():
        parser.error(f"{options.other} holds no benchmarks/{options.benchmark}.py")
    found = compare(other, options.benchmark, passed_on, options.rounds, only_here)
    ratios = {work: ratio(*pair) for work, pair in found.items()}
    rows = [
        {
            "work": work,
            "this": f"{this.median:.4g} s",
            "other": f"{that.median:.4g} s",
            "spread": f"{this.spread:.1%}, {that.spread:.1%}",
            "this/other": f"{ratios[work]:.3f}",
        }
        for work, (this, that) in found.items()
    ]
    print("\n".join(table(rows)))
    return int(max(ratios.values()) > 1 + options.within)


if __name__ == "__main__":
    sys.exit(main())
