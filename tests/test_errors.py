"""Errors keep where they happened, also through wrapping and pickling."""

from __future__ import annotations

import errno
import pickle
import sqlite3

import pytest

from crystalframer.errors import DataError, UnknownTarget, is_of_machine


def test_a_place_that_is_known_stays() -> None:
    error = DataError("is empty", path="a.csv", row=1).at(path="b.csv", row=2)
    assert (error.path, error.row, str(error)) == ("a.csv", 1, "a.csv, row 1: is empty")
    assert str(DataError("is empty").at(path="b.csv", row=2)) == "b.csv, row 2: is empty"


def test_errors_survive_the_way_to_another_process() -> None:
    error = UnknownTarget("there is no label ", "gap", ["band_gap"], path="a.csv")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.field, copy.path) == (UnknownTarget, str(error), error.field, "a.csv")


def of_sqlite(name: str) -> Exception:
    error = sqlite3.OperationalError("of a database")
    error.sqlite_errorname = name
    return error


def caused_by(cause: Exception) -> Exception:
    error = DataError("cannot be read")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EFBIG, "too large"), True),
        (OSError(errno.EIO, "of a disk"), True),
        (OSError(errno.EMFILE, "too many open files"), True),
        (PermissionError(errno.EACCES, "not allowed"), True),
        (MemoryError(), True),
        (of_sqlite("SQLITE_BUSY"), True),
        (of_sqlite("SQLITE_IOERR_READ"), True),
        (caused_by(OSError(errno.ENOSPC, "full")), True),
        (caused_by(caused_by(MemoryError())), True),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (IsADirectoryError(errno.EISDIR, "a folder"), False),
        (OSError("Couldn't deserialize thrift"), False),  # as pyarrow says of a damaged file
        (of_sqlite("SQLITE_CORRUPT"), False),
        (ValueError("of the content"), False),
        (caused_by(ValueError("of the content")), False),
    ],
    ids=repr,
)
def test_which_errors_are_those_of_the_machine(error: Exception, expected: bool) -> None:
    assert is_of_machine(error) == expected
