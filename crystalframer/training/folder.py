"""The folder of a run: what lies where, and whether a run may start or go on in it."""

from __future__ import annotations

import csv
import dataclasses
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from crystalframer import files
from crystalframer.checkpoint import CHECKPOINTS, RESULT_FILE, RESUME_FILE, USED_FILE, used_by
from crystalframer.config import Config, from_json, to_json
from crystalframer.datasets.used import UsedCrystals
from crystalframer.errors import ConfigError, Setting, TrainingError

if TYPE_CHECKING:
    from crystalframer.crystals.loading import PreparedCrystals
    from crystalframer.training.task import Row

WHERE_IT_RUNS = tuple(
    f"training.{name}" for name in ("accelerator", "n_pieces", "n_workers", "n_threads", "n_devices", "n_nodes")
)
"""Fields that say where and how a run computes, not what: they may differ on resuming."""

TABLE_FILE = "table.csv"
"""In the folder of an ablation or a search, which has a run folder for each of its runs."""

Parts = Mapping[str, "PreparedCrystals"]
"""The crystals of a run: `train`, `validation` and perhaps `test`."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run (see `run`)."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def used(self) -> Path:
        return self.path / USED_FILE

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def result(self) -> Path:
        return self.path / RESULT_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def checkpoint(self, name: str) -> Path:
        """`best`, `swa` or `last`."""
        return self.checkpoints / name

    @property
    def state(self) -> Path:
        """All that resuming needs."""
        return self.checkpoint("last") / RESUME_FILE

    @property
    def n_epochs(self) -> int:
        """Number of complete epochs: the lines of `metrics.csv` below its header."""
        if not self.metrics.exists():
            return 0
        return max(0, len(self.metrics.read_text(encoding="utf-8").splitlines()) - 1)

    def start(self, config: Config, parts: Parts) -> None:
        """Make the folder of a new run. It is one from the moment that it has its config.

        Raises:
            TrainingError: nothing can be written there.
        """
        with self._writing():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.write_data(config, parts)
        with self._writing():
            files.write(self.config, to_json(config).encode())

    def record_pieces(self, n_pieces: int) -> None:
        """Keep in the config in how many pieces batches are computed from now on.

        Raises:
            TrainingError: nothing can be written.
        """
        config = self.read_config()
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, n_pieces=n_pieces))
        with self._writing():
            files.write(self.config, to_json(config).encode())

    def write_data(self, config: Config, parts: Parts) -> None:
        """Write fingerprints of the parts, and which crystals they hold.

        Raises:
            TrainingError: nothing can be written.
        """
        weights = config.training.initial_weights
        start = None if weights is None else used_by(weights)
        used = _used(parts, start, weights is not None and start is None)
        with self._writing():
            files.write(self.used, used.content)
            files.write(self.data, json.dumps(_fingerprints(parts), indent=2))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, for this process alone.

        Raises:
            TrainingError: another process trains in it, or nothing can be written there.
        """
        with files.locked(self.path, TrainingError, "is training in it"):
            yield

    def check_new(self) -> None:
        """Raises: TrainingError: there is a run here, or there are several."""
        self._check_no_study()
        if self.config.exists() or (self.checkpoints.exists() and any(self.checkpoints.iterdir())):
            if self.result.exists():
                raise TrainingError("holds a complete run; choose another folder, or delete it", path=self.path)
            advice = "holds a run already; continue it with ", Setting("resume", True)
            raise TrainingError(*advice, ", choose another folder, or delete it", path=self.path)

    def check_resumable(self, config: Config) -> None:
        """Raises: TrainingError, ConfigError: there is no unfinished run of this config here that can be written."""
        self._check_no_study()
        if not self.config.exists():
            raise TrainingError(
                f"nothing to resume (no {self.config.name}); start the run without ",
                Setting("resume"),
                path=self.path,
            )
        if self.result.exists():
            raise TrainingError(
                f"the run is complete, and its scores are in {self.result}; choose another folder for a new run",
                path=self.path,
            )
        self.check_same_config(config)
        with self._writing(), TemporaryFile(dir=self.checkpoints):
            pass

    def _check_no_study(self) -> None:
        if (self.path / TABLE_FILE).exists():
            raise TrainingError("holds the runs of an ablation or a search; choose another folder", path=self.path)

    def read_config(self) -> Config:
        """Raises: ConfigError: the config of the run cannot be read."""
        try:
            return from_json(Config, self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{error}. {self._start_anew()}", path=self.config) from error

    def check_same_config(self, config: Config) -> None:
        """Raises: ConfigError: the run was started with another config."""
        before = _flat(dataclasses.asdict(self.read_config()))
        now = _flat(dataclasses.asdict(config))
        changed = sorted(
            name
            for name in before.keys() | now
            if name not in WHERE_IT_RUNS and (name not in before or name not in now or before[name] != now[name])
        )
        if changed:
            listed = [
                part
                for name in changed
                for part in (Setting(name), f" was {before.get(name)!r}, is {now.get(name)!r}; ")
            ]
            advice = f"resume with the config in {self.config}, or start a new run"
            raise ConfigError("cannot resume with another config: ", *listed, advice, path=self.path)

    def check_same_data(self, config: Config, parts: Parts) -> None:
        """Raises: TrainingError: the run was started with other data, or nothing says with which."""
        present = _fingerprints(parts)
        try:
            before = json.loads(self.data.read_text(encoding="utf-8"))
            changed = sorted(name for name in before.keys() | present if before.get(name) != present.get(name))
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError(f"missing or damaged ({error}). {self._start_anew()}", path=self.data) from error
        if changed:
            raise TrainingError(
                f"cannot resume: the data of the run have changed ({self._differences(parts, changed)}); resume with "
                "the same data, or start a new run",
                path=self.path,
                field=changed[0],
            )
        if not self.used.exists():  # of a run of an earlier version
            self.write_data(config, parts)

    def _differences(self, parts: Parts, changed: Sequence[str]) -> str:
        """How the parts differ from those of the run, in words."""
        found = []
        if self.used.exists():
            found = UsedCrystals(self.used.read_bytes(), self.used).differences(_used(parts))
        known = {line.partition(":")[0] for line in found}
        return ". ".join(
            [*found, *(f"{name}: other last digits or orientations" for name in changed if name not in known)]
        )

    def read_state(self) -> dict[str, Any] | None:
        """The state that the run resumes from; None if no epoch is complete.

        Raises:
            TrainingError: the file is damaged.
        """
        import torch

        if not self.state.exists():
            return None
        try:
            with zipfile.ZipFile(self.state) as archive:  # torch compares no checksums of what it reads
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} differs")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pickles: what cannot be read is an error below
                return torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged archives and pickles raise what they like
            reason = str(error).partition("\n")[0]
            raise TrainingError(f"truncated or damaged ({reason}). {self._start_anew()}", path=self.state) from error

    def _start_anew(self) -> str:
        """Advice if a run cannot be resumed."""
        best = self.checkpoint("best")
        if not best.exists():
            return "So the run cannot go on; start it again in another folder"
        return (
            f"So the run cannot go on. The last good weights are those in {best}: a new run can start from them "
            f"(training.initial_weights = {str(best)!r})"
        )

    def write_result(self, scores: Mapping[str, Any]) -> None:
        """Raises: TrainingError: nothing can be written."""
        with self._writing():
            files.write(self.result, json.dumps(scores, indent=2).encode())

    def write_metrics(self, history: Sequence[Row]) -> None:
        """The table of the epochs so far, anew.

        Raises:
            TrainingError: nothing can be written.
        """
        with self._writing():
            self.metrics.unlink(missing_ok=True)
        for row in history:
            self.append_metrics(row)

    def append_metrics(self, row: Row) -> None:
        """Raises: TrainingError: nothing can be written."""
        with self._writing(), self.metrics.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        advice = "free some space, or choose another folder; a run that was under way resumes from its latest epoch"
        with files.writing(self.path, TrainingError, advice):
            yield


def _used(parts: Parts, start: UsedCrystals | None = None, unknown_start: bool = False) -> UsedCrystals:
    return UsedCrystals.of({name: part.flat for name, part in parts.items()}, start, unknown_start)


def _fingerprints(parts: Parts) -> dict[str, dict[str, Any]]:
    """Number of crystals and a hash of each part."""
    return {name: {"crystals": len(part), "sha256": part.fingerprint()} for name, part in parts.items()}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists of them as one dictionary, with dotted names."""
    if isinstance(tree, (list, tuple)) and any(isinstance(child, Mapping) for child in tree):
        tree = {str(index): child for index, child in enumerate(tree)}
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, child in tree.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else key)
    return flat
