"""A page about a screening: how many structures, how the predictions are spread, the extremes, and what failed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer import cards, files
from crystalframer.config import Target
from crystalframer.errors import ScreeningError, listed
from crystalframer.outcomes import FLAGS
from crystalframer.screening import shards
from crystalframer.screening.manifest import MANIFEST
from crystalframer.selection import best_first
from crystalframer.terminal import quantities

if TYPE_CHECKING:
    import pandas

REPORT = "_report.html"
"""Readers of a folder of tables (`pandas.read_parquet`) pass over names that begin with `_`."""
N_EXTREMES, N_REASONS, N_TARGETS = 15, 20, 12
"""Rows of each table, and targets, at most."""
_KINDS = {"lowest": True, "highest": False}
"""Which extremes, and whether values ascend from them."""


def screening_report(folder: str | Path, path: str | Path | None = None) -> str:
    """The tables of a screening as one HTML page: it opens from disk without Python and without a network.

    It tells numbers, shows histograms of the predictions, the structures with the lowest and highest values, and the
    reasons of failures. Tables are read one by one.

    Args:
        folder: the `output` of `crystalframer.screen`; it may be unfinished.
        path: where to write the page, too.

    Raises:
        ScreeningError: the folder holds no screening, a table is damaged, or the page cannot be written.

    Example:
        >>> import tempfile
        >>> import crystalframer as cf
        >>> from crystalframer.screening import screening_report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cf.screen(cf.dataset("demo").select(range(5)), folder, progress=False)
        ...     page = screening_report(folder)
        >>> "5 structures" in page
        True
    """
    folder = Path(folder).expanduser()
    found = _Found(folder)
    for number in shards.numbers_there(folder):
        found.add(shards.read(shards.path_of(folder, number)))
    page = cards.page(f"Screening {folder.name}", found.overview(), *map(found.of_target, found.targets[:N_TARGETS]))
    if path is not None:
        with files.writing(Path(path), ScreeningError):
            files.write(Path(path), page)
    return page


class _Found:
    """What was seen of a screening so far."""

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            self.inputs = [entry["given"] for entry in about["screening"]["inputs"]]
            self.targets = [Target(name, unit) for name, unit in about["targets"].items()]
            self.n_expected = about["screening"]["n_structures"]
        except FileNotFoundError:
            raise ScreeningError("holds no screening; name the output of `crystalframer screen`", path=folder) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScreeningError(f"is damaged ({error!r}); screen again", path=folder / MANIFEST) from error
        self.n_structures = 0
        self.n_flagged = dict.fromkeys(FLAGS, 0)
        self.reasons: Counter[str] = Counter()
        self.values: dict[str, list[np.ndarray]] = {target.name: [] for target in self.targets}
        self.extremes: dict[tuple[str, str], pandas.DataFrame] = {}

    def add(self, frame: pandas.DataFrame) -> None:
        """Take in one table."""
        import pandas

        self.n_structures += len(frame)
        for column in FLAGS:
            self.n_flagged[column] += int(np.count_nonzero(frame[column].notna())) if column in frame else 0
        failed = frame.loc[frame["error"].notna()]
        self.reasons.update(shards.reason_of(*row) for row in zip(failed["error"], failed["id"], strict=True))
        for target in self.targets:
            self.values[target.name].append(frame[target.name].to_numpy())
            if frame[target.name].dtype.kind != "f":  # of classes
                continue
            for kind, ascending in _KINDS.items():
                before = self.extremes.get((target.name, kind))
                both = frame if before is None else pandas.concat([before, frame])
                both.attrs = frame.attrs
                self.extremes[target.name, kind] = best_first(both, target.name, ascending).head(N_EXTREMES)

    def overview(self) -> str:
        """Numbers and failures."""
        n_failed = self.reasons.total()
        left = "" if self.n_expected in (None, self.n_structures) else f" of {self.n_expected:,}; it is unfinished"
        rows = {
            "input": listed(self.inputs, 5),
            "structures": f"{self.n_structures:,}{left}",
            "without a prediction": f"{n_failed:,}" if n_failed else "",
            **{title: self._share(self.n_flagged[column]) for column, title in FLAGS.items()},
            "predicts": ", ".join(target.label for target in self.targets),
        }
        common = self.reasons.most_common(N_REASONS)
        reasons = {
            "why there is no prediction": [reason for reason, _ in common],
            "number": [f"{n:,}" for _, n in common],
        }
        parts = [cards.facts(rows), *([cards.table(reasons)] if common else [])]
        return cards.card(f"{self.n_structures:,} structures", *parts)

    def _share(self, n: int) -> str:
        return f"{n:,} ({n / max(self.n_structures, 1):.1%})" if n else ""

    def of_target(self, target: Target) -> str:
        """Histogram and extremes of one target."""
        values = np.concatenate([np.zeros(0), *self.values[target.name]])
        if values.dtype.kind != "f":
            counts = Counter(value for value in values.tolist() if isinstance(value, str)).most_common(N_EXTREMES)
            words = [f"{n:,}" for _, n in counts]
            return cards.card(target.label, cards.bars([name for name, _ in counts], [n for _, n in counts], words))
        parts: list[Any] = [cards.histogram(values, target.label)]
        parts.append(cards.side_by_side(self._extreme(target, kind) for kind in _KINDS))
        return cards.card(target.label, *parts)

    def _extreme(self, target: Target, kind: str) -> str:
        rows = self.extremes.get((target.name, kind))
        if rows is None or not len(rows):
            return ""
        ends = (f"{target.name}_low", f"{target.name}_high")
        low, high = (rows[end].tolist() if end in rows else None for end in ends)
        cells, _ = quantities(rows[target.name].tolist(), low, high)
        short = {"outside_training": "outside", "not_relaxed": "not relaxed"}
        flags = [(word, rows[column].notna().tolist()) for column, word in short.items() if column in rows]
        columns = {
            "id": rows["id"].tolist(),
            "formula": rows["formula"].tolist(),
            target.unit or target.name: [cell.strip().replace("-", "−") for cell in cells],
            "": [", ".join(word for word, has_flag in flags if has_flag[row]) for row in range(len(rows))],
        }
        return cards.table(columns, f"{kind}; rows with a flag come last" if flags else kind, n_left=2)
