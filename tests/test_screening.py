"""Screening: every structure has one row, whatever is killed, and only the same screening is continued."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
import salts
import torch
from filelock import FileLock
from processes import tiny_model
from published_formats import row_of
from refusals import refused

import crystalframer as cf
from crystalframer import checkpoint
from crystalframer.checkpoint import PRETRAINED
from crystalframer.cli import main
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import DataError, ScreeningError, WorkerError
from crystalframer.files import LOCK_FILE
from crystalframer.model.network import CrystalFramer
from crystalframer.processes import pool
from crystalframer.processes.child import Child
from crystalframer.reading.entry import StructureRecord
from crystalframer.screening import shards
from crystalframer.screening.manifest import fingerprint
from crystalframer.screening.plan import Shard
from crystalframer.screening.shards import even_batches, reason_of
from crystalframer.selection import Choice, best_first
from crystalframer.testing import prototypes, random_crystal

N = 23
BROKEN = (4, 11)


CRYSTALS = [random_crystal(seed, 1 + seed % 7) for seed in range(N)]
MODEL = tiny_model().eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.save(MODEL, folder)
    return folder


def write_lines(path: Path, crystals: list[Crystal], broken: tuple[int, ...] = BROKEN) -> Path:
    """JSON lines, some of them without a lattice."""
    rows = []
    for number, crystal in enumerate(crystals):
        row = row_of(crystal) | {"id": f"x{number}"}
        if number in broken:
            del row["lattice"]
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("input") / "many.jsonl", CRYSTALS)


def assert_same(found: pandas.DataFrame, expected: pandas.DataFrame) -> None:
    """The rows of `predict`, in the order of the input, each once."""
    assert found["index"].tolist() == list(range(len(expected)))
    names = list(expected)
    assert list(found) == ["index", *names]
    assert found["error"].isna().tolist() == expected["error"].isna().tolist()
    for name in names:
        if expected[name].dtype == np.float64:
            # Another batch may round otherwise.
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
        else:
            assert found[name].fillna("").tolist() == expected[name].fillna("").tolist()


def test_the_tables_hold_what_predict_gives(lines: Path, tmp_path: Path) -> None:
    result = cf.screen(lines, tmp_path / "out", MODEL, shard_size=5, progress=False)
    expected = cf.predict(lines, MODEL, progress=False)
    found = cf.read_screen(tmp_path / "out")
    assert_same(found, expected)
    assert found.attrs["units"] == expected.attrs["units"]
    assert (result.n_structures, result.n_shards, result.n_new, result.n_failed) == (N, 5, N, 2)
    (reason,) = result.failures
    assert reason.startswith("has no lattice")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        f"part-0000{n}.parquet" for n in range(5)
    ]
    whole = pandas.read_parquet(tmp_path / "out")
    assert whole["index"].tolist() == list(range(N))


def test_a_complete_screening_is_not_done_again(lines: Path, tmp_path: Path) -> None:
    first = cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    again = cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == times
    assert (again.n_new, again.n_structures, again.failures) == (0, N, first.failures)
    assert "all of them were done earlier" in again.summary() and "2  has no" in again.summary()


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-9], lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:]],
    ids=["cut", "one wrong bit"],
)
def test_only_what_is_missing_or_damaged_is_done_again(
    lines: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    expected = cf.read_screen(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    damaged = tmp_path / "part-00003.parquet"
    damaged.write_bytes(damage(damaged.read_bytes()))
    with refused(ScreeningError, "damaged", path=damaged):
        cf.read_screen(tmp_path)
    (tmp_path / ".part-00001.parquet.77").write_bytes(b"left behind")
    kept = (tmp_path / "part-00000.parquet").stat().st_mtime_ns
    result = cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    assert result.n_new == 10
    assert (tmp_path / "part-00000.parquet").stat().st_mtime_ns == kept
    pandas.testing.assert_frame_equal(cf.read_screen(tmp_path), expected)
    assert not list(tmp_path.glob(".part-*"))


def test_a_table_of_another_screening_is_done_again(lines: Path, tmp_path: Path) -> None:
    """As after a copy into the wrong folder."""
    other = copy.deepcopy(MODEL)
    with torch.no_grad():
        other.target_mean += 1
    for model, folder in ((MODEL, tmp_path / "mine"), (other, tmp_path / "other")):
        cf.screen(lines, folder, model, shard_size=5, progress=False)
    expected = cf.read_screen(tmp_path / "mine")
    shutil.copy(tmp_path / "other" / "part-00002.parquet", tmp_path / "mine")
    assert cf.screen(lines, tmp_path / "mine", MODEL, shard_size=5, progress=False).n_new == 5
    pandas.testing.assert_frame_equal(cf.read_screen(tmp_path / "mine"), expected)


def test_several_inputs_are_one_after_another(lines: Path, tmp_path: Path) -> None:
    rows = [row_of(crystal) | {"id": f"y{number}"} for number, crystal in enumerate(CRYSTALS[:4])]
    pandas.DataFrame(rows).to_parquet(tmp_path / "four.parquet")
    (tmp_path / "none.parquet").write_text("not parquet")
    inputs = [str(tmp_path / "four.parquet"), lines, str(tmp_path / "no*.parquet")]
    cf.screen(inputs, tmp_path / "out", MODEL, shard_size=6, progress=False)
    found = cf.read_screen(tmp_path / "out")
    assert_same(found, cf.predict(inputs, MODEL, progress=False))
    assert found["id"].tolist() == [f"y{n}" for n in range(4)] + [f"x{n}" for n in range(N)] + ["none"]


def test_a_stream_is_read_once_and_not_ahead(tmp_path: Path) -> None:
    taken = []

    def stream() -> Iterator[Crystal]:
        for number, crystal in enumerate(CRYSTALS):
            taken.append((number, len(list(tmp_path.glob("part-*")))))
            yield crystal

    cf.screen(stream(), tmp_path, MODEL, shard_size=5, progress=False)
    assert taken == [(number, number // 5) for number in range(N)]
    assert_same(cf.read_screen(tmp_path), cf.predict(CRYSTALS, MODEL, progress=False))
    (tmp_path / "part-00002.parquet").unlink()
    result = cf.screen(stream(), tmp_path, MODEL, shard_size=5, progress=False)
    assert result.n_new == 5
    with refused(ScreeningError, "5 from", path="part-00000.parquet"):
        cf.screen(reversed(CRYSTALS), tmp_path, MODEL, shard_size=5, progress=False)
    with refused(ScreeningError, "3 from", "now there are 2", path="part-00004.parquet"):
        cf.screen(iter(CRYSTALS[:-1]), tmp_path, MODEL, shard_size=5, progress=False)


def test_what_is_not_the_same_is_refused_and_named(lines: Path, tmp_path: Path) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", CRYSTALS)
    out = tmp_path / "out"
    cf.screen(mine, out, MODEL, shard_size=9, progress=False)
    with refused(ScreeningError, "tables have 9 structures each, not 8", path=out):
        cf.screen(mine, out, MODEL, shard_size=8, progress=False)
    with refused(ScreeningError, f"input is {mine}, not {lines}", path=out):
        cf.screen(lines, out, MODEL, shard_size=9, progress=False)
    other = tiny_model().eval()
    with torch.no_grad():
        other.target_mean += 1
    with refused(ScreeningError, "model has the fingerprint", path=out):
        cf.screen(mine, out, other, shard_size=9, progress=False)
    n_bytes = mine.stat().st_size
    os.utime(mine, (1, 1))
    with refused(ScreeningError, "mine.jsonl has changed", path=out):
        cf.screen(mine, out, MODEL, shard_size=9, progress=False)
    write_lines(mine, CRYSTALS[:-1])
    with refused(ScreeningError, f"mine.jsonl had {n_bytes:,} bytes, now {mine.stat().st_size:,}", path=out):
        cf.screen(mine, out, MODEL, shard_size=9, progress=False)
    assert len(cf.read_screen(out)) == N


def changed_model(change: str) -> CrystalFramer:
    """A model that differs in one thing on which its rows depend."""
    model = copy.deepcopy(salts.aware())
    assert model.uncertainty is not None and model.domain is not None
    if change == "weights":
        with torch.no_grad():
            model.target_std *= 1.001
    elif change == "intervals":
        model.uncertainty = replace(model.uncertainty, quantile=model.uncertainty.quantile * 1.01)
    elif change == "no intervals":
        model.uncertainty = None
    elif change == "flags":
        model.domain = replace(model.domain, volume=replace(model.domain.volume, low=0.01))
    elif change == "no flags":
        model.domain = None
    elif change == "weighted sets":
        model = model.with_weighted_sets(0.1)
    return model


@pytest.mark.parametrize("change", ["weights", "intervals", "no intervals", "flags", "no flags", "weighted sets"])
def test_a_screening_with_another_model_is_not_continued(change: str, lines: Path, tmp_path: Path) -> None:
    """Whatever a row depends on is in the fingerprint: values, intervals and flags."""
    assert fingerprint(changed_model("nothing")) == fingerprint(salts.aware())
    cf.screen(lines, tmp_path, salts.aware(), progress=False)
    with refused(ScreeningError, "model has the fingerprint", path=tmp_path):
        cf.screen(lines, tmp_path, changed_model(change), progress=False)


def test_a_folder_with_other_tables_is_refused(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_text("mine")
    with refused(ScreeningError, "part-*.parquet", path=tmp_path):
        cf.screen(lines, tmp_path, MODEL, progress=False)
    assert (tmp_path / "part-00000.parquet").read_text() == "mine"


def test_inputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    for given, named in ((tmp_path / "none.csv", "none.csv"), (str(tmp_path / "*.csv"), "*.csv"), ([], "nothing")):
        with refused(DataError, named):
            cf.screen(given, tmp_path / "out", MODEL, progress=False)
    bounds: tuple[dict[str, Any], ...] = ({"shard_size": 0}, {"n_workers": 0}, {"max_atoms": 0})
    for bound in bounds:
        with refused(ScreeningError, "0", field=next(iter(bound))):
            cf.screen([], tmp_path / "out", MODEL, **bound)


def test_batches_are_even() -> None:
    large = random_crystal(5, 90)
    records = [StructureRecord(str(n), "", c, None) for n, c in enumerate([*CRYSTALS, large])]
    records.insert(3, StructureRecord("bad", "", None, "no"))
    batches = list(even_batches(records, 4.0, 30))
    assert sorted(row for batch in batches for row in batch) == list(range(len(records)))
    assert batches[0] == [len(records) - 1]  # alone, as it exceeds the bound
    sizes = [sum(len(records[row].crystal or []) for row in batch) for batch in batches[1:]]
    assert max(sizes) <= 30 and min(sizes[:-1]) > 30 - 7


def test_batches_have_a_bound_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimated from the density: a crystal that is twice as dense has twice as many within the radius."""
    monkeypatch.setattr(shards, "MAX_EDGES", 1200)
    loose, dense = random_crystal(0, 8, volume_per_atom=20.0), random_crystal(0, 8, volume_per_atom=10.0)
    for crystal, n_expected in ((loose, 107), (dense, 214)):  # 8 atoms with each 4/3·π·4³ Å³ at that density
        records = [StructureRecord(str(n), "", crystal, None) for n in range(40)]
        sizes = [len(batch) for batch in even_batches(records, 4.0, 10_000)]
        assert max(sizes) == 1200 // (n_expected + 1)
    records = [StructureRecord(str(n), "", crystal, None) for n, crystal in enumerate([loose, dense])]
    assert next(even_batches(records, 4.0, 8)) == [1]  # the most expensive first


