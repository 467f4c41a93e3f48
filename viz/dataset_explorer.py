"""A whole data set at a glance, as a widget for notebooks and as a page: a map of points that open their crystals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from tqdm.auto import tqdm

from crystalframer.errors import CrystalFramerError
from crystalframer.explanations import Explanation
from crystalframer.traces import CrystalTrace
from viz.dataset_encoding import Content, described, encode_table, pack
from viz.dataset_page import dataset_html, dataset_script, dataset_style
from viz.embedding_maps import Neighbors, flat_maps, listed_neighbors, nearest_points
from viz.errors import FigureError, SceneError, check_option
from viz.explanation_pages import explanation_html
from viz.known_structures import Records, facts, known_structures, plain_scene
from viz.pages import written
from viz.point_tables import MOST_POINTS, WIDTH, MapView, PointTable, point_table, with_columns
from viz.saved_outputs import HIDES_COPY, MOST_SAVED, SavedWidget, png_in_base64
from viz.scene import Scene, scene_from_trace
from viz.structure_figures import inline_svg

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

N_TRACES = 200
"""Traces in a page, if no other number is asked for."""
N_EXPLANATIONS = 20
"""Explanations in a page, if no other number is asked for."""
MOST_STRUCTURES = 1_000
"""Structures in a page, if no other number is asked for: about 2 MB, and half a minute."""
N_SAVED = 100
"""Structures in the page that a saved notebook keeps."""
FILTERS: dict[str, Any] = {
    "search": "",
    "elements": "",
    "without": "",
    "group": "",
    "flag": "",
    "part": "",
    "n_atoms": [None, None],
    "error": [None, None],
    "range": {"column": "", "limits": [None, None]},
}
"""No filter: all points are shown."""


class DatasetExplorer(SavedWidget):
    """Explore a data set: a map of all crystals, their table, and the crystal of each point, linked.

    Write the explorer on the last line of a cell to show it. Choose a point on the map or a row of the table to see its
    crystal. The map shows predictions against labels, any column against any other, or an embedding. Points are
    filtered by element, formula, space group, size, error and flag, selected with a lasso, and saved as CSV. In a
    notebook, attention and explanation of the chosen crystal are computed when they are asked for; a page from
    `to_html` contains those of its first crystals and needs neither Python nor a network.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"id": ["a", "b"], "label": [1.0, 2.0], "prediction": [1.1, 2.5]})
        >>> explorer = viz.DatasetExplorer(table)
        >>> explorer.x, explorer.y
        ('label', 'prediction')
        >>> explorer.chosen = "b"
        >>> explorer.point
        1
        >>> page = explorer.to_html()
    """

    _esm = dataset_script()
    _css = dataset_style() + HIDES_COPY
    title = "Data set explorer"
    header = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    offers = traitlets.Dict().tag(sync=True)
    x = traitlets.Unicode().tag(sync=True)
    y = traitlets.Unicode().tag(sync=True)
    color = traitlets.Unicode().tag(sync=True)
    point = traitlets.Int(-1).tag(sync=True)
    filters = traitlets.Dict(FILTERS).tag(sync=True)
    selected = traitlets.Bytes().tag(sync=True, from_json=lambda given, widget: bytes(given))

    def __init__(
        self,
        table: Any,
        structures: Any = None,
        *,
        traces: Records | None = None,
        explanations: Records | None = None,
        embedding: Any = None,
        neighbors: pd.DataFrame | None = None,
        x: str | None = None,
        y: str | None = None,
        color: str | None = None,
        chosen: str | None = None,
    ) -> None:
        """Make the explorer.

        Args:
            table: a DataFrame with a row for each crystal and a column `id` (of `crystalframer.predict`, or any other),
                an `Evaluation`, the folder of a screening, or embeddings (the table of `crystalframer.embed`, or an
                array with a row for each crystal). Of more than 200,000 rows, a random sample is shown.
            structures: the crystals, found by their ids: a `CrystalDataset`, a dictionary of id → structure, a list of
                structures, or a path that `crystalframer.read_all` reads. Points without a structure are shown, too.
            traces: attention of the crystals: a dictionary of id → `CrystalTrace`, or a function that makes the trace
                of a structure, such as `lambda crystal: cf.trace(crystal, model)`.
            explanations: the same for `Explanation`, such as `lambda crystal: cf.explain(crystal, model)`.
            embedding: features of each crystal, as a table of `crystalframer.embed` or an array with a row for each row
                of the table. They give a map (principal components, and UMAP if `umap-learn` is installed), and the
                nearest crystals of each: of the part `train`, if the table has a column `part`.
            neighbors: the table of `crystalframer.nearest_training`, instead of neighbours by the embedding.
            x: column on the horizontal axis at first. Default: that of the first view, such as the labels.
            y: column on the vertical axis.
            color: column that colours the points; an empty text for one colour.
            chosen: id of the crystal that is shown at first. Default: that with the largest error of the first view, or
                the first row, among those with a structure.

        Raises:
            FigureError: a table without rows, or structures, embeddings or neighbours that do not fit the table. The
                message names ids.
            SceneError: there is no such column or id.
        """
        points = point_table(table, MOST_POINTS)
        self._structures = known_structures(structures, points)
        found = facts(self._structures, points.frame["formula"].tolist(), "space_group" in points.frame)
        points = with_columns(points, {n: v for n, v in found.columns.items() if n != "formula"}, found.units)
        points = replace(points, frame=points.frame.assign(id=self._structures.ids, formula=found.columns["formula"]))
        features = _features(embedding, points)
        views = points.views
        if features is not None:
            maps = flat_maps(features)
            points = with_columns(points, maps, {})
            names = list(maps)
            color_of_map = next((view.color for view in views if view.color), "")
            views += tuple(
                MapView(f"embedding ({a.rpartition(' ')[0]})", a, b, color_of_map, color_of_map)
                for a, b in zip(names[::2], names[1::2], strict=True)
            )
        self.neighbors = _neighbors(neighbors, features, points)
        flags = dict(points.flags or {})
        if structures is not None and (self._structures.number < 0).any():
            flags["no structure"] = self._structures.number < 0
        notes = (*points.notes, *self._structures.notes, *found.notes)
        self.points: PointTable = replace(points, views=views, flags=flags, notes=notes)
        self.frame = self.points.frame
        """The table of the points, with what was added to it: size, volume, space group, coordinates of the map."""
        self._records = {"attention": traces, "explanation": explanations}
        header, data = encode_table(self.points, found.elements, self.neighbors)
        starting = self._starting_view(x, y, color)
        super().__init__(header=header, data=data, offers=self._offers(), **starting)
        self.point = int(self._order(self._structures.number >= 0)[0])
        if chosen is not None:
            self.chosen = chosen
        self.on_msg(self._answer)

    # --- what can be read and set -------------------------------------------------------------------------------------

    @property
    def chosen(self) -> str | None:
        """Id of the crystal that is shown; None for none."""
        return None if self.point < 0 else self.points.ids[self.point]

    @chosen.setter
    def chosen(self, id: str | None) -> None:
        if id is None:
            self.point = -1
            return
        ids = self.points.ids
        check_option("chosen", id, ids)
        self.point = ids.index(id)

    @property
    def selection(self) -> pd.DataFrame:
        """The rows of the points that are selected, with a lasso or by a button."""
        return self.frame.iloc[np.frombuffer(self.selected, dtype="<u4").astype(np.int64)]

    @selection.setter
    def selection(self, points: Any) -> None:
        """Select points by their numbers (counted from 0), or where a mask is true."""
        points = np.asarray(points)
        points = np.flatnonzero(points) if points.dtype == bool else points.astype(np.int64)
        if points.size and not 0 <= points.min() <= points.max() < len(self.points):
            raise SceneError(f"points are numbered from 0 to {len(self.points) - 1}", field="selection", value=points)
        self.selected = points.astype("<u4").tobytes()

    @traitlets.validate("x", "y", "color")
    def _column(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        self._check_column(name, value)
        return value

    @traitlets.validate("point")
    def _point(self, proposal: Any) -> Any:
        if not -1 <= proposal["value"] < len(self.points):
            raise SceneError(f"no point {proposal['value']}; choose from 0 to {len(self.points) - 1}", field="point")
        return proposal["value"]

    @traitlets.validate("filters")
    def _filters(self, proposal: Any) -> Any:
        for name in proposal["value"]:
            check_option("filters", name, FILTERS)
        return FILTERS | proposal["value"]

    def _check_column(self, name: str, value: str) -> None:
        if name == "color" and value == "":
            return
        numbers = [column for column in self.frame if self.frame[column].dtype == float]
        check_option(name, value, self.frame.columns if name == "color" else numbers)

    def _starting_view(self, x: str | None, y: str | None, color: str | None) -> dict[str, str]:
        numbers = [str(name) for name in self.frame if self.frame[name].dtype == float]
        if not numbers:
            raise FigureError("the table has no column of numbers to draw", field="table")
        # Targets against each other, rather than a target against an end of its own interval.
        derived = {f"{name}{end}" for name in numbers for end in ("_low", "_high", f" {WIDTH}")}
        numbers = [name for name in numbers if name not in derived] or numbers
        numbers.sort(key=lambda name: name not in self.points.units)  # what is predicted, rather than a row's number
        view = self.points.views[0] if self.points.views else MapView("", numbers[0], numbers[min(1, len(numbers) - 1)])
        chosen = {
            "x": view.x if x is None else x,
            "y": view.y if y is None else y,
            "color": view.color if color is None and x is None and y is None else color or "",
        }
        for name, value in chosen.items():
            self._check_column(name, value)
        return chosen

    # --- crystals, when they are asked for ----------------------------------------------------------------------------

    def scene(self, point: int) -> Scene | None:
        """The scene of a point without a model; None if it has no structure."""
        crystal = self._structures[point]
        return None if crystal is None else plain_scene(crystal)

    def trace(self, point: int) -> CrystalTrace | None:
        """The trace of a point: as it was given, or computed now. None if there is none."""
        return self._record("attention", point, CrystalTrace)

    def explanation(self, point: int) -> Explanation | None:
        """The explanation of a point, as `trace`."""
        return self._record("explanation", point, Explanation)

    def _record(self, kind: str, point: int, wanted: type) -> Any:
        records = self._records[kind]
        if records is None:
            return None
        if isinstance(records, Mapping):
            return records.get(self.points.ids[point])
        crystal = self._structures[point]
        record = None if crystal is None else records(crystal)
        if record is not None and not isinstance(record, wanted):
            raise FigureError(
                f"the function for the {kind} returned a {type(record).__name__}, not a {wanted.__name__}", field=kind
            )
        return record

    def _offers(self) -> dict[str, Any]:
        """What can be shown of a crystal; of records by id, the points that have one."""
        offers: dict[str, Any] = {"crystal": bool((self._structures.number >= 0).any())}
        for kind, records in self._records.items():
            if isinstance(records, Mapping):
                offers[kind] = [point for point, id in enumerate(self.points.ids) if id in records]
            else:
                offers[kind] = records is not None
        return offers

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        """Answer a question of the browser, with an error in words if there is one."""
        if not isinstance(content, dict) or content.get("kind") not in ("crystal", "attention", "explanation"):
            return
        kind, point = content["kind"], int(content["point"])
        reply = {"kind": kind, "point": point, "question": content.get("question")}
        try:
            content = self._content(kind, point)
        except Exception as error:  # a function of the user can raise anything; the browser shows it
            words = str(error) if isinstance(error, CrystalFramerError) else f"{type(error).__name__}: {error}"
            return self.send(reply | {"failure": words})
        if content is None:
            return self.send(reply | {"failure": f"There is no {kind} of this point."})
        self.send(reply | {"header": content[0]}, [content[1]])

    def _content(self, kind: str, point: int) -> Content | None:
        """What is shown of a point: its crystal, its attention, or its explanation.

        An explanation is shown on the crystal, if there is a trace beside it; else as a page.
        """
        explanation = None
        if kind == "crystal":
            scene = self.scene(point)
        else:
            explanation = self.explanation(point) if kind == "explanation" else None
            if kind == "explanation" and explanation is None:
                return None
            trace = self.trace(point)
            scene = None if trace is None else scene_from_trace(trace)
        if scene is None:
            return None if explanation is None else ({"page": explanation_html(explanation)}, b"")
        return described(scene, explanation)

    # --- pages --------------------------------------------------------------------------------------------------------

    def to_html(
        self,
        path: str | Path | None = None,
        *,
        n_structures: int = MOST_STRUCTURES,
        n_traces: int = N_TRACES,
        n_explanations: int = N_EXPLANATIONS,
        figures: Sequence[Figure] = (),
        progress: bool = True,
    ) -> str:
        """Return the explorer as it is shown now, as one HTML page. Also write it to `path`.

        The page contains all points, and the crystals of the first: those with the largest errors of the view that is
        shown, if it has errors, else those of the first rows. The page says which crystals it contains.

        Args:
            path: where to write the page, too.
            n_structures: number of crystals in the page.
            n_traces: number of these with attention.
            n_explanations: number of these with an explanation, which takes seconds to compute.
            figures: matplotlib figures to show below the map, such as that of `viz.evaluation_figure`.
            progress: show a progress bar if it takes more than 2 s.
        """
        counts = {"crystal": n_structures, "attention": n_traces, "explanation": n_explanations}
        packed = {
            kind: pack(self._packed_points(kind, count, progress), partial(self._content, kind))
            for kind, count in counts.items()
        }
        state = {name: getattr(self, name) for name in ("x", "y", "color", "point", "filters")}
        state["selected"] = np.frombuffer(self.selected, dtype="<u4").tolist()
        page = dataset_html(self.header, self.data, state, packed, "".join(map(inline_svg, figures)))
        return written(page, path)

    def _packed_points(self, kind: str, count: int, progress: bool) -> Iterable[int]:
        """The points whose crystal, attention or explanation is packed: by error, else in the order of the table."""
        offer = self.offers[kind]
        if not offer or not count:
            return []
        is_there = np.zeros(len(self.points), dtype=bool)
        is_there[offer if isinstance(offer, list) else self._structures.number >= 0] = True
        order = self._order(is_there)
        first = [self.point] if self.point >= 0 else []
        # A crystal whose attention was given is there in any case.
        if kind == "crystal":
            first += [point for offer in self.offers.values() if isinstance(offer, list) for point in offer]
        points = [point for point in dict.fromkeys([*first, *order.tolist()]) if is_there[point]][:count]
        return tqdm(points, desc=kind, unit=" crystals", delay=2, leave=False, disable=not progress)

    def _order(self, is_first: np.ndarray) -> np.ndarray:
        """All points: those marked, then the others; by the errors of the view, else in the order of the table."""
        errors = [view for view in self.points.views if view.error]
        view = next((view for view in errors if self.y in (view.x, view.y)), errors[0] if errors else None)
        error = self.frame[view.error].fillna(-1).to_numpy() if view else np.zeros(len(self.points))
        return np.lexsort((-error, ~is_first))

    def _page(self) -> str:
        if len(self.data) >= MOST_SAVED:
            return ""
        return self.to_html(n_structures=N_SAVED, n_traces=0, n_explanations=0, progress=False)

    def _still(self) -> str:
        """The map as a still picture: PNG in base64."""
        from matplotlib.figure import Figure

        from viz.palette import SERIES_COLORS

        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.add_subplot()
        units = self.points.units
        has_numbers = bool(self.color) and self.frame[self.color].dtype == float
        colors: dict[str, Any] = (
            {"c": self.frame[self.color], "cmap": "cividis"} if has_numbers else {"color": SERIES_COLORS[0]}
        )
        dots = axes.scatter(self.frame[self.x], self.frame[self.y], s=8, alpha=0.7, **colors)
        names = [
            f"{name.replace('_', ' ')} ({units[name]})" if units.get(name) else name.replace("_", " ")
            for name in (self.x, self.y)
        ]
        axes.set(xlabel=names[0], ylabel=names[1], title=f"{len(self.points):,} crystals")
        if has_numbers:
            figure.colorbar(dots, label=self.color.replace("_", " "))
        return png_in_base64(figure)


def _features(embedding: Any, points: PointTable) -> np.ndarray | None:
    """The embedding of each point: that of the table itself, or the one given beside it."""
    if embedding is None:
        return points.embedding
    given = point_table(embedding, most=2**62)
    if given.embedding is None:
        raise FigureError("the embedding needs at least three columns of features", field="embedding")
    if isinstance(embedding, np.ndarray):
        if len(given) != points.n_rows:
            raise FigureError(
                f"the embedding has {len(given):,} rows, the table {points.n_rows:,}; give one for each crystal",
                field="embedding",
                value=len(given),
            )
        return given.embedding[points.rows]
    row_of = {id: row for row, id in enumerate(given.ids)}
    rows = np.array([row_of.get(id, -1) for id in points.ids])
    if (rows < 0).all():
        raise FigureError(
            f"no id of the embedding is in the table: it has {', '.join(given.ids[:3])}, ..., the table "
            f"{', '.join(points.ids[:3])}, ...",
            field="embedding",
        )
    return np.where((rows >= 0)[:, None], given.embedding[rows], np.nan)


def _neighbors(given: pd.DataFrame | None, features: np.ndarray | None, points: PointTable) -> Neighbors | None:
    if given is not None:
        return listed_neighbors(given, points.ids)
    return None if features is None else nearest_points(features, points.frame)
