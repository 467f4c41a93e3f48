"""Numbers of the atoms that colour them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from synthetic_traces import perovskite, synthetic_trace

import viz
from viz import SceneError
from viz.site_values import site_values

SCENE = viz.scene_from_trace(synthetic_trace(perovskite()))
CHARGES = [2, 4, -2, -2, -2]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"charge (e)": CHARGES, "moment": np.zeros(5)}, {"charge": "e", "moment": ""}),
        (pd.DataFrame({"charge (e)": CHARGES}), {"charge": "e"}),
        (pd.Series(CHARGES), {"value": ""}),
        (CHARGES, {"value": ""}),
        (None, {}),
    ],
)
def test_values_in_any_form(given: Any, names: dict[str, str]) -> None:
    found = site_values(SCENE, given)
    assert {name: unit for name, (_, unit) in found.items()} == names
    assert all(len(values) == 5 for values, _ in found.values())


@pytest.mark.parametrize("given", [CHARGES[:4], np.zeros((5, 3)), {"charge": list("abcde")}])
def test_one_number_for_each_atom_is_needed(given: Any) -> None:
    with refused(SceneError, field="site_values"):
        viz.AttentionExplorer(SCENE, site_values=given)