def test_windows_bound_what_is_in_memory(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WINDOW", 4)
    monkeypatch.setattr(shards, "WINDOW_ATOMS", 12)
    batched = Mock(wraps=even_batches)
    monkeypatch.setattr(shards, "even_batches", batched)
    cf.screen(lines, tmp_path, MODEL, progress=False)
    windows = [[len(record.crystal or []) for record in call.args[0]] for call in batched.call_args_list]
    assert sum(map(len, windows)) == N
    assert max(map(len, windows)) <= 4 and max(map(sum, windows)) <= 12
    monkeypatch.undo()
    assert_same(cf.read_screen(tmp_path), cf.predict(lines, MODEL, progress=False))


@pytest.mark.parametrize(
    ("error", "source", "reason"),
    [
        ("a/b.cif: the file is empty", "a/b.cif", "the file is empty"),
        ("t.csv, row 7: crystal 'mp-1': has no atoms", "t.csv, row 7", "has no atoms"),
        ("t.jsonl, row 9: not valid JSON (char 7)", "t.jsonl, row 9", "not valid JSON (char …)"),
        (
            "crystal 'q': sites 0 (Na) and 1 (Cl) lie 0.01 Å apart; remove",
            "",
            "sites … (Na) and … (Cl) lie … Å apart; remove",
        ),
    ],
)
def test_like_errors_count_as_one(error: str, source: str, reason: str) -> None:
    assert reason_of(error, source) == reason


def test_choosing_rows(lines: Path, tmp_path: Path) -> None:
    cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    whole = cf.read_screen(tmp_path)
    target = MODEL.config.target_names[0]
    highest = cf.read_screen(tmp_path, top=3, by=target)
    assert highest["id"].tolist() == whole.sort_values(target, ascending=False)["id"].tolist()[:3]
    lowest = cf.read_screen(tmp_path, where="index >= 7", top=4, by=target, lowest=True)
    assert lowest["id"].tolist() == whole.iloc[7:].sort_values(target)["id"].tolist()[:4]
    assert len(cf.read_screen(tmp_path, where="error.notna()")) == 2
    assert len(cf.read_screen(tmp_path, top=N, by=target)) == N - 2  # those that have a value
    assert lowest.attrs["units"] == whole.attrs["units"]
    choices: tuple[dict[str, Any], ...] = ({"where": "gap > 1"}, {"by": "formula", "top": 3}, {"top": 3})
    for choice, field in zip(choices, ("where", "by", "by"), strict=True):
        with refused(ScreeningError, field=field):
            cf.read_screen(tmp_path, **choice)
    with refused(ScreeningError, path=tmp_path / "none"):
        cf.read_screen(tmp_path / "none")


def test_rows_above_a_hull(tmp_path: Path) -> None:
    """As `above_hull` has it for the whole table, with the rows of several shards; columns to choose by."""
    crystals = [crystal for crystal in prototypes() if len(set(crystal.atomic_numbers.tolist())) == 2][:7]
    energy = "formation_energy_per_atom"
    screening = cf.screen(crystals, tmp_path / "screened", PRETRAINED, shard_size=3, device="cpu", progress=False)
    assert screening.n_structures == len(crystals)
    plain = cf.read_screen(tmp_path / "screened")
    phases = pandas.DataFrame({"formula": plain["formula"][:5], energy: plain[energy][:5] - 0.1})
    wanted = cf.above_hull(plain, phases)
    found = cf.read_screen(tmp_path / "screened", hull=phases)
    assert found[plain.columns.tolist()].equals(plain)
    names = ["above_hull", "above_hull_low", "above_hull_high", "decomposes_to"]
    assert found[names].equals(wanted[names])
    assert found["hull_error"].tolist() == wanted["error"].tolist() and any(wanted["error"].notna().tolist())
    assert found.attrs["units"]["above_hull"] == "eV/atom"
    near = cf.read_screen(tmp_path / "screened", "above_hull < 0.11", 2, "above_hull", lowest=True, hull=phases)
    assert near["above_hull"].tolist() == sorted(wanted.query("above_hull < 0.11")["above_hull"])[:2]
    failed = pandas.DataFrame({"formula": ["NaCl"], energy: [np.nan]})
    pandas.concat([phases, failed]).to_csv(tmp_path / "phases.csv", index=False)
    from_file = cf.read_screen(tmp_path / "screened", hull=tmp_path / "phases.csv")
    assert from_file["above_hull"].equals(wanted["above_hull"])


def test_rows_with_a_flag_come_after_all_others_of_the_best() -> None:
    frame = pandas.DataFrame({"gap": [3.0, 1.0, 9.0, 2.0, np.nan], "nearest_distance": [1.0, 2.0, 3.0, 0.0, 9.0]})
    frame["outside_training"] = [None, None, "a reason", None, None]
    frame["not_relaxed"] = [None, "a reason", None, None, None]
    frame.attrs["units"] = {"gap": "eV"}
    assert best_first(frame, "gap", lowest=False)["gap"].tolist() == [3.0, 2.0, 9.0, 1.0]
    assert best_first(frame, "gap", lowest=True)["gap"].tolist() == [2.0, 3.0, 1.0, 9.0]
    # What is no prediction is trusted as it is.
    assert best_first(frame, "nearest_distance", lowest=False).index.tolist() == [4, 2, 1, 0, 3]


def test_a_hull_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prototypes()[4].write(tmp_path / "salt.cif")
    (tmp_path / "phases.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.2\nNa3Cl,-0.1\nCl2,0\n")
    words = ["screen", str(tmp_path / "salt.cif"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    chosen = ["--hull", str(tmp_path / "phases.csv"), "--top", "1", "--by", "above_hull", "--lowest"]
    assert main([*words, *chosen]) == 0
    assert "above_hull" in capsys.readouterr().out


# Processes


def test_processes_give_the_same_and_one_that_is_killed_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[Child] = []
    init = Child.__init__
    monkeypatch.setattr(Child, "__init__", lambda self, *given: (init(self, *given), children.append(self))[0])

    def stream() -> Iterator[Crystal]:
        for number, crystal in enumerate(CRYSTALS):
            if number == 12:
                children[0].process.kill()
            yield crystal

    cf.screen(stream(), tmp_path, MODEL, shard_size=2, n_workers=2, progress=False)
    assert_same(cf.read_screen(tmp_path), cf.predict(CRYSTALS, MODEL, progress=False))
    assert all(child.process.returncode is not None for child in children)


def test_structures_of_which_processes_die_are_named(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Child.send

    def send_and_kill(self: Child, shard: Any) -> None:
        send(self, shard)
        if shard.number == 1:
            self.process.kill()

    monkeypatch.setattr(Child, "send", send_and_kill)
    monkeypatch.setattr(pool, "MOST_DEATHS", 1)
    with refused(WorkerError, "1 processes died of structures 9 to 17 (the last with exit code -9)"):
        cf.screen(lines, tmp_path, MODEL, shard_size=9, n_workers=2, progress=False)
    monkeypatch.undo()
    cf.screen(lines, tmp_path, MODEL, shard_size=9, progress=False)
    assert_same(cf.read_screen(tmp_path), cf.predict(lines, MODEL, progress=False))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_killed_at_any_moment_every_structure_has_one_row(
    n_workers: int, lines: Path, saved: Path, tmp_path: Path
) -> None:
    """The script has no main guard."""
    out, script = tmp_path / "out", tmp_path / "script.py"
    call = f"cf.screen({str(lines)!r}, {str(out)!r}, {str(saved)!r}, shard_size=3, n_workers={n_workers}, device='cpu')"
    script.write_text(f"import crystalframer as cf\nprint({call}.summary())")
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    n_tables = random.Random().randint(1, 6)
    while len(list(out.glob("part-*"))) < n_tables and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()  # until its workers have ended too
    there = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(there) >= n_tables
    result = cf.screen(lines, out, saved, shard_size=3, n_workers=n_workers, device="cpu", progress=False)
    assert (result.n_structures, result.n_shards) == (N, 8)
    assert_same(cf.read_screen(out), cf.predict(lines, saved, device="cpu", progress=False))
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    def stream() -> Iterator[Crystal]:
        yield from CRYSTALS[:12]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=rf"10 structures are complete in {tmp_path}, and the same command"):
        cf.screen(stream(), tmp_path, MODEL, shard_size=5, progress=False)
    assert cf.screen(CRYSTALS, tmp_path, MODEL, shard_size=5, progress=False).n_new == N - 10


def test_a_second_process_is_refused(lines: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK_FILE), refused(ScreeningError, "another process", path=tmp_path):
        cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)


def test_the_command_prints_the_choice_or_writes_it(
    lines: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = checkpoint.load(saved).config.target_names[0]
    words = ["screen", str(lines), str(tmp_path / "out"), "--model", str(saved), "--device", "cpu"]
    assert main(words) == 0
    assert "23 structures in 1 tables" in capsys.readouterr().out
    assert main([*words, "--top", "3", "--by", name, "--selection", str(tmp_path / "best.csv")]) == 0
    assert "3 rows in" in capsys.readouterr().out
    best = pandas.read_csv(tmp_path / "best.csv")
    assert best["id"].tolist() == cf.read_screen(tmp_path / "out", top=3, by=name)["id"].tolist()
    assert main([*words, "--where", "index < 2"]) == 0
    assert "x1" in capsys.readouterr().out
    assert main([*words, "--shard-size", "7"]) == 2
    assert "tables have 10,000 structures each, not 7" in capsys.readouterr().err
    empty = write_lines(tmp_path / "bad.jsonl", [random_crystal(0, 2)], (0,))
    assert main(["screen", str(empty), str(tmp_path / "bad"), "--model", str(saved), "--device", "cpu"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hull", "missing.csv"], "'missing.csv' is neither a name nor an existing path"),
        (["--hull", "phases.csv"], "has no label column 'formation_energy_per_atom'"),
        (["--where", "gap > 1"], "--where gap > 1 cannot be evaluated"),
        (["--top", "3", "--by", "gap"], "--by gap is no column of numbers"),
        (["--top", "3"], "top and by go together"),
        (["--top", "-1", "--by", "index"], "must be a whole number from 1 on"),
        (["--where", "index - 1"], "is no condition"),
        (["--where", "0"], "is no condition"),
        (["--where", "index < 2", "--selection", "out/part-00000.parquet"], "is a table of the screening itself"),
        (["--top", "3", "--by", "above_hull"], "is no column of numbers"),
        (["--where", "index < 2", "--selection", "best.xyz"], "best.xyz"),
    ],
)
def test_a_wrong_choice_is_refused_before_hours_of_screening(
    lines: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phases.csv").write_text("formula,id\nNaCl,1\n")
    assert main(["screen", str(lines), "--output", "out", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/part-*"))


def test_choices_that_fit_are_not_refused() -> None:
    """Every kind of column is there before the table is: numbers, ends of intervals, words, what the hull adds."""
    phases = pandas.DataFrame({"formula": ["NaCl"], "formation_energy_per_atom": [-2.0]})
    columns = checkpoint.columns(None)
    for where in (
        "index < 2",
        "nearest_training.str.contains('Si')",
        "nearest_distance.astype('int') < 3",
        "outside_training.notna() and band_gap_low < band_gap < band_gap_high",
        "above_hull_low < 0 and hull_error.isna()",
    ):
        Choice.of(where, 3, "above_hull", True, phases).check(columns)
    with refused(ScreeningError, "whole number", field="top"):
        Choice.of(None, 0, "index", False, None)


def test_a_file_in_place_of_the_folder(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["screen", str(lines), "--output", str(lines)]) == 2
    assert "is a file, and the tables need a folder" in capsys.readouterr().err


# Failures of the machine


def failing_for(test: Callable[[CrystalBatch], bool], error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the error where a batch for which the test holds is predicted."""
    layers = CrystalFramer.layers

    def compute_or_fail(model: CrystalFramer, batch: CrystalBatch, *given: Any) -> Any:
        if test(batch):
            raise error
        return layers(model, batch, *given)

    monkeypatch.setattr(CrystalFramer, "layers", compute_or_fail)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'errno', '')}",
)
def test_a_structure_for_which_the_machine_fails_has_no_row_and_is_tried_again(
    error: Exception, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of all others are kept, in the same table too."""
    z = int(CRYSTALS[7].atomic_numbers[0])
    same = [n for n in range(N) if z in CRYSTALS[n].atomic_numbers and n not in BROKEN]
    failing_for(lambda batch: z in batch.atomic_numbers, error, monkeypatch)
    with refused(ScreeningError, f"{len(same)} structures have no row", "goes on from there", path=tmp_path):
        cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    found = cf.read_screen(tmp_path)
    assert found["index"].tolist() == [n for n in range(N) if n not in same]
    assert len(found["error"].dropna()) == len(BROKEN)
    monkeypatch.undo()
    # A worse attempt takes no row away.
    more = {z} | {int(CRYSTALS[n].atomic_numbers[0]) for n in range(5, 10) if n not in BROKEN}
    failing_for(lambda batch: not more.isdisjoint(batch.atomic_numbers.tolist()), error, monkeypatch)
    with refused(ScreeningError, "have no row", path=tmp_path):
        cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    assert cf.read_screen(tmp_path)["index"].tolist() == found["index"].tolist()
    monkeypatch.undo()
    complete = {n // 5 for n in range(N)} - {n // 5 for n in same}
    times = {n: (tmp_path / f"part-0000{n}.parquet").stat().st_mtime_ns for n in complete}
    cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    assert_same(cf.read_screen(tmp_path), cf.predict(lines, MODEL, progress=False))
    assert {n: (tmp_path / f"part-0000{n}.parquet").stat().st_mtime_ns for n in complete} == times


def test_a_disk_that_fills_up_costs_no_table(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is complete stays, and nothing is left of the table that was being written."""
    n_written, flush = 0, os.fsync

    def flush_or_fail(descriptor: int) -> None:
        nonlocal n_written
        n_written += 1
        if n_written > 3:  # the description and two tables
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_or_fail)
    with refused(ScreeningError, "No space left on device", "goes on from the tables", path=tmp_path):
        cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    monkeypatch.undo()
    assert cf.read_screen(tmp_path)["index"].tolist() == list(range(10))
    assert {path.name for path in tmp_path.glob(".*")} <= {LOCK_FILE}
    assert cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False).n_new == N - 10
    assert_same(cf.read_screen(tmp_path), cf.predict(lines, MODEL, progress=False))


@pytest.mark.parametrize(("n_workers", "shard_size"), [(1, 30), (2, 30), (1, 5)])
def test_a_machine_that_can_predict_nothing_stops_the_screening(
    n_workers: int, shard_size: int, lines: Path, tmp_path: Path
) -> None:
    """An error that nobody knows, such as that of a device that has failed, is not written into every row.

    After the first table, no other is tried.
    """
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model.embedding = torch.nn.Embedding(1, 1)  # every batch is an IndexError
    broken = [row for row in BROKEN if row < shard_size]
    reason = f"{min(N, shard_size) - len(broken)} structures have no row"
    with refused(ScreeningError, "cannot predict anything", reason, path=tmp_path):
        cf.screen(lines, tmp_path, model, shard_size=shard_size, n_workers=n_workers, progress=False)
    assert cf.read_screen(tmp_path)["index"].tolist() == broken


def test_an_error_of_one_structure_that_nobody_knows_is_its_row(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rock salt is predicted meanwhile, so the machine is sound."""
    failing_for(lambda batch: batch.n_atoms % 7 == 3, RuntimeError("strange"), monkeypatch)
    failing_for(lambda batch: batch.n_crystals > 1, RuntimeError("strange"), monkeypatch)
    cf.screen(lines, tmp_path, MODEL, shard_size=5, progress=False)
    assert cf.read_screen(tmp_path)["error"].str.contains("RuntimeError: strange").sum() == 3


def test_files_that_the_system_cannot_read_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, crystal in enumerate(CRYSTALS[:6]):
        crystal.write(folder / f"{number}.cif")
    (folder / "5.cif").write_text("data_")
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "2.cif":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with refused(ScreeningError, "1 structures have no row", "Input/output error"):
            cf.screen(folder, tmp_path / "out", MODEL, progress=False)
    assert cf.read_screen(tmp_path / "out")["id"].tolist() == ["0", "1", "3", "4", "5"]
    cf.screen(folder, tmp_path / "out", MODEL, progress=False)
    assert cf.read_screen(tmp_path / "out")["error"].notna().tolist() == [False] * 5 + [True]


def test_a_file_that_vanishes_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a network drive that is gone for a while."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, crystal in enumerate(CRYSTALS[:3]):
        crystal.write(folder / f"{number}.cif")
    records = Shard.records

    def records_later(shard: Shard) -> Iterator[StructureRecord]:
        (folder / "1.cif").rename(tmp_path / "1.cif")
        return records(shard)

    monkeypatch.setattr(Shard, "records", records_later)
    with refused(ScreeningError, "1 structures have no row", "no such file"):
        cf.screen(folder, tmp_path / "out", MODEL, progress=False)
    monkeypatch.undo()
    (tmp_path / "1.cif").rename(folder / "1.cif")
    cf.screen(folder, tmp_path / "out", MODEL, progress=False)
    assert not cf.read_screen(tmp_path / "out")["error"].dropna().tolist()


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("error", [ValueError("mine"), FileNotFoundError(2, "mine")], ids=lambda e: type(e).__name__)
def test_an_iterator_that_raises_loses_no_row(error: Exception, n_workers: int, tmp_path: Path) -> None:
    def stream(n: int) -> Iterator[Crystal]:
        yield from CRYSTALS[:n]
        raise error

    for n_given, n_kept in ((12, 12), (3, 12), (17, 17)):  # what an earlier attempt predicted is not given up
        with pytest.raises(type(error), match="mine") as caught:
            cf.screen(stream(n_given), tmp_path, MODEL, shard_size=5, n_workers=n_workers, progress=False)
        assert any(str(tmp_path) in note for note in caught.value.__notes__)
        assert cf.read_screen(tmp_path)["index"].tolist() == list(range(n_kept))
    assert "17 structures were predicted before" in caught.value.__notes__[-1]
    result = cf.screen(iter(CRYSTALS), tmp_path, MODEL, shard_size=5, progress=False)
    assert result.n_new == N - 15
    assert_same(cf.read_screen(tmp_path), cf.predict(CRYSTALS, MODEL, progress=False))
