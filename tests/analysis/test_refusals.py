"""What cannot be measured is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from refusals import refused
from sensitive_models import sensitive_model

import crystalframer as cf
from crystalframer.analysis.continuity import continuity
from crystalframer.analysis.invariance import invariance
from crystalframer.analysis.paths import strain
from crystalframer.analysis.perturbation import perturb
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.testing import random_crystal

CRYSTAL = random_crystal(2, 5)
TWIN = Crystal(np.array([8, 8]), np.array([[0, 0, 0], [0.001, 0, 0]]), 4.0 * np.eye(3), "twin")
PATH = strain(CRYSTAL, seed=0)
MODEL = sensitive_model([CRYSTAL])
invariant = partial(invariance, MODEL)
perturbed = partial(perturb, MODEL)


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("call", "kind", "field", "word"),
    [
        (lambda: cf.check([CRYSTAL], MODEL, n_draws=0), ConfigError, "n_draws", 0),
        (lambda: invariant([CRYSTAL], ["rotatoin"]), ConfigError, "kind", "did you mean 'rotation'"),  # type: ignore[list-item]
        (lambda: invariant([CRYSTAL], n_draws=0), ConfigError, "n_draws", 0),
        (lambda: cf.check([CRYSTAL], MODEL, n_draws=1.5), ConfigError, "n_draws", "whole"),  # type: ignore[arg-type]
        (lambda: invariant([CRYSTAL], []), ConfigError, "kinds", "rotation"),
        (lambda: invariant([CRYSTAL, "nowhere.cif"]), CrystalError, None, "nowhere.cif"),
        (lambda: invariant([]), CrystalError, None, "no structures"),
        (lambda: invariant([CRYSTAL, TWIN]), CrystalError, None, "'twin'"),
        (lambda: perturbed(CRYSTAL, [-0.1], [0]), ConfigError, "displacements", -0.1),
        (lambda: perturbed(CRYSTAL, [np.nan], [0]), ConfigError, "displacements", "nan"),
        (lambda: perturbed(CRYSTAL, [], [0]), ConfigError, "displacements", "at least one"),
        (lambda: perturbed(CRYSTAL, [0.1], []), ConfigError, "seeds", "at least one"),
        (lambda: perturbed("nowhere.cif"), CrystalError, None, "nowhere.cif"),
        (lambda: continuity(MODEL, []), ConfigError, "paths", 0),
        (lambda: continuity(MODEL, [PATH], n_points=6), ConfigError, "n_points", 6),
        (lambda: continuity(MODEL, [PATH], n_halvings=2), ConfigError, "n_halvings", 2),
        (lambda: MODEL.looking_farther(1.3), ConfigError, "model.decay.reach", "no reach"),
    ],
)
def test_it_is_refused_by_name(call: Callable[[], object], kind: type[Any], field: str | None, word: object) -> None:
    with refused(kind, word, field=field):
        call()
