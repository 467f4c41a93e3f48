from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import fuzzed_files
import numpy as np
import pyarrow
import pytest
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading import unpacking, xyz
from crystalframer.reading.inputs import Span, iter_structures, read_rows, record_of, starts
from crystalframer.reading.unpacking import inflated
from crystalframer.testing import random_crystal

POSCAR = "NaCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


def zstd_compress(content: bytes) -> bytes:
    buffer = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd_compress}


def test_a_value_that_unpacks_to_more_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zlib.compress(bytes(100_000_000), 9)
    assert len(bomb) < 100_000
    monkeypatch.setattr(unpacking, "LARGEST", 1_000_000)
    tracemalloc.start()
    with refused(DataError, "1,000,000"):
        inflated(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert inflated(zlib.compress(bytes(1_000_000))) == bytes(1_000_000)


@pytest.mark.parametrize("value", [zlib.compress(bytes(1000))[:-3], b"\x78no", b""])
def test_a_value_that_is_damaged_is_an_error(value: bytes) -> None:
    with pytest.raises(zlib.error):
        inflated(value)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_that_unpacks_to_more_than_memory_is_an_error_of_its_own(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ase", reason="ase is not installed: pip install 'crystalframer[data]'")
    pack: Callable[[bytes], bytes] = PACKERS[suffix]
    (tmp_path / f"good.vasp{suffix}").write_bytes(pack(POSCAR.encode()))
    (tmp_path / f"bomb.vasp{suffix}").write_bytes(pack(POSCAR.encode() + b"\n" * 10_000_000))
    (tmp_path / f"cut.vasp{suffix}").write_bytes(pack(POSCAR.encode())[:-10])
    monkeypatch.setattr(unpacking, "LARGEST", 1_000_000)
    bomb, cut, good = iter_structures(str(tmp_path / f"*{suffix}"))
    assert f"bomb.vasp{suffix}: unpacks to more than 1,000,000 bytes" in str(bomb.error)
    assert str(bomb.error).endswith("unpack it first, or divide it")
    assert f"cut.vasp{suffix}: cannot be unpacked" in str(cut.error)
    assert good.crystal is not None and good.crystal.atomic_numbers.tolist() == [11, 17]


@pytest.mark.filterwarnings("ignore::crystalframer.CrystalWarning")
@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_has_the_reader_and_the_id_of_the_plain_one(suffix: str, tmp_path: Path) -> None:
    pack: Callable[[bytes], bytes] = PACKERS[suffix]
    for name, content in fuzzed_files.corpus():
        (tmp_path / "plain" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(content)
        (tmp_path / "packed" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "packed" / f"{name}{suffix}").write_bytes(pack(content))
    names = [name for name, _ in fuzzed_files.corpus()]
    plain = list(iter_structures([tmp_path / "plain" / name for name in names]))
    packed = list(iter_structures([tmp_path / "packed" / f"{name}{suffix}" for name in names]))
    assert len(plain) >= len(names)
    for one, other in zip(plain, packed, strict=True):
        assert one.id == other.id.replace("packed", "plain")
        assert one.error == (other.error and other.error.replace("/packed/", "/plain/").replace(suffix, ""))
        if one.crystal is not None and other.crystal is not None:
            np.testing.assert_array_equal(one.crystal.positions, other.crystal.positions)
    in_folders = [sorted(record.id for record in iter_structures(tmp_path / kind)) for kind in ("plain", "packed")]
    assert [id.replace("packed", "plain") for id in in_folders[1]] == in_folders[0] != []


def test_a_compressed_file_is_read_in_pieces(tmp_path: Path) -> None:
    crystals = [random_crystal(seed, 3) for seed in range(5)]
    path = tmp_path / "five.extxyz.gz"
    path.write_bytes(gzip.compress("".join(map(xyz.text, crystals)).encode()))
    found = list(starts(path))
    assert len(found) == 5 and found[3].mark
    (third,) = Span(path, found[3], 1).entries()
    np.testing.assert_allclose(record_of(third).crystal.lattice, crystals[3].lattice)  # type: ignore[union-attr]
    assert third.id == "five-4"


def test_compressed_tables_hold_rows(tmp_path: Path) -> None:
    packed = gzip.compress(b"id,structure,y\na,a.cif,1\n")
    (tmp_path / "rows.csv.gz").write_bytes(packed)
    assert list(read_rows(tmp_path / "rows.csv.gz")) == [{"id": "a", "structure": "a.cif", "y": "1"}]
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"file,y\nsalt.vasp.gz,1\n"))
    (tmp_path / "salt.vasp.gz").write_bytes(gzip.compress(POSCAR.encode()))
    (tmp_path / "rows.csv.gz").unlink()
    data = cf.dataset(tmp_path)
    assert list(data.ids) == ["salt"] and list(data.targets) == ["y"]


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_is_not_compressed_as_its_suffix_says_is_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.cif{suffix}").write_bytes(POSCAR.encode())
    with refused(CrystalError, "cannot be unpacked", path=f"x.cif{suffix}"):
        cf.read(tmp_path / f"x.cif{suffix}")
    with refused(CrystalError, "no such file"):
        cf.read(tmp_path / f"y.cif{suffix}")
