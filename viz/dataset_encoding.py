"""The table of a map as bytes for the browser, and the crystals of a page, compressed a few at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystalframer.elements import HIGHEST_ATOMIC_NUMBER
from crystalframer.explanations import Explanation
from viz import palette
from viz.embedding_maps import Neighbors
from viz.encoding import ALIGNMENT, packed
from viz.explorer_page import compressed, starting_state
from viz.first_sight import clearest_head, telling_atom
from viz.palette import element
from viz.point_tables import PointTable
from viz.scene import Scene

EXACT = 2**24
"""Larger whole numbers are not exact as float32, and are sent as float64."""
AT_ONCE = 16
"""Crystals that are compressed together, as they have much in common; all are unpacked to see one."""


def encode_table(table: PointTable, elements: np.ndarray, neighbors: Neighbors | None) -> tuple[dict[str, Any], bytes]:
    """Header (plain JSON) and arrays as bytes.

    Numbers are sent as float32, which keeps 7 digits. Texts are sent once each, with their number for each point.
    """
    arrays: dict[str, np.ndarray] = {"elements": np.ascontiguousarray(elements)}
    columns = []
    for n, name in enumerate(table.frame.columns):
        values = table.frame[name].to_numpy()
        unit = table.units.get(name, "")
        words = name.replace("_", " ")
        label = f"{words} ({unit})" if unit else words
        described = {"name": name, "words": words, "label": label, "unit": unit, "array": f"column{n}"}
        if values.dtype == float:
            whole = np.abs(values[np.isfinite(values)]).max(initial=0) >= EXACT
            arrays[f"column{n}"] = values.astype(np.float64 if whole else np.float32)
            columns.append(described | {"kind": "number", "isWhole": _is_whole(values)})
        else:
            texts, codes = np.unique(values.astype(str), return_inverse=True)
            arrays[f"column{n}"] = codes.astype(np.uint32)
            arrays[f"texts{n}"] = np.frombuffer(json.dumps(texts.tolist()).encode(), dtype=np.uint8)
            columns.append(described | {"kind": "text", "texts": f"texts{n}", "nTexts": len(texts)})
    flags = []
    for n, (name, raised) in enumerate((table.flags or {}).items()):
        arrays[f"flag{n}"] = np.asarray(raised).astype(np.uint8)
        flags.append({"name": name, "array": f"flag{n}", "count": int(np.sum(raised))})
    header: dict[str, Any] = {
        "nPoints": len(table),
        "nRows": table.n_rows,
        "columns": columns,
        "flags": flags,
        "views": [
            {
                "name": view.name,
                "x": view.x,
                "y": view.y,
                "color": view.color,
                "error": view.error,
                "interval": list(view.interval) if view.interval else None,
                "isParity": view.is_parity,
            }
            for view in table.views
        ],
        "notes": list(table.notes),
        "symbols": [element(z).symbol for z in range(1, HIGHEST_ATOMIC_NUMBER + 1)],
        "neighbors": None,
        "palette": {
            "axes": palette.AXIS_COLORS,
            "attentionRamp": palette.ATTENTION_RAMP,
            "heatmap": palette.HEATMAP_RAMP,
            "series": palette.SERIES_COLORS,
            "cell": palette.CELL_COLOR,
            "ink": palette.INK,
            "paper": palette.PAPER,
        },
    }
    if neighbors is not None:
        header["neighbors"] = {
            "k": neighbors.nearest.shape[1],
            "ids": neighbors.ids,
            "formulas": neighbors.formulas,
            "details": neighbors.details,
            "areTrained": neighbors.are_trained,
        }
        arrays["nearest"] = neighbors.nearest.astype(np.int32)
        arrays["distance"] = neighbors.distance.astype(np.float32)
        arrays["neighborPoint"] = neighbors.point.astype(np.int32)
    return packed(header, arrays)


@dataclass(frozen=True)
class Packed:
    """Things of some points for a page."""

    places: dict[str, list[int]]
    """Point → its block, and its number in that block."""
    blocks: list[str]
    """Compressed, as base64."""


Content = tuple[dict[str, Any], bytes]
"""What the browser shows of a crystal: a header (plain JSON) and bytes."""


def described(scene: Scene, explanation: Explanation | None = None) -> Content:
    """A scene for the browser, with the atom and head that tell something; with an explanation, its lines."""
    state = starting_state(scene, frames=None, polyhedra=None, explanation=explanation)
    data = state.pop("data")
    atom = telling_atom(scene)
    first: dict[str, Any] = {"layer": 0, "atom": atom, "head": clearest_head(scene, 0, atom)}
    first["mode"] = "attention" if explanation is None else "relevance"
    return state["header"] | {"first": first | {name: state[name] for name in ("frames", "polyhedra")}}, data


def pack(points: Iterable[int], content_of: Callable[[int], Content | None]) -> Packed:
    """Pack contents. A block is the length of its header (4 bytes), the header as JSON, and the bytes of all."""
    places: dict[str, list[int]] = {}
    blocks: list[str] = []
    headers: list[dict[str, Any]] = []
    data = bytearray()

    def close() -> None:
        if headers:
            text = json.dumps(headers).encode()
            text += b" " * (-(len(text) + 4) % ALIGNMENT)
            blocks.append(compressed(len(text).to_bytes(4, "little") + text + bytes(data)))
            headers.clear()
            data.clear()

    for point in points:
        content = content_of(point)
        if content is None:
            continue
        header, own = content
        places[str(point)] = [len(blocks), len(headers)]
        headers.append(header | {"start": len(data), "length": len(own)})
        data += own
        data += bytes(-len(data) % ALIGNMENT)
        if len(headers) == AT_ONCE:
            close()
    close()
    return Packed(places, blocks)


def _is_whole(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool((known == np.rint(known)).all())
