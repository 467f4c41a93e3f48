import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from refusals import refused

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets import packed
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.errors import DataError

ENERGY, GAP = Target("energy", "eV"), Target("gap", "eV")


def some(n_crystals: int = 7) -> Iterator[Crystal]:
    generator = np.random.default_rng(0)
    for row in range(n_crystals):
        size = int(generator.integers(1, 9))
        lattice = np.eye(3) * 6 + generator.random((3, 3))
        targets = {"energy": row / 3} if row % 2 else {"gap": 1.0}
        yield Crystal(generator.integers(1, 98, size), generator.random((size, 3)) * 5, lattice, f"c{row}", targets)


def assert_equal(first: CrystalDataset, second: CrystalDataset) -> None:
    assert first.ids.tolist() == second.ids.tolist()
    for name in ("atomic_numbers", "positions", "offsets", "lattice"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert list(first.targets) == list(second.targets)
    for name in first.targets:
        np.testing.assert_array_equal(first.targets[name], second.targets[name])
    assert first.units == second.units
    assert (first.parts is None) == (second.parts is None)
    if first.parts is not None and second.parts is not None:
        assert first.parts.tolist() == second.parts.tolist()


@pytest.mark.parametrize("parts", [None, ["train"] * 5 + ["validation", "test"]])
def test_save_and_load_give_the_same_bits(
    tmp_path: Path, parts: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "ROWS_PER_GROUP", 3)
    provenance = Provenance("a lab", "CC-BY", "Someone 2020")
    data = CrystalDataset.from_crystals(some(), [GAP, ENERGY], parts, provenance)
    data.save(tmp_path / "deep" / "data.parquet")
    loaded = CrystalDataset.load(tmp_path / "deep" / "data.parquet")
    assert_equal(loaded, data)
    assert loaded.provenance == provenance
    assert parquet.ParquetFile(tmp_path / "deep" / "data.parquet").num_row_groups == 3
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data.parquet"]


def test_empty_data_set(tmp_path: Path) -> None:
    data = CrystalDataset.from_crystals([], [GAP])
    data.save(tmp_path / "empty.parquet")
    assert_equal(CrystalDataset.load(tmp_path / "empty.parquet"), data)


def test_streaming_writes_what_packing_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ROWS_PER_GROUP", 2)
    CrystalDataset.write(tmp_path / "data.parquet", some(), [ENERGY], Provenance("stream"))
    loaded = CrystalDataset.load(tmp_path / "data.parquet")
    assert_equal(loaded, CrystalDataset.from_crystals(some(), [ENERGY]))
    assert loaded.provenance.source == "stream"


def test_streaming_holds_one_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ROWS_PER_GROUP", 2)
    sizes = []
    original = packed._to_table

    def record(crystals: CrystalDataset, schema: pyarrow.Schema) -> pyarrow.Table:
        sizes.append(len(crystals))
        return original(crystals, schema)

    monkeypatch.setattr(packed, "_to_table", record)
    CrystalDataset.write(tmp_path / "data.parquet", some(5))
    assert sizes == [2, 2, 1]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    data = CrystalDataset.from_crystals(some(3))
    data.save(path)

    def broken() -> Iterator[Crystal]:
        yield from some(2)
        raise OSError("no space left on device")

    with refused(DataError, "no space left on device", path=path):
        CrystalDataset.write(path, broken())
    assert_equal(CrystalDataset.load(path), data)
    assert [file.name for file in tmp_path.iterdir()] == ["data.parquet"]


def test_writing_needs_ids_and_free_names(tmp_path: Path) -> None:
    nameless = Crystal(np.array([1]), np.zeros((1, 3)), np.eye(3))
    with refused(DataError, path="x.parquet", row=1):
        CrystalDataset.write(tmp_path / "x.parquet", [nameless])
    with refused(DataError, path="x.parquet", field="lattice"):
        CrystalDataset.write(tmp_path / "x.parquet", [], [Target("lattice")])


def test_a_file_is_named_as_what_it_is_and_written_where_it_can_be(tmp_path: Path) -> None:
    data = CrystalDataset.from_crystals(some())
    with refused(DataError, "call it x.parquet", path="x.csv"):
        data.save(tmp_path / "x.csv")
    (tmp_path / "file").touch()
    with refused(DataError, "cannot be written", path=tmp_path / "file" / "x.parquet"):
        data.save(tmp_path / "file" / "x.parquet")


def test_truncated_foreign_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    CrystalDataset.from_crystals(some(50)).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with refused(DataError, "not a complete parquet file", path=path):
        CrystalDataset.load(path)
    path.write_text("id,lattice\n")
    with refused(DataError, "not a complete parquet file", path=path):
        CrystalDataset.load(path)
    with refused(DataError, path="none.parquet"):
        CrystalDataset.load(tmp_path / "none.parquet")


def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    CrystalDataset.from_crystals(some()).save(path)
    table = parquet.read_table(path)
    metadata = json.loads(table.schema.metadata[packed.METADATA_KEY]) | {"schema_version": 99}
    parquet.write_table(table.replace_schema_metadata({packed.METADATA_KEY: json.dumps(metadata)}), path)
    with refused(DataError, 99, "up to 1", path=path, field="schema_version"):
        CrystalDataset.load(path)


@pytest.mark.parametrize("column", ["atomic_numbers", "positions", "lattice"])
def test_missing_column(tmp_path: Path, column: str) -> None:
    path = tmp_path / "data.parquet"
    CrystalDataset.from_crystals(some()).save(path)
    parquet.write_table(parquet.read_table(path).drop_columns([column]), path)
    with refused(DataError, path=path, field=column):
        CrystalDataset.load(path)


def foreign(**changes: list) -> pyarrow.Table:
    columns = {
        "material_id": ["mp-1", "mp-2"],
        "atomic_numbers": [[11, 17], [14]],
        "frac_coords": [[0.0, 0.0, 0.0, 0.5, 0.5, 1.5], [-0.25, 0.0, 0.0]],
        "lattice": [[4.0, 0, 0, 0, 4, 0, 0, 0, 4], [3.0, 0, 0, 1, 3, 0, 0, 0, 3]],
        "n_atoms": [2, 1],
        "formula": ["NaCl", "Si"],
        "band_gap": [5.0, None],
        "is_stable": [True, False],
        "split": ["train", "val"],
    }
    return pyarrow.table(columns | changes)


def test_tables_of_fractional_coordinates(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    parquet.write_table(foreign(), path)
    data = CrystalDataset.load(path)
    assert data.ids.tolist() == ["mp-1", "mp-2"]
    assert list(data.targets) == ["band_gap", "is_stable"]
    assert np.isnan(data.targets["band_gap"][1])
    assert data.classes == {"is_stable": ("false", "true")} and data.targets["is_stable"].tolist() == [1.0, 0.0]
    assert data.parts is not None and data.parts.tolist() == ["train", "validation"]
    np.testing.assert_allclose(data[0].positions, [[0, 0, 0], [2, 2, 2]])
    np.testing.assert_allclose(data[1].positions, [[2.25, 0, 0]])  # wrapped: 0.75 of the first vector
    named = CrystalDataset.load(path, [Target("band_gap", "eV"), Target("n_atoms")])
    assert list(named.targets) == ["band_gap", "n_atoms"] and named.units["band_gap"] == "eV"


@pytest.mark.parametrize(
    ("changes", "targets", "row", "field", "words"),
    [
        ({}, ["bandgap"], None, "bandgap", ["did you mean 'band_gap'?"]),
        ({}, ["formula"], None, "formula", ["string"]),
        ({"band_gap": [1.0, float("inf")]}, None, 2, "band_gap", ["mp-2", "inf"]),
        ({"lattice": [[1.0] * 9, [1.0] * 8]}, None, 2, None, ["mp-2", "3 numbers in frac_coords and 9"]),
        ({"lattice": [[4.0, 0, 0, 0, 4, 0, 0, 0, 4], None]}, None, 2, None, ["mp-2", "got 3 and 0"]),
        ({"atomic_numbers": [[11, 17], [300]]}, None, 2, "atomic_numbers", ["mp-2", 300]),
        ({"atomic_numbers": [[11, None], [14]]}, None, 1, "atomic_numbers", ["mp-1", "nan"]),
        ({"frac_coords": [[0.0] * 6, [None, 0.0, 0.0]]}, None, 2, None, ["position of site 0"]),
        ({"frac_coords": ["a", "b"]}, None, None, "frac_coords", ["string"]),
        ({"material_id": ["mp-1", "mp-1"]}, None, 2, "id", ["'mp-1'", "row 1"]),
    ],
)
def test_bad_tables(
    tmp_path: Path, changes: dict, targets: list[str] | None, row: int | None, field: str | None, words: list
) -> None:
    path = tmp_path / "table.parquet"
    parquet.write_table(foreign(**changes), path)
    with refused(DataError, *words, path=path, row=row, field=field):
        CrystalDataset.load(path, targets)
