"""A file that would run code if it could, under every name by which this package opens one: nothing in it is run.

Of each file the reader says that it cannot be read; that is its right. What must not be there afterwards is the mark.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sqlite3
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

import crystalframer as cf
from crystalframer import checkpoint
from crystalframer.authors import load_authors_checkpoint
from crystalframer.datasets.authors_pickle import convert_authors_pickle
from crystalframer.datasets.sources import dataset
from crystalframer.errors import ScreeningError, TrainingError
from crystalframer.presets import preset
from crystalframer.reading.inputs import iter_structures, read
from crystalframer.screening import screen
from crystalframer.training import fit

MODEL = preset("tiny").config.model
SALT = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


class Harm:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def as_pickle(mark: Path, protocol: int = 4) -> bytes:
    return pickle.dumps([{"id": "a", "atoms": Harm(mark)}], protocol)


def as_torch(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "hyper_parameters": Harm(mark)}, buffer)
    return buffer.getvalue()


def as_old_torch(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Harm(mark), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def as_numpy(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, atomic_numbers=np.array([Harm(mark)], dtype=object))
    return buffer.getvalue()


def as_old_trajectory(mark: Path) -> bytes:
    return b"PickleTrajectory" + as_pickle(mark, 2)


FORMS = (as_pickle, as_torch, as_old_torch, as_numpy, as_old_trajectory)


def test_each_form_would_leave_its_mark(mark: Path) -> None:
    """Else the tests below would test nothing."""
    for form in FORMS:
        content = io.BytesIO(form(mark))
        if form is as_numpy:
            np.load(content, allow_pickle=True)["atomic_numbers"]
        elif form in (as_torch, as_old_torch):
            torch.load(content, weights_only=False)
        else:
            content.seek(len(b"PickleTrajectory") if form is as_old_trajectory else 0)
            pickle.load(content)
        mark.rmdir()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name",
    ["x.pkl", "x.pickle", "x.npz", "x.npy", "x.pt", "x.ckpt", "x.safetensors", "x.traj", "x.cif", "x.json", "x.jsonl",
     "x.csv", "x.parquet", "x.xyz", "x.db", "x.lmdb", "x.gpw", "x.bundle", "POSCAR", "x"],
)  # fmt: skip
def test_structures_and_data_sets(name: str, form: Callable[[Path], bytes], mark: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(form(mark))
    assert all(record.crystal is None and record.error for record in iter_structures(path))
    for reader in (dataset, load_authors_checkpoint, convert_authors_pickle, cf.CrystalTrace.load):
        with pytest.raises(ValueError, match=name):  # all errors of data are ValueErrors
            reader(path)
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "domain.json", "uncertainty.safetensors"])
def test_each_file_of_a_model(name: str, form: Callable[[Path], bytes], mark: Path, tmp_path: Path) -> None:
    cf.save(cf.CrystalFramer(MODEL), tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(form(mark))
    with pytest.raises(checkpoint.CheckpointError, match=name):
        cf.load(tmp_path / "model")
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_state_of_a_run(form: Callable[[Path], bytes], mark: Path, tmp_path: Path) -> None:
    config = preset("tiny").config
    output = tmp_path / "run"
    fit(config, output=output)
    (output / "result.json").unlink()
    (output / "checkpoints" / "last" / "resume.ckpt").write_bytes(form(mark))
    with pytest.raises(TrainingError, match=r"resume\.ckpt: truncated or damaged .* last good weights"):
        fit(config, output=output, resume=True)
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_screening(form: Callable[[Path], bytes], mark: Path, tmp_path: Path) -> None:
    folder, input = tmp_path / "screened", tmp_path / "salt.json"
    input.write_text(json.dumps(SALT.as_dict()))
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(form(mark))
    (folder / "_screening.json").write_bytes(form(mark))
    with pytest.raises(ScreeningError, match=r"_screening\.json: is damaged"):
        screen([input], folder, cf.CrystalFramer(MODEL).eval(), progress=False)
    (folder / "_screening.json").unlink()
    with pytest.raises(ScreeningError, match="holds tables of something else"):
        screen([input], folder, cf.CrystalFramer(MODEL).eval(), progress=False)
    assert not mark.exists()


@pytest.mark.parametrize("pack", [bytes, zlib.compress])
def test_values_of_databases(pack: Callable[[bytes], bytes], mark: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed: pip install 'crystalframer[data]'")
    with (
        lmdb.open(str(tmp_path / "x.lmdb"), subdir=False, map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for protocol in range(6):
            transaction.put(str(protocol).encode(), pack(as_pickle(mark, protocol)))
    ase_db = pytest.importorskip("ase.db", reason="ase is not installed: pip install 'crystalframer[data]'")
    with ase_db.connect(tmp_path / "x.db") as database:
        database.write(SALT.to_ase_atoms())
    with sqlite3.connect(tmp_path / "x.db") as connection:
        for column in ("numbers", "constraints", "calculator_parameters", "key_value_pairs", "data"):
            connection.execute(f"UPDATE systems SET {column} = ?", (pack(as_pickle(mark, 0)),))
    connection.close()
    for name in ("x.lmdb", "x.db"):
        assert all(record.crystal is None for record in iter_structures(tmp_path / name)), name
    assert not mark.exists()


def test_a_structure_imports_no_module_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pymatgen makes objects of what properties of sites name, and imports their modules, also from this folder."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "harmful_module.py").write_text(f"import os; os.mkdir({str(tmp_path / 'mark')!r})", encoding="utf-8")
    tree = SALT.as_dict()
    named = {"@module": "harmful_module", "@class": "Harm"}
    tree["sites"][0]["properties"] = {"magmom": named, "other": [{"deeper": named}]}
    tree["properties"] = {"note": named}
    (tmp_path / "x.json").write_text(json.dumps(tree), encoding="utf-8")
    (tmp_path / "table.json").write_text(json.dumps([{"id": "a", "structure": tree}]), encoding="utf-8")
    crystals = [read(tree), read({"structure": tree}), read(tmp_path / "x.json")]
    crystals += list(dataset(tmp_path / "table.json"))
    assert [crystal.atomic_numbers.tolist() for crystal in crystals] == [[11, 17]] * 4
    assert not (tmp_path / "mark").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Structure.from_dict(tree)  # pymatgen itself
    assert (tmp_path / "mark").exists()


def test_the_result_of_a_run_cannot_point_elsewhere(tmp_path: Path) -> None:
    cf.save(cf.CrystalFramer(MODEL), tmp_path / "run" / "checkpoints" / "best")
    shutil.copytree(tmp_path / "run" / "checkpoints" / "best", tmp_path / "elsewhere")
    for chosen in ("../../elsewhere", str(tmp_path / "elsewhere"), 5, None, ["best"]):
        (tmp_path / "run" / "result.json").write_text(json.dumps({"chosen": chosen}), encoding="utf-8")
        assert checkpoint.find(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "best"
