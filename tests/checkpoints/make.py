"""Write a small checkpoint and its predictions, with the version of crystalframer that is on the path.

    git worktree add ../old 8aa77ef                                         # the last commit of version 0.1.0
    PYTHONPATH=../old python tests/checkpoints/make.py 0.1.0
    git worktree add ../exact 342b205                                       # the last commit that wrote format 1
    PYTHONPATH=../exact python tests/checkpoints/make.py format-1 exact

`predictions.json` beside the checkpoint holds the crystals and what that version predicted in float32. The model has
large embeddings and angle terms, so that its predictions depend on every frame. The word `exact` makes a model
that promises everything (weighted sets, both hands, a smooth cutoff) instead of the paper's. Its predictions were
written again when the shape of the cutoff was settled, before any release had it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import crystalframer as cf
from crystalframer.testing import prototypes, random_crystal

CHOSEN = ("magnesium (hcp)", "diamond", "rock salt NaCl", "wurtzite ZnO", "perovskite SrTiO3", "rutile TiO2")


def model(exact: bool) -> cf.CrystalFramer:
    config = cf.preset("tiny").config
    if exact:
        frame = replace(config.model.frame, weighted_margin=0.1, second_axis="sine", both_hands=True)
        decay = replace(config.model.decay, reach=2.5, shape="smooth")
        smooth = replace(config.model, frame=frame, decay=decay, activation="swish", largest_content=4.0)
        config = replace(config, model=smooth)
    config = replace(config, training=replace(config.training, n_epochs=1, swa_epochs=0, accelerator="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        trained = cf.fit(config, output=Path(folder) / "run").model.eval()
    with torch.no_grad():
        for block in trained.blocks:
            assert block.attention.cosine_projection is not None
            block.attention.cosine_projection.mul_(8)
        trained.embedding.weight.mul_(8)
    trained.used = None
    return trained


def main(name: str, kind: str = "paper") -> None:
    folder = Path(__file__).parent / name
    made = model(kind == "exact")
    crystals = [crystal for crystal in prototypes() if crystal.id in CHOSEN]
    crystals += [random_crystal(seed, n_atoms=3 + seed) for seed in range(3)]
    cf.save(made, folder)
    table = cf.predict(crystals, cf.load(folder, "cpu"), progress=False)
    record = [
        {
            "id": crystal.id,
            "atomic_numbers": crystal.atomic_numbers.tolist(),
            "positions": crystal.positions.tolist(),
            "lattice": crystal.lattice.tolist(),
            "predicted": predicted,
        }
        for crystal, predicted in zip(crystals, table["formation_energy_per_atom"], strict=True)
    ]
    rows = ",\n".join(map(json.dumps, record))
    (folder / "predictions.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
