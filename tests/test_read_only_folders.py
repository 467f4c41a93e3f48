"""Where nothing can be written, what would write there says so, names the place and what to do, and does so early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import file_server
from permissions import open_folder, read_only

import crystalframer as cf
from crystalframer import cli
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.download import RemoteFile, fetch
from crystalframer.presets import preset
from crystalframer.result_tables import save_table
from crystalframer.testing import random_crystal

CONFIG = preset("tiny").config
CRYSTALS = [random_crystal(seed, 2) for seed in range(3)]
MODEL = cf.CrystalFramer(CONFIG.model).eval()
"""A network that was never trained."""


def download(folder: Path) -> object:
    with file_server() as served:
        served.files["data.zip"] = b"content"
        return fetch(RemoteFile("data.zip", served.url("data.zip")), folder / "cache")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": lambda folder: cf.save(MODEL, folder / "model"),
    "trace": lambda folder: cf.trace(CRYSTALS[0], MODEL).save(folder / "x.safetensors"),
    "table": lambda folder: save_table(cf.predict(CRYSTALS, MODEL, progress=False), folder / "x.csv"),
    "data set": lambda folder: CrystalDataset.from_crystals(CRYSTALS).save(folder / "x.parquet"),
    "screening": lambda folder: cf.screen(CRYSTALS, folder / "screened", MODEL, progress=False),
    "search": lambda folder: cf.sweep(CONFIG, {"model.n_layers": cf.Choice([1, 2])}, 1, output=folder / "search"),
    "download": download,
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.mark.parametrize("kind", WRITERS)
def test_writers_name_the_place_and_what_to_do(kind: str, folder: Path) -> None:
    if kind == "search":
        pytest.importorskip("optuna", reason="optuna is not installed: pip install 'crystalframer[optuna]'")
    (folder / "locked").mkdir()
    WRITERS[kind](folder)
    with (
        read_only(folder / "locked"),
        pytest.raises(
            (RuntimeError, ValueError), match=rf"{folder}/locked/.*Permission denied.* choose another folder"
        ),
    ):
        WRITERS[kind](folder / "locked")
    assert not any((folder / "locked").iterdir())


def test_a_table_is_refused_before_the_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no such structure to predict, which it does not come to."""
    words = ["predict", str(folder / "not there.cif"), "--output", str(folder / "x.csv")]
    with read_only(folder):
        assert cli.main(words) == 2
    said = capsys.readouterr().err
    expected = "cannot be written (Permission denied); free some space, or choose another folder"
    assert said == f"error: {folder}/x.csv: {expected}\n"
