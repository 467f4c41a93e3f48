"""A scene as bytes for the browser: everything of all layers, heads and atoms, sent once.

The browser works out what it shows from these arrays (`viz/frontend/crystal.js`), so a slider needs no kernel.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from viz.palette import (
    ATTENTION_COLOR,
    ATTENTION_RAMP,
    AXIS_COLORS,
    AXIS_LABELS,
    CELL_COLOR,
    HEATMAP_RAMP,
    INK,
    element,
)
from viz.scene import TIE, Scene

ALIGNMENT = 8
"""Bytes; every array starts at a multiple of it, as typed arrays of JavaScript must."""
AXIS_SCALE = 32767
"""Components of unit axes are sent as integers of 16 bits."""


def encode(scene: Scene) -> tuple[dict[str, Any], bytes]:
    """Header (plain JSON: texts, colours, where each array lies) and the arrays.

    Attention goes as float16: each weight to 0.05 %, equal weights stay equal. Of a frame e₁ and e₂ are sent,
    e₃ = e₁ × e₂. Matrices, profiles and strongest lines are not sent; they follow from the edges.
    """
    # Edges of one query atom lie together.
    order = np.argsort(scene.edge_index[0], kind="stable")
    query, key = scene.edge_index[:, order]
    kinds, kind = np.unique(scene.atomic_numbers, return_inverse=True)
    arrays = {
        "kind": kind.astype(np.uint8),
        "positions": scene.positions.astype(np.float32),
        "lattice": scene.lattice.astype(np.float32),
        "cellEdges": scene.cell_edges.astype(np.float32),
        "drawnSite": scene.drawn_site.astype(np.uint32),
        "drawnImage": scene.drawn_image.astype(np.int16),
        "bonds": scene.bonds.astype(np.uint32),
        "edgeStart": np.searchsorted(query, np.arange(scene.n_queries + 1)).astype(np.uint32),
        "edgeKey": key.astype(np.uint32),
        "edgeImage": scene.edge_image[order].astype(np.int16),
        "attention": scene.attention[..., order].astype(np.float16),
        "decayLength": scene.decay_length.astype(np.float32),
        "tied": scene.tied.astype(np.uint8),
        **_polyhedra(scene),
    }
    if scene.frames is not None:
        arrays["axes"] = np.round(scene.frames[..., :2, :] * AXIS_SCALE).astype(np.int16)
    places, parts, offset = {}, [], 0
    for name, array in arrays.items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        places[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
        padded = data.ljust(-len(data) % ALIGNMENT + len(data), b"\0")
        parts.append(padded)
        offset += len(padded)
    return _header(scene, kinds) | {"arrays": places}, b"".join(parts)


def _header(scene: Scene, kinds: np.ndarray) -> dict[str, Any]:
    return {
        "id": scene.id,
        "formula": scene.formula,
        "title": _title(scene),
        "method": scene.method,
        "labels": list(scene.labels),
        "prediction": [
            {"name": name.replace("_", " "), "value": value, "unit": scene.units.get(name, "")}
            for name, value in scene.prediction.items()
        ],
        "tie": TIE,
        "axisScale": AXIS_SCALE,
        "elements": [asdict(item) | {"ball_radius": item.ball_radius} for item in map(element, map(int, kinds))],
        "palette": {
            "axes": AXIS_COLORS,
            "axisLabels": AXIS_LABELS,
            "attention": ATTENTION_COLOR,
            "attentionRamp": ATTENTION_RAMP,
            "heatmap": HEATMAP_RAMP,
            "cell": CELL_COLOR,
            "ink": INK,
        },
    }


def _title(scene: Scene) -> str:
    """What the picture is of; a prediction beside it is of the whole crystal."""
    if scene.is_region:
        return f"{scene.n_queries} atoms of {scene.id or 'a crystal'}"
    return f"{scene.formula} · {scene.id}" if scene.id and scene.id != scene.formula else scene.formula


def _polyhedra(scene: Scene) -> dict[str, np.ndarray]:
    """All polyhedra in one: vertices one after another, faces and rims counted through."""
    solids = scene.polyhedra
    counts = [len(solid.key) for solid in solids]
    starts = np.cumsum([0, *counts])

    def joined(rows: list[np.ndarray], dtype: type, *shape: int) -> np.ndarray:
        return np.concatenate([np.empty((0, *shape)), *rows]).astype(dtype)

    return {
        "vertexCenter": np.repeat([solid.center for solid in solids], counts).astype(np.uint32),
        "vertexKey": joined([solid.key for solid in solids], np.uint32),
        "vertexImage": joined([solid.image for solid in solids], np.int16, 3),
        "faces": joined([solid.faces + start for solid, start in zip(solids, starts, strict=False)], np.uint32, 3),
        "rims": joined([solid.rims + start for solid, start in zip(solids, starts, strict=False)], np.uint32, 2),
    }
