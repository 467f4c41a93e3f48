"""A file can be read from any of its entries on, and its entries counted without reading them."""

from __future__ import annotations

import json
import pickle
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pandas
import pytest
from refusals import refused
from tables import write_rows

from crystalframer.errors import DataError
from crystalframer.reading.entry import BEGINNING, Entry, Start, numbered
from crystalframer.reading.formats import FORMATS, Writable
from crystalframer.reading.inputs import Span, iter_entries, iter_structures, record_of, starts
from crystalframer.screening.plan import plan_files
from crystalframer.testing import random_crystal

ROWS = [
    {
        "id": f"r{n}",
        "atomic_numbers": [11, 17],
        "frac_coords": [0, 0, 0, 0.5, 0.5, 0.5],
        "lattice": [a, 0, 0, 0, a, 0, 0, 0, a],
    }
    for n, a in enumerate(np.linspace(3.5, 4.5, 7).tolist())
]
ATOMS = [
    ase.Atoms("NaCl", cell=np.reshape(row["lattice"], (3, 3)), scaled_positions=[[0, 0, 0], [0.5] * 3], pbc=True)
    for row in ROWS
]
KINDS = ("csv", "json", "jsonl", "parquet", "extxyz", "xyz", "db", "traj", "lmdb", "aselmdb")


def _write(kind: str, folder: Path) -> Path:
    path = folder / f"seven.{kind}"
    if kind in ("csv", "json"):
        write_rows(path, [{**row, "note": "two\nlines"} for row in ROWS])
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif kind == "parquet":
        pandas.DataFrame(ROWS).to_parquet(path, row_group_size=3)
    elif kind == "db":
        database = ase.db.connect(path)
        for n, atoms in enumerate([ATOMS[0], *ATOMS]):
            database.write(atoms, material_id=f"r{n - 1}")
        database.delete([1])
    elif kind == "lmdb":
        write_lmdb(path, {row["id"]: json.dumps(row).encode() for row in ROWS})
    elif kind == "aselmdb":
        entries = {str(n + 1): ase_row(atoms, n) for n, atoms in enumerate(ATOMS)}
        write_lmdb(path, {**entries, "nextid": b"8", "metadata": b"{}", "deleted_ids": b"[]"})
    else:
        ase.io.write(path, ATOMS)
    return path


def write_lmdb(path: Path, entries: dict[str, bytes]) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed: pip install 'crystalframer[data]'")
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 22) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in entries.items():
            transaction.put(key.encode(), value)


