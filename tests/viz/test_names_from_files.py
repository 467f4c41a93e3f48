"""Names from files stay text in everything that is exported: they cannot add HTML or scripts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.analysis import coordination_shells
from crystalframer.traces import CrystalTrace

PLAIN = "name"
HOSTILE = (
    """</script><script>alert(1)</script><!-- "' & <img src=x onerror=alert(2)> <a href="https://example.org">"""
    """name</a> <b>name</b> </title></style></svg><svg onload=alert(3)>"""
)


def traced(name: str) -> CrystalTrace:
    """A trace whose every text is the name."""
    return replace(synthetic_trace(perovskite()), id=name, prediction={name: 1.0}, units={name: name})


class _Called(viz.Scene):
    """A crystal whose formula is its id: true ones come from atomic numbers, and can hold no tag."""

    @property
    def formula(self) -> str:
        return self.id


def scene(name: str) -> viz.Scene:
    made = viz.scene_from_trace(traced(name))
    parts: dict[str, Any] = {field.name: getattr(made, field.name) for field in fields(made)}
    parts["method"] = name
    return _Called(**parts)


class _Elements(HTMLParser):
    """Every element of a page, with the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def elements(page: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


PAGES: dict[str, Callable[[str], str]] = {
    "explorer": lambda name: viz.explorer_html(scene(name)),
    "explorer of the widget": lambda name: viz.AttentionExplorer(scene(name)).to_html(),
    "3D view": lambda name: str(viz.structure_view(scene(name), 0, 1, 1).write_html()),
    "plotly": lambda name: str(parity(name).to_html(include_plotlyjs=False, div_id="x")),
    "sweep": lambda name: str(sweep(name).to_html(include_plotlyjs=False, div_id="x")),
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_has_the_same_elements_whatever_the_names(kind: str) -> None:
    make = PAGES[kind]
    assert elements(make(HOSTILE)) == elements(make(PLAIN))


def test_the_elements_of_a_page_would_show_it() -> None:
    assert elements(f"<p>{HOSTILE}</p>") != elements(f"<p>{PLAIN}</p>")


def parity(name: str) -> go.Figure:
    return viz.parity_figure(np.ones(2), np.ones(2), label=f"{name} ({name})", ids=[name, name], baseline=1.0)


def curve(name: str) -> go.Figure:
    history = pd.DataFrame({"epoch": [1, 2], f"{name}_mae/{name}": [1.0, 0.5]})
    return viz.learning_curve(history, name, unit=name, baseline=2.0)


def ablation(name: str) -> go.Figure:
    table = pd.DataFrame({"frame_method": [name] * 2, "seed": [0, 1], "ms_per_step": [1.0, 2.0]})
    table[f"test_mae/{name}"] = [0.2, 0.3]
    table.attrs["units"] = {name: name}
    histories = pd.DataFrame({"frame_method": [name], "seed": [0], "epoch": [1], f"validation_mae/{name}": [0.3]})
    return viz.ablation_figure(table, histories)


def sweep(name: str) -> go.Figure:
    table = pd.DataFrame({"trial": [0, 1], name: [name, "x"], "state": ["complete"] * 2, "validation_loss": [1.0, 2.0]})
    return viz.sweep_figure(table)


def motif(name: str, draw: Callable[..., go.Figure]) -> go.Figure:
    trace = traced(name)
    return draw(trace, coordination_shells(trace, sites=[1])[0])


FIGURES: dict[str, Callable[[str], go.Figure]] = {
    "parity": parity,
    "learning curve": curve,
    "ablation": ablation,
    "sweep": sweep,
    "entropy": lambda name: viz.entropy_figure(traced(name)),
    "reach": lambda name: viz.decay_length_figure(traced(name)),
    "attended distance": lambda name: viz.attended_distance_figure(traced(name)),
    "turns": lambda name: viz.axis_turn_figure(traced(name)),
    "motif angles": lambda name: motif(name, viz.motif_angle_figure),
    "motif shares": lambda name: motif(name, viz.motif_share_figure),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_plotly_reads_no_tag_in_a_name(kind: str) -> None:
    """Plotly makes elements of tags in its texts, links among them; what it is to show as `<` it takes as an entity."""
    found = [text for text in texts(FIGURES[kind](HOSTILE).to_plotly_json()) if "alert(1)" in text]
    assert found, "the name is in the figure"
    assert not any("<script" in text or "<img" in text or "<a " in text or "<b>" in text for text in found)
    assert any("&lt;script&gt;" in text for text in found)


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for child in tree.values():
            yield from texts(child)
    elif isinstance(tree, (list, tuple, np.ndarray)):
        for child in tree:
            yield from texts(child)


def test_drawings_on_paper() -> None:
    figures = (
        viz.structure_figure(scene(HOSTILE), 0, 1, 1),
        viz.frame_comparison_figure([scene(HOSTILE), scene(HOSTILE)], 1),
    )
    for figure in figures:
        file = io.StringIO()
        figure.savefig(file, format="svg")
        tree = ElementTree.fromstring(file.getvalue())
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "img", "a", "b", "foreignObject"}
        assert all(not name.startswith("on") for element in tree.iter() for name in element.attrib)
        assert "alert(1)" in "".join(tree.itertext())


def test_widgets() -> None:
    """HTML widgets and outputs in HTML hold no element that a name has made; texts of the others are texts."""
    found = {name: list(_pages_of(viz.MotifExplorer([traced(name)] * 2, site=1))) for name in (PLAIN, HOSTILE)}
    assert found[PLAIN] and len(found[PLAIN]) == len(found[HOSTILE])
    for plain, hostile in zip(found[PLAIN], found[HOSTILE], strict=True):
        assert elements(hostile) == elements(plain)


def _pages_of(explorer: viz.MotifExplorer) -> Iterator[str]:
    explorer._show_comparison()
    parts: list[Any] = [explorer.widget]
    while parts:
        part = parts.pop()
        parts += getattr(part, "children", ())
        if isinstance(part, ipywidgets.HTML):
            yield part.value
        for output in getattr(part, "outputs", ()):
            if "text/html" in output.get("data", {}):
                yield output["data"]["text/html"]
