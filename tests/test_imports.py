"""Importing is quick and brings nothing heavy. Every import runs in a fresh interpreter, without the tests' hooks."""

from __future__ import annotations

import graphlib
import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from crystalframer import devices
from crystalframer.checkpoint import PRETRAINED
from crystalframer.testing import prototypes

SIX_TARGETS = Path(__file__).parents[1] / "scripts" / "stages" / "4-six-properties" / "weights"
IMPORT_SECONDS = 0.5
"""Processor time that `import crystalframer` may add to `import torch`."""
COMPILER = ("torch._dynamo", "torch._inductor", "sympy")
"""What torch imports for `torch.compile`: it takes longer than torch itself."""
SLOW = ("torch", "numba", "scipy", "sympy", "lightning", "pymatgen", "ase", "plotly", "matplotlib")
"""What a command does not load to say what is wrong."""
HEAVY = ("pymatgen", "lightning", "pytorch_lightning", "plotly", "numba", "pandas", "pyarrow", "ase", "matplotlib")


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def imported_by(*words: str, folder: Path) -> set[str]:
    """Names of all modules that a command imports, as `python -X importtime` lists them."""
    command = [sys.executable, "-X", "importtime", "-m", "crystalframer", *words]
    errors = subprocess.run(command, capture_output=True, text=True, cwd=folder).stderr
    listed = [line.rpartition("|")[2].strip() for line in errors.splitlines() if line.startswith("import time:")]
    assert "crystalframer.cli" in listed and "Traceback" not in errors, errors
    return set(listed)


def modules_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    return set(json.loads(run(code)))


def test_importing_crystalframer_adds_little_time_to_torch() -> None:
    code = "import time, torch; start = time.process_time(); import crystalframer; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(3)) <= IMPORT_SECONDS


@pytest.mark.parametrize(
    ("statement", "not_loaded"),
    [
        ("import crystalframer", ("torch", "gemmi", "scipy", "sympy", *HEAVY)),
        ("import crystalframer as cf; cf.Crystal, cf.read, cf.read_all, cf.CrystalDataset, cf.dataset", SLOW),
        ("import crystalframer.checkpoint, crystalframer.training.folder", SLOW),
        ("import crystalframer as cf; cf.Explanation", ("torch", "pandas", "pymatgen", "lightning")),
        ("import crystalframer.analysis.motifs", ("torch", "pymatgen", "pandas", "scipy", "lightning")),
        ("import crystalframer.cli", ("torch", "pandas", "pymatgen", "lightning", "pyarrow")),
        ("import viz", ("torch", "lightning", "pymatgen")),
        ("import crystalframer as cf; cf.PRESETS, cf.preset, cf.Config", ("torch", "pandas", "pymatgen")),
        (
            "import crystalframer as cf; cf.predict, cf.load, cf.dataset, cf.Crystal",
            ("pandas", "pymatgen", "lightning", "pyarrow", "ase"),
        ),
        ("import crystalframer as cf; cf.load()", ("lightning",)),
        ("from crystalframer.datasets.dataset import CrystalDataset", ("pandas", "pyarrow", "pymatgen", "ase")),
        ("import crystalframer as cf; cf.dataset('demo')[0]", ("pymatgen", "ase")),
    ],
)
def test_only_what_is_needed_is_loaded(statement: str, not_loaded: tuple[str, ...]) -> None:
    assert not modules_after(statement).intersection(not_loaded)


@pytest.mark.parametrize("words", ["--help", "predict --help", "train --help", "presets", "--version", "no-such-verb"])
def test_help_loads_nothing_slow(words: str, tmp_path: Path) -> None:
    assert not imported_by(*words.split(), folder=tmp_path).intersection((*SLOW, "pandas", "pyarrow", "gemmi"))


