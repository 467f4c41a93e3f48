from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refused

from crystalframer.errors import DataError
from crystalframer.reading import unpacking
from crystalframer.reading.inputs import iter_structures
from crystalframer.reading.unpacking import check_unpacked_size, inflated

POSCAR = "NaCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


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
    assert f"cut.vasp{suffix}: cannot be read" in str(cut.error)
    assert good.crystal is not None and good.crystal.atomic_numbers.tolist() == [11, 17]


def test_only_compressed_files_are_looked_into(tmp_path: Path) -> None:
    check_unpacked_size(tmp_path / "not there.cif")
