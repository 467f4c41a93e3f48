"""Substitutions: the predictions of the crystals that they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from refusals import refused
from salts import CRYSTALS, aware

import crystalframer as cf
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.testing import prototypes

SALT = prototypes()[4]


def test_predictions_are_those_of_the_substituted_crystals() -> None:
    table = cf.substitute(SALT, aware(), sites=[0], elements=["Na", "K"])
    other = replace(SALT, atomic_numbers=np.array([19, *SALT.atomic_numbers[1:]]))
    wanted = cf.predict([SALT, other], aware(), progress=False)
    assert table["is_original"].tolist() == [True, False]
    for name in ("energy", "energy_low", "gap_high"):
        np.testing.assert_allclose(table[name], wanted[name], rtol=1e-5)
    assert table["outside_training"].tolist() == wanted["outside_training"].tolist()


def test_all_elements_and_whole_orbits() -> None:
    table = cf.substitute(SALT, aware(), sites=[1], orbit=True)
    assert table["element"].tolist()[::97] == ["H", "Cf"] and len(table) == 98
    assert table.query("is_original")["formula"].tolist() == ["NaCl"]
    assert table["formula"].tolist()[2] == "LiCl" and set(table["error"]) == {None}


def test_the_volume_follows_the_radii() -> None:
    tables = (
        cf.substitute(CRYSTALS[0], aware(), sites=[0], elements=["Na", "Cs"], adapt_volume=adapt)
        for adapt in (True, False)
    )
    grown, fixed = (table["energy"].tolist() for table in tables)
    assert grown[0] == pytest.approx(fixed[0], rel=1e-6)
    ratio = (2.44**3 + 1.02**3) / (1.66**3 + 1.02**3)  # covalent radii of Cs, Na and Cl, Å
    lattice = CRYSTALS[0].lattice * ratio ** (1 / 3)
    positions = CRYSTALS[0].positions * ratio ** (1 / 3)
    bigger = replace(CRYSTALS[0], atomic_numbers=np.array([55, 17]), positions=positions, lattice=lattice)
    assert grown[1] == pytest.approx(cf.predict(bigger, aware(), progress=False)["energy"].tolist()[0], rel=1e-5)
    assert abs(grown[1] - fixed[1]) > 1e-5


def test_what_cannot_be_substituted_is_refused() -> None:
    with refused(ConfigError, "Xx", field="elements"):
        cf.substitute(SALT, aware(), sites=[0], elements=["Xx"])
    for sites in ([8], []):
        with refused(CrystalError, "0 to 7", field="sites"):
            cf.substitute(SALT, aware(), sites=sites)
