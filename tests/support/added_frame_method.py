"""Adds a frame method as a contributor does, with one row of the table and one formula, and uses it from end to end.

A program of its own, because the table has to be longer before other modules read it: `added_frame_method.py FOLDER`.
"""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

import crystalframer as cf

FOLDER = Path(sys.argv[1])
NAME = "inward"
ROW = f'    "{NAME}": FramePromises("orthogonal", False, None, (), False, 64, 20),\n'

table = Path(cf.__file__).parent / "frame_methods.py"
text = table.read_text(encoding="utf-8").replace("}  # fmt: skip\n", ROW + "}  # fmt: skip\n")
assert ROW in text
module = sys.modules["crystalframer.frame_methods"] = types.ModuleType("crystalframer.frame_methods")
exec(compile(text, table, "exec"), module.__dict__)

import viz  # noqa: E402 - after the row
from crystalframer import cli  # noqa: E402
from crystalframer.config import FRAME_METHODS, FrameConfig  # noqa: E402
from crystalframer.maths.attended import AttendedEdges  # noqa: E402
from crystalframer.maths.frames import FORMULAS, Frame, NoiseSeed  # noqa: E402
from crystalframer.maths.ties import right_handed  # noqa: E402
from crystalframer.testing import random_crystal  # noqa: E402


def inward_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """e₁ points to the attended centre of mass, and e₂ to where second moments turn it."""
    e1 = normalize(attended.moment(1), dim=-1)
    return Frame(right_handed(e1, (attended.moment(2) @ e1[..., None])[..., 0]))


FORMULAS[NAME] = inward_frames
assert NAME in FRAME_METHODS
torch.set_num_threads(1)

start = cf.preset("tiny").config
config = replace(
    start,
    model=replace(start.model, frame=FrameConfig(NAME)),
    data=replace(start.data, max_atoms_per_crystal=4),
    training=replace(start.training, n_epochs=1, swa_epochs=0, batch_size=16, accelerator="cpu"),
)
model = cf.fit(config, output=FOLDER / "run").model
crystals = [random_crystal(seed, n_atoms=3) for seed in range(3)]
predicted = cf.predict(crystals, model, progress=False)
assert predicted["error"].isna().to_numpy().all()

cf.save(model, FOLDER / "saved")
again = cf.load(FOLDER / "saved", device="cpu")
assert again.config.frame.method == NAME
assert cf.predict(crystals, again, progress=False).equals(predicted)

trace = cf.trace(crystals[0], again)
read = cf.CrystalTrace.load(trace.save(FOLDER / "trace.safetensors"))
frame = read.layers[0].frame
assert frame is not None and frame.method == NAME
np.testing.assert_allclose(frame.axes @ frame.axes.swapaxes(-1, -2), np.eye(3) + 0 * frame.axes, atol=1e-5)
scene = viz.scene_from_trace(read)
assert scene.method == NAME and scene.frames is not None

report = cf.check(again, crystals, n_draws=1, progress=False)
assert report.passed and {"rotation", "cell", "supercell", "kernels"} <= set(report.table["check"]), report.summary()

cli.main(["train", "--help"])