def ase_row(atoms: ase.Atoms, n: int) -> bytes:
    """Compressed JSON, with both ways in which ASE writes an array."""
    row = {
        "numbers": atoms.numbers.tolist(),
        "positions": {"__ndarray__": [[2, 3], "float64", atoms.positions.ravel().tolist()]},
        "cell": {"array": {"__ndarray__": [[3, 3], "float64", atoms.cell.array.ravel().tolist()]}},
        "pbc": [True, True, True],
        "key_value_pairs": {"id": f"r{n}", "energy_above_hull": 0.1},
    }
    return zlib.compress(json.dumps(row).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_from_any_entry_on(kind: str, tmp_path: Path) -> None:
    path = _write(kind, tmp_path)
    whole = list(iter_structures(path))
    assert [record.error for record in whole] == [None] * 7
    for record, row in zip(whole, ROWS, strict=True):
        assert record.crystal is not None
        np.testing.assert_allclose(record.crystal.lattice.ravel(), row["lattice"], atol=1e-7)
    if kind not in ("xyz", "extxyz", "traj"):
        assert [record.id for record in whole] == [row["id"] for row in ROWS]
    found = list(starts(path))
    assert [start.n_before for start in found] == list(range(7))
    for first in range(7):
        for n_entries in (1, 3, 7 - first):
            if first + n_entries > 7:
                continue
            records = [record_of(entry) for entry in Span(path, found[first], n_entries).entries()]
            expected = whole[first : first + n_entries]
            assert [(r.id, r.source) for r in records] == [(r.id, r.source) for r in expected]
            for record, other in zip(records, expected, strict=True):
                assert record.crystal is not None and other.crystal is not None
                np.testing.assert_array_equal(record.crystal.positions, other.crystal.positions)


@pytest.mark.parametrize("key", [key for key, format in FORMATS.items() if isinstance(format, Writable)])
@pytest.mark.parametrize("n_crystals", [1, 3])
def test_every_format_reads_on_from_each_start(key: str, n_crystals: int, tmp_path: Path) -> None:
    path, format = tmp_path / (f"x{key}" if key.startswith(".") else key), FORMATS[key]
    assert isinstance(format, Writable)
    n_crystals = 1 if format is FORMATS["POSCAR"] else n_crystals
    path.write_text("".join(format.text(random_crystal(seed, 3)) for seed in range(n_crystals)))
    whole, found = [record_of(entry) for entry in iter_entries(path)], list(starts(path))
    assert len(found) == len(whole) == n_crystals
    for n_before, start in enumerate(found):
        span = Span(path, start, len(found) - n_before, ends_file=True)
        for record, expected in zip(map(record_of, span.entries()), whole[n_before:], strict=True):
            assert record.error is None and (record.id, record.source) == (expected.id, expected.source)
            assert record.crystal is not None and expected.crystal is not None
            np.testing.assert_array_equal(record.crystal.positions, expected.crystal.positions)


def test_blocks_of_a_cif_with_old_line_ends_are_all_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.cif"
    text = "".join(FORMATS[".cif"].text(random_crystal(seed, 3)) for seed in range(2))  # type: ignore[attr-defined]
    path.write_bytes(text.replace("\n", "\r").encode())
    assert len(list(starts(path))) == len(list(iter_entries(path))) == 2


class _IgnoresStart:
    """A format whose `entries` always begins at the beginning."""

    def entries(self, path: Path, start: Start) -> Iterator[Entry]:
        return numbered(ROWS, BEGINNING)

    def starts(self, path: Path) -> Iterator[Start]:
        return map(Start, range(len(ROWS)))

    def count(self, path: Path) -> int | None:
        return None


class _NumbersWrongly(_IgnoresStart):
    def entries(self, path: Path, start: Start) -> Iterator[Entry]:
        return numbered(ROWS, start)


class _FindsOnlyTheBeginning(_IgnoresStart):
    def starts(self, path: Path) -> Iterator[Start]:
        return iter([BEGINNING])


@pytest.mark.parametrize(
    ("format", "row"), [(_IgnoresStart(), 4), (_NumbersWrongly(), 8), (_FindsOnlyTheBeginning(), 2)]
)
def test_a_format_that_counts_other_entries_than_it_reads_is_an_error(
    format: _IgnoresStart, row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, ".wrong", format)
    path = tmp_path / "x.wrong"
    path.write_text("seven")
    with refused(DataError, path=path, row=row):
        for shard in plan_files([str(path)], 3, progress=False).shards(lambda _: False):
            list(shard.records())


def test_a_bad_row_costs_no_other(tmp_path: Path) -> None:
    lines = [json.dumps(ROWS[0]), "{", json.dumps(ROWS[1]), "[1]", "\xff", json.dumps(ROWS[2])]
    path = tmp_path / "bad.jsonl"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    assert len(list(starts(path))) == 6
    records = list(iter_structures(path))
    assert [record.id for record in records] == ["r0", "bad-2", "r1", "bad-4", "bad-5", "r2"]
    assert [record.crystal is None for record in records] == [False, True, False, True, True, False]
    assert str(records[1].error).startswith(f"{path}, row 2: not valid JSON")
    table = tmp_path / "bad.csv"
    table.write_text('id,structure\na,x\nb\nc,y\nd,"z')
    assert [start.n_before for start in starts(table)] == [0, 1, 2, 3]
    errors = [str(record.error) for record in iter_structures(table)]
    assert [message.partition(": ")[0] for message in errors] == [f"{table}, row {row}" for row in (1, 2, 3, 4)]
    frames = tmp_path / "bad.extxyz"
    ase.io.write(frames, ATOMS[:3])
    frames.write_text(frames.read_text().replace("Cl", "Qx", 1))
    assert [record.crystal is None for record in iter_structures(frames)] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.parquet", "no"),
        ("x.csv", ""),
        ("x.jsonl", ""),
        ("x.json", "["),
        ("x.db", "no"),
        ("x.cif", ""),
        ("x.xyz", ""),
    ],
)
def test_what_cannot_be_read_is_one_entry(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    (start,) = starts(path)
    (entry,) = Span(path, start, 1).entries()
    (record,) = iter_structures(path)
    assert record_of(entry).error == record.error is not None
    assert str(path) in str(record.error)
    path.unlink()
    (start,) = starts(path)
    (entry,) = Span(path, start, 1).entries()
    assert "no such file" in str(record_of(entry).error)


def test_a_file_that_lost_entries_has_errors_in_their_place(tmp_path: Path) -> None:
    path = _write("jsonl", tmp_path)
    found = list(starts(path))
    path.write_text("\n\n".join(json.dumps(row) for row in ROWS[:5]))
    records = [record_of(entry) for entry in Span(path, found[3], 4).entries()]
    assert [record.id for record in records] == ["r3", "r4", "seven-6", "seven-7"]
    assert str(records[2].error).startswith(f"{path}, row 6: the file ends")


def test_a_cif_that_lost_blocks_has_errors_in_their_place(tmp_path: Path) -> None:
    path, blocks = tmp_path / "x.cif", [FORMATS[".cif"].text(random_crystal(seed, 3)) for seed in range(4)]  # type: ignore[attr-defined]
    path.write_text("".join(blocks))
    found = list(starts(path))
    path.write_text("".join(blocks[:2]))
    records = [record_of(entry) for entry in Span(path, found[2], 2).entries()]
    assert [record.id for record in records] == ["x-3", "x-4"]
    assert all("has it changed" in str(record.error) for record in records)


def test_pickled_values_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "pickled.lmdb"
    write_lmdb(
        path, {"0": pickle.dumps(ROWS[0]), "1": zlib.compress(pickle.dumps(ROWS[0])), "2": json.dumps(ROWS[0]).encode()}
    )
    records = list(iter_structures(path))
    assert [record.error is None for record in records] == [False, False, True]
    assert f"{path}, row 2: " in str(records[1].error) and "pickled" in str(records[1].error)


def test_a_damaged_row_of_an_ase_database_costs_no_other(tmp_path: Path) -> None:
    path = _write("db", tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE systems SET key_value_pairs = ? WHERE id = 3", (b"no JSON",))
        connection.execute("UPDATE systems SET numbers = ? WHERE id = 5", (b"odd",))
    records = list(iter_structures(path))
    assert [record.error is None for record in records] == [True, False, True, False, True, True, True]
    assert str(records[1].error).startswith(f"{path}, row 2: ") and "id 3" in str(records[1].error)
    assert [record.id for record in records if record.error is None] == ["r0", "r2", "r4", "r5", "r6"]


def test_folders_of_databases_and_of_parquet_parts(tmp_path: Path) -> None:
    _write("parquet", tmp_path)
    assert len(list(iter_structures(tmp_path))) == 7
    _write("db", tmp_path)
    assert next(iter_structures(tmp_path)).source == f"{tmp_path / 'seven.db'}, row 1"
