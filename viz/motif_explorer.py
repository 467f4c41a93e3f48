"""The motif explorer for notebooks: coordination shells, and whether attention and frames follow them."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from crystalframer.analysis.motifs import Shell, coordination_shells, motif_summary, motif_table
from crystalframer.errors import CrystalFramerError, MotifError
from crystalframer.traces import CrystalTrace
from viz.errors import SceneError, check_index
from viz.motif_figures import motif_angle_figure, motif_overview, motif_share_figure, motif_summary_figure
from viz.palette import element
from viz.saved_outputs import Saved
from viz.scene import Scene, scene_from_trace, scene_with_shells
from viz.text import atom_names
from viz.widgets import plotly_bundle, show_in

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from viz.explorer import AttentionExplorer


class MotifExplorer(Saved):
    """Choose a structure and a site, and compare its frames and attention with its coordination polyhedron.

    Write the explorer on the last line of a cell to show it. The upper part shows the structure in 3D with the
    polyhedron of the chosen site, and sliders for layers and heads, which need no kernel. The lower part shows, for all
    layers and heads, the angles from the axes to the bonds and the share of attention that goes to the shell. A button
    compares all structures. `structure` and `site` can be set; they are counted from 0.

    Example:
        >>> explorer = viz.MotifExplorer([trace], site=1)
        >>> explorer.shell.name, len(explorer.shell), round(explorer.shell.csm, 2)
        ('octahedron', 6, 0.0)
        >>> explorer.site = 0
        >>> explorer.shell.label, explorer.view.atom
        ('C:12', 0)
        >>> explorer.overview["motif"].tolist()
        ['L:2', 'C:12', 'O:6']
    """

    title = "Motif explorer"

    def __init__(
        self, traces: Sequence[CrystalTrace], *, structure: int = 0, site: int = 0, either_sign: bool = False
    ) -> None:
        """Make the explorer.

        Args:
            traces: traces of one model; the `id` of each is the name of its structure.
            structure: first structure to show, counted from 0.
            site: first site to show, counted from 0.
            either_sign: whether an axis and its opposite count as one, as in `crystalframer.analysis.bond_angles`. Use
                it for methods whose axes have no sign (`pca`, `weighted-pca`).

        Raises:
            SceneError: there is no trace, or no such structure or site. The message names what can be chosen.
        """
        import ipywidgets as widgets

        self.traces = tuple(traces)
        self.either_sign = either_sign
        if not self.traces:
            raise SceneError("there is no trace to explore; give at least one", field="traces", value=traces)
        self._found: dict[int, tuple[Shell | MotifError, ...]] = {}
        wide: dict[str, Any] = {
            "style": {"description_width": "auto"},
            "layout": {"width": "auto", "max_width": "100%"},
        }
        names = [(name, number) for number, name in enumerate(map(_structure_name, self.traces))]
        check_index("structure", structure, len(self.traces))
        self._structure: Any = widgets.Dropdown(
            options=names,
            value=structure,
            description="Structure",
            tooltip="The structure that is shown",
            **wide,
        )
        self._site: Any = widgets.Dropdown(
            options=[("", 0)], description="Site", tooltip="The atom whose shell, axes and attention are shown", **wide
        )
        self._compare = widgets.Button(
            description="Compare all structures",
            tooltip="Find the motifs of all sites of all structures, and average over each motif",
            layout={"width": "auto"},
        )
        self._words = widgets.HTML()
        self._stage = widgets.VBox()
        self._angles, self._shares, self._progress, self._comparison = (widgets.Output() for _ in range(4))
        self.view: AttentionExplorer | None = None
        """The explorer of the chosen structure, with its sliders."""
        self.widget = widgets.VBox(
            [
                widgets.HBox([self._structure, self._site, self._compare], layout={"flex_flow": "row wrap"}),
                self._words,
                self._stage,
                widgets.HBox([self._angles, self._shares], layout={"flex_flow": "row wrap"}),
                self._progress,
                self._comparison,
            ]
        )
        self._open()
        self.site = site
        self._structure.observe(lambda change: (self._open(), self._show()), "value")
        self._site.observe(lambda change: self._show(), "value")
        self._compare.on_click(lambda button: self._show_comparison())
        self._show()

    @property
    def structure(self) -> int:
        """Number of the structure that is shown."""
        return self._structure.value

    @structure.setter
    def structure(self, number: int) -> None:
        check_index("structure", number, len(self.traces))
        self._structure.value = number

    @property
    def site(self) -> int:
        """Number of the site whose shell is shown."""
        return self._site.value

    @site.setter
    def site(self, number: int) -> None:
        check_index("site", number, self.trace.n_queries)
        self._site.value = number

    @property
    def trace(self) -> CrystalTrace:
        """Trace of the chosen structure."""
        return self.traces[self.structure]

    @property
    def shell(self) -> Shell:
        """Coordination shell of the chosen site.

        Raises:
            MotifError: the shell cannot be found.
        """
        found = self._shells()[self.site]
        if isinstance(found, MotifError):
            raise found
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        """`crystalframer.analysis.motif_table` of all structures, computed at first use."""
        return motif_table(self.traces, either_sign=self.either_sign)

    @property
    def overview(self) -> pd.DataFrame:
        """One row for each motif of all structures (see `motif_overview`)."""
        return motif_overview(self.table)

    def _shells(self) -> tuple[Shell | MotifError, ...]:
        """Shells of all sites of the chosen structure, found when it is first chosen."""
        if self.structure not in self._found:
            sites = tqdm(range(self.trace.n_queries), desc="shells", unit="site", delay=2, leave=False)
            self._found[self.structure] = tuple(_shell_or_reason(self.trace, site) for site in sites)
        return self._found[self.structure]

    def _open(self) -> None:
        """Show the chosen structure. Layer and head stay the same if the structure has them."""
        from viz.explorer import AttentionExplorer

        trace, shells = self.trace, self._shells()
        scene = scene_from_trace(trace)
        before, head = self.view, 0
        layer = 0 if before is None else min(before.layer, trace.n_layers - 1)
        if before is not None:
            head = None if before.head is None else min(before.head, trace.n_heads - 1)
        self.view = AttentionExplorer(
            scene_with_shells(scene, [shell for shell in shells if isinstance(shell, Shell)]),
            layer=layer,
            head=head,
            frames="selected",
            polyhedra="selected",
        )
        self.view.observe(lambda change: setattr(self, "site", change["new"]), "atom")
        self._stage.children = (self.view,)
        if before is not None:
            before.close()
        with self._site.hold_trait_notifications():
            self._site.options = [(_site_name(scene, shell, site), site) for site, shell in enumerate(shells)]
            self._site.value = 0

    def _show(self) -> None:
        """Show everything that depends on the site."""
        assert self.view is not None
        self.view.atom = self.site
        found = self._shells()[self.site]
        self._words.value = _paragraph(self._sentence())
        if isinstance(found, MotifError):
            self._angles.outputs = self._shares.outputs = ()
            return
        angles = _bundle(lambda: motif_angle_figure(self.trace, found, either_sign=self.either_sign))
        show_in(self._angles, angles)
        show_in(self._shares, plotly_bundle(motif_share_figure(self.trace, found, height=400)))
        if "table" in vars(self):
            self._show_comparison()

    def _show_comparison(self) -> None:
        """Show the table of all structures, and the figure for the motif of the chosen site."""
        with self._progress:
            table = self.table
        self._progress.clear_output()
        text = motif_overview(table).to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format)
        show_in(self._comparison, {"text/html": f"<h4>Motifs of {len(self.traces)} structures</h4>{text}"})
        found = self._shells()[self.site]
        if isinstance(found, Shell):
            label = found.label
            bundle = _bundle(lambda: motif_summary_figure(motif_summary(table), label))
            self._comparison.outputs += ({"output_type": "display_data", "data": bundle, "metadata": {}},)

    def _sentence(self) -> str:
        """What surrounds the chosen site, or why that is not known."""
        found = self._shells()[self.site]
        return str(found) if isinstance(found, MotifError) else describe_shell(self.trace, found)

    def _live(self, **options: Any) -> Any:
        found = self.widget._repr_mimebundle_(**options)
        return None if found is None else (found, {})

    def _page(self) -> str:
        return self.view.to_html(note=self._sentence()) if self.view else ""

    def _still(self) -> str:
        return self.view._still() if self.view else ""


def describe_shell(trace: CrystalTrace, shell: Shell) -> str:
    """Describe a coordination shell in a sentence.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> describe_shell(trace, coordination_shells(trace)[1])
        'Ti1: octahedron (O:6), symmetry measure 0.00. 6 neighbours: 6 O at 1.95 Å.'
    """
    name = atom_names(trace)[shell.site]
    if not len(shell):
        return f"{name}: no neighbours."
    measure = f", symmetry measure {shell.csm:.2f}" if shell.measures else ""
    symbols = np.array([element(int(trace.atomic_numbers[key])).symbol for key in shell.key])
    lengths = np.linalg.norm(shell.vectors, axis=1)
    groups = []
    for symbol, count in Counter(symbols.tolist()).most_common():
        low, high = lengths[symbols == symbol].min(), lengths[symbols == symbol].max()
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        groups.append(f"{count} {symbol} at {span} Å")
    neighbors = f"{len(shell)} neighbour{'s' if len(shell) > 1 else ''}"
    return f"{name}: {shell.name} ({shell.label}){measure}. {neighbors}: {', '.join(groups)}."


def _shell_or_reason(trace: CrystalTrace, site: int) -> Shell | MotifError:
    try:
        return coordination_shells(trace, sites=[site])[0]
    except MotifError as error:
        return error


def _structure_name(trace: CrystalTrace) -> str:
    formula = scene_from_trace(trace).formula
    return formula if trace.id in ("", formula) else f"{trace.id} ({formula})"


def _site_name(scene: Scene, shell: Shell | MotifError, site: int) -> str:
    return f"{scene.labels[site]}: {shell.label} {shell.name}" if isinstance(shell, Shell) else scene.labels[site]


def _paragraph(text: str) -> str:
    return f'<p role="status" style="margin: 4px 0; font-size: 15px; line-height: 1.4">{html.escape(text)}</p>'


def _bundle(build: Callable[[], go.Figure]) -> dict[str, Any]:
    """The figure, or the message that says why there is none."""
    try:
        return plotly_bundle(build())
    except CrystalFramerError as error:
        return {"text/html": _paragraph(str(error))}
