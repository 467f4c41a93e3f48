"""What an explorer shows first: an atom and a head that tell something."""

from __future__ import annotations

from typing import Literal

import numpy as np

from viz.errors import SceneError
from viz.scene import Scene

Head = int | Literal["clearest"] | None
"""A head, counted from 0; None for the mean over heads; `"clearest"` for the one in which least attention stays."""
CLEAREST: Literal["clearest"] = "clearest"


def telling_atom(scene: Scene) -> int:
    """The atom that tells most, nearest to the middle of the picture: a metal in a polyhedron, else a metal with three
    bonds or more (as Cu in a plane), else the centre of a polyhedron, else any.

    Example:
        >>> scene.labels[telling_atom(scene)]
        'Ti1'
    """
    middle = scene.drawn_positions.mean(axis=0)
    distance = np.linalg.norm(scene.positions[: scene.n_queries] - middle, axis=1).round(3)
    centers = {hull.center for hull in scene.polyhedra}
    n_bonds = np.bincount(scene.bond_index[0], minlength=scene.n_atoms)

    def rank(atom: int) -> tuple[bool, bool, bool, bool, float, int]:
        is_metal = not scene.elements[atom].is_nonmetal
        return (
            not (is_metal and atom in centers),
            not (is_metal and n_bonds[atom] > 2),
            atom not in centers,
            bool(n_bonds[atom] < 2),
            float(distance[atom]),
            atom,
        )

    return min(range(scene.n_queries), key=rank)


def clearest_head(scene: Scene, layer: int, atom: int) -> int:
    """The head of a layer in which least attention stays on an atom.

    Raises:
        SceneError: there is no such layer or atom.
    """
    scene.check(layer, None, atom)
    query, key = scene.edge_index
    is_itself = (query == atom) & (key == atom) & (scene.edge_image == 0).all(axis=1)
    return int(scene.attention[layer][:, is_itself].sum(axis=1).argmin())


def find_atom(scene: Scene, atom: int | str | None) -> int:
    """The number of an atom: of a label such as `"Ti2"`, or of the most telling one for None.

    Raises:
        SceneError: no atom has this label.

    Example:
        >>> find_atom(scene, "O2")
        3
    """
    if atom is None:
        return telling_atom(scene)
    if isinstance(atom, str):
        labels = scene.labels[: scene.n_queries]
        if atom not in labels:
            some = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
            raise SceneError(f"no atom {atom!r}; there are {some}", field="atom", value=atom)
        return labels.index(atom)
    return atom
