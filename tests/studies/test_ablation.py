"""Ablations: frame methods and seeds on one budget (what they share with searches: test_study)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from watched_runs import CONFIG, DATA, METHODS, ONE_EPOCH, WatchedRuns, assert_is_a_fit

from crystalframer.config import FrameConfig
from crystalframer.errors import ConfigError
from crystalframer.studies import AblationResult, ablate

MAE = "mae/formation_energy_per_atom"


def test_a_row_is_what_fit_finds_for_this_method_and_seed(ablation: AblationResult, tmp_path: Path) -> None:
    model = replace(CONFIG.model, frame=replace(CONFIG.model.frame, method="max"))
    (row,) = ablation.table.query("frame_method == 'max' and seed == 1").to_dict("records")
    config = replace(CONFIG, model=model, training=replace(CONFIG.training, seed=1))
    alone = assert_is_a_fit(row, config, tmp_path / "alone")
    assert row["chosen"] == alone.chosen
    assert row[f"test_{MAE}"] == alone.scores[alone.chosen].test_mae["formation_energy_per_atom"]
    assert row["n_parameters"] == sum(p.numel() for p in alone.model.parameters())
    history = ablation.histories.query("frame_method == 'max' and seed == 1").reset_index(drop=True)
    assert history["validation_loss"].tolist() == alone.history["validation_loss"].tolist()
    assert row["seconds"] == pytest.approx(history["seconds"].sum())
    milliseconds = 1000 * history["training_seconds"].to_numpy()[1:] / history["step"][0]
    assert row["ms_per_step"] == pytest.approx(np.median(milliseconds))


def test_rows_are_in_the_order_that_was_asked_for(ablation: AblationResult) -> None:
    named = ablation.table[["frame_method", "seed"]].apply(tuple, axis=1).tolist()
    assert named == [("none", 3), ("none", 1), ("max", 3), ("max", 1)]
    assert ablation.table.attrs["units"] == {"formation_energy_per_atom": "eV/atom"}
    by_run = ablation.histories.groupby(["frame_method", "seed"], sort=False)["epoch"].apply(list)
    assert by_run.index.tolist() == named and by_run.tolist() == [[1, 2, 3]] * 4
    assert list(ablation.histories)[:3] == ["frame_method", "seed", "epoch"]


def test_means_are_over_the_seeds(ablation: AblationResult) -> None:
    means = ablation.means
    assert means.index.tolist() == list(METHODS)
    for method in METHODS:
        values = ablation.table.loc[ablation.table["frame_method"] == method, f"test_{MAE}"].to_numpy()
        assert means.loc[method, (f"test_{MAE}", "mean")] == pytest.approx(values.mean(), rel=1e-12)
        assert means.loc[method, (f"test_{MAE}", "std")] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        written = f"{values.mean():.4g}".ljust(5, "0")
        assert re.search(rf"{method} +2 .*{written}", ablation.summary())
    assert "test MAE (eV/atom)" in ablation.summary()
    assert means.loc["max", ("n_parameters", "mean")] > means.loc["none", ("n_parameters", "mean")]


def test_without_a_test_part(tmp_path: Path) -> None:
    result = ablate(ONE_EPOCH, ["none"], [0], replace(DATA, test=DATA.test.select([])), tmp_path)
    assert np.isnan(result.table[f"test_{MAE}"].to_numpy()).all()
    assert re.search("none +1 .* none ", result.summary())


def test_seeds_can_be_added_and_share_a_random_split(tmp_path: Path, runs: WatchedRuns) -> None:
    config = replace(ONE_EPOCH, data=replace(CONFIG.data, split="random"))
    ablate(config, ["none"], [1], DATA.train, tmp_path)
    ablate(config, ["none"], [0, 1], DATA.train, tmp_path)
    assert runs.names == ["none-seed1", "none-seed0"]
    expected = DATA.train.split(config.data, CONFIG.training.seed)
    one, other = ((tmp_path / f"none-seed{seed}" / "data.json").read_text() for seed in (0, 1))
    assert one == other and f'"crystals": {len(expected.test)}' in one


def test_methods_that_do_not_go_with_the_other_settings(tmp_path: Path) -> None:
    """The error names the option that the user gave, or its default."""
    exact = replace(CONFIG, model=replace(CONFIG.model, frame=FrameConfig(weighted_margin=0.1)))
    with refused(ConfigError, "pca", "weighted sets", field="frame_methods"):
        ablate(exact, ["max", "pca"], [0], DATA, tmp_path)


@pytest.mark.parametrize(
    ("methods", "seeds", "word"),
    [(["maxx"], [0], "did you mean 'max'"), (["max", "max"], [0], "frame_methods"), (["max"], [], "seeds")],
)
def test_what_cannot_be_compared(methods: list, seeds: list, word: str, tmp_path: Path, as_in_production: None) -> None:
    with refused(ConfigError, word):
        ablate(CONFIG, methods, seeds, DATA, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
