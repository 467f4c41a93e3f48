"""Measure time and peak memory of packing a data set of OQMD's size and format.

    nice -n 19 python scripts/measure_streaming.py --n-crystals 817636

Writes a synthetic archive in the published format, then packs it in a new process with the code of
`crystalframer data get oqmd`. Prints the peak memory of that process, and that of a process which only imports what
packing needs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from crystalframer.datasets.oqmd import OQMD
from crystalframer.datasets.published import Source, pack
from crystalframer.datasets.splits import alignn_parts
from crystalframer.elements import SYMBOLS
from crystalframer.testing import random_crystal

N_DIFFERENT = 1000
"""The same crystals repeated with new ids and labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-crystals", type=int, default=OQMD.n_crystals)
    n_crystals = parser.parse_args().n_crystals
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CRYSTALFRAMER_CACHE"] = folder
        archive = Path(folder) / OQMD.name / OQMD.files[0].name
        n_bytes = write_archive(archive, n_crystals)
        print(f"{n_crystals:,} crystals: {n_bytes / 1e9:.2f} GB of JSON, {archive.stat().st_size / 1e6:.0f} MB zipped")
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            _, alone = pool.apply(measured, (100, False))
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            seconds, peak = pool.apply(measured, (n_crystals, True))
        packed = Path(folder) / OQMD.name / f"{OQMD.name}.parquet"
        print(
            f"packed in {seconds:.0f} s, {n_crystals / seconds:,.0f} crystals/s, {packed.stat().st_size / 1e6:.0f} MB"
        )
        print(f"peak memory {peak:.0f} MB; a process that only imports has {alone:.0f} MB")


def write_archive(path: Path, n_crystals: int) -> int:
    """An archive like all_oqmd.json.zip; returns the bytes of JSON in it."""
    path.parent.mkdir(parents=True)
    generator = np.random.default_rng(0)
    atoms = []
    for seed in range(N_DIFFERENT):
        crystal = random_crystal(seed, int(generator.integers(2, 13)))
        cell = {
            "lattice_mat": crystal.lattice.tolist(),
            "coords": crystal.frac_coords.tolist(),
            "elements": [f"{SYMBOLS[z - 1]} " for z in crystal.atomic_numbers],
            "abc": np.linalg.norm(crystal.lattice, axis=1).tolist(),
            "angles": [90.0, 90.0, 90.0],
            "cartesian": False,
            "props": [""] * len(crystal),
        }
        atoms.append(json.dumps(cell))
    n_bytes = 0
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(path.name.removesuffix(".zip"), "w", force_zip64=True) as file,
    ):
        for row in range(n_crystals):
            labels = f'"_oqmd_entry_id": {row}, "_oqmd_delta_e": {row / n_crystals}, "_oqmd_band_gap": 0.0'
            text = f'{", " if row else "["}{{{labels}, "_oqmd_stability": 0.1, "atoms": {atoms[row % N_DIFFERENT]}}}'
            n_bytes += file.write(text.encode())
        n_bytes += file.write(b"]")
    return n_bytes


def resized(n_crystals: int) -> Source:
    n_part = n_crystals // 10
    sizes = (n_crystals - 2 * n_part, n_part, n_part)
    split = replace(
        OQMD.splits[0], n_labelled=n_crystals, sizes=sizes, parts=lambda labels: alignn_parts(len(labels), sizes)
    )
    return replace(OQMD, n_crystals=n_crystals, splits=(split,))


def measured(n_crystals: int, really: bool) -> tuple[float, float]:
    """Seconds, and the largest resident memory of this process in MB (Linux counts it in KiB)."""
    import pyarrow.parquet  # noqa: F401
    import scipy.spatial  # noqa: F401

    start = time.perf_counter()
    if really:
        pack(resized(n_crystals))
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
