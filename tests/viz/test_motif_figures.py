"""Figures of motifs show the numbers of the analysis, each at its layer and head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_traces import perovskite, synthetic_trace, with_dead_head

from crystalframer.analysis import Shell, coordination_shells, motif_summary, motif_table, shell_attention
from crystalframer.testing import random_crystal
from crystalframer.traces import CrystalTrace
from viz import motif_angle_figure, motif_overview, motif_share_figure, motif_summary_figure


@pytest.fixture
def octahedron(perovskite_trace: CrystalTrace) -> Shell:
    return coordination_shells(perovskite_trace, sites=[1])[0]


@pytest.fixture
def table(perovskite_trace: CrystalTrace) -> pd.DataFrame:
    return motif_table([perovskite_trace, synthetic_trace(replace(perovskite(), id="other"), seed=1)])


def by_name(figure: Any) -> dict[str, Any]:
    return {part.name: part for part in figure.data}


def at(part: Any, values: Any, layer: int, head: int) -> float:
    layers, heads = (np.array(row) for row in part.x)
    (value,) = np.asarray(values)[(layers == f"layer {layer}") & (heads == str(head))]
    return float(value)


def test_angles_and_both_baselines(perovskite_trace: CrystalTrace, octahedron: Shell) -> None:
    parts = by_name(motif_angle_figure(perovskite_trace, octahedron))
    found = shell_attention(perovskite_trace, octahedron)
    assert found.angles is not None and found.e2_chance is not None
    for layer, head in np.ndindex(found.share.shape):
        for k, name in enumerate(("e₁", "e₂", "e₃")):
            assert at(parts[name], parts[name].y, layer, head) == pytest.approx(found.angles[layer, head, k])
        turned = parts["random e₂ for this e₁"]
        assert at(turned, turned.y, layer, head) == pytest.approx(found.e2_chance[layer, head])
    assert parts["e₁"].text[5] == "layer 1, head 1"
    assert set(parts["random frame"].y) == {found.chance} and parts["random frame"].line.dash == "dash"


def test_axes_without_a_sense_of_direction() -> None:
    trace = synthetic_trace(random_crystal(0, 6), method="pca")
    shell = coordination_shells(trace, sites=[0])[0]
    either, one_way = (by_name(motif_angle_figure(trace, shell, either_sign=sign)) for sign in (True, False))
    assert np.all(np.array(either["e₁"].y) <= np.array(one_way["e₁"].y))
    assert either["random frame"].y[0] < one_way["random frame"].y[0]


def test_axes_can_be_told_apart_without_colour(perovskite_trace: CrystalTrace, octahedron: Shell) -> None:
    parts = by_name(motif_angle_figure(perovskite_trace, octahedron))
    assert len({parts[name].marker.symbol for name in ("e₁", "e₂", "e₃")}) == 3


def test_shares_add_up(perovskite_trace: CrystalTrace, octahedron: Shell) -> None:
    parts = by_name(motif_share_figure(perovskite_trace, octahedron))
    np.testing.assert_allclose(np.sum([part.y for part in parts.values()], axis=0), 1.0)
    found = shell_attention(perovskite_trace, octahedron)
    for layer, head in np.ndindex(found.share.shape):
        assert at(parts["shell"], parts["shell"].y, layer, head) == pytest.approx(found.share[layer, head])
        assert at(parts["itself"], parts["itself"].y, layer, head) == pytest.approx(found.itself[layer, head])


def test_means_over_structures_with_their_errors(table: pd.DataFrame) -> None:
    summary = motif_summary(table)
    figure: Any = motif_summary_figure(summary, "O:6")
    rows: Any = summary.query("label == 'O:6'").set_index(["layer", "head"])
    parts = by_name(figure)
    for (layer, head), row in rows.iterrows():
        for name, column in (("e₁", "e1_angle"), ("e₂", "e2_angle"), ("e₃", "e3_angle")):
            assert at(parts[name], parts[name].y, layer, head) == pytest.approx(row[column])
            assert at(parts[name], parts[name].error_y.array, layer, head) == pytest.approx(row[f"{column}_se"])
    assert parts["random frame"].y[0] == pytest.approx(rows["chance_angle"].mean())
    assert "octahedron (O:6), 2 structures" in figure.layout.title.text


def test_the_overview_counts_sites_and_structures(table: pd.DataFrame) -> None:
    overview = motif_overview(table).set_index("motif")
    assert overview.loc["L:2", ["structures", "sites"]].tolist() == [2, 6]
    assert overview.loc["O:6", "share in shell"] == pytest.approx(table.query("label == 'O:6'").share.mean())
    assert overview.loc["O:6", "e₁ to bond"] == pytest.approx(table.query("label == 'O:6'").e1_angle.mean())
    assert overview.loc["O:6", "random frame"] == pytest.approx(31.9, abs=0.05)


def test_axes_that_change_nothing_are_pale(perovskite_trace: CrystalTrace, octahedron: Shell) -> None:
    figure: Any = motif_angle_figure(with_dead_head(perovskite_trace, 1, 2), octahedron)
    for part in figure.data[:3]:
        pale = np.asarray(part.marker.opacity) < 1
        assert [pair for pair, is_pale in zip(zip(*part.x, strict=True), pale, strict=True) if is_pale] == [
            ("layer 1", "2")
        ]
