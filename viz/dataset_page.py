"""The data set explorer as an HTML page that works without Python and without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from viz.dataset_encoding import Packed
from viz.explorer_page import FRONTEND, frontend_script, frontend_style, widget_page

MODULES = ("records.js", "scatter.js", "rows.js", "sources.js", "filters.js", "dataset.js")
"""Each imports only from those before it, and from the modules of the crystal explorer."""


@cache
def dataset_script() -> str:
    """One ECMAScript module: that of the crystal explorer, as `crystalExplorer`, and the modules of the map."""
    modules = "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in MODULES)
    modules = re.sub(r'^import \{[^}]*\} from "\./\w+\.js";$', "", modules, flags=re.MULTILINE)
    modules = re.sub(r"^export (?=(async )?function|class|const)", "", modules, flags=re.MULTILINE)
    explorer, _, exported = frontend_script().rpartition("export default ")
    # The functions that both use; the rest of the crystal explorer keeps its names to itself.
    shared = "make, button, tick, choice, followTheme, keepKeys, without3D, structureBox, saveAs, pageModel, decode"
    names = f"{shared}, Structure, startingDisplay, mix, ramp, library, cif"
    inner = f"{explorer}\nreturn {{ ...{exported.strip().rstrip(';')}, {names} }};"
    return f"const crystalExplorer = (() => {{\n{inner}\n}})();\nconst {{ {names} }} = crystalExplorer;\n{modules}"


def dataset_style() -> str:
    """The style sheets of the crystal explorer and of the map."""
    return frontend_style() + (FRONTEND / "dataset.css").read_text(encoding="utf-8")


def dataset_html(
    header: dict[str, Any], data: bytes, state: dict[str, Any], packed: Mapping[str, Packed], figures: str = ""
) -> str:
    """The page.

    Args:
        header: of `encode_table`.
        data: of `encode_table`.
        state: what is shown at first.
        packed: crystals, attention and explanations of points: kind → what `pack` made.
        figures: HTML below the map.
    """
    blocks = {
        f"{kind}-{number}": text for kind, of_kind in packed.items() for number, text in enumerate(of_kind.blocks)
    }
    values = {"header": header, "packed": {kind: of_kind.places for kind, of_kind in packed.items()}, **state}
    title = f"{header['nPoints']:,} crystals"
    return widget_page(title, values, data, dataset_script(), dataset_style(), figures=figures, blocks=blocks)
