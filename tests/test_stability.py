"""Energies above the hull: against hulls that are known by hand, and against pymatgen with all phases together."""

from pathlib import Path

import numpy as np
import pandas
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from refusals import refused

import crystalframer as cf
from crystalframer.errors import DataError, UnknownTarget
from crystalframer.stability import ENERGY


def table(*rows: tuple[str, float], **columns: list[float]) -> pandas.DataFrame:
    formulas, energies = zip(*rows, strict=True)
    return pandas.DataFrame({"formula": formulas, ENERGY: energies, **columns})


def test_a_line_between_two_phases() -> None:
    """A hull of A (0), AB (-1), B (0): halfway between A and AB it is at -0.5."""
    references = table(("NaCl", -1.0))
    found = cf.above_hull(table(("Na3Cl", -0.4), ("Na3Cl", -0.6), ("NaCl", -0.9), ("Na", 0.2)), references)
    np.testing.assert_allclose(found["above_hull"], [0.1, -0.1, 0.1, 0.2], atol=1e-12)
    assert found["decomposes_to"].tolist() == ["0.5 NaCl + 0.5 Na"] * 2 + ["NaCl", "Na"]
    assert "above_hull_low" not in found and found.attrs["units"]["above_hull"] == "eV/atom"


def test_the_hull_is_that_of_pymatgen() -> None:
    """Ternary phases, each judged without itself, and with all by pymatgen."""
    rng = np.random.default_rng(0)
    formulas = ["Li2O", "Fe2O3", "LiFeO2", "Li5FeO4", "FeO", "LiFe5O8", "Fe3O4", "Li2O2", "LiFe2O4"]
    phases = table(*((name, float(-rng.uniform(0.5, 2.5))) for name in formulas))
    for row in range(len(phases)):
        others = phases.drop(index=row)
        found = cf.above_hull(phases.iloc[[row]], others).iloc[0]
        entries = [PDEntry(Composition(symbol), 0.0) for symbol in ("Li", "Fe", "O")]
        for name, energy in zip(others["formula"], others[ENERGY], strict=True):
            entries.append(PDEntry(Composition(name), energy * Composition(name).num_atoms))
        candidate = Composition(phases["formula"][row])
        hull = PhaseDiagram(entries).get_hull_energy_per_atom(candidate)
        assert found["above_hull"] == pytest.approx(phases[ENERGY][row] - hull, abs=1e-9)
        assert found.name == row  # the index of the table


def test_intervals_are_carried_through() -> None:
    low, high = f"{ENERGY}_low", f"{ENERGY}_high"
    candidates = table(("Na3Cl", -0.4), **{low: [-0.45], high: [-0.3]})
    references = table(("NaCl", -1.0), **{low: [-1.2], high: [-0.9]})
    row = cf.above_hull(candidates, references).iloc[0]
    # at half of Na, the hull is half as low as NaCl
    np.testing.assert_allclose(
        row[["above_hull", "above_hull_low", "above_hull_high"]].tolist(), [0.1, 0.0, 0.3], atol=1e-12
    )
    row = cf.above_hull(candidates, table(("NaCl", -1.0))).iloc[0]
    np.testing.assert_allclose(row[["above_hull_low", "above_hull_high"]].tolist(), [0.05, 0.2], atol=1e-12)


def test_a_reference_without_an_interval_counts_as_exact() -> None:
    ends = {f"{ENERGY}_low": [-2.1, np.nan], f"{ENERGY}_high": [-1.9, np.nan]}
    known = pandas.DataFrame({"formula": ["Li2O", "Fe2O3"], ENERGY: [-2.0, -1.6], **ends})
    found = pandas.DataFrame({"formula": ["LiFeO2"], ENERGY: [-1.8], f"{ENERGY}_low": [-1.9], f"{ENERGY}_high": [-1.7]})
    row = cf.above_hull(found, known).iloc[0]
    assert row["above_hull_low"] < row["above_hull"] < row["above_hull_high"]
    exact = known.assign(**{f"{ENERGY}_low": [-2.1, -1.6], f"{ENERGY}_high": [-1.9, -1.6]})
    assert row["above_hull_low"] == cf.above_hull(found, exact).iloc[0]["above_hull_low"]


@pytest.mark.parametrize(("cell", "said"), [("-2.0 eV", "finite number"), ("−2.0", "row 1"), ("true", "finite number")])
def test_a_reference_that_cannot_be_read_is_named(tmp_path: Path, cell: str, said: str) -> None:
    (tmp_path / "phases.csv").write_text(f"formula,{ENERGY}\nLi2O,{cell}\nFe2O3,-1.6\n", encoding="utf-8")
    candidates = pandas.DataFrame({"formula": ["LiFeO2"], ENERGY: [-1.8]})
    with refused(DataError, said, path="phases.csv", row=1, field=ENERGY):
        cf.above_hull(candidates, tmp_path / "phases.csv")


def test_elements_below_zero_compete() -> None:
    """Predictions of elements are not exactly 0."""
    (found,) = cf.above_hull(table(("NaCl", -1.0)), table(("Na", -0.2), ("Cl2", 0.3)))["above_hull"]
    assert found == pytest.approx(-1.0 + 0.1)


def test_rows_without_an_answer_say_why() -> None:
    candidates = table(("NaCl", -1.0), ("KBr", -1.0), ("NaCl", float("nan")))
    found = cf.above_hull(candidates, table(("NaBr", -1.0), ("KCl", -2.0)))
    assert found["error"].tolist() == [None, None, "there is no energy"]
    found = cf.above_hull(candidates, table(("Na3Cl", -0.1)))
    assert found["error"].tolist() == [None, "no reference has Br, K", "there is no energy"]
    assert np.isnan(found["above_hull"].to_numpy()[1:]).all() and found["decomposes_to"].tolist()[1:] == [None, None]


def test_references_may_be_a_data_set_and_candidates_a_table_of_predictions(tmp_path: Path) -> None:
    demo = cf.dataset("demo")
    predicted = cf.predict(demo.select(range(6)), progress=False)
    by_dataset = cf.above_hull(predicted, demo)
    demo.save(tmp_path / "demo.parquet")
    by_path = cf.above_hull(predicted, tmp_path / "demo.parquet")
    assert by_dataset.equals(by_path)
    low, middle = (by_dataset[name].to_numpy() for name in ("above_hull_low", "above_hull"))
    assert np.all(low < middle)
    assert list(by_dataset)[:2] == ["id", "formula"]


SALT = table(("NaCl", -1.0))


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (
            pandas.DataFrame({"formula": ["NaCl"], "energy": [1.0]}),
            table(("NaCl", -1.0)),
            "the table: there is no column",
        ),
        (
            table(("NaCl", -1.0)),
            table(("NaCl", float("nan"))),
            "row 1: the references: formation_energy_per_atom is nan",
        ),
        (table(("NaCl", float("inf"))), table(("NaCl", -1.0)), "row 1: the table: formation_energy_per_atom is inf"),
        (table(("NaCl", -1.0), ("Nacl2?", -1.0)), table(("NaCl", -1.0)), "row 2: the table: 'Nacl2?' is no formula"),
    ],
)
def test_tables_that_cannot_be_used(candidates: pandas.DataFrame, references: pandas.DataFrame, message: str) -> None:
    with pytest.raises((DataError, UnknownTarget)) as caught:
        cf.above_hull(candidates, references)
    assert message in str(caught.value)
