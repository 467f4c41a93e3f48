"""The gallery: pages with live views of the crystals in `gallery/structures`, and the directive that lists them.

Pages and thumbnails are made while the site is built, with the weights of the package, and written beside its pages.
"""

from __future__ import annotations

import html
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import crystalframer as cf
import viz
from viz.first_sight import clearest_head, find_atom

STRUCTURES = Path(__file__).parents[1] / "gallery" / "structures"
TABLE = STRUCTURES.parent / "crystals.toml"
FOLDER = "_gallery"
THUMBNAIL = 2.4
"""Inches."""
DPI = 150


@dataclass(frozen=True)
class Shown:
    """A crystal of the gallery."""

    file: str
    """Its file in `STRUCTURES`, without the suffix."""
    name: str
    group: str
    """The part of the gallery to which it belongs."""
    look: str
    """What to look for."""
    coordination: dict[str, list[int]]
    """Element → coordination numbers of its atoms, ascending."""

    @property
    def path(self) -> Path:
        """Its structure."""
        return STRUCTURES / f"{self.file}.cif"

    @property
    def source(self) -> str:
        """Where cell and positions are published: the first line of the file."""
        return self.path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()


def crystals() -> list[Shown]:
    """The crystals in the order of the gallery."""
    return [Shown(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["crystal"]]


class Gallery(SphinxDirective):
    """Shows the crystals of one group: thumbnail, name and what to look for; each leads to its page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The cards as HTML."""
        chosen = [crystal for crystal in crystals() if crystal.group == self.arguments[0]]
        if not chosen:
            raise self.error(f"the gallery has no group {self.arguments[0]!r}")
        return [nodes.raw("", f'<div class="gallery">{"".join(map(card, chosen))}</div>', format="html")]


def card(crystal: Shown) -> str:
    """Thumbnail, name and text of a crystal, with links to its page."""
    page, name = f"{FOLDER}/{crystal.file}.html", html.escape(crystal.name)
    picture = f'<img src="{FOLDER}/{crystal.file}.png" alt="" loading="lazy" width="240" height="240">'
    link = f'<a href="{page}">{picture}<figcaption>{name}</figcaption></a>'
    return f"<figure>{link}<p>{html.escape(crystal.look)}</p></figure>"


def write_pages(folder: Path, chosen: Sequence[Shown]) -> None:
    """Write page and thumbnail of each crystal into a folder."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    model = cf.load()
    for crystal in chosen:
        scene = viz.scene_from_trace(cf.trace(crystal.path, model))
        atom = find_atom(scene, None)
        head = clearest_head(scene, 0, atom)
        note = f"What to look for: {crystal.look} {measured(scene, head, atom)} Cell and positions: {crystal.source}."
        page = viz.explorer_html(scene, head=head, atom=atom, note=note)
        (folder / f"{crystal.file}.html").write_text(page, encoding="utf-8")
        figure = Figure(figsize=(THUMBNAIL, THUMBNAIL))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        viz.structure_figure(scene, 0, head, atom, ax=ax)
        figure.savefig(folder / f"{crystal.file}.png", dpi=DPI)


def measured(scene: viz.Scene, head: int, atom: int) -> str:
    """How the attention of an atom in the first layer is divided, in words."""
    of_atom = scene.edge_index[0] == atom
    shares = scene.weights(0, head)[of_atom]
    lengths = scene.edge_lengths[of_atom].round(2)
    first = float(lengths[lengths > 0].min())
    is_first, stays = lengths == first, float(shares[lengths == 0].sum())
    n_first = int(is_first.sum())
    neighbors = f"the {n_first} nearest atoms" if n_first > 1 else "the nearest atom"
    return (
        f"At first, {scene.labels[atom]} in layer 0, head {head}: "
        f"{stays:.0%} of its attention stays, "
        f"{float(shares[is_first].sum()):.0%} goes to {neighbors} at {first:.2f} Å, and "
        f"{float(shares[lengths > first].sum()):.0%} beyond."
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and make the pages when the site is written."""
    app.add_directive("gallery", Gallery)
    app.connect("builder-inited", _write_pages)
    return {"parallel_read_safe": True}


def _write_pages(app: Sphinx) -> None:
    if app.builder.format == "html":
        write_pages(Path(app.outdir) / FOLDER, crystals())
