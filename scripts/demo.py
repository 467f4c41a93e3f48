"""Train on the demo data, compare with the mean, predict a CIF file, and draw a frame with its attention.

    python scripts/demo.py --output runs/demo

Writes a run folder (config, errors by epoch, checkpoints), `prediction.csv`, `learning_curve.html`, `parity.html`, the
trace of the CIF file, and a picture of a frame as PNG and PDF.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import crystalframer as cf
import viz

CIF = Path(__file__).parents[1] / "notebooks" / "structures" / "TiO2.cif"
TITANIUM = 22


def main(output: Path) -> None:
    started = time.perf_counter()
    if output.exists() and any(output.iterdir()):
        if not (output / "config.json").exists():
            sys.exit(f"error: {output} contains other files than a run; choose another folder with --output")
        shutil.rmtree(output)
    config = cf.preset("demo").config
    n_free = free_cores()
    if n_free < (os.cpu_count() or 1):
        print(f"Other programs use this machine: the demo runs on {n_free} core(s) and takes longer.")
        config = replace(config, training=replace(config.training, n_threads=n_free))
    data = cf.dataset("demo").split(config.data, config.training.seed)
    print(f"Training on {len(data.train)} crystals, testing on {len(data.test)} other crystals.")
    result = cf.fit(config, data, output)

    (target,) = config.model.targets
    error = result.scores[result.chosen].test_mae[target.name]
    baseline = result.baseline_mae[target.name]
    print(f"\nFormation energy of the {len(data.test)} test crystals, mean absolute error:")
    print(f"  always predicting the mean     {baseline:.3f} {target.unit}")
    print(f"  CrystalFramer                  {error:.3f} {target.unit}   ({error / baseline:.0%})")

    prediction = cf.predict(CIF, result.model)
    prediction.to_csv(output / "prediction.csv", index=False)
    print(f"\n{CIF.name}: {prediction[target.name].item():.2f} {target.unit} predicted")

    crystals = cf.evaluate(data.test, result.model).crystals
    viz.learning_curve(result.history, target.name, unit=target.unit, baseline=baseline).write_html(
        output / "learning_curve.html"
    )
    viz.parity_figure(
        crystals.prediction.to_numpy(),
        crystals.label.to_numpy(),
        label=target.label,
        ids=(crystals.id + " " + crystals.formula).tolist(),
        baseline=baseline,
    ).write_html(output / "parity.html")
    trace = cf.trace(CIF, result.model)
    trace.save(output / "TiO2.trace.safetensors")
    (_, in_the_middle) = np.flatnonzero(trace.atomic_numbers == TITANIUM).tolist()
    figure = viz.structure_figure(viz.scene_from_trace(trace), layer=0, head=0, atom=in_the_middle)
    for suffix in (".png", ".pdf"):
        figure.savefig(output / f"TiO2_frame{suffix}", dpi=200)

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    print(f"\n{time.perf_counter() - started:.0f} s, {peak:.2f} GB peak memory. Files in {output}:")
    for name, what in (
        ("TiO2_frame.png", "attention and frame of one titanium atom"),
        ("parity.html", "predictions against DFT values"),
        ("learning_curve.html", "error during training"),
        ("checkpoints/", f"the model; cf.load({str(output)!r}) loads it"),
    ):
        print(f"  {name:20} {what}")


def free_cores() -> int:
    """Number of free cores. With more threads than free cores, all threads of a parallel loop wait."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, (os.cpu_count() or 1) - round(busy))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on the demo data, predict a CIF file, draw a frame.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/demo"),
        help="folder for the results; an earlier run there is replaced",
    )
    try:
        main(parser.parse_args().output)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command starts the demo again", file=sys.stderr)
        sys.exit(130)
