"""The crystals that benchmarks run on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import crystalframer as cf
from crystalframer.config import Config
from crystalframer.datasets.dataset import CrystalDataset

SHARED = Path(__file__).parents[2] / "shared" / "data" / "mp2018_val.parquet"
"""Crystals of the Materials Project. The file is not part of the repository."""
SEED = 0


@dataclass(frozen=True, eq=False)
class Sample:
    """A seeded choice from a data set."""

    dataset: CrystalDataset
    name: str
    """Description for the report."""

    @property
    def mean_atoms(self) -> float:
        return float(self.dataset.n_atoms.mean())

    def config(self, preset: str) -> Config:
        """The preset with the target of these crystals."""
        config = cf.preset(preset).config
        target = self.dataset.target(next(iter(self.dataset.targets)))
        return replace(config, model=replace(config.model, targets=(target,)))


def add_options(parser: argparse.ArgumentParser, n_crystals: int) -> None:
    parser.add_argument(
        "--data", help="`demo`, or a packed data set (default: ../shared/data/mp2018_val.parquet, else demo)"
    )
    parser.add_argument("--crystals", type=int, default=n_crystals, help=f"number of crystals (default: {n_crystals})")
    parser.add_argument(
        "--largest-cell", type=int, default=20, help="largest number of atoms in a crystal (default: 20)"
    )


def source(options: argparse.Namespace) -> str:
    """Name or path of the data set."""
    return options.data or (str(SHARED) if SHARED.exists() else "demo")


def sample(options: argparse.Namespace, most: int | None = None) -> Sample:
    """The crystals chosen by the options, at most `most`; 6 in a quick run."""
    dataset = cf.dataset(source(options))
    allowed = np.flatnonzero(dataset.n_atoms <= options.largest_cell)
    n = min([len(allowed), options.crystals, *([most] if most else []), *([6] if options.quick else [])])
    chosen = dataset.select(np.random.default_rng(SEED).permutation(allowed)[:n])
    chosen = chosen.with_targets(list(chosen.targets)[:1])
    fallback = "" if options.data or SHARED.exists() else " (shipped; mp2018_val is not at ../shared/data)"
    name = (
        f"{Path(source(options)).stem}{fallback}: {n} crystals of at most {options.largest_cell} atoms (seed {SEED}), "
        f"{chosen.n_atoms.mean():.1f} atoms on average"
    )
    return Sample(chosen, name)
