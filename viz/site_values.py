"""Numbers of the atoms, such as charges or moments, that can colour them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from viz.errors import SceneError
from viz.scene import Scene

SiteValues = Mapping[str, tuple[Float[np.ndarray, " n_atoms"], str]]
"""Name → a number for each atom (NaN where it is not known), and its unit."""
NAME = "value"
"""Of values that are given without a name."""


def site_values(scene: Scene, given: Any) -> dict[str, tuple[Float[np.ndarray, " n_atoms"], str]]:
    """The values by name, with their units.

    Args:
        scene: the crystal.
        given: a dictionary of name → a number for each atom, in the order of the structure; a DataFrame with a row for
            each atom; or the numbers alone. A name may end in a unit: `"charge (e)"`.

    Raises:
        SceneError: there is not one number for each atom.

    Example:
        >>> values = site_values(scene, {"charge (e)": [2, 4, -2, -2, -2]})
        >>> values["charge"][1]
        'e'
    """
    if given is None:
        return {}
    items = given.items() if isinstance(given, Mapping) or hasattr(given, "columns") else [(NAME, given)]
    found = {}
    for label, numbers in items:
        name, _, unit = str(label).partition(" (")
        try:
            values = np.asarray(numbers, dtype=float)
        except (TypeError, ValueError):
            problem = f"{name}: these are no numbers; give one for each atom"
            raise SceneError(problem, field="site_values", value=label) from None
        if values.shape != (scene.n_atoms,):
            n = f"{values.shape[0]} numbers" if values.ndim == 1 else f"an array of shape {values.shape}"
            problem = f"{name}: {n} for {scene.n_atoms} atoms; give one for each atom, in the order of the structure"
            raise SceneError(problem, field="site_values", value=label)
        found[name] = values, unit.removesuffix(")")
    return found
