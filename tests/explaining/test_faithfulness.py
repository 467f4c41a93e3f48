"""Tests of faithfulness notice an explanation that is right, and one that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import torch
from explained_models import CRYSTAL, SETS, model_of
from refusals import refused

import crystalframer as cf
from benchmarks import faithfulness as benchmark
from crystalframer.errors import ConfigError, DataError
from crystalframer.explaining import faithfulness as module
from crystalframer.testing import random_crystal

CRYSTALS = [CRYSTAL, random_crystal(7, n_atoms=3), random_crystal(8, n_atoms=4)]


def area(table: Any, test: str, order: str) -> float:
    return float(table[(table["test"] == test) & (table["order"] == order)]["value"].iloc[0])


def test_the_table_has_every_test_and_its_interval() -> None:
    model = model_of(**SETS[0])
    table = cf.faithfulness(model, CRYSTALS, other=model)
    low, value, high = table[["low", "value", "high"]].to_numpy().T
    assert (low <= value).all() and (value <= high).all()
    assert set(table["order"]) == set(module.ORDERS)
    for test in ("deletion", "insertion"):
        beyond = area(table, f"{test}, beyond nearest first", "relevance")
        assert abs(beyond - (area(table, test, "relevance") - area(table, test, "nearest first"))) < 1e-12
    assert area(table, "deletion", "random") < area(table, "deletion", "relevance")
    assert area(table, "insertion", "random") > area(table, "insertion", "relevance")
    assert area(table, "agreement of two models", "relevance") == pytest.approx(1.0)
    assert abs(area(table, "agreement with random weights", "relevance")) < 0.5
    curves = pandas.DataFrame(table.attrs["curves"])
    one: Any = curves[(curves["test"] == "deletion") & (curves["order"] == "attention")]
    assert one["value"].mean() == pytest.approx(area(table, "deletion", "attention"))
    again = cf.faithfulness(model, CRYSTALS)
    assert len(pandas.concat([table, again])) == len(table) + len(again)  # as for several targets
    assert area(again, "deletion", "random") == area(table, "deletion", "random")


def test_an_order_that_knows_the_model_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against it, a relevance that is reversed loses."""
    model = model_of(**SETS[0])
    right = area(cf.faithfulness(model, CRYSTALS), "deletion", "relevance")
    true = module.relevance
    monkeypatch.setattr(module, "relevance", lambda found: 1.0 / (1e-9 + np.abs(true(found))))
    wrong = area(cf.faithfulness(model, CRYSTALS), "deletion", "relevance")
    assert wrong < 0.5 * right


def test_what_cannot_be_tested_is_refused() -> None:
    model = model_of(**SETS[0])
    with refused(DataError, "at least two"):
        cf.faithfulness(model, [CRYSTAL])
    with refused(ConfigError, field="target"):
        cf.faithfulness(model, CRYSTALS, "gap")
    far = model.looking_farther(1.2)
    with refused(DataError, "radius", field="other"):
        cf.faithfulness(model, CRYSTALS, other=far)


def test_random_states_are_left_alone() -> None:
    model = model_of(method="none")
    before = torch.get_rng_state()
    cf.faithfulness(model, CRYSTALS[:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_benchmark_draws_two_halves_that_share_nothing() -> None:
    first, second = benchmark.drawn("demo", 20)
    assert len(first) == len(second) == 20
    assert not {crystal.id for crystal in first} & {crystal.id for crystal in second}
    assert all(3 <= len(crystal) <= 10 for crystal in first)
