"""Draw the pictures of the documentation: the explorer, a motif, an ablation.

    python scripts/pictures.py                  # all three
    python scripts/pictures.py explorer motif   # without training

Writes docs/explorer.png, docs/motif.png and docs/ablation.png. The explorer and the ablation are screenshots of
Chromium (which must be installed; no network is used). The ablation trains with the settings of the notebook
02_ablation, which takes three minutes on two CPU cores, unless its folder contains the runs already.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import crystalframer as cf
import viz

if TYPE_CHECKING:
    from pymatgen.core import Structure

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = ["explorer", "motif", "ablation"]
N_EPOCHS, SEEDS, MAX_ATOMS = 10, (0, 1, 2), 10
SHORT = {"learning_rate": 2e-3, "schedule": "warmup-stable-decay", "warmup_steps": 20, "swa_epochs": 0}
"""Settings of the ablation, as in the notebook."""
# Software WebGL gives the same picture on every machine.
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def main(wanted: list[str], ablation: Path) -> None:
    if {"explorer", "motif"} & set(wanted):
        of_spinel(wanted)
    if "ablation" in wanted:
        of_ablation(ablation)


def of_spinel(wanted: list[str]) -> None:
    """What the shipped weights attend to in spinel: the explorer, and a still picture of an octahedron."""
    spinel = cf.trace(spinel_structure(), cf.load())
    scene = viz.scene_from_trace(spinel)
    aluminium = scene.labels.index("Al1")
    if "motif" in wanted:
        figure = viz.structure_figure(scene, layer=3, head=0, atom=aluminium, polyhedra="selected")
        figure.savefig(DOCS / "motif.png", dpi=150)
    if "explorer" in wanted:
        explorer = viz.AttentionExplorer(spinel, layer=3, head=0, atom=aluminium, frames="selected")
        photograph(explorer.to_html(), DOCS / "explorer.png", width=1180, height=818, ready=".cf-structure canvas")


def of_ablation(folder: Path) -> None:
    """Frame methods on the same crystals; trains them, unless the folder has the runs."""
    config = cf.preset("demo").config
    config = replace(
        config,
        data=replace(config.data, max_atoms_per_crystal=MAX_ATOMS),
        training=replace(config.training, n_epochs=N_EPOCHS, **SHORT),
    )
    splits = cf.dataset("demo").split(config.data, seed=config.training.seed)
    result = cf.ablate(config, seeds=SEEDS, data=splits, output=folder)
    print(result)
    page = viz.ablation_figure(result.table, result.histories).to_html(include_plotlyjs=True)
    photograph(page, DOCS / "ablation.png", width=1200, height=470, ready=".plot-container")


def spinel_structure() -> Structure:
    """MgAl₂O₄: aluminium in octahedra, magnesium in tetrahedra. Fd-3m with the origin at the centre of symmetry."""
    from pymatgen.core import Lattice, Structure

    positions = [[1 / 8] * 3, [1 / 2] * 3, [0.2624] * 3]
    structure = Structure.from_spacegroup("Fd-3m:2", Lattice.cubic(8.08), ["Mg", "Al", "O"], positions)
    return structure.get_primitive_structure()


def photograph(page_text: str, path: Path, width: int, height: int, ready: str) -> None:
    """Save a page as PNG with doubled resolution, as soon as an element matches `ready`."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        sys.exit("error: pictures need Chromium; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        source = Path(folder) / "page.html"
        source.write_text(page_text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=2)
        page.goto(source.as_uri())
        page.wait_for_selector(ready)
        page.wait_for_timeout(2000)  # both draw again after they appear
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pictures", nargs="*", choices=PICTURES, default=PICTURES, help="which ones; all if none is named"
    )
    parser.add_argument("--ablation", type=Path, default=Path("runs/ablation"), help="folder of the ablation runs")
    arguments = parser.parse_args()
    main(arguments.pictures, arguments.ablation)
