"""What is said once."""

from __future__ import annotations

import warnings

import pytest

from crystalframer.errors import CrystalWarning
from crystalframer.reading.notices import left_out, notice


def test_a_text_is_said_once_whatever_readers_do_to_the_filters() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
            notice("said once by this test")
    assert [(str(warning.message), warning.category) for warning in said] == [
        ("said once by this test", CrystalWarning)
    ]


def test_who_asks_for_all_gets_all() -> None:
    for _ in range(2):
        with pytest.warns(CrystalWarning, match="^moments are left out: "):
            left_out("moments")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(CrystalWarning):
                left_out("moments")
