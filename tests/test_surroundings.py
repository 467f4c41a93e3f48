"""Predictions and trainings do not depend on what the process around has set, and leave it as it was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from salts import CRYSTALS, STRUCTURES, aware, trained

import crystalframer as cf
from crystalframer.config import Config
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.surroundings import left_alone, plain

LEFT_BY_LIBRARIES = ["-W", "ignore:`isinstance(treespec, LeafSpec)`:FutureWarning"]
CONFIG = cf.preset("tiny").config
CONFIG = replace(CONFIG, training=replace(CONFIG.training, n_epochs=1, swa_epochs=0, accelerator="cpu"))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str | None) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "a device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "matmul in bfloat16": lambda: matmul_precision("medium"),
    "deterministic": deterministic,
    "errors of NumPy": lambda: np.errstate(all="raise"),
}
"""Name → context that other code may have left open."""


def state() -> dict[str, Any]:
    """Everything that a call should leave as it was, but Python's random state: the type checker of the tests draws."""
    return {
        "numpy": np.random.get_state(legacy=False)["state"]["key"].tolist(),  # type: ignore[call-overload]
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "matmul": (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision),  # type: ignore[attr-defined]
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "errors of NumPy": np.geterr(),
    }


def data() -> CrystalDataset:
    targets = CONFIG.model.targets
    labelled = [crystal.with_targets({t.name: float(n) for t in targets}) for n, crystal in enumerate(CRYSTALS)]
    return CrystalDataset.from_crystals(labelled, targets, ["train", "train", "train", "validation", "test"])


def fitted(output: Path, config: Config = CONFIG) -> dict[str, Any]:
    """Numbers of a training that depend on nothing but config and data."""
    result = cf.fit(config, data(), output)
    weights = {name: tensor.tolist() for name, tensor in result.model.state_dict().items()}
    return weights | {"loss": result.history["train_loss"].tolist(), "test": result.scores[result.chosen].test_mae}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return fitted(tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_predictions_do_not_depend_on_surroundings(name: str, tmp_path: Path) -> None:
    cf.save(aware(), tmp_path / "model")
    model = cf.load(tmp_path / "model", device="cpu")
    structures = list(STRUCTURES.values())
    alone = cf.predict(structures, model)
    trace = cf.trace(structures[0], model)
    with SURROUNDINGS[name]():
        before = state()
        assert cf.predict(structures, model).equals(alone)
        assert cf.predict(structures, tmp_path / "model", device="cpu").equals(alone)
        loaded = cf.load(tmp_path / "model", device="cpu")
        within = cf.trace(structures[0], loaded)
        assert state() == before
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert cf.predict(structures, loaded).equals(alone)
    assert within.prediction == trace.prediction
    np.testing.assert_array_equal(within.layers[0].attention, trace.layers[0].attention)
    loaded(torch_batch(loaded)).sum().backward()  # weights that were loaded anywhere can be trained


def torch_batch(model: cf.CrystalFramer) -> Any:
    from crystalframer.crystals.loading import make_batch

    return make_batch(CRYSTALS, model.config.radius)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_other_numbers_do_not_depend_on_surroundings(name: str) -> None:
    model, crystals = trained(), CRYSTALS[:2]

    def numbers() -> list[Any]:
        labelled = [c.with_targets({t.name: 1.0 for t in model.config.targets}) for c in crystals]
        checked = cf.check(crystals, model, n_draws=1, progress=False)
        evaluated = cf.evaluate(CrystalDataset.from_crystals(labelled, model.config.targets), model, progress=False)
        atoms = crystals[0].to_ase()
        atoms.calc = cf.CrystalFramerCalculator(model)
        return [
            checked.table.drop(columns="passed").to_csv(),
            evaluated.crystals.to_csv(),
            atoms.get_potential_energy(),
        ]

    alone = numbers()
    with SURROUNDINGS[name]():
        assert numbers() == alone


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_trainings_do_not_depend_on_surroundings(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    with SURROUNDINGS[name]():
        torch.manual_seed(7)
        before = state()
        assert fitted(tmp_path / "run") == expected
        assert state() == before


def test_ablation_and_search_leave_everything_as_it_was(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = state()
    cf.ablate(CONFIG, ["max"], [0], data(), tmp_path / "ablation")
    assert state() == before
    cf.sweep(CONFIG, {"training.learning_rate": cf.Range(1e-4, 1e-3)}, 1, data(), tmp_path / "sweep")
    assert state() == before


SCRIPT = """
import random, sys
import crystalframer as cf
from dataclasses import replace
config = cf.preset("tiny").config
random.seed(1)
before = random.getstate()
cf.fit(replace(config, training=replace(config.training, n_epochs=1, swa_epochs=0)), output=sys.argv[1])
cf.predict(cf.dataset("demo")[0], sys.argv[1])
assert random.getstate() == before
"""


def test_a_script_with_warnings_as_errors_trains_and_keeps_the_random_state_of_python(tmp_path: Path) -> None:
    options = ["-W", "error", *LEFT_BY_LIBRARIES]
    subprocess.run([sys.executable, *options, "-c", SCRIPT, str(tmp_path / "run")], check=True)


def test_a_training_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    before = state()
    with pytest.raises(cf.CrystalFramerError):
        cf.fit(replace(CONFIG, training=replace(CONFIG.training, learning_rate=1e30, n_epochs=20)), data(), tmp_path)
    assert state() == before


def test_settings_that_threads_share_are_given_back_once() -> None:
    model, alone = trained(), cf.predict(CRYSTALS, trained())
    with default_dtype(torch.bfloat16), ThreadPoolExecutor(4) as threads:
        tables = list(threads.map(lambda _: cf.predict(CRYSTALS, model, progress=False), range(8)))
        assert torch.get_default_dtype() == torch.bfloat16
    assert all(table.equals(alone) for table in tables)


def test_contexts_give_back_what_they_take_when_an_error_passes() -> None:
    with default_dtype(torch.float64), torch.autocast("cpu"):
        before, of_python = state(), random.getstate()
        with pytest.raises(ZeroDivisionError), left_alone(), plain():
            os.environ["CRYSTALFRAMER_SOMETHING"] = "1"
            os.environ.pop("PATH")
            random.random()
            np.random.random()
            torch.rand(1)
            assert torch.ones(1).dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
            raise ZeroDivisionError
        assert state() == before and random.getstate() == of_python
