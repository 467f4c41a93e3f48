import numpy as np
import pytest

from crystalframer.datasets.sources import dataset
from crystalframer.elements import ATOMIC_NUMBERS, SYMBOLS, atomic_number, reduced_formula


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([17, 11], "NaCl"),
        ([8] * 6 + [22] * 2 + [20] * 2, "CaTiO3"),
        ([14] * 8, "Si"),
        ([8, 8], "O"),
        ([6, 14], "SiC"),
        ([2, 11, 11], "Na2He"),
    ],
)
def test_formula_in_order_of_electronegativity_and_reduced(numbers: list[int], formula: str) -> None:
    assert reduced_formula(np.array(numbers)) == formula


@pytest.mark.parametrize(
    ("symbol", "z"), [("Na", 11), ("Na1+", 11), ("O2-", 8), ("D", 1), ("T", 1), ("cl", 17), ("Cf", 98)]
)
def test_atomic_number_of_symbols_and_ions(symbol: str, z: int) -> None:
    assert atomic_number(symbol) == z


@pytest.mark.parametrize("symbol", ["X", "Xx", "", "Vac", "1"])
def test_no_atomic_number_of_what_is_no_element(symbol: str) -> None:
    assert atomic_number(symbol) is None


def test_symbols_and_elements_agree_with_ase() -> None:
    from ase.data import chemical_symbols

    assert list(SYMBOLS) == chemical_symbols[1:119]
    assert all(ATOMIC_NUMBERS[symbol] == z for z, symbol in enumerate(SYMBOLS, start=1))


def test_formulas_name_the_same_composition_as_pymatgen() -> None:
    from pymatgen.core import Composition

    demo = dataset("demo")
    for row, formula in enumerate(demo.formulas):
        composition = Composition("".join(SYMBOLS[z - 1] for z in demo[row].atomic_numbers))
        assert Composition(formula) == composition.get_reduced_composition_and_factor()[0], formula
