"""What a batch needs of memory: against what it really takes, and what is said where that is not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import crystalframer as cf
from crystalframer import memory
from crystalframer.config import Config, DataConfig, FrameConfig, ModelConfig, TrainingConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.datasets.dataset import CrystalDataset, Target
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.memory import batch_memory, free_memory, memory_needed, shortage
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal

CPU = torch.device("cpu")
SMALL = ModelConfig(n_layers=1, n_heads=2, d_model=16, d_feedforward=16, d_readout=8)

MEASURE = """
import sys
from pathlib import Path
import torch
from crystalframer.config import ModelConfig
from crystalframer.crystals.loading import prepare
from crystalframer.memory import batch_memory
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def step(batch):
    if training:
        model(batch).sum().backward()
    else:
        with torch.inference_mode():
            model(batch)

training = sys.argv[1] == "training"
torch.set_num_threads(1)
model = CrystalFramer(ModelConfig())
crystals = prepare([random_crystal(seed, 10) for seed in range(4)] * 16, model.config.radius)
step(crystals[range(2)])
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
batch = crystals[range(64)]
step(batch)
print(status("VmHWM") - before, batch_memory(model.config, batch.n_atoms, batch.n_edges, training))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured as Linux counts it")
@pytest.mark.parametrize("mode", ["training", "prediction"])
def test_estimate_is_what_a_batch_takes(mode: str) -> None:
    output = subprocess.run([sys.executable, "-c", MEASURE, mode], check=True, capture_output=True, text=True).stdout
    taken, estimated = map(int, output.split())
    assert taken / 1.5 < estimated < 1.5 * taken


def test_estimate_grows_with_all_that_costs_memory() -> None:
    base = ModelConfig()
    alone = batch_memory(base, 100, 10_000)
    assert batch_memory(base, 200, 20_000) == pytest.approx(2 * alone)
    assert batch_memory(base, 100, 10_000, training=True) > 1.5 * alone
    assert batch_memory(base, 100, 10_000, compiled=False) > 3 * alone
    assert batch_memory(base, 100, 10_000, width=8) > alone
    assert batch_memory(replace(base, n_heads=16), 100, 10_000) > alone
    assert batch_memory(replace(base, frame=FrameConfig("weighted-pca")), 100, 10_000) > alone
    assert batch_memory(replace(base, activation="swish"), 100, 10_000) > alone
    deep = replace(base, n_layers=8)
    assert batch_memory(deep, 100, 10_000) == alone  # layers follow one another
    assert batch_memory(deep, 100, 10_000, training=True) > batch_memory(base, 100, 10_000, training=True)
    in_float64 = memory_needed(base, 100, 10_000, CPU, torch.float64)
    assert in_float64 == batch_memory(base, 100, 10_000, compiled=False, width=8)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortage(ModelConfig(), 10, 1000, CPU, torch.float32) is None
    monkeypatch.setattr(memory, "free_memory", lambda device: 2_000_000_000)
    needed = memory_needed(ModelConfig(), 50_000, 5_000_000, CPU, torch.float32, True) / 1e9
    assert shortage(ModelConfig(), 50_000, 5_000_000, CPU, torch.float32, True) == (
        f"50,000 atoms and 5,000,000 edges need about {needed:.1f} GB, and cpu has 2.0 GB free"
    )
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert shortage(ModelConfig(), 50_000, 5_000_000, CPU, torch.float32, True) is None


def test_free_memory_of_this_machine_is_some() -> None:
    free = free_memory(CPU)
    assert free is None or 10**7 < free < 10**14


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._free_in_container(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_container(tmp_path) is None
    assert memory._free_in_container(tmp_path / "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are told by Linux alone")
def test_the_limit_of_a_process_counts() -> None:
    """As under `ulimit -v`: what the process has already does not count as free."""
    code = f"""
import resource
import torch
from crystalframer.memory import free_memory
limit = {20 * 2**30}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
free = free_memory(torch.device("cpu"))
assert 0 < free < limit - 50 * 2**20, free
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failed_allocation_says_how_large_the_crystal_is() -> None:
    """Where no estimate warned: torch's own message names neither crystal nor remedy."""
    model = CrystalFramer(SMALL).eval()

    def take_too_much(_: object, args: tuple[CrystalBatch]) -> None:
        if args[0].n_atoms > 30:
            torch.empty(2**60)

    model.register_forward_pre_hook(take_too_much)
    frame = cf.predict([random_crystal(0, 3), random_crystal(1, 40)], model)
    assert frame["error"].isna().tolist() == [True, False]
    assert frame["error"].iloc[1].startswith("40 atoms need more memory than there is")


def test_a_crystal_that_does_not_fit_is_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [random_crystal(0, 3), random_crystal(1, 40), random_crystal(2, 4)]
    model = CrystalFramer(SMALL).eval()
    expected = cf.predict(crystals, model)
    enough = memory_needed(SMALL, 20, 2400, CPU, torch.float32)
    monkeypatch.setattr(memory, "free_memory", lambda device: enough)
    frame = cf.predict(crystals, model)
    assert frame["error"].notna().tolist() == [False, True, False]
    assert str(frame["error"].iloc[1]).startswith("the crystal does not fit into memory: its 40 atoms and ")
    column = SMALL.target_names[0]
    assert frame[column][[0, 2]].tolist() == pytest.approx(expected[column][[0, 2]].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("room_for", "error", "message"),
    [
        (20, CrystalError, "crystal 'random-5' of the train part does not fit into memory: its 30 atoms and .*; leave"),
        (
            35,
            ConfigError,
            r"a batch does not fit into memory: .*; lower training.max_edges = 1000000 or",
        ),
    ],
)
def test_training_does_not_start_on_what_cannot_fit(
    room_for: int, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = SMALL.targets[0].name
    crystals = [random_crystal(seed, 30 if seed == 5 else 3).with_targets({name: float(seed)}) for seed in range(20)]
    data = CrystalDataset.from_crystals(crystals, [Target(name)], ["validation"] * 4 + ["train"] * 16)
    enough = memory_needed(SMALL, room_for, 111 * room_for, CPU, torch.float32, True)
    monkeypatch.setattr(memory, "free_memory", lambda device: enough)
    training = TrainingConfig(n_epochs=1, batch_size=16, swa_epochs=0, accelerator="cpu")
    with pytest.raises(error, match=message):
        cf.fit(Config(SMALL, DataConfig(), training), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
