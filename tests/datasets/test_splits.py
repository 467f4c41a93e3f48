from __future__ import annotations

import numpy as np
import pytest

from crystalframer.datasets.splits import alignn_parts, fingerprint, fold_parts, matbench_class_folds, matbench_folds


def test_the_split_of_alignn_as_python_shuffles() -> None:
    # random.seed(123); rows = list(range(12)); random.shuffle(rows): computed once, and the same in every Python 3.
    parts = alignn_parts(12, (7, 2, 2))
    shuffled = [7, 5, 9, 2, 3, 8, 11, 10, 6, 1, 4, 0]
    assert [parts[row] for row in shuffled] == ["train"] * 7 + [None] + ["validation"] * 2 + ["test"] * 2


def test_folds_are_those_of_scikit_learn() -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    settings = {"n_splits": 5, "shuffle": True, "random_state": 18012019}
    for n in (5, 23, 636):
        folds = matbench_folds(n)
        for fold, (_, test) in enumerate(model_selection.KFold(**settings).split(np.zeros(n))):
            np.testing.assert_array_equal(np.flatnonzero(folds == fold), test)
    labels = (np.random.default_rng(0).random(1003) < 0.43).astype(float)
    for values in (labels, 1 - labels):
        folds = matbench_class_folds(values)
        for fold, (_, test) in enumerate(model_selection.StratifiedKFold(**settings).split(values, values)):
            np.testing.assert_array_equal(np.flatnonzero(folds == fold), test)


def test_folds_are_the_published_ones() -> None:
    """Fingerprints of the test ids that matbench 0.6 lists for `matbench_phonons`."""
    folds = matbench_folds(1265)
    ids = np.array([f"mb-phonons-{row:04d}" for row in range(1, 1266)])
    assert [fingerprint(ids[folds == fold])[:8] for fold in range(5)] == [
        "30afdc84",
        "0546bbf7",
        "0b6ea427",
        "5e6a7258",
        "2fd63dab",
    ]


def test_a_fold_keeps_a_tenth_for_validation() -> None:
    folds = matbench_folds(103)
    for fold in range(5):
        parts = fold_parts(folds, fold)
        np.testing.assert_array_equal(parts == "test", folds == fold)
        assert (parts == "validation").sum() == round(0.1 * (folds != fold).sum())
        np.testing.assert_array_equal(parts, fold_parts(folds, fold))
        # The number of the fold is the seed.
        drawn = np.random.default_rng(fold).permutation(np.flatnonzero(folds != fold))
        assert set(np.flatnonzero(parts == "validation")) == set(drawn[: (parts == "validation").sum()])
