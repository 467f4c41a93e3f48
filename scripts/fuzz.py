"""Test the package with very many unusual structures and damaged files, and record what was found.

    nice python scripts/fuzz.py structures --count 100000
    nice python scripts/fuzz.py files --count 20000 --minutes 30
    python scripts/fuzz.py structures --start 4711 --count 1       # one case again

Each case is made from a number, its seed (tests/support/fuzzed_structures.py, fuzzed_files.py). A run continues after
the last seed in the record (benchmarks/results/fuzz.json), or at `--start`; Ctrl-C loses nothing. The processes are
watched: a case that hangs, crashes or takes too much memory is a finding, as a wrong number is. The exit code is 1 if
anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "support"
sys.path[:0] = [str(ROOT), str(SUPPORT)]  # and in the processes that this one starts

from fuzz_runner import Result, run  # noqa: E402

from benchmarks.machine import versions  # noqa: E402
from crystalframer import files  # noqa: E402

MODULES = {"structures": "fuzzed_structures", "files": "fuzzed_files"}
LIMIT_SECONDS = 120.0
"""Allowed seconds for one case, on a machine that also does other work."""
LIMIT_MEMORY = 1500
"""Allowed memory for one case, MB, without the libraries."""
RECORD = ROOT / "benchmarks" / "results" / "fuzz.json"
SECONDS_BETWEEN_WRITES = 30.0
N_SLOWEST = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=MODULES)
    parser.add_argument("--count", type=int, required=True, help="number of cases")
    parser.add_argument("--start", type=int, help="first seed (default: after the last one in the record)")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON file of the record")
    options = parser.parse_args()
    record: dict[str, Any] = {"schema_version": 1}
    if options.record.exists():
        record = json.loads(options.record.read_text())
    runs = record.setdefault(options.kind, [])
    start = max((run["first_seed"] + run["n_cases"] for run in runs), default=0)
    start = start if options.start is None else options.start
    entry = _entry(runs, start)
    seeds = range(start, start + options.count)
    n_found = len(entry["findings"])
    written, until = time.monotonic(), float("inf")
    try:
        with tqdm(total=len(seeds), desc=options.kind, unit=" cases") as bar:
            for result in run(MODULES[options.kind], seeds, LIMIT_SECONDS, LIMIT_MEMORY):
                _note(entry, result)
                bar.update()
                if result.is_finding:
                    bar.write(f"seed {result.seed}: {result.outcome}", file=sys.stderr)
                if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                    _write(options.record, record)
                    written = time.monotonic()
                if options.minutes and until == float("inf"):  # from the first result on, once all is compiled
                    until = time.monotonic() + 60 * options.minutes
                if time.monotonic() > until:
                    break
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    finally:
        _write(options.record, record)
    n_found = len(entry["findings"]) - n_found
    print(f"{entry['n_cases']:,} {options.kind} from seed {entry['first_seed']}: {n_found} new findings")
    for outcome, count in sorted(entry["outcomes"].items(), key=lambda item: -item[1]):
        print(f"{count:>8,}  {outcome}")
    return 1 if n_found else 0


def _entry(runs: list[dict[str, Any]], start: int) -> dict[str, Any]:
    """The part of the record that a run from this seed on belongs to: the last one, if it goes on from there."""
    what = versions() | {"commit": _commit()}
    if runs and runs[-1]["first_seed"] + runs[-1]["n_cases"] == start and runs[-1]["versions"] == what:
        return runs[-1]
    runs.append(
        {
            "first_seed": start,
            "n_cases": 0,
            "date": date.today().isoformat(),
            "versions": what,
            "seconds": 0.0,
            "peak_memory_mb": 0.0,
            "outcomes": {},
            "slowest": [],
            "findings": [],
        }
    )
    return runs[-1]


def _note(entry: dict[str, Any], result: Result) -> None:
    entry["n_cases"] += 1
    entry["seconds"] = round(entry["seconds"] + result.seconds, 3)
    entry["peak_memory_mb"] = max(entry["peak_memory_mb"], round(result.peak_memory))
    outcome = "finding" if result.is_finding else result.outcome
    entry["outcomes"] = dict(Counter(entry["outcomes"]) + Counter([outcome]))
    slow = {"seed": result.seed, "seconds": round(result.seconds, 2)}
    entry["slowest"] = sorted([*entry["slowest"], slow], key=lambda case: -case["seconds"])[:N_SLOWEST]
    if result.is_finding:
        # Whose machine it was, the record need not say.
        what = re.sub(rf"{re.escape(tempfile.gettempdir())}(/[^/\s:'\"]+)*/", "", result.outcome)
        entry["findings"].append({"seed": result.seed, "what": what})


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(record, indent=1) + "\n")


def _commit() -> str:
    """Commit of the tested code, with `+` if it was changed; empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
