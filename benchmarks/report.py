"""The report of a run: rows of results, limits and hardware, as a table and as JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.floor import Work
from benchmarks.machine import Load, Peak
from benchmarks.timing import Timing, ratio

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """The result of one candidate for one task."""

    work: str
    candidate: str
    version: str
    unit: str
    value: float
    """Median, in `unit`."""
    timing: Timing | None = None
    ratio: float | None = None
    """Time, divided by that of `crystalframer` for the same task."""
    floor: Work | None = None
    """Least work of the task that `timing` measures."""
    details: Mapping[str, float | str] = field(default_factory=dict)


def timed_rows(
    work: str,
    timings: Mapping[str, Timing],
    versions: Mapping[str, str],
    unit: str,
    per_second: float,
    floors: Mapping[str, Work],
    details: Mapping[str, Mapping[str, float | str]] | None = None,
    base: str = "crystalframer",
) -> list[Row]:
    """Rows of one piece of work, compared with `base`.

    Args:
        per_second: what a second of a candidate's time is in `unit`.
        floors: of those candidates whose least work is known.
    """
    return [
        Row(
            work=work,
            candidate=name,
            version=versions[name],
            unit=unit,
            value=timing.median * per_second,
            timing=timing,
            ratio=ratio(timing, timings[base]),
            floor=floors.get(name),
            details=(details or {}).get(name, {}),
        )
        for name, timing in timings.items()
    ]


@dataclass(frozen=True)
class Bar:
    """A limit, and whether this run keeps it."""

    name: str
    value: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign, verdict = "≤" if self.at_most else "≥", "met" if self.is_met else "MISSED"
        return f"{verdict:6} {self.name}: {_figure(self.value)} {self.unit} ({sign} {_figure(self.limit)})"


@dataclass
class Report:
    """The report of a run, filled step by step."""

    benchmark: str
    command: str
    is_quick: bool
    device: str
    n_threads: int
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    peak: Peak
    load: Load
    rows: list[Row] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "benchmark": self.benchmark,
            "command": self.command,
            "quick": self.is_quick,
            "date": datetime.date.today().isoformat(),
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
            "device": self.device,
            "threads": self.n_threads,
            "load": {**vars(self.load), "busy": self.load.is_busy},
            "peak": {"flop_per_s": self.peak.operations, "bytes_per_s": self.peak.bytes},
            "data": self.data,
            "rows": [self._row(row) for row in self.rows],
            "bars": [{**vars(bar), "met": None if self.is_quick else bar.is_met} for bar in self.bars],
            "notes": self.notes,
        }

    def _row(self, row: Row) -> dict[str, Any]:
        record: dict[str, Any] = {name: getattr(row, name) for name in ("work", "candidate", "version", "unit")}
        record |= {"value": row.value, "ratio": row.ratio, "details": dict(row.details)}
        if row.timing is not None:
            record |= {"seconds": list(row.timing.seconds), "spread": row.timing.spread}
        if row.floor is not None and row.timing is not None:
            seconds = row.floor.seconds(self.peak)
            record["floor"] = {
                "operations": row.floor.total,
                "operations_by_part": dict(row.floor.operations),
                "bytes": row.floor.bytes,
                "seconds": seconds,
                "distance": row.timing.median / seconds,
            }
        return record

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        hardware = ", ".join(f"{name} {value}" for name, value in self.hardware.items() if value is not None)
        lines = [
            f"benchmarks.{self.benchmark} on {self.device}, {self.n_threads} threads"
            + (" (QUICK: shows that it runs, not how fast)" if self.is_quick else ""),
            f"  {hardware}",
            "  " + ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            f"  at best {self.peak}",
            f"  {self.load}",
            *(f"  data: {self.data['name']}" for _ in [0] if "name" in self.data),
            "",
            *table([self._cells(row) for row in self.rows]),
            *([""] if self.bars else []),
            *(["Bars are not judged by so small a sample."] if self.is_quick and self.bars else map(str, self.bars)),
            *([""] if self.notes else []),
            *self.notes,
        ]
        if self.load.is_busy:
            lines += ["", "WARNING: the machine is busy with other work; believe the ratios at most, not the times."]
        return "\n".join(lines)

    def _cells(self, row: Row) -> dict[str, str]:
        name = f"{row.candidate} {row.version}".strip()
        cells = {"work": row.work, "candidate": name, "": f"{_figure(row.value)} {row.unit}"}
        if row.ratio is not None:
            cells["ratio"] = f"{row.ratio:.2f}"
        if row.timing is not None:
            cells["spread"] = f"{row.timing.spread:.0%} of {len(row.timing.seconds)}"
        if row.floor is not None and row.timing is not None:
            seconds = row.floor.seconds(self.peak)
            cells["floor"] = f"{_figure(row.value * seconds / row.timing.median)} {row.unit}"
            cells["× floor"] = f"{row.timing.median / seconds:.1f}"
        for title, value in row.details.items():
            cells[title] = value if isinstance(value, str) else _figure(value)
        return cells


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of a table with a column for every key, numbers to the right."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    widths = {title: max(len(title), *(len(row.get(title, "")) for row in rows)) for title in titles}

    def line(cells: Mapping[str, str]) -> str:
        texts = [
            f"{cells.get(title, ''):<{widths[title]}}"
            if title in ("work", "candidate")
            else f"{cells.get(title, ''):>{widths[title]}}"
            for title in titles
        ]
        return "  ".join(texts).rstrip()

    return [line({title: title for title in titles}), line({t: "-" * w for t, w in widths.items()}), *map(line, rows)]


def _figure(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
