"""The physics suite: it passes sound models and catches unsound ones."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Structure

import crystalframer as cf
from crystalframer import cli
from crystalframer.analysis.check import DESCRIPTIONS, _default_crystals
from crystalframer.analysis.continuity import continuity, paths_of
from crystalframer.config import DecayConfig, FrameConfig
from crystalframer.crystals.loading import make_batch
from crystalframer.maths.segments import segment_max
from crystalframer.model.attention import FramedSelfAttention
from crystalframer.ops import reference
from crystalframer.presets import preset
from crystalframer.testing import prototypes, random_crystal

GROUPS = (225, 229, 194, 227, 225, 221, 216, 186, 194, 225, 221, 136)
"""Space groups of the prototypes, from the International Tables."""
CRYSTALS = [random_crystal(seed, n_atoms=3 + seed) for seed in range(3)]
CONFIG = preset("tiny").config.model


def model(**changes) -> cf.CrystalFramer:
    made = cf.CrystalFramer(replace(CONFIG, **changes), torch.Generator().manual_seed(0)).eval()
    made.calibrate(make_batch(CRYSTALS, CONFIG.radius))
    return made


def exact_model(kind: type[cf.CrystalFramer] = cf.CrystalFramer, **changes) -> cf.CrystalFramer:
    """Sums over frames, both hands, every head with its own reach."""
    frame = FrameConfig(weighted_margin=0.1, second_axis="sine", both_hands=True)
    config = replace(CONFIG, frame=replace(frame, **changes), decay=DecayConfig(reach=3.0))
    made = kind(config, torch.Generator().manual_seed(0)).eval()
    made.calibrate(make_batch(CRYSTALS, config.radius, enlarge=False))
    return made


def failed(report) -> set[str]:
    return set(report.table.loc[report.table["passed"] == False, "check"])  # noqa: E712


def test_a_sound_model_passes_and_every_check_was_made() -> None:
    report = cf.check(CRYSTALS, exact_model(), n_draws=1, progress=False)
    assert report.passed, report
    assert set(report.table["check"]) == set(DESCRIPTIONS) - (set() if torch.cuda.is_available() else {"device"})
    assert (report.table["largest"] >= report.table["median"]).to_numpy().all()
    assert "same" in report.summary() and "DIFFERS" not in report.summary() and "STEPS" not in report.summary()
    rows = report.table.set_index("check")
    assert rows.loc[["mirror", "cutoff", "paths"], "promised"].all() and not rows.loc["kinks", "promised"]
    assert 0 < rows.loc["reach", "largest"] < 0.1 and rows.loc["reach", "passed"] is None
    assert rows.loc["cutoff", "ratio"] >= 1 and "the median" in report.summary()


def test_what_is_not_promised_is_shown_and_not_judged() -> None:
    report = cf.check(CRYSTALS, model(), n_draws=1, progress=False)
    assert report.passed, report
    assert "a mirror image can have another prediction" in report.summary()
    rows = report.table.set_index("check").loc[["mirror", "cutoff", "paths"]]
    assert (rows["largest"] > 1e-4).all(), rows
    assert not rows["promised"].any() and rows["passed"].isna().all()
    assert report.summary().count("not promised") == 3


def test_atoms_that_hardly_fit_start_no_path_and_stop_no_check() -> None:
    close = cf.Crystal(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.55]]), 4.0 * np.eye(3), "H2")
    report = cf.check([close], exact_model(), n_draws=1, progress=False)
    assert report.passed and {"rotation", "mirror"} <= set(report.table["check"])


class Stepped(cf.CrystalFramer):
    """Jumps a little whenever the shortest distance passes a multiple of 0.05 Å."""

    def forward(self, batch, noise_seed=None):
        lengths = batch.edge_lengths + 9 * (batch.edge_lengths < 0.1)  # an atom is no neighbour of itself
        shortest = segment_max(-lengths[:, None], batch.crystal_index[batch.edge_index[0]], batch.n_crystals)
        return super().forward(batch, noise_seed) - 1e-4 * torch.floor(shortest / 0.05)


def test_a_hidden_step_is_caught_where_none_is_promised() -> None:
    report = cf.check(CRYSTALS[:1], exact_model(Stepped), n_draws=1, progress=False)
    assert {"paths"} <= failed(report) <= {"paths", "cutoff"}
    assert "STEPS" in report.summary() and "an error of the program" in report.summary()
    assert report.table.set_index("check").loc["paths", "largest"] == pytest.approx(1e-4, rel=0.05)


def test_a_hard_end_of_the_reach_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def hard(lengths: torch.Tensor, decay_length: torch.Tensor, reach: float) -> torch.Tensor:
        return torch.zeros_like(decay_length).masked_fill(lengths > reach * decay_length, -torch.inf)

    made = exact_model()
    paths = paths_of(made, CRYSTALS, ["reach"])

    def steps() -> np.ndarray:
        return continuity(made, paths, progress=False)["step/formation_energy_per_atom"].to_numpy()

    assert not steps().any()
    monkeypatch.setattr(reference, "log_envelope", hard)
    assert (steps() > 1e-8).all()


def test_a_mirror_image_that_differs_is_caught_where_none_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FramedSelfAttention, "_cosine_weights", lambda layer: layer.cosine_projection)
    assert failed(cf.check(CRYSTALS[:1], exact_model(), n_draws=1, progress=False)) == {"mirror"}
    assert cf.check(CRYSTALS[:1], exact_model(both_hands=False), n_draws=1, progress=False).passed


def test_without_structures_it_takes_prototypes_real_crystals_and_random_ones() -> None:
    report = cf.check(model=model(), n_draws=1, progress=False)
    assert report.n_structures == 44
    assert len({crystal.id for crystal in _default_crystals()}) == 44
    assert "44 structures" in report.summary()


def test_what_was_not_tried_is_said() -> None:
    report = cf.check(CRYSTALS, model().double(), n_draws=1, progress=False)
    (line,) = (line for line in str(report).splitlines() if line.startswith("not tested here: "))
    assert "kernels (compiled kernels and plain torch), precision (32 bits and 64 bits)" in line


@pytest.mark.parametrize(("crystal", "group"), list(zip(prototypes(), GROUPS, strict=True)))
def test_prototypes_have_the_symmetry_of_their_type(crystal: cf.Crystal, group: int) -> None:
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    structure = Structure(crystal.lattice, crystal.atomic_numbers.tolist(), crystal.frac_coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert SpacegroupAnalyzer(structure, symprec=1e-6).get_space_group_number() == group, crystal.id


def test_frames_of_the_cell_are_caught() -> None:
    report = cf.check(CRYSTALS, model(frame=FrameConfig("lattice")), n_draws=4, progress=False)
    assert {"cell", "supercell"} & failed(report)
    assert not {"rotation", "translation", "repetition", "batch"} & failed(report)
    assert "DIFFERS" in report.summary()
    assert "expected: the frame method 'lattice' depends on the choice of cell" in report.summary()
    assert "as_trained" not in report.summary() and "symmetric" not in report.summary()


class Restless(cf.CrystalFramer):
    """Never says the same twice."""

    def forward(self, batch, noise_seed=None):
        return super().forward(batch, noise_seed) + 1e-6 * torch.rand(1)


class Crowded(cf.CrystalFramer):
    """Each crystal sees how many others there are."""

    def forward(self, batch, noise_seed=None):
        return super().forward(batch, noise_seed) + 0.1 * batch.n_crystals


class Compass(cf.CrystalFramer):
    """Knows where x is."""

    def forward(self, batch, noise_seed=None):
        return super().forward(batch, noise_seed) + batch.lattice[:, 0, :1].abs().to(self.target_mean.dtype)


@pytest.mark.parametrize(("kind", "caught"), [(Restless, "repetition"), (Crowded, "batch"), (Compass, "rotation")])
def test_unsound_models_are_caught(kind: type[cf.CrystalFramer], caught: str) -> None:
    report = cf.check(CRYSTALS, kind(CONFIG).eval(), n_draws=2, progress=False)
    assert caught in failed(report)
    assert not report.passed
    assert "as_trained" in report.summary() and "expected" not in report.summary()


def test_the_command_reports_and_its_exit_code_tells(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    cf.save(model(), tmp_path / "sound")
    cf.save(model(frame=FrameConfig("lattice")), tmp_path / "unsound")
    structures = []
    for crystal in CRYSTALS[:2]:
        path = tmp_path / f"{crystal.id}.cif"
        crystal.write(path)
        structures.append(str(path))
    table = tmp_path / "check.csv"
    words = ["--structures", *structures, "--n-draws", "4"]
    assert cli.main(["check", str(tmp_path / "sound"), *words, "--output", str(table)]) == 0
    assert "2 structures" in capsys.readouterr().out
    assert "rotation" in table.read_text(encoding="utf-8")
    assert cli.main(["check", str(tmp_path / "unsound"), *words]) == 1
    assert "DIFFERS" in capsys.readouterr().out
