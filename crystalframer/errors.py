"""The errors of this package: one family, so that `except CrystalFramerError` catches what the package refuses.

An error keeps where it happened as fields, so that programs need not take messages apart:

    >>> error = DataError("is no number", path="labels.csv", row=3, field="band_gap", value="n/a?")
    >>> str(error)
    'labels.csv, row 3: is no number'
    >>> error.field
    'band_gap'
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Error = TypeVar("Error", bound="CrystalFramerError")


@dataclass(frozen=True)
class Setting:
    """An argument or a field of a config that a message names, perhaps with its value.

    It is kept apart from the text, because the command line has another name for it: `--training.n-epochs 0`.

    >>> str(Setting("training.n_epochs", 0))
    'training.n_epochs = 0'
    """

    name: str
    value: Any = ...
    """`...`: only the name."""

    def __str__(self) -> str:
        return self.name if self.value is ... else f"{self.name} = {self.value!r}"


class CrystalFramerError(Exception):
    """Something that this package cannot use or do. The message says what is wrong and what to do about it.

    >>> error = CrystalFramerError("exceeds ", Setting("n_epochs", 2), "; lower it too", path="config.json")
    >>> str(error)
    'config.json: exceeds n_epochs = 2; lower it too'
    >>> error.text(lambda setting: f"--{setting.name.replace('_', '-')} {setting.value}")
    'config.json: exceeds --n-epochs 2; lower it too'

    Attributes:
        parts: text of the message, and the settings that it names.
        message: the same as one text, without the place.
        path: the file or folder, if there is one.
        row: row of a table, structure of a file or item of a list, counted from 1.
        row_word: which of them, for the message: `"row"`, `"structure"`, `"item"`.
        site: atom of a crystal, counted from 0.
        field: name of the setting, column or item.
        value: what the field holds.
        of_machine: the machine failed, not what it was given: the same may succeed later, or on another machine.
    """

    parts: tuple[str | Setting, ...]
    path: Path | str | None
    row: int | None
    site: int | None
    field: str | None
    value: Any
    row_word: str = "row"
    of_machine: bool = False

    def __init__(
        self,
        *message: str | Setting,
        path: Path | str | None = None,
        row: int | None = None,
        site: int | None = None,
        field: str | None = None,
        value: Any = None,
    ) -> None:
        super().__init__(*message)
        self.parts = message
        self.path, self.row, self.site, self.field, self.value = path, row, site, field, value

    def __str__(self) -> str:
        return self.text()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.__dict__.copy())

    @property
    def message(self) -> str:
        return "".join(map(str, self.parts))

    @property
    def where(self) -> str:
        """`"labels.csv, row 3"`; empty where neither is known."""
        row = None if self.row is None else f"{self.row_word} {self.row}"
        return ", ".join(str(part) for part in (self.path, row) if part is not None)

    @property
    def subject(self) -> Setting | None:
        """The setting that the text names before the message."""
        return None

    def text(self, spell: Callable[[Setting], str] = str) -> str:
        """Place and message. `spell` says how settings are written; Python's way is the default."""
        message = "".join(part if isinstance(part, str) else spell(part) for part in self.parts)
        subject = spell(self.subject) if self.subject else ""
        return ": ".join(filter(None, (self.where, subject, message)))

    def at(
        self: Error, *, path: Path | str | None = None, row: int | None = None, row_word: str | None = None
    ) -> Error:
        """This error, with the place that only the caller knows. What is known already stays."""
        self.path = path if self.path is None else self.path
        if self.row is None:
            self.row, self.row_word = row, row_word or self.row_word
        return self


def listed(names: Sequence[str], most: int) -> str:
    """The first names, for a message.

    >>> listed(["a", "b", "c"], 2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'max'? Known: max, ..."` for a name that is not among `known`."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}? Known: {', '.join(known)}" if close else f"; known: {', '.join(known)}"


class ConfigError(CrystalFramerError, ValueError):
    """A setting has a value that cannot be used. The message begins with the setting.

    >>> str(ConfigError("must be above 0", field="training.n_epochs", value=0))
    'training.n_epochs = 0: must be above 0'
    """

    @property
    def subject(self) -> Setting | None:
        return None if self.field is None else Setting(self.field, ... if self.value is None else self.value)


class CrystalError(CrystalFramerError, ValueError):
    """A crystal that the model cannot take, or a structure that cannot be read."""


class DataError(CrystalFramerError, ValueError):
    """A table, data set or download that cannot be used."""


class UnknownTarget(DataError):
    """A data set has no such label; the message names the nearest of those that it has."""

    def __init__(self, problem: str, name: str, labels: Iterable[str], *, path: Path | str | None = None) -> None:
        labels = list(labels)
        hint = suggestion(name, labels) if labels else "; it has no column of labels at all"
        super().__init__(problem + hint, path=path, field=name)


class TraceError(CrystalFramerError, ValueError):
    """A trace file cannot be read or written."""


class CheckpointError(CrystalFramerError, RuntimeError):
    """A checkpoint cannot be read or written."""


class AuthorsCheckpointError(CrystalFramerError, ValueError):
    """A checkpoint of the authors cannot be loaded."""


class UncertaintyError(CrystalFramerError, ValueError):
    """No interval can be made from these errors, or a file holds no intervals."""


class TrainingError(CrystalFramerError, RuntimeError):
    """Training cannot start or go on."""


class RankError(CrystalFramerError, RuntimeError):
    """The process of a device ended before its work was done."""


class WorkerError(CrystalFramerError, RuntimeError):
    """Processes of a pool died or could not be started."""


class ScreeningError(CrystalFramerError, RuntimeError):
    """A screening cannot start or go on."""


class MotifError(CrystalFramerError, ValueError):
    """The coordination shell of a site cannot be found, or a table lacks what the analysis needs."""


class PolyhedronError(CrystalFramerError, ValueError):
    """No reference polyhedron has this name."""


_OF_WHAT_IS_NAMED = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ
}  # fmt: skip
"""Errors of the system that are about what a path names, and stay the same when it is tried again."""

_OF_SQLITE = ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_NOMEM")


def is_of_machine(error: BaseException) -> bool:
    """Whether memory, a disk or another part of the machine failed, rather than what was given to it.

    Libraries also raise an `OSError`, without a number, for files whose content they cannot read.

    >>> is_of_machine(OSError(errno.ENOSPC, "No space left on device")), is_of_machine(FileNotFoundError(2, "none"))
    (True, False)
    """
    if isinstance(error, CrystalFramerError):
        return error.of_machine or (error.__cause__ is not None and is_of_machine(error.__cause__))
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _OF_WHAT_IS_NAMED
    return isinstance(error, MemoryError) or getattr(error, "sqlite_errorname", "").startswith(_OF_SQLITE)


def _restored(kind: type[CrystalFramerError], state: dict[str, Any]) -> CrystalFramerError:
    """An error as it was before it was pickled, whatever its constructor takes."""
    error = kind.__new__(kind, *state["parts"])
    error.__dict__.update(state)
    return error


class CrystalWarning(UserWarning):
    """A structure was read, and the reader chose or left out something that the user should know.

    Each text is shown once. A text without the name of a file holds for all files.
    """