@pytest.mark.parametrize(
    "words",
    [
        "predict --no-such-option",
        "predict missing.cif",
        "predict broken.cif",
        "predict broken.cif missing/*.cif --output table.csv",
        "predict salt.cif --model missing",
        "predict salt.cif --output table.unknown",
        "trace broken.cif",
        "explain broken.cif",
        "explain salt.cif --output explanation.pdf",
        "check missing.cif",
        "screen missing.cif --output screened",
        "evaluate missing.csv",
        "evaluate demo --model missing",
        "calibrate missing.csv --model missing",
        "train --no-such-option",
        "train --model.n-layers 0",
        "train --data.source missing.csv",
        "train --resume --output missing",
        "ablate --data.source missing.csv",
        "sweep --search no.such.setting=1,2",
        "sweep --search training.batch-size=16,32 --data.source missing.csv",
        "data show missing.csv",
        "data get missing",
        "data pack missing.csv --output packed.parquet",
        "convert missing.ckpt --output model",
        "predict salt.cif --device nope",
        "screen salt.cif --output screened --device nope",
        "trace salt.cif --device cuda:first",
        "evaluate demo --device nope",
        f"calibrate demo --model {PRETRAINED} --device nope",
        "check broken.cif",
        "evaluate broken.cif",
        "screen broken.cif --output screened",
        "screen broken.csv --output screened",
        "predict broken.cif --device cpu",
        "predict salt.cif --model spoilt",
        "embed missing.cif --output table.csv",
        "embed salt.cif --output table.csv --layer 99",
        "explore broken.cif",
        "screen salt.cif --output screened --shard-size 0",
        "screen salt.cif --output screened --top 3",
        "screen salt.cif --output screened --hull missing.csv",
        "screen salt.cif --output screened --hull unlabelled.csv",
        "screen salt.cif --output screened --where gap>1",
        "screen salt.cif --output salt.cif",
        "evaluate unlabelled.csv",
        "evaluate labelled.csv --split train",
        "submit matbench-phonons missing --output results.json",
        "trace salt.cif --sites 77",
        "explain salt.cif --sites 77",
        "explain salt.cif --target gap",
        "train --training.n-epochs 0",
        "ablate --model.n-layers 0",
        "train --data.source unlabelled.csv",
        "train --data.source words.csv",
        "train --data.source broken.csv",
        "train --data.source rowless.csv",
        "train --data.source empty.csv",
    ],
)
def test_a_wrong_file_or_option_is_answered_without_slow_libraries(words: str, tmp_path: Path) -> None:
    cell = '"{""atomic_numbers"": [55], ""frac_coords"": [[0, 0, 0]], ""lattice"": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}"'
    tables = {
        "unlabelled": f"id,structure\na,{cell}\n",
        "labelled": f"id,structure,formation_energy_per_atom\na,{cell},-1.0\n",
        "words": f"id,structure,formation_energy_per_atom\na,{cell},low\n",
        "broken": "id,structure,formation_energy_per_atom\na,nothing,1.0\n",
        "rowless": "id,structure,formation_energy_per_atom\n",
        "empty": "",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "config.json").write_text("{}")
    (tmp_path / "broken.cif").write_text("data_broken\n_cell_length_a five\nloop_\n")
    prototypes()[0].write(tmp_path / "salt.cif")
    assert not imported_by(*words.split(), folder=tmp_path).intersection(SLOW)


@pytest.mark.skipif(devices._has_gpu_driver(), reason="there is a driver of GPUs")
@pytest.mark.parametrize(
    "words",
    [
        "predict salt.cif --device cuda",
        "train --training.accelerator cuda",
        "ablate --training.accelerator cuda",
        "sweep --search training.batch-size=16,32 --training.accelerator cuda",
    ],
)
def test_a_missing_gpu_is_answered_before_data_are_read(words: str, tmp_path: Path) -> None:
    prototypes()[0].write(tmp_path / "salt.cif")
    assert not imported_by(*words.split(), folder=tmp_path).intersection((*SLOW, "pandas", "pyarrow", "gemmi"))


@pytest.mark.parametrize("folder", [PRETRAINED, SIX_TARGETS], ids=["shipped", "six targets"])
def test_one_structure_is_predicted_without_torch(folder: Path, tmp_path: Path) -> None:
    """Nor without what Numba needs to compile: kernels are read from the disk, at the latest the second time."""
    prototypes()[0].write(tmp_path / "salt.cif")
    words = ["predict", "salt.cif", "--model", str(folder)]
    imported_by(*words, folder=tmp_path)
    loaded = imported_by(*words, folder=tmp_path)
    assert "crystalframer.model.arrays" in loaded
    assert not loaded.intersection(
        ("torch", "lightning", "pandas", "pyarrow", "pymatgen", "ase", "spglib", "scipy.linalg", "numba.np.arraymath")
    )


def test_training_and_predicting_load_no_compiler_of_torch() -> None:
    """Neither the import of operators nor the first pass through them, forwards and backwards."""
    code = """
import json, sys
import crystalframer as cf
from crystalframer.crystals.loading import prepare
from crystalframer.testing import prototypes

salts = prototypes()[:1]
cf.predict(salts, progress=False)
model = cf.load().train()
model(prepare(salts, model.config.radius).batch([0])).sum().backward()
print(json.dumps(sorted(sys.modules)))
"""
    loaded = set(json.loads(run(code)))
    assert "crystalframer.ops.cpu" in loaded
    assert not loaded.intersection(COMPILER)


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports inside functions count, those for type checkers alone do not."""
    graph = grimp.build_graph("crystalframer", "viz", exclude_type_checking_imports=True, cache_dir=None)
    imported_by = {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}
    graphlib.TopologicalSorter(imported_by).prepare()  # CycleError names the modules of a circle


@pytest.mark.parametrize(
    ("name", "library"),
    [("AttentionExplorer", "anywidget"), ("FrameComparison", "anywidget"), ("attention_figure", "plotly")],
)
def test_a_picture_without_its_library_names_the_extra(name: str, library: str) -> None:
    code = f"import sys, viz; sys.modules[{library!r}] = None; viz.{name}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"viz.{name} needs {library}" in result.stderr and "crystalframer[notebooks]" in result.stderr
