"""A scene encoded as bytes for the browser: the data of all layers, heads and atoms, sent once.

The browser computes everything that it shows from these arrays (`viz/frontend/crystal.js`), so sliders need no kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.explanations import Explanation
from viz import frame_sets, palette, why
from viz.quantities import without_logarithm
from viz.scene import FAINT, TIE, Scene
from viz.site_values import SiteValues
from viz.symmetry import symmetry

if TYPE_CHECKING:
    import pandas

ALIGNMENT = 8
"""Bytes. Every array starts at a multiple of this, as typed arrays of JavaScript require."""
AXIS_SCALE = 32767
"""Components of unit vectors are sent as 16-bit integers: 1 is this number."""

OPACITY_SCALE = 255


def encode(
    scene: Scene,
    explanation: Explanation | None = None,
    substitutions: pandas.DataFrame | None = None,
    values: SiteValues | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Header (plain JSON: texts, colours, position of each array) and arrays as bytes.

    Attention is sent as float16: weights are exact to 0.05 %, and equal weights stay equal. Only e₁ and e₂ of a frame
    are sent, as e₃ = e₁ × e₂. Matrices, distance curves and strongest lines are computed from the edges in the browser.
    """
    # Edges are sorted by query atom.
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
        "bondStart": np.searchsorted(scene.bond_index[0], np.arange(scene.n_atoms + 1)).astype(np.uint32),
        "bondKey": scene.bond_index[1].astype(np.uint32),
        "bondImage": scene.bond_image.astype(np.int16),
        "edgeStart": np.searchsorted(query, np.arange(scene.n_queries + 1)).astype(np.uint32),
        "edgeKey": key.astype(np.uint32),
        "edgeImage": scene.edge_image[order].astype(np.int16),
        "attention": scene.attention[..., order].astype(np.float16),
        "decayLength": scene.decay_length.astype(np.float32),
        "tied": scene.tied.astype(np.uint8),
        "dead": scene.dead.astype(np.uint8),
        **_polyhedra(scene),
    }
    if scene.frames is not None:
        arrays["axes"] = np.round(scene.frames[..., :2, :] * AXIS_SCALE).astype(np.int16)
    texts, of_sets = _sets(scene)
    arrays |= of_sets
    header = _header(scene, kinds) | {"frameTexts": texts, "values": []}
    for number, (name, (array, unit)) in enumerate((values or {}).items()):
        arrays[f"value{number}"] = array.astype(np.float32)
        is_signed = bool((array < 0).any())
        header["values"].append({"name": name, "unit": unit, "array": f"value{number}", "isSigned": is_signed})
    if explanation is not None:
        why.check_same_crystal(scene, explanation)
        arrays |= why.arrays_of(explanation, order)
        header["explanation"] = why.header_of(explanation)
        unit = header["explanation"]["unit"]
        header["values"].append({"name": "contribution", "unit": unit, "array": "contribution", "isSigned": True})
        if substitutions is not None:
            header["substitutions"] = why.substitution_table(substitutions, explanation.target)
    return packed(header, arrays)


