"""Errors keep where they happened, also through wrapping and pickling."""

from __future__ import annotations

import pickle

from crystalframer.errors import DataError, UnknownTarget


def test_a_place_that_is_known_stays() -> None:
    error = DataError("is empty", path="a.csv", row=1).at(path="b.csv", row=2)
    assert (error.path, error.row, str(error)) == ("a.csv", 1, "a.csv, row 1: is empty")
    assert str(DataError("is empty").at(path="b.csv", row=2)) == "b.csv, row 2: is empty"


def test_errors_survive_the_way_to_another_process() -> None:
    error = UnknownTarget("there is no label ", "gap", ["band_gap"], path="a.csv")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.field, copy.path) == (UnknownTarget, str(error), error.field, "a.csv")
