"""Tables of results come back from their files as they were."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
from refusals import refused
from salts import CRYSTALS, aware

import crystalframer as cf
from crystalframer.errors import DataError
from crystalframer.reading.inputs import read_rows
from crystalframer.result_tables import save_table


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_come_back_as_they_were(suffix: str, tmp_path: Path) -> None:
    frame = cf.predict([*CRYSTALS, tmp_path / "missing.cif"], aware())
    path = tmp_path / "new folder" / f"table{suffix}"
    save_table(frame, path)
    read = {
        ".csv": pandas.read_csv,
        ".jsonl": lambda file: pandas.read_json(file, lines=True),
        ".parquet": pandas.read_parquet,
    }[suffix](path)
    assert list(read.columns) == list(frame.columns)
    assert read["id"].tolist() == frame["id"].tolist()
    assert read["error"].isna().tolist() == [True] * 5 + [False]
    for column in ("energy", "gap_low"):
        np.testing.assert_allclose(read[column], frame[column], rtol=1e-12)


TEXTS = [
    "=1+1",
    "+a",
    "-a",
    "@sum",
    "\ttab",
    "\rcr",
    "'=quoted",
    "''-x",
    "'plain",
    "-1.5",
    "'-1.5",
    "\uff1d1",
    "mp-1",
    'a,"b',
]


def test_text_in_csv_is_no_formula_and_comes_back_as_it_was(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"id": TEXTS, "-energy": -1.5, "error": ["=HYPERLINK(1)", *[None] * (len(TEXTS) - 1)]})
    save_table(frame, tmp_path / "table.csv")
    shown = pandas.read_csv(tmp_path / "table.csv")
    assert shown.iloc[:, 1].tolist() == [-1.5] * len(TEXTS)
    texts = [*shown.columns, *shown["id"], *shown["error"].dropna()]
    assert not [text for text in texts if text[0] in "=+-@\t\r\uff1d" and text != "-1.5"]
    rows = list(read_rows(tmp_path / "table.csv"))
    assert [row["id"] for row in rows] == TEXTS
    assert rows[0]["error"] == "=HYPERLINK(1)" and rows[0]["-energy"] == "-1.5"


def test_a_disk_that_is_full_costs_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pandas.DataFrame({"id": ["a", "b"]})
    save_table(frame, tmp_path / "table.csv")
    before = (tmp_path / "table.csv").read_bytes()

    monkeypatch.setattr(Path, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    with refused(DataError, "No space left on device", path="table.csv"):
        save_table(frame.head(1), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
