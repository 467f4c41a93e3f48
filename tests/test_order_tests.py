"""Tests of the order of neighbours are kept with the weights, and said beside each explanation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from explained_models import CRYSTAL, model_of
from refusals import refused
from synthetic_explanations import synthetic_explanation

import crystalframer as cf
from crystalframer.checkpoint import ORDER_TESTS_FILE, add_order_tests
from crystalframer.config import Target
from crystalframer.errors import CheckpointError, ConfigError, TraceError
from crystalframer.explaining.faithfulness import order_test
from crystalframer.order_tests import UNTESTED, OrderTest, OrderTests
from crystalframer.testing import random_crystal

BETTER = OrderTest("energy", "eV", 0.05, 0.03, 0.07, 200)
NO_BETTER = OrderTest("gap", "eV", -0.01, -0.03, 0.01, 200)
TESTS = OrderTests("200 crystals", (BETTER, NO_BETTER))


def test_only_an_interval_above_0_is_called_better() -> None:
    assert BETTER.is_better and "Quote no" not in str(BETTER) and "0.03 to 0.07" in str(BETTER)
    assert not NO_BETTER.is_better and "Quote no ranking" in str(NO_BETTER) and "−0.03 to 0.01" in str(NO_BETTER)
    straddling = OrderTest("gap", "eV", 0.02, -0.06, 0.1, 200)  # a mean above 0 whose interval holds 0
    assert not straddling.is_better and "Quote no ranking" in str(straddling)
    for bad in ((0.05, 0.1, 0.2, 200), (0.05, 0.0, 0.1, 0)):
        with refused(ConfigError, field="beyond"):
            OrderTest("gap", "eV", *bad)


def test_the_test_is_that_of_the_table() -> None:
    metal = Target("metal", kind="class", classes=("no", "yes"))
    model = model_of(Target("energy", "eV"), metal)
    table = cf.faithfulness(model, [CRYSTAL, random_crystal(7, n_atoms=3)], "metal")
    found = order_test(table, metal)
    rows: Any = table[(table["test"] == "deletion, beyond nearest first") & (table["order"] == "relevance")]
    assert [found.beyond, found.low, found.high] == rows[["value", "low", "high"]].to_numpy()[0].tolist()
    assert (found.target, found.unit, found.n_crystals) == ("metal", "logit", 2)


def test_weights_keep_their_tests_and_others_refuse_them(tmp_path: Path) -> None:
    model = model_of(Target("energy", "eV"), Target("gap", "eV"))
    model.order_tests = TESTS
    cf.save(model, tmp_path / "tested")
    assert cf.load(tmp_path / "tested", "cpu").order_tests == TESTS
    model.order_tests = None
    cf.save(model, tmp_path / "plain")
    assert cf.load(tmp_path / "plain", "cpu").order_tests is None
    add_order_tests(tmp_path / "plain", TESTS)
    assert cf.load(tmp_path / "plain", "cpu").order_tests == TESTS
    cf.save(model_of(Target("energy", "eV")), tmp_path / "other")
    file = tmp_path / "other" / ORDER_TESTS_FILE
    file.write_bytes((tmp_path / "plain" / ORDER_TESTS_FILE).read_bytes())
    with refused(CheckpointError, "copy it again", path=file):
        cf.load(tmp_path / "other", "cpu")


def test_changed_models_are_not_tested() -> None:
    model = model_of(Target("energy", "eV"))
    model.order_tests = TESTS
    assert model.without_heads([(0, 0)]).order_tests is None
    assert model.with_frames(replace(model.config.frame, tie_margin=0.1)).order_tests is None


@pytest.mark.parametrize("tested", [True, False])
def test_an_explanation_says_what_the_test_found(tmp_path: Path, tested: bool) -> None:
    model = model_of(Target("energy", "eV"), Target("gap", "eV"))
    model.order_tests = TESTS if tested else None
    for target, test in (("energy", BETTER), ("gap", NO_BETTER)):
        found = cf.explain(CRYSTAL, model, target)
        assert found.order_test == (test if tested else None)
        assert found.about_order == (str(test) if tested else UNTESTED)
        assert found.about_order in found._repr_html_()
        again = cf.Explanation.load(found.save(tmp_path / "record.safetensors"))
        assert again.order_test == found.order_test


def test_damaged_tests_in_a_record_are_refused(tmp_path: Path) -> None:
    record = replace(synthetic_explanation(), order_test=NO_BETTER).save(tmp_path / "record.safetensors")
    record.write_bytes(record.read_bytes().replace(rb"\"low\": -0.03", rb"\"low\": 10.03"))
    with refused(TraceError, path=record):
        cf.Explanation.load(record)


def test_the_shipped_weights_are_tested_for_all_their_targets() -> None:
    model = cf.load(device="cpu")
    assert model.order_tests is not None
    tested = {row.target: row for row in model.order_tests.rows}
    assert list(tested) == list(model.config.target_names)
    assert tested["formation_energy_per_atom"].is_better and not tested["band_gap"].is_better
    assert min(row.n_crystals for row in tested.values()) == 200
