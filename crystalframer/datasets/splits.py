"""Splits of the literature, computed from the number of crystals (or their labels) in the order of publication.

The rules were checked against published lists: that of ALIGNN against the ids of jarvis-leaderboard 2024.10.30 (JARVIS
and MEGNet), those of Matbench against the folds in matbench 0.6.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

N_FOLDS = 5
"""Folds of each Matbench task."""
ALIGNN_SEED = 123
MATBENCH_SEED = 18012019
VALIDATION_SHARE = 0.1
"""Share for validation of the crystals that Matbench gives for training and validation together."""

Parts = Shaped[np.ndarray, " n_crystals"]
"""`train`, `validation`, `test` or None: in no part."""


def alignn_parts(n_crystals: int, sizes: Sequence[int]) -> Parts:
    """The split of ALIGNN (Choudhary & DeCost, npj Comput. Mater. 7, 185, 2021), which published results for JARVIS,
    MEGNet and OQMD use. Python's `random` with seed 123 shuffles the rows. The training part is at the front, the test
    part at the end, and the validation part just before it. Rows between training and validation are in no part.

    Args:
        sizes: sizes of training, validation and test part.
    """
    n_train, n_validation, n_test = sizes
    rows = list(range(n_crystals))
    random.Random(ALIGNN_SEED).shuffle(rows)
    parts = np.full(n_crystals, None, dtype=object)
    parts[rows[:n_train]] = "train"
    parts[rows[n_crystals - n_test - n_validation : n_crystals - n_test]] = "validation"
    parts[rows[n_crystals - n_test :]] = "test"
    return parts


def matbench_folds(n_crystals: int) -> Int[np.ndarray, " n_crystals"]:
    """The fold whose test part each crystal is in, for Matbench's regression tasks (Dunn et al., npj Comput. Mater. 6,
    138, 2020). The same as scikit-learn's `KFold(5, shuffle=True, random_state=18012019)`.
    """
    rows = np.arange(n_crystals)
    np.random.RandomState(MATBENCH_SEED).shuffle(rows)
    folds = np.empty(n_crystals, dtype=np.int64)
    for fold, members in enumerate(np.array_split(rows, N_FOLDS)):
        folds[members] = fold
    return folds


def matbench_class_folds(labels: Float[np.ndarray, " n_crystals"]) -> Int[np.ndarray, " n_crystals"]:
    """The same for Matbench's classification tasks, as scikit-learn's `StratifiedKFold` with these settings.

    Every fold has the same share of each class. Within a class, crystals are assigned at random.
    """
    _, first, encoded = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # classes count in order of appearance
    encoded = rank[encoded]
    ordered = np.sort(encoded)
    generator = np.random.RandomState(MATBENCH_SEED)
    folds = np.empty(len(labels), dtype=np.int64)
    for kind in range(len(first)):
        shares = [int((ordered[fold::N_FOLDS] == kind).sum()) for fold in range(N_FOLDS)]
        dealt = np.repeat(np.arange(N_FOLDS), shares)
        generator.shuffle(dealt)
        folds[encoded == kind] = dealt
    return folds


def fold_parts(folds: Int[np.ndarray, " n_crystals"], fold: int) -> Parts:
    """The parts of one fold: its test part; a tenth of the other crystals for validation, drawn with the number of the
    fold as seed; and the rest for training. Matbench prescribes the test part only; validation is our choice.
    """
    parts = np.where(folds == fold, "test", "train").astype(object)
    rest = np.flatnonzero(folds != fold)
    drawn = np.random.default_rng(fold).permutation(rest)[: round(VALIDATION_SHARE * len(rest))]
    parts[drawn] = "validation"
    return parts


def fingerprint(ids: Iterable[str]) -> str:
    """SHA-256 of a set of ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()
