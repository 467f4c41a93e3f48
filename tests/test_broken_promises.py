"""Tests of promises fail when the promise is broken where users meet it: in float32, in the compiled kernel.

Here each promise on what changes no prediction (docs/limits.md) is broken in the kernel alone. If its test still
passes, it tests something else, another configuration, or nothing.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from crystalframer.ops import cpu
from crystalframer.ops.reference import AttentionInputs

TESTS = Path(__file__).parent
LIMITS = (TESTS.parent / "docs/limits.md").read_text(encoding="utf-8")


def by_direction(given: AttentionInputs) -> Any:
    return 1 + 1e-2 * given.edges.directions[:, 0].abs().mean()


def by_number_of_atoms(given: AttentionInputs) -> Any:
    return 1 + 1e-3 * given.edges.n_atoms


def by_order(given: AttentionInputs) -> Any:
    return 1 + 1e-2 * torch.arange(given.edges.n_atoms)[:, None, None]


def by_chance(_: AttentionInputs) -> Any:
    return 1 + 1e-5 * torch.rand(1)


def always(_: AttentionInputs) -> Any:
    return 1 + 1e-3


BROKEN: dict[str, list[tuple[Callable[[AttentionInputs], Any], dict[str, Any]]]] = {
    "test_laws.py::test_invariance_of_every_method": [
        (by_direction, {"method": "max", "law": "rotation", "dtype": torch.float32}),
        (by_order, {"method": "max", "law": "permutation", "dtype": torch.float32}),
    ],
    "test_laws.py::test_laws_hold_for_symmetric_crystals": [
        (by_direction, {"method": "max", "margin": 0.0, "law": "rotation", "dtype": torch.float32}),
        (by_direction, {"method": "max", "margin": 0.1, "law": "rotation", "dtype": torch.float32}),
    ],
    "test_laws.py::test_independence_of_the_cell": [
        (by_number_of_atoms, {"method": "max", "law": "supercell", "dtype": torch.float32})
    ],
    "test_laws.py::test_batch_of_two_gives_what_each_gives_alone": [
        (by_number_of_atoms, {"method": "max", "dtype": torch.float32})
    ],
    "test_laws.py::test_evaluation_repeats_bit_for_bit": [(by_chance, {"method": "max"})],
    "test_ops_accuracy.py::test_an_ordinary_crystal_is_as_in_the_reference": [(always, {"method": "max"})],
    "test_promises.py::test_the_shipped_weights_keep_them": [(by_direction, {})],
    "test_golden_predictions.py::test_predictions_do_not_drift": [
        (always, {"backend": "cpu", "device": "cpu", "dtype": torch.float32, "kind": kind, "bar": bar})
        for kind, bar in (("chosen", 1e-5), ("averaged", 1e-4))
    ],
}
"""Test of a promise → factors on what the kernel computes that break the promise, and the case that must notice."""


@pytest.mark.parametrize(
    ("name", "factor", "case"),
    [(name, *broken) for name, breaks in BROKEN.items() for broken in breaks],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_noticed(
    name: str, factor: Callable[[AttentionInputs], Any], case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(name)
    if "golden" in name:
        case = case | {"script": module_at(TESTS.parent / "scripts/golden_predictions.py")}
    test = getattr(module, name.partition("::")[2])
    test(**case)
    compute = cpu.framed_attention

    def broken(given: AttentionInputs) -> Tensor:
        return compute(given) * factor(given)

    monkeypatch.setattr(cpu, "framed_attention", broken)
    with pytest.raises(AssertionError):
        test(**case)


def test_every_promise_on_predictions_is_broken_here() -> None:
    """At least one test of each row, but for what other code has set: `tests/test_surroundings.py` sets it itself."""
    table = re.search(r"## What does not change a prediction\n(.*?)\n## ", LIMITS, flags=re.DOTALL)
    assert table
    rows = [re.findall(r"`tests/(\w+\.py::\w+)`", line) for line in table[1].splitlines()]
    rows = [names for names in rows if names and names[0] != SURROUNDINGS]
    assert len(rows) >= 7
    for names in rows:
        assert set(names) & set(BROKEN), names


SURROUNDINGS = "test_surroundings.py::test_predictions_do_not_depend_on_surroundings"


def module_of(name: str) -> ModuleType:
    return module_at(TESTS / name.partition("::")[0])


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"promises_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
