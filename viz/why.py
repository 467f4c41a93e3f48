"""What an explorer shows of an explanation: arrays for its modes, bars, and a periodic table of substitutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, Shaped

from crystalframer.elements import ATOMIC_NUMBERS, HIGHEST_ATOMIC_NUMBER
from crystalframer.explanations import Explanation
from viz.errors import SceneError, check_columns
from viz.scene import Scene

if TYPE_CHECKING:
    import pandas

MODES = ("attention", "relevance", "removal")
"""What lines, heatmap and table of an explorer show."""
N_BARS = 14
"""Bars for shells at most, the largest first."""
PERIODS = (2, 10, 18, 36, 54, 86)
"""The noble gases, at which periods end."""


def check_same_crystal(scene: Scene, explanation: Explanation) -> None:
    """Raise SceneError unless the explanation is of the crystal of the scene, with the same edges."""
    if not isinstance(explanation, Explanation):
        problem = f"a {type(explanation).__name__} is not an explanation; crystalframer.explain makes one"
        raise SceneError(problem, field="explanation", value=explanation)
    if explanation.sites is not None or not _is_same(scene, explanation):
        problem = "it has other atoms, edges or layers than the trace; explain the whole crystal with the same model"
        raise SceneError(problem, field="explanation", value=explanation)


def _is_same(scene: Scene, explanation: Explanation) -> bool:
    """Whether all edges are the same. Images may differ: a scene moves atoms by lattice vectors."""
    shapes = explanation.edge_relevance.shape == scene.attention.shape
    if not shapes or not np.array_equal(explanation.atomic_numbers, scene.atomic_numbers):
        return False
    query, key = explanation.edge_index
    vectors = explanation.positions[key] - explanation.positions[query] + explanation.edge_image @ explanation.lattice
    return np.array_equal(explanation.edge_index, scene.edge_index) and np.allclose(
        vectors, scene.edge_vectors, atol=1e-3
    )


def check_mode(mode: str, explanation: Explanation | None) -> None:
    """Raise SceneError unless there is what a mode shows."""
    if mode not in MODES:
        raise SceneError(f"{mode!r} is no mode; choose {', '.join(MODES)}", field="mode", value=mode)
    if mode != "attention" and explanation is None:
        raise SceneError(f"{mode} needs an explanation (crystalframer.explain)", field="mode", value=mode)
    if mode == "removal" and explanation is not None and explanation.removal_effect is None:
        problem = "the explanation has no effects of removal; crystalframer.explain(..., removals=12) computes them"
        raise SceneError(problem, field="mode", value=mode)


def arrays_of(explanation: Explanation, order: Int[np.ndarray, " n_edges"]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Arrays for the browser; relevance in units of the largest, as float16."""
    largest = largest_relevance(explanation)
    arrays: dict[str, np.ndarray] = {
        "relevance": (explanation.edge_relevance[..., order] / largest).astype(np.float16),
        "contribution": explanation.site_contributions.astype(np.float32),
    }
    if explanation.removal_effect is not None:
        arrays["removal"] = explanation.removal_effect[order].astype(np.float32)
    if explanation.position_gradient is not None:
        arrays["gradient"] = explanation.position_gradient.astype(np.float32)
    return arrays


def largest_relevance(explanation: Explanation) -> float:
    return float(np.abs(explanation.edge_relevance).max(initial=0.0)) or 1.0


def header_of(explanation: Explanation) -> dict[str, Any]:
    """Texts and bars."""
    elements = explanation.by_element().to_dict("records")
    shells = [row for row in explanation.by_shell().to_dict("records") if row["shell"] > 0]
    shells = sorted(shells, key=lambda row: -abs(row["relevance"]))
    target = explanation.target.replace("_", " ")
    is_class = explanation.scale == "logit"
    return {
        "target": target,
        "predicted": {"name": f"probability of {target}" if is_class else target, "unit": explanation.unit},
        "unit": explanation.shown_unit,
        "aboutScale": explanation.about_scale,
        "aboutOrder": explanation.about_order,
        "isOrderBetter": explanation.order_test is not None and explanation.order_test.is_better,
        "prediction": explanation.prediction,
        "base": explanation.base,
        "relevanceScale": largest_relevance(explanation),
        "byElement": [
            {"label": f"{row['element']} × {row['n_sites']}", "value": row["contribution"]} for row in elements
        ],
        "byShell": [
            {
                "label": f"{row['element']} – {row['neighbour_element']} {row['distance']:.2f} Å",
                "value": row["relevance"],
            }
            for row in shells[:N_BARS]
        ],
        "nShells": len(shells),
    }


def substitution_table(table: pandas.DataFrame, target: str) -> list[dict[str, Any]]:
    """The cells of a periodic table for the rows of `crystalframer.substitute`.

    Raises:
        FigureError: the table lacks the target or the elements.
    """
    check_columns("periodic table", table, ["element", "is_original", target])
    cells = []
    for row in table.to_dict("records"):
        column, line = place(ATOMIC_NUMBERS[row["element"]])
        flag = row.get("outside_training")
        cells.append(
            {
                "element": row["element"],
                "column": column,
                "row": line,
                "value": _number(row[target]),
                "low": _number(row.get(f"{target}_low")),
                "high": _number(row.get(f"{target}_high")),
                "flag": flag if isinstance(flag, str) else "",
                "isOriginal": bool(row["is_original"]),
            }
        )
    return cells


def _number(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def place(atomic_number: int) -> tuple[int, int]:
    """Column and row of an element in the periodic table, from 1; lanthanides and actinides below, rows 8 and 9."""
    if not 1 <= atomic_number <= HIGHEST_ATOMIC_NUMBER:
        raise SceneError(f"no element has the number {atomic_number}", field="atomic_number", value=atomic_number)
    period = sum(atomic_number > last for last in PERIODS) + 1
    within = atomic_number - (PERIODS[period - 2] if period > 1 else 0)
    length = (PERIODS[period - 1] if period <= len(PERIODS) else 118) - (PERIODS[period - 2] if period > 1 else 0)
    if length == 32 and 3 <= within <= 17:
        return within, period + 2
    if atomic_number == 1 or (within <= 2 and period > 1):
        return within, period
    return 18 - (length - within), period
