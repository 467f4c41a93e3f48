"""Embeddings: the features of the model, for all that can be predicted, and one for all descriptions of a crystal."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from refusals import refused
from salts import CAESIUM, CONFIG, CRYSTALS, STRUCTURES, trained

import crystalframer as cf
from crystalframer import batched, cli
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.embedding import CUMULANTS, cumulants, feature_names
from crystalframer.errors import ConfigError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import prototypes, random_crystal, random_rotation, rotated, supercell, with_cell

NAMES = feature_names(CONFIG.d_model)
OF_ATOMS = [f"feature_{n}" for n in range(CONFIG.d_model)]


def features(table: pandas.DataFrame) -> np.ndarray:
    names = [name for name in table if str(name).startswith((*CUMULANTS, "feature_"))]
    return table[names].to_numpy(np.float64)


# --- what the features are --------------------------------------------------------------------------------------------


def test_the_mean_is_what_the_model_predicts_from() -> None:
    table = cf.embed(CRYSTALS, trained())
    assert table.columns.tolist() == ["id", "formula", *NAMES, "error"]
    assert table["id"].tolist() == table["formula"].tolist() == list(STRUCTURES)
    assert table["error"].tolist() == [None] * len(STRUCTURES)
    assert table[NAMES].to_numpy().dtype == np.float32
    mean = torch.tensor(table[[f"mean_{n}" for n in range(CONFIG.d_model)]].to_numpy())
    with torch.no_grad():
        predicted = trained().read_out(mean).numpy()
    np.testing.assert_allclose(predicted, cf.predict(CRYSTALS, trained())[["energy", "gap"]].to_numpy(), atol=1e-5)


@pytest.mark.parametrize("layer", range(-CONFIG.n_layers, CONFIG.n_layers))
def test_atoms_have_the_features_of_their_layer_in_a_trace(layer: int) -> None:
    table = cf.embed(CRYSTALS, trained(), layer=layer, per_atom=True)
    assert table.columns.tolist() == ["id", "formula", "site", "element", *OF_ATOMS, "error"]
    for crystal in CRYSTALS:
        rows = table.loc[table["id"] == crystal.id]
        assert rows["site"].tolist() == list(range(len(crystal)))
        traced = cf.trace(crystal, trained()).layers[layer].atom_features
        np.testing.assert_allclose(features(rows), traced, atol=1e-5)
        np.testing.assert_allclose(
            features(cf.embed(crystal, trained(), layer=layer))[0], cumulants(features(rows)), atol=1e-5
        )
    assert table.loc[table["id"] == "NaCl", "element"].tolist() == ["Na", "Cl"]


def test_cumulants_by_hand() -> None:
    atoms = np.array([[0.0, 5.0, 1.0], [0.0, 5.0, 2.0], [3.0, 5.0, 3.0]])
    mean, std, third = cumulants(atoms).reshape(3, 3)
    np.testing.assert_allclose(mean, [1, 5, 2])
    np.testing.assert_allclose(std, [np.sqrt(2), 0, np.sqrt(2 / 3)], rtol=1e-6)
    np.testing.assert_allclose(third, [(-1 - 1 + 8) / 3 / 2, 0, 0], atol=1e-6)  # 0 without spread, or symmetric


# --- descriptions of one crystal --------------------------------------------------------------------------------------

DESCRIPTIONS: dict[str, Callable[[Crystal], Crystal]] = {
    "rotation": lambda crystal: rotated(crystal, random_rotation(1)),
    "mirror image": lambda crystal: rotated(crystal, -np.eye(3)),
    "supercell": lambda crystal: supercell(crystal, (2, 1, 1)),
    "cell": lambda crystal: with_cell(crystal, np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])),
}
DESCRIBED = [*prototypes(), *(random_crystal(seed, n_atoms=4) for seed in range(4))]


@cache
def shipped() -> CrystalFramer:
    return cf.load(device="cpu")


@cache
def shipped_embedding(layer: int) -> np.ndarray:
    return features(cf.embed(DESCRIBED, shipped(), layer=layer))


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_a_crystal_has_one_embedding_however_it_is_described(description: str, layer: int) -> None:
    """By the shipped model: the distance between two is 10⁻⁵ of the spread over crystals at most."""
    first = shipped_embedding(layer)
    spread = first.std(axis=0)
    other = features(cf.embed([DESCRIPTIONS[description](crystal) for crystal in DESCRIBED], shipped(), layer=layer))
    distances = np.sqrt((((other - first) / spread) ** 2).mean(axis=1))
    assert (spread > 0).all() and distances.max() <= 1e-5


def test_a_large_cell_is_embedded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, atoms = cf.embed(CRYSTALS, trained()), cf.embed(CRYSTALS, trained(), per_atom=True)
    monkeypatch.setattr(batched, "MAX_EDGES", 30)
    np.testing.assert_allclose(features(cf.embed(CRYSTALS, trained())), features(expected), atol=1e-5)
    np.testing.assert_allclose(features(cf.embed(CRYSTALS, trained(), per_atom=True)), features(atoms), atol=1e-5)


# --- whatever can be predicted ----------------------------------------------------------------------------------------


def test_structures_keep_their_place_their_index_and_their_errors(tmp_path: Path) -> None:
    close = Crystal(np.array([11, 17]), np.array([[0.0, 0, 0], [1e-7, 0, 0]]), 4 * np.eye(3), "close")
    given = pandas.DataFrame(
        {"structure": [CRYSTALS[0], tmp_path / "missing.cif", CRYSTALS[1], close]}, index=[7, 5, 6, 4]
    )
    table, predicted = cf.embed(given, trained()), cf.predict(given, trained())
    for name in ("id", "formula", "error"):
        assert table[name].tolist() == predicted[name].tolist()
    assert table.index.tolist() == [7, 5, 6, 4]
    assert np.isnan(features(table)).all(axis=1).tolist() == [False, True, False, True]
    atoms = cf.embed(given, trained(), per_atom=True)
    assert atoms["id"].tolist() == np.repeat(table["id"], [2, 1, 2, 1]).tolist()
    assert atoms["site"].isna().tolist() == atoms["error"].notna().tolist() == [False, False, True, False, False, True]
    assert atoms["element"].isna().tolist() == atoms["site"].isna().tolist()
    assert len(cf.embed([], trained())) == len(cf.embed([], trained(), per_atom=True)) == 0


def test_ids_given_twice_are_told_apart_but_not_the_atoms_of_one_crystal() -> None:
    given = [CRYSTALS[0], CRYSTALS[0]]
    ids = cf.predict(given, trained())["id"].tolist()
    assert len(set(ids)) == 2 and cf.embed(given, trained())["id"].tolist() == ids
    assert cf.embed(given, trained(), per_atom=True)["id"].tolist() == np.repeat(ids, 2).tolist()


def test_features_that_are_not_finite_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = CrystalFramer.atom_features

    def infinite_for_caesium(self: CrystalFramer, batch: CrystalBatch, *rest: int) -> torch.Tensor:
        return forward(self, batch, *rest).masked_fill((batch.atomic_numbers == CAESIUM)[:, None], torch.inf)

    monkeypatch.setattr(CrystalFramer, "atom_features", infinite_for_caesium)
    table = cf.embed(CRYSTALS, trained())
    assert table["id"][table["error"].notna()].tolist() == ["CsCl", "CsI"]
    assert np.isnan(features(table)).all(axis=1).tolist() == table["error"].notna().tolist()


@pytest.mark.parametrize("layer", [CONFIG.n_layers, -CONFIG.n_layers - 1])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with refused(ConfigError, f"{CONFIG.n_layers} layers", field="layer"):
        cf.embed(CRYSTALS, trained(), layer=layer)


@pytest.mark.usefixtures("as_in_production")
def test_arguments_in_the_wrong_order_are_named() -> None:
    with pytest.raises(TypeError, match=r"embed\(structures, model\)"):
        cf.embed(trained())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "read"), [("parquet", pandas.read_parquet), ("csv", pandas.read_csv)])
def test_the_command_writes_what_the_function_returns(
    suffix: str, read: Callable[[Path], pandas.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cf.save(trained(), tmp_path / "model")
    for id in ("NaCl", "MgO"):
        STRUCTURES[id].to(filename=str(tmp_path / f"{id}.cif"))
    names, model = [str(tmp_path / f"{id}.cif") for id in ("MgO", "NaCl", "bad")], str(tmp_path / "model")
    table = tmp_path / f"table.{suffix}"
    assert cli.main(["embed", *names[:2], "--model", model, "--device", "cpu", "--output", str(table)]) == 0
    assert "embeddings of 2 structures" in capsys.readouterr().out
    expected = cf.embed([STRUCTURES["MgO"], STRUCTURES["NaCl"]], trained())
    found = read(table)
    assert found.columns.tolist() == expected.columns.tolist() and found["id"].tolist() == ["MgO", "NaCl"]
    np.testing.assert_allclose(found[NAMES], expected[NAMES], atol=1e-5)
    (tmp_path / "bad.cif").write_text("no crystal")
    assert cli.main(["embed", *names, "--model", model, "--per-atom", "--layer", "0", "--output", str(table)]) == 0
    said = capsys.readouterr()
    assert "embeddings of 4 atoms" in said.out
    assert "1 of 3 structures could not be embedded" in said.err and "bad.cif" in said.err
    assert read(table)["site"].dropna().tolist() == [0, 1, 0, 1]


def test_the_command_says_when_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.cif").write_text("no crystal")
    assert cli.main(["embed", str(tmp_path / "bad.cif"), "--output", str(tmp_path / "table.csv")]) == 1
    assert cli.main(["embed", "--output", str(tmp_path / "table.csv")]) == 2
    assert cli.main(["embed", str(tmp_path / "bad.cif"), "--output", str(tmp_path / "table.xlsx")]) == 2
    assert ".xlsx" in capsys.readouterr().err
