"""The benchmarks run, say what they must, and count and compare correctly. How fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import crystalframer as cf
from benchmarks import (
    attention,
    command,
    compare,
    continuity,
    epoch,
    floor,
    gpu,
    invariance,
    large_cells,
    loader,
    peers,
    scaling,
    splits,
    training,
)
from benchmarks.floor import Shape, Work
from benchmarks.machine import Load, Peak, probe
from benchmarks.report import Bar, Report, Row, table, timed_rows
from benchmarks.timing import Candidate, Timing, alternate, ratio
from crystalframer.analysis.paths import PATH_KINDS
from crystalframer.config import (
    CosineBasis,
    DecayConfig,
    DistanceBasis,
    FrameConfig,
    FrameMethod,
    ModelConfig,
    SplitKind,
)
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.maths.chebyshev import chebyshev_of_gaussians
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal

CPU = torch.device("cpu")
RESULTS = Path(command.__file__).parent / "results"

# --- each command, at a tiny size -------------------------------------------------------------------------------------

TINY = ["--quick", "--threads", "1", "--data", "demo"]
COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], list[str]]] = {
    "attention": (attention.main, [*TINY, "--presets", "pca", "--batch", "3"]),
    "training": (training.main, [*TINY, "--preset", "tiny", "--batch", "4"]),
    "scaling": (scaling.main, ["--quick", "--threads", "1", "--preset", "tiny", "--reference-up-to", "8"]),
    "loader": (loader.main, [*TINY, "--preset", "tiny", "--batch", "3", "--workers", "0"]),
}


@pytest.fixture(autouse=True)
def _without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed beside crystalframer, these tests run it alone."""
    monkeypatch.setattr(peers, "ADAPTERS", ())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_benchmark_writes_what_it_must_state(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, options = COMMANDS[name]
    before = sorted(RESULTS.glob("*"))
    path = tmp_path / "deep" / "result.json"
    run([*options, "--output", str(path)])
    printed = capsys.readouterr().out
    assert "QUICK" in printed and str(path) in printed
    assert sorted(RESULTS.glob("*")) == before

    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["benchmark"] == name and record["quick"] is True
    assert record["command"].startswith(f"python -m benchmarks.{name} --quick")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert record["hardware"]["cpu"] and record["hardware"]["cores"] >= 1
    assert {"crystalframer", "python", "torch", "numba"} <= record["versions"].keys()
    assert record["threads"] == 1 and record["device"] == "cpu"
    assert record["peak"]["flop_per_s"] > 0 and record["peak"]["bytes_per_s"] > 0
    assert isinstance(record["load"]["busy"], bool)
    assert record["data"]["name"]

    rows = record["rows"]
    assert any(row["candidate"] == "crystalframer" for row in rows)
    for row in rows:
        assert row["value"] > 0 and row["ratio"] > 0 and row["version"]
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
        if "floor" in row:
            assert row["floor"]["bytes"] > 0
            assert row["floor"]["operations"] == pytest.approx(sum(row["floor"]["operations_by_part"].values()))
            assert row["floor"]["distance"] == pytest.approx(np.median(row["seconds"]) / row["floor"]["seconds"])
    assert any("floor" in row for row in rows)
    if name != "loader":
        assert any(row["candidate"] == "crystalframer, reference" for row in rows)
    assert record["bars"]
    assert all(bar["met"] is None and bar["value"] > 0 for bar in record["bars"])
    assert "Bars are not judged by so small a sample." in printed


def test_what_fit_adds_to_steps_is_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    epoch.main([*TINY, "--preset", "tiny", "--batch", "4", "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [row["work"] for row in record["rows"]] == [
        "bare step, batch 4",
        "  added by fit to a step, batch 4",
        "  added by fit to an epoch of 3 steps, batch 4",
        "epoch of 12 crystals, 5.5 atoms, batch 4",
    ]
    (bar,) = record["bars"]
    assert bar["limit"] == epoch.ADDED_BAR and bar["met"] is None


def test_each_split_has_a_row_and_a_point(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    splits.main([*TINY, "--preset", "tiny", "--runs", str(tmp_path / "runs"), "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [row["candidate"] for row in record["rows"]] == [kind for kind in get_args(SplitKind) if kind != "given"]
    for row in record["rows"]:
        low, high = map(float, row["details"]["95 %"].split(" to "))
        assert row["unit"] == "eV/atom" and low <= round(row["value"], 3) <= high and row["details"]["share"] > 0
    assert path.with_suffix(".png").stat().st_size > 1000


def test_the_interval_of_an_error_is_over_crystals() -> None:
    errors = np.random.default_rng(0).normal(size=400)
    result = splits.Result("random", "eV", errors, 2 * errors)
    low, high = result.interval
    mean, deviation = np.abs(errors).mean(), np.abs(errors).std() / 20
    assert result.mae == pytest.approx(mean) and result.mae_of_mean == pytest.approx(2 * mean)
    assert low == pytest.approx(mean - 1.96 * deviation, abs=0.2 * deviation)
    assert high == pytest.approx(mean + 1.96 * deviation, abs=0.2 * deviation)


def test_a_network_that_computes_nothing_has_all_gradients() -> None:
    model = CrystalFramer(cf.preset("tiny").config.model)
    batch = make_batch([random_crystal(seed, n_atoms=2) for seed in range(3)], model.config.radius)
    with epoch.network_computes_nothing():
        prediction = model(batch)
    prediction.sum().backward()
    assert prediction.tolist() == [[1.0]] * 3
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(model(batch), prediction)


def test_the_share_that_fit_adds_counts_epochs_by_their_steps() -> None:
    assert epoch.Added(step=10.0, to_step=0.2, to_epoch=3.0, n_steps=10).share == pytest.approx(0.05)


def test_large_cells_give_the_number_of_the_small_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    large_cells.main(["--quick", "--threads", "1", "--whole-up-to", "600", "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    found = [(row["work"], row["candidate"]) for row in record["rows"]]
    assert found == [("512 atoms", "crystalframer"), ("512 atoms", "whole"), ("1,728 atoms", "crystalframer")]
    assert all(row["value"] > 0 for row in record["rows"])
    assert 0 < record["bars"][0]["value"] < large_cells.TOLERANCE


WITHOUT = ("pymatgen", "plotly", "py3Dmol", "tyro")
"""What the machine with the GPU may lack."""
ACCEPTANCE = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from benchmarks import gpu
gpu.main(sys.argv[1:])
"""


def test_acceptance_of_a_gpu_runs_without_one(tmp_path: Path) -> None:
    """What can, with the few libraries that such a machine has. Each check says how it ended."""
    path = tmp_path / "result.json"
    options = [*TINY, "--device", "cpu", "--preset", "tiny", "--output", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", ACCEPTANCE, *options], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith("python -m benchmarks.gpu --quick")
    assert [note.partition(":")[0] for note in record["notes"]] == [
        check.__name__.replace("_", " ") for check, needs_gpu in gpu.CHECKS.items() if needs_gpu
    ]
    values = {bar["name"]: bar["value"] for bar in record["bars"]}
    assert values["training after a prediction"] == 1.0
    assert values["recorded against eager, batch 128"] < gpu.DIFFERENCE_BAR
    assert values["learning curve, recorded against eager"] < gpu.CURVES_BAR
    assert values["steps of an epoch"] > 0 and values["validation of 5,572 crystals and saving"] > 0
    done = {row["work"] for row in record["rows"]}
    assert {check.__name__.replace("_", " ") for check, needs_gpu in gpu.CHECKS.items() if not needs_gpu} <= done


def test_a_check_of_a_gpu_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the exit status is 1, of a run that is not a quick one."""

    def fails(checks: gpu.Checks) -> None:
        raise ValueError("no such kernel")

    def works(checks: gpu.Checks) -> None:
        checks.must("it works", True)

    monkeypatch.setattr(gpu, "CHECKS", {fails: False, works: False})
    monkeypatch.setattr(command, "probe", lambda device, quick: Peak(1.0, 1.0))
    path = tmp_path / "result.json"
    with pytest.raises(SystemExit, match="1"):
        gpu.main(["--device", "cpu", "--threads", "1", "--data", "demo", "--crystals", "6", "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["notes"] == ["fails: ValueError: no such kernel"]
    assert {bar["name"]: bar["met"] for bar in record["bars"]} == {
        "fails: ends without an error": False,
        "it works": True,
    }


def test_a_quick_run_leaves_the_results_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in RESULTS.glob("*")}
    attention.main([*TINY, "--presets", "crystalformer", "--batch", "2"])
    assert "written" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in RESULTS.glob("*")} == before


def test_impossible_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        attention.main(["--passes", "0"])
    assert "--passes 0: both must be at least 1" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main(["--device", "cuda"])
    assert "torch finds no CUDA device" in capsys.readouterr().err


# --- times and ratios -------------------------------------------------------------------------------------------------


def test_median_spread_and_ratio() -> None:
    slow, fast = Timing((6.0, 8.0, 10.0)), Timing((2.0, 4.0, 2.0, 9.0))
    assert slow.median == 8.0
    assert slow.spread == pytest.approx(4.0 / 8.0)
    assert fast.median == 3.0
    assert ratio(slow, fast) == 3.0  # of 3, 2 and 5: pass by pass, as far as both go
    assert ratio(fast, fast) == 1.0


def test_candidates_take_turns_after_all_are_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.timing.SHORTEST_PASS", 0.0)
    calls: list[str] = []
    candidates = {
        "a": Candidate(lambda: calls.append("a"), lambda: calls.append("warm a")),
        "b": Candidate(lambda: calls.append("b")),
    }
    monkeypatch.setattr("benchmarks.timing.math.ceil", lambda value: 1)
    timings = alternate(candidates, 3, CPU, "test")
    assert calls == ["warm a", "warm a", "b", "b", "a", "b", "a", "b", "a", "b"]
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_a_slow_candidate_sits_out_the_later_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: clock[0])

    def takes(seconds: float) -> Candidate:
        return Candidate(lambda: clock.__setitem__(0, clock[0] + seconds))

    timings = alternate({"slow": takes(30.0), "quick": takes(1.0)}, 5, CPU, "test", budget=40.0)
    assert timings["slow"].seconds == (30.0, 30.0)
    assert timings["quick"].seconds == (1.0,) * 5


def test_short_work_is_repeated_within_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: clock[0])

    def run() -> None:
        calls.append(1)
        clock[0] += 0.0101

    timings = alternate({"short": Candidate(run)}, 2, CPU, "test")
    assert len(calls) == 2 + 2 * 5  # 5 × 10.1 ms make the 50 ms of a pass
    assert timings["short"].seconds == pytest.approx((0.0101, 0.0101))


@pytest.mark.parametrize(("slowdown", "code"), [(1.02, 0), (1.05, 1)])
def test_another_tree_is_compared_in_turns(
    slowdown: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A load that slows a whole round leaves the ratio as it is."""
    other, trees = RESULTS.parents[1], []

    def measured(tree: Path, benchmark: str, options: Sequence[str], folder: Path) -> dict[str, float]:
        trees.append(tree)
        load = 1.0 + (len(trees) - 1) // 2
        assert (benchmark, list(options)) == ("training", ["--quick", "--batch", "4"])
        return {"step": load * (slowdown if tree == Path("here") else 1.0)}

    monkeypatch.setattr(compare, "HERE", Path("here"))
    monkeypatch.setattr(compare, "measure", measured)
    words = [str(other), "training", "--rounds", "3", "--quick", "--batch", "4"]
    assert compare.main(words) == code
    assert trees == [Path("here"), other, other, Path("here"), Path("here"), other]
    assert f"{slowdown:.3f}" in capsys.readouterr().out


def test_the_shipped_weights_of_another_tree(tmp_path: Path) -> None:
    """`shipped` runs this tree's file with the other tree's package: a copy that has no benchmarks."""
    other = tmp_path / "other"
    shutil.copytree(RESULTS.parents[1] / "crystalframer", other / "crystalframer")
    with (other / "crystalframer" / "prediction.py").open("a") as file:
        file.write("\nimport pathlib\npathlib.Path(__file__).with_name('used').touch()\n")
    options = ["--data", "demo", "--crystals", "3", "--passes", "2"]
    seconds = compare.measure(other, "shipped", options, tmp_path)
    assert list(seconds) == ["predictions with the shipped weights, 3 crystals, batch 64"]
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert len(rows[0]["seconds"]) == 2 and min(rows[0]["seconds"]) > 0
    assert (other / "crystalframer" / "used").exists()


def test_steps_and_predictions_on_ready_batches(tmp_path: Path) -> None:
    """`ready` trains and predicts with the model that the tree ships."""
    options = ["--data", "demo", "--crystals", "3", "--passes", "1"]
    seconds = compare.measure(compare.HERE, "ready", options, tmp_path)
    assert list(seconds) == [f"{work}, 3 crystals, batch 64" for work in ("training step", "prediction")]
    assert min(seconds.values()) > 0


# --- floors, by hand --------------------------------------------------------------------------------------------------


def framed(method: FrameMethod) -> ModelConfig:
    return ModelConfig(
        n_layers=2, n_heads=2, d_model=8, frame=FrameConfig(method), distance=DistanceBasis(n_centers=10),
        cosine=CosineBasis(n_centers=8, width=1.0),
    )  # fmt: skip


SMALL = replace(framed("none"), d_feedforward=16, d_readout=4)
SHAPE = Shape(n_crystals=1, n_atoms=3, n_edges=50, n_pairs=7)


def test_floor_of_attention_without_frames() -> None:
    work = floor.attention(SHAPE, SMALL, backward=False)
    assert work.operations == {
        "logits": 2 * (7 * 8 + 50 * 3),  # 2 heads: q·k of 4 numbers, 2 operations each, a pair; 3 an edge
        "softmax": 2 * 50 * 19,
        "frames": 0,
        "values": 2 * (7 * 8 + 50),
        "distances": 2 * 50 * 20,
        "cosines": 0,
        "projection": 3 * 2 * 2 * 4 * 10,
    }
    # 20 bytes an edge; q, k, v and output of 4 numbers and a decay length an atom and head; the matrices.
    assert work.bytes == 50 * 20 + 4 * (3 * 2 * 17 + 2 * 4 * 10)


def test_floor_of_the_cosines() -> None:
    config = framed("max")
    degree = chebyshev_of_gaussians(config.cosine).shape[1]
    forward, both = (floor.attention(SHAPE, config, backward) for backward in (False, True))
    assert forward.operations["cosines"] == 3 * 100 * (5 + 2 * (degree - 2) + 2 * degree)
    assert both.operations["cosines"] - forward.operations["cosines"] == 3 * 100 * (5 + 3 * degree)
    assert forward.operations["frames"] == 9 * 100
    assert forward.operations["projection"] == 6 * 2 * 4 * (10 + 3 * degree)
    assert both.operations["projection"] == 3 * forward.operations["projection"]


@pytest.mark.parametrize("method", ["max", "weighted-pca", "static-max", "pca", "lattice", "none"])
def test_the_backward_pass_adds_work_for_every_method(method: FrameMethod) -> None:
    forward, both = (floor.attention(SHAPE, framed(method), backward) for backward in (False, True))
    assert both.total > 1.5 * forward.total and both.bytes > 2 * forward.bytes


def test_floor_of_the_dense_layers() -> None:
    per_atom = 2 * (4 * 8 * 8 + 2 * 8 * 16)  # two layers
    readout = 8 * 4 + 4
    assert floor.dense(SHAPE, SMALL, backward=False).total == 2 * (3 * per_atom + readout)
    assert floor.dense(SHAPE, SMALL, backward=True).total == 6 * (3 * per_atom + readout)


def test_floors_of_steps_are_sums_of_their_parts() -> None:
    step = floor.training_step(SHAPE, SMALL, n_parameters=1000)
    parts = (
        floor.attention(SHAPE, SMALL, backward=True),
        floor.attention(SHAPE, SMALL, backward=True),
        floor.dense(SHAPE, SMALL, backward=True),
        floor.optimiser(1000),
    )
    assert step.total == sum(part.total for part in parts)
    assert step.bytes == sum(part.bytes for part in parts)
    assert floor.optimiser(1000).bytes == 32_000


def test_the_floor_is_the_longer_of_computing_and_moving() -> None:
    work = Work({"a": 300.0, "b": 100.0}, 80.0)
    assert work.seconds(Peak(operations=100.0, bytes=40.0)) == 4.0
    assert work.seconds(Peak(operations=1000.0, bytes=40.0)) == 2.0


def test_edges_to_images_of_one_atom_are_one_pair() -> None:
    crystals = [random_crystal(seed, n) for seed, n in ((0, 1), (1, 2))]
    batch = make_batch(crystals, 4.0)
    shape = Shape.of(batch)
    assert (shape.n_crystals, shape.n_atoms, shape.n_edges) == (2, 3, batch.n_edges)
    assert shape.n_pairs == 1 + 4  # every atom of a small cell sees every other and its own images
    assert shape.n_edges > 30


# --- reports ----------------------------------------------------------------------------------------------------------


def report(**changes: Any) -> Report:
    settings: dict[str, Any] = {
        "benchmark": "test",
        "command": "python -m benchmarks.test",
        "is_quick": False,
        "device": "cpu",
        "n_threads": 1,
        "hardware": {"cpu": "abacus", "gpu": None},
        "versions": {"torch": "9"},
        "peak": Peak(100.0, 10.0),
        "load": Load(0.1, 0.0),
    }
    return Report(**settings | changes)


def test_rows_compare_with_the_fast_path_and_state_their_distance_to_the_floor() -> None:
    timings = {"crystalframer": Timing((1.0, 2.0, 3.0)), "other": Timing((4.0, 8.0, 6.0))}
    rows = timed_rows("work", timings, {"crystalframer": "1", "other": "2"}, "ms", 1e3, {"other": Work({"a": 100.0})})
    assert [(row.value, row.ratio) for row in rows] == [(2000.0, 1.0), (6000.0, 4.0)]
    filled = report(rows=rows)
    first, second = filled.to_dict()["rows"]
    assert "floor" not in first
    assert second["floor"]["seconds"] == 1.0 and second["floor"]["distance"] == 6.0
    assert "1,000 ms" in str(filled) and "other 2" in str(filled)


def test_bars_are_judged() -> None:
    assert str(Bar("speed", 2.0, 1.0, "ms")) == "MISSED speed: 2 ms (≤ 1)"
    assert str(Bar("speed", 2.0, 1.0, "×", at_most=False)) == "met    speed: 2 × (≥ 1)"


def test_a_busy_machine_is_named() -> None:
    assert "WARNING" not in str(report())
    assert "WARNING: the machine is busy" in str(report(load=Load(0.1, 0.8)))
    assert report(load=Load(3.0, None)).to_dict()["load"]["busy"] is True


def test_columns_of_tables_line_up() -> None:
    lines = table([{"work": "a", "x": "10"}, {"work": "long", "y": "2"}])
    assert lines == ["work   x  y", "----  --  -", "a     10", "long      2"]


def test_the_published_command_has_no_paths(tmp_path: Path) -> None:
    options = command.parse(
        command.parser("loader", ""), ["--quick", "--output", str(tmp_path / "out.json"), "--passes", "3"]
    )
    assert options.command == "python -m benchmarks.loader --quick --output out.json --passes 3"
    assert options.output == tmp_path / "out.json"
    assert options.passes == 2  # quick


def test_rows_without_a_time_have_no_floor() -> None:
    (row,) = report(rows=[Row("w", "c", "", "ms", 1.0, floor=Work({"a": 1.0}))]).to_dict()["rows"]
    assert "floor" not in row and "seconds" not in row


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_atoms", scaling.SIZES[:5])
def test_growing_cells_are_one_crystal(n_atoms: int) -> None:
    crystal = scaling.rock_salt(n_atoms, seed=3)
    assert len(crystal) == n_atoms
    assert abs(np.linalg.det(crystal.lattice)) / n_atoms == pytest.approx(5.14**3 / 8)
    lengths = np.diag(crystal.lattice)
    assert lengths.max() <= 2 * lengths.min()
    nearest = np.linalg.norm(neighbor_list(crystal, 3.0, 1).edge_vectors, axis=1)
    nearest = nearest[nearest > 0]
    assert nearest.min() > 5.14 / 2 - 0.5 and abs(nearest.mean() - 5.14 / 2) < 0.1


def test_per_atom_figures_count_all_copies() -> None:
    one, many = scaling.Cells(64), scaling.Cells(8, copies=4)
    timings = {("a", one): Timing((2.0,)), ("a", many): Timing((4.0,))}
    assert scaling.per_atom(timings, ("a", one), ("a", many)) == pytest.approx((2.0 / 64) / (4.0 / 32))


def test_accuracy_is_the_largest_deviation() -> None:
    exact = [torch.tensor([1.0, -4.0]).double(), torch.tensor([10.0]).double(), torch.tensor([2.0]).double()]
    found = [torch.tensor([1.0, -3.0]), torch.tensor([10.0]), torch.tensor([1.0])]
    assert attention.errors(found, exact) == (0.25, 0.5)


def test_distorted_crystals_are_near_but_without_symmetry() -> None:
    crystal = Crystal(np.array([11, 17]), np.array([[0.0, 0, 0], [2.82, 0, 0]]), 5.64 * np.eye(3))
    other = attention.distorted(crystal, seed=1)
    assert 0 < np.abs(other.positions - crystal.positions).max() < 1.5
    lengths, angles = np.linalg.norm(other.lattice, axis=1), other.lattice @ other.lattice.T
    assert np.abs(np.subtract.outer(lengths, lengths))[np.triu_indices(3, 1)].min() > 1e-3
    assert np.abs(angles[np.triu_indices(3, 1)]).min() > 1e-3


# --- peers ------------------------------------------------------------------------------------------------------------


def test_peers_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ADAPTERS", (("no_such_library", peers.Chgnet),))
    assert peers.installed() == ([], [])


def test_a_peer_that_fails_is_named_and_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Mock(side_effect=RuntimeError("needs another torch"), __name__="broken")
    monkeypatch.setattr(peers, "ADAPTERS", (("json", broken),))
    assert peers.installed() == ([], ["broken is installed but does not start (RuntimeError: needs another torch)"])


def test_structures_for_peers_are_the_same_crystals() -> None:
    crystal = random_crystal(4, 5)
    structure = training.to_structure(crystal)
    assert structure.atomic_numbers == tuple(crystal.atomic_numbers.tolist())
    np.testing.assert_allclose(structure.cart_coords, crystal.positions, atol=1e-12)
    np.testing.assert_allclose(structure.lattice.matrix, crystal.lattice)


def paper_model(path: Path) -> Path:
    """A tiny checkpoint that chooses one frame, with weights large enough for frames to matter."""
    model = cf.CrystalFramer(cf.preset("tiny").config.model, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.query.weight.mul_(3.0)
            assert block.attention.cosine_projection is not None
            block.attention.cosine_projection.mul_(10.0)
    cf.save(model, path)
    return path


def test_invariance_lists_what_still_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares with the tie rule, averaged and without it, by name every crystal that moves, and the error of each."""
    path, model = tmp_path / "result.json", paper_model(tmp_path / "model")
    invariance.main([*TINY, "--model", str(model), "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    shares = {(row["work"].partition(" ")[0], row["candidate"]): row["value"] for row in record["rows"]}
    assert shares["AFLOW", "crystalframer"] > shares["AFLOW", "without tie rule"]
    assert record["data"]["draws"] == {"rotation": 1, "cell": 1, "mirror": 1}
    assert {bar["name"].partition(",")[2].strip() for bar in record["bars"]} == {
        f"averaged, {target}, {kind}" for target in cf.load(model).config.target_names for kind in ("rotation", "cell")
    }  # what is not promised is no bar
    assert set(record["data"]["remaining"]) == {"crystalframer", "averaged"}
    for candidate, works in record["data"]["remaining"].items():
        for work, remaining in works.items():
            row = next(row for row in record["rows"] if (row["work"], row["candidate"]) == (work, candidate))
            assert row["value"] == pytest.approx(100 * (1 - len(remaining) / row["details"]["crystals"]))
            assert all(size >= 1e-4 for size in remaining.values())
    errors = {row["candidate"]: row["value"] for row in record["rows"] if row["unit"] == "eV/atom MAE"}
    assert set(errors) == {"crystalframer", "averaged", "without tie rule"}
    assert all(error > 0.0 for error in errors.values())
    assert "QUICK" in capsys.readouterr().out


def exact_model(path: Path) -> Path:
    """A tiny checkpoint that promises what a model of properties can."""
    frame = FrameConfig(weighted_margin=0.1, second_axis="sine", both_hands=True)
    config = replace(cf.preset("tiny").config.model, frame=frame, decay=DecayConfig(reach=3.0))
    model = cf.CrystalFramer(config, torch.Generator().manual_seed(0)).eval()
    model.calibrate(make_batch([random_crystal(1, 4)], config.radius, enlarge=False))
    cf.save(model, path)
    return path


def test_an_exact_model_is_held_to_all_that_it_promises(tmp_path: Path) -> None:
    """One candidate, mirror images judged, no step on any path, and the change by a longer reach."""
    model = str(exact_model(tmp_path / "exact"))
    invariance.main([*TINY, "--model", model, "--output", str(tmp_path / "invariance.json")])
    continuity.main([*TINY, "--model", model, "--output", str(tmp_path / "continuity.json")])
    turned, moved = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("invariance", "continuity"))
    assert {row["candidate"] for row in turned["rows"]} == {"crystalframer"}
    assert {bar["name"].rpartition(" ")[2] for bar in turned["bars"]} == {"rotation", "cell", "mirror"}
    assert all(0 <= bar["value"] <= bar["limit"] == 1e-5 for bar in turned["bars"])
    kinds = [row["work"].partition(", ")[2] for row in moved["rows"]]
    assert kinds == [*PATH_KINDS, "reach × 1.3"]
    assert [bar["value"] for bar in moved["bars"] if bar["name"].endswith("with a step")] == [0.0]
    assert moved["rows"][-1]["value"] == moved["bars"][-2]["value"] > moved["bars"][-1]["value"] > 0
    assert "mirror images have the same prediction" in moved["data"]["promises"] and not moved["data"]["smooth"]


def test_a_model_of_the_paper_has_steps_that_are_no_bar(tmp_path: Path) -> None:
    model = str(paper_model(tmp_path / "model"))
    continuity.main([*TINY, "--model", model, "--output", str(tmp_path / "result.json")])
    record = json.loads((tmp_path / "result.json").read_text())
    assert max(row["value"] for row in record["rows"]) > 1e-5 and not record["bars"]


@pytest.mark.parametrize(("value", "quick", "code"), [(1, [], 1), (0, [], 0), (1, ["--quick"], 0)])
def test_a_missed_bar_ends_with_status_1(
    value: float, quick: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the result is written; a quick run judges none."""
    monkeypatch.setattr(command, "probe", lambda device, quick: probe(device, quick=True))
    words = [*quick, "--threads", "1", "--output", str(tmp_path / "result.json")]
    status = 0
    try:
        with command.session(command.parse(command.parser("attention", ""), words)) as report:
            report.bars.append(Bar("steps", value, 0, "paths"))
    except SystemExit as stopped:
        status = stopped.code
    assert status == code
    assert json.loads((tmp_path / "result.json").read_text())["bars"][0]["value"] == value