def packed(header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Arrays one after another, and the header with where each lies."""
    layout, data = {}, bytearray()
    for name, array in arrays.items():
        layout[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": len(data)}
        data += array.astype(array.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    return header | {"arrays": layout}, bytes(data)


def _header(scene: Scene, kinds: np.ndarray) -> dict[str, Any]:
    return {
        "id": scene.id,
        "formula": scene.formula,
        "isMetallic": scene.is_metallic,
        "vacuum": list(scene.vacuum),
        **_symmetry(scene),
        "title": _title(scene),
        "name": scene.id if scene.id != scene.formula else "",
        "isRegion": scene.is_region,
        "method": scene.method,
        "labels": list(scene.labels),
        "prediction": [_predicted(scene, *item) for item in scene.prediction.items()],
        "flags": [{"title": title, "reason": reason} for title, reason in scene.notes.flags.items()],
        "origin": scene.notes.origin,
        "tie": TIE,
        "faint": FAINT,
        "axisScale": AXIS_SCALE,
        "opacityScale": OPACITY_SCALE,
        "unsignedAxis": scene.unsigned_axis,
        "elements": [
            asdict(item) | {"ball_radius": item.ball_radius} for item in map(palette.element, map(int, kinds))
        ],
        "palette": {
            "axes": palette.AXIS_COLORS,
            "axisLabels": frame_sets.axis_labels(scene),
            "otherLengths": frame_sets.LENGTHS,
            "otherRadii": frame_sets.RADII,
            "attention": palette.ATTENTION_COLOR,
            "attentionRamp": palette.ATTENTION_RAMP,
            "heatmap": palette.HEATMAP_RAMP,
            "cell": palette.CELL_COLOR,
            "raises": palette.RAISES,
            "lowers": palette.LOWERS,
            "ink": palette.INK,
            "paper": palette.PAPER,
            "paleness": palette.PALENESS,
        },
    }


def _predicted(scene: Scene, name: str, value: float) -> dict[str, Any]:
    """A prediction in words: of a logarithm the quantity itself (151 GPa), of a class its probability."""
    notes, unit = scene.notes, scene.units.get(name, "")
    if name.startswith("is_") and not unit and 0 <= value <= 1:
        words = f"probability that it {name.replace('_', ' ')}"
        return {"name": words, "value": f"{value:.2f}", "unit": "", "interval": None}
    plain, plain_unit = without_logarithm(name, unit)
    if plain != name:
        low, high = notes.intervals.get(name, (math.nan, math.nan))
        notes = replace(notes, intervals={plain: (10.0**low, 10.0**high)})
        name, value, unit = plain, 10.0**value, plain_unit
    said = notes.predicted(name, value, unit)
    interval = {"text": said.interval, "about": said.about} if said.interval else None
    return {"name": said.name, "value": said.value, "unit": said.unit, "interval": interval}


def _symmetry(scene: Scene) -> dict[str, Any]:
    found = symmetry(scene)
    cells = [
        {
            "name": cell.name,
            "isGiven": number == 0,
            "vectors": cell.vectors.round(6).tolist(),
            "origin": cell.origin.round(6).tolist(),
        }
        for number, cell in enumerate(found.cells)
    ]
    sites = [{"name": site.name, "atoms": list(site.atoms)} for site in found.sites]
    return {"spaceGroup": found.space_group, "sites": sites, "cells": cells}


def _sets(scene: Scene) -> tuple[list[str], dict[str, np.ndarray]]:
    """The sentences on frames, and which one is for each layer, head and atom; their pale axes, one after another.

    The pale axes of layer l, head h and atom i are those from `otherStart[n]` on, with n = (l·n_heads + h)·n_atoms + i.
    """
    shape = scene.tied.shape
    numbers: dict[str, int] = {}
    text, count = np.zeros(shape, np.uint16), np.zeros(shape, np.uint32)
    parts = [frame_sets.NO_AXES]
    for layer, head, atom in np.ndindex(*shape) if scene.sets else ():
        number = numbers.setdefault(frame_sets.frame_text(scene, layer, head, atom), len(numbers))
        others = frame_sets.other_axes(scene, layer, head, atom)
        text[layer, head, atom], count[layer, head, atom] = number, len(others.axis)
        parts.append(others)
    axes, directions, opacities = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("axis", "direction", "opacity")
    )
    return list(numbers), {
        "frameText": text,
        "otherStart": np.concatenate([[0], np.cumsum(count)]).astype(np.uint32),
        "otherAxis": axes.astype(np.uint8),
        "otherDirection": np.round(directions * AXIS_SCALE).astype(np.int16),
        "otherOpacity": np.round(opacities * OPACITY_SCALE).astype(np.uint8),
    }


def _title(scene: Scene) -> str:
    """Title of the picture. (Predictions are those of the whole crystal, also for a region.)"""
    if scene.is_region:
        return f"{scene.n_queries} atoms of {scene.id or 'a crystal'}"
    return f"{scene.formula} · {scene.id}" if scene.id and scene.id != scene.formula else scene.formula


def _polyhedra(scene: Scene) -> dict[str, np.ndarray]:
    """All polyhedra together: their vertices one after another, with faces and rims numbered accordingly."""
    hulls = scene.polyhedra
    counts = [len(hull.key) for hull in hulls]
    starts = np.cumsum([0, *counts[:-1]])

    def stacked(rows: list[np.ndarray], dtype: type, *shape: int) -> np.ndarray:
        return np.concatenate([np.empty((0, *shape)), *rows]).astype(dtype)

    return {
        "vertexCenter": np.repeat([hull.center for hull in hulls], counts).astype(np.uint32),
        "vertexKey": stacked([hull.key for hull in hulls], np.uint32),
        "vertexImage": stacked([hull.image for hull in hulls], np.int16, 3),
        "faces": stacked([hull.faces + start for hull, start in zip(hulls, starts, strict=False)], np.uint32, 3),
        "rims": stacked([hull.rims + start for hull, start in zip(hulls, starts, strict=False)], np.uint32, 2),
    }
