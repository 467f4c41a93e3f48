"""What stands beside a prediction: its interval, why it may be far off, which model made it and when. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_MOST_DECIMALS = 6


@dataclass(frozen=True)
class Quantity:
    """A number, the ends of its interval and their distances, as text; the last four are empty without an interval.

    >>> Quantity.of(-1.2341, -1.2905, -1.1777).low
    '-1.290'
    """

    value: str
    low: str = ""
    high: str = ""
    below: str = ""
    above: str = ""

    @classmethod
    def of(cls, value: float, low: float = math.nan, high: float = math.nan) -> Quantity:
        """As many digits as the interval has meaning for: two digits of its half width; four without one."""
        if not math.isfinite(value):
            return cls("–")
        half = (high - low) / 2
        if not (math.isfinite(half) and half > 0):
            return cls(f"{value:.4g}")
        decimals = max(0, 1 - int(f"{half:.1e}".partition("e")[2]))
        if decimals > _MOST_DECIMALS or max(abs(low), abs(high)) >= 1e7:
            digits = "{:.4g}".format
            return cls(*map(digits, (value, low, high, value - low, high - value)))
        fixed = [f"{number:.{decimals}f}" for number in (value, low, high, value - low, high - value)]
        return cls(*(text.removeprefix("-") if not text.strip("-0.") else text for text in fixed))


@dataclass(frozen=True)
class Predicted:
    """A prediction as pages show it; texts with a true minus sign."""

    name: str
    value: str
    interval: str
    """`−3.59 to −3.52`; empty without an interval."""
    about: str
    """`90% prediction interval`; empty without an interval."""
    unit: str

    def __str__(self) -> str:
        said = f"{self.name} = {self.value} {self.unit}".rstrip()
        return f"{said} ({self.about} {self.interval})" if self.interval else said


@dataclass(frozen=True)
class PredictionNotes:
    """Notes of a trace or an explanation on its predictions, as `crystalframer.predict` makes them.

    A model without intervals or flags leaves them out, and so do records of older versions.
    """

    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Target name → lowest and highest end of its prediction interval, in its unit."""
    coverage: float | None = None
    """Share of true values that the intervals contain."""
    flags: dict[str, str] = field(default_factory=dict)
    """What may make the prediction far off, such as `outside the training data` → why."""
    model: str = ""
    """Name and fingerprint of the weights."""
    version: str = ""
    """Of crystalframer."""
    date: str = ""
    """Day of the prediction, `2026-12-01`."""

    def predicted(self, name: str, value: float, unit: str) -> Predicted:
        """A prediction with its interval in words.

        >>> str(PredictionNotes({"band_gap": (1.02, 1.51)}, 0.9).predicted("band_gap", 1.234, "eV"))
        'band gap = 1.23 eV (90% prediction interval 1.02 to 1.51)'
        """
        low, high = self.intervals.get(name, (math.nan, math.nan))
        quantity = Quantity.of(value, low, high)
        about = "prediction interval" if self.coverage is None else f"{self.coverage:.0%} prediction interval"
        interval = f"{quantity.low} to {quantity.high}" if quantity.low else ""
        value_text, interval = (text.replace("-", "−") for text in (quantity.value, interval))
        return Predicted(name.replace("_", " "), value_text, interval, about if interval else "", unit)

    @property
    def origin(self) -> str:
        """Model, version and date in words; empty for older records."""
        version = self.version and f"crystalframer {self.version}"
        return ", ".join(filter(None, (self.model and f"model: {self.model}", version, self.date)))

    def header(self) -> dict[str, Any]:
        """For the header of a record."""
        return asdict(self)

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> PredictionNotes:
        """The notes in the header of a record, which older ones lack.

        Raises:
            ValueError, TypeError, AttributeError: they are damaged.
        """
        found = dict(header.get("notes", {}))
        intervals = {name: (float(low), float(high)) for name, (low, high) in found.pop("intervals", {}).items()}
        flags, coverage = dict(found.pop("flags", {})), found.pop("coverage", None)
        texts = {name: found.pop(name, "") for name in ("model", "version", "date")}
        if not all(isinstance(text, str) for text in (*flags.values(), *texts.values())):
            raise TypeError("a note is no text")
        return cls(intervals, None if coverage is None else float(coverage), flags, **texts)
