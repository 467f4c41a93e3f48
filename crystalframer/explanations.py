"""Records of what a prediction is made of, as plain NumPy arrays that need no model and no torch.

`crystalframer.explain` makes an `Explanation`. Like a trace, it can be saved, loaded and drawn without the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.elements import SYMBOLS
from crystalframer.errors import TraceError
from crystalframer.notes import PredictionNotes
from crystalframer.order_tests import UNTESTED, OrderTest
from crystalframer.traces import BoolArray, FloatArray, IntArray, read_record, write_record

if TYPE_CHECKING:
    import pandas

EXPLANATION_VERSION = 1
_SCALES = {
    "logit": "The scale is that of logits: a contribution of +1 makes the odds of the class 2.7 times as large.",
    "log10": "The scale is that of logarithms (base 10): a contribution of +0.3 makes the quantity twice as large.",
}
SHELL_WIDTH = 1.1
"""Neighbours up to this multiple of the distance of the nearest one are its shell; the next one begins another."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What one prediction for one crystal is made of.

    Three questions have three answers, each exact in its own sense:

    - *Which atoms?* `site_contributions` and `base` add up to `prediction`: integrated gradients of the readout, from
      the mean crystal to this one (Sundararajan et al., ICML 2017). An atom counts with all that it has gathered from
      its neighbours.
    - *Which neighbours?* `edge_relevance`: how much the prediction changes with the weight of an edge. To first order,
      it is what the prediction loses if the edge is removed in this layer and head.
    - *Which way?* `position_gradient` and `strain_gradient`: how the prediction changes if atoms move or the cell is
      strained.
    """

    atomic_numbers: IntArray
    """(n_atoms)"""
    positions: FloatArray
    """(n_atoms, 3), Cartesian, Å."""
    lattice: FloatArray
    """(3, 3), rows a, b, c, Å."""
    edge_index: IntArray
    """(2, n_edges): row 0 the query atom i, row 1 the key atom j; both are numbers of atoms of the structure."""
    edge_image: IntArray
    """(n_edges, 3): lattice translation n of the key atom."""
    target: str
    """The explained output."""
    unit: str
    """Unit of the prediction; empty on the logit scale."""
    scale: str
    """`value`: the prediction itself. `log10`: its target is a logarithm. `logit`: of two classes, the logit of the
    second, whose probability is 1/(1 + exp(-logit)); of more, the logit of one class minus the mean logit of all."""
    prediction: float
    """Of the network. `predict` of a calibrated model reports 0 in place of a negative value for a target that cannot
    be negative, such as a gap."""
    base: float
    """Prediction for the mean features of reference crystals."""
    site_contributions: FloatArray
    """(n_atoms), unit of the prediction: they and `base` add up to `prediction`. Each is the share of one atom in the
    mean over atoms, so twice the cell has twice as many, half as large."""
    edge_relevance: FloatArray
    """(n_layers, n_heads, n_edges), unit of the prediction: derivative with respect to the logarithm of the weight of
    the edge. Positive: the edge raises the prediction. An atom divides its weights among its edges, so they add up to 0
    over all edges of one atom and head, the one to itself included."""
    site_groups: IntArray
    """(n_atoms): equal for atoms that symmetry maps onto each other."""
    position_gradient: FloatArray | None = None
    """(n_atoms, 3), unit of the prediction per Å: its derivative when an atom moves with all its periodic images. None:
    the model chooses frames and has no derivative, or only some sites were asked for."""
    strain_gradient: FloatArray | None = None
    """(3, 3), unit of the prediction: its derivative with respect to a symmetric strain; None as above."""
    removal_effect: FloatArray | None = None
    """(n_edges), unit of the prediction: its change if this edge alone is hidden in all layers and heads; NaN where it
    was not computed. None: it was not asked for (`removals` of `crystalframer.explain`)."""
    sites: IntArray | None = None
    """(n_sites): the atoms whose edges are recorded. None: all."""
    id: str = ""
    notes: PredictionNotes = field(default_factory=PredictionNotes)
    """Intervals and flags of the prediction, and which model made it when."""
    order_test: OrderTest | None = None
    """Whether the model orders neighbours better than distance does; None: it was not tested."""

    def __repr__(self) -> str:
        scale = "" if self.scale == "value" else f" ({self.scale} scale)"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"Explanation {self.id!r}: {self.target}{scale} = {self.prediction:.4g}{unit}; base {self.base:.4g}, "
            f"{self.n_atoms} atoms, {self.n_edges:,} edges, {self.n_layers} layers with {self.n_heads} heads"
        )

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import explanation_card

        return explanation_card(self)

    @property
    def shown_unit(self) -> str:
        """Unit of the prediction, contributions and relevance; `logit` on the logit scale."""
        return "logit" if self.scale == "logit" else self.unit

    @property
    def about_scale(self) -> str:
        """What a contribution means, in words; empty where it is a part of the prediction itself."""
        return _SCALES.get(self.scale, "")

    @property
    def about_order(self) -> str:
        """Whether the order of neighbours by relevance was tested, and what came out, in words."""
        return UNTESTED if self.order_test is None else str(self.order_test)

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def n_layers(self) -> int:
        return self.edge_relevance.shape[0]

    @property
    def n_heads(self) -> int:
        return self.edge_relevance.shape[1]

    @property
    def elements(self) -> list[str]:
        """Symbol of each atom."""
        return [SYMBOLS[z - 1] for z in self.atomic_numbers.tolist()]

    @property
    def edge_lengths(self) -> FloatArray:
        """(n_edges), Å."""
        query, key = self.edge_index
        return np.linalg.norm(self.positions[key] - self.positions[query] + self.edge_image @ self.lattice, axis=1)

    @property
    def is_self(self) -> BoolArray:
        """(n_edges): edges of an atom to itself, of length 0. They are no neighbours."""
        query, key = self.edge_index
        return (query == key) & ~self.edge_image.any(axis=1)

    @property
    def total_relevance(self) -> FloatArray:
        """(n_edges): relevance of each edge, added up over layers and heads."""
        return self.edge_relevance.sum(axis=(0, 1))

    @property
    def shells(self) -> IntArray:
        """(n_edges): number of the shell of each edge around its query atom, 0 for the atom itself. A shell holds the
        neighbours up to 1.1 times as far as its nearest one."""
        lengths, query = self.edge_lengths, self.edge_index[0]
        return shells_of(query, np.where(self.is_self, 0.0, lengths), self.is_self)

    def by_neighbour(self) -> pandas.DataFrame:
        """The relevance of each pair of atoms, all periodic images together.

        Returns:
            Columns `site`, `element`, `neighbour`, `neighbour_element`, `n_images`, `distance` (of the nearest image,
            Å), `relevance`; the strongest first. The atom itself is no neighbour.
        """
        edges = self._edge_table().query("not is_self")
        groups = edges.groupby(["site", "element", "neighbour", "neighbour_element"], sort=True)
        table = groups.agg(n_images=("relevance", "size"), distance=("distance", "min"), relevance=("relevance", "sum"))
        table = table.reset_index().sort_values("relevance", key=np.abs, ascending=False, ignore_index=True)
        return self._with_units(table, "relevance")

    def by_shell(self) -> pandas.DataFrame:
        """The relevance of each shell of neighbours, by elements. Shell 0 is the atom itself: what its neighbours have
        in weight, it lacks.

        Returns:
            Columns `element`, `shell`, `neighbour_element`, `n_edges`, `distance` (mean, Å), `relevance`.
        """
        groups = self._edge_table().groupby(["element", "shell", "neighbour_element"], sort=True)
        table = groups.agg(n_edges=("relevance", "size"), distance=("distance", "mean"), relevance=("relevance", "sum"))
        return self._with_units(table.reset_index(), "relevance")

    def by_element(self) -> pandas.DataFrame:
        """Contributions and relevance of each element.

        Returns:
            Columns `element`, `n_sites`, `contribution` (sum over the sites), `relevance` (of all edges to
            neighbours of this element).
        """
        import pandas

        sites = pandas.DataFrame({"element": self.elements, "contribution": self.site_contributions})
        relevance, key = np.where(self.is_self, 0.0, self.total_relevance), self.edge_index[1]
        sites["relevance"] = np.bincount(key, relevance, self.n_atoms)
        groups = sites.groupby("element")
        table = groups.agg(
            n_sites=("contribution", "size"), contribution=("contribution", "sum"), relevance=("relevance", "sum")
        ).reset_index()
        return self._with_units(table, "contribution", "relevance")

    def by_site_group(self) -> pandas.DataFrame:
        """Contributions of groups of equivalent sites.

        Returns:
            Columns `group`, `element`, `sites` (their numbers), `n_sites`, `contribution` (sum over the sites),
            `contribution_per_site`.
        """
        import pandas

        table = pandas.DataFrame(
            {
                "group": self.site_groups,
                "element": self.elements,
                "site": np.arange(self.n_atoms),
                "contribution": self.site_contributions,
            }
        )
        groups = table.groupby("group").agg(
            element=("element", "first"),
            sites=("site", tuple),
            n_sites=("site", "size"),
            contribution=("contribution", "sum"),
        )
        groups = groups.assign(contribution_per_site=groups["contribution"] / groups["n_sites"]).reset_index()
        return self._with_units(groups, "contribution", "contribution_per_site")

    def _with_units(self, table: pandas.DataFrame, *columns: str) -> pandas.DataFrame:
        """The table, which states the unit of these columns (`table.attrs["units"]`)."""
        table.attrs["units"] = dict.fromkeys(columns, self.shown_unit)
        return table

    def _edge_table(self) -> pandas.DataFrame:
        import pandas

        symbols = np.array(self.elements)
        query, key = self.edge_index
        return pandas.DataFrame(
            {
                "site": query,
                "element": symbols[query],
                "neighbour": key,
                "neighbour_element": symbols[key],
                "distance": self.edge_lengths,
                "shell": self.shells,
                "is_self": self.is_self,
                "relevance": self.total_relevance,
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, and its folder if necessary, and return its path.

        Raises:
            TraceError: the suffix is not .safetensors, or the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in (*_SHAPES, *_OPTIONAL) if getattr(self, name) is not None}
        header = {"schema_version": EXPLANATION_VERSION} | {name: getattr(self, name) for name in _TEXTS + _NUMBERS}
        header["notes"] = self.notes.header()
        header["order_test"] = None if self.order_test is None else asdict(self.order_test)
        return write_record(Path(path), "explanation", "an explanation", arrays, header)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read a file that `save` wrote.

        Raises:
            TraceError: there is no such file, or it is no explanation, damaged, or of a newer schema version.
        """
        path = Path(path)
        text, arrays = read_record(path, "explanation", "an explanation", "explain")
        try:
            fields = _read_header(text)
            _check_arrays(arrays)
        except TraceError as error:
            error.at(path=path)
            raise
        return cls(**{name: arrays[name] for name in arrays if name in (*_SHAPES, *_OPTIONAL)}, **fields)


def shells_of(query: IntArray, lengths: FloatArray, is_self: BoolArray) -> IntArray:
    """Number of the shell of each edge around its query atom, counted from 1; 0 for the atom itself.

    Args:
        query: (n_edges), in any order.
        lengths: (n_edges), Å.
        is_self: (n_edges).
    """
    shells = np.zeros(len(query), np.int64)
    order = np.lexsort((lengths, query))
    atom, number, limit = -1, 0, 0.0
    for edge in order[~is_self[order]].tolist():
        if query[edge] != atom:
            atom, number, limit = int(query[edge]), 0, 0.0
        if lengths[edge] > limit:
            number, limit = number + 1, SHELL_WIDTH * float(lengths[edge])
        shells[edge] = number
    return shells


_TEXTS = ("target", "unit", "scale", "id")
_NUMBERS = ("prediction", "base")
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "atomic_numbers": ("n_atoms",),
    "positions": ("n_atoms", 3),
    "lattice": (3, 3),
    "edge_index": (2, "n_edges"),
    "edge_image": ("n_edges", 3),
    "site_contributions": ("n_atoms",),
    "edge_relevance": ("n_layers", "n_heads", "n_edges"),
    "site_groups": ("n_atoms",),
}
_OPTIONAL: dict[str, tuple[str | int, ...]] = {
    "position_gradient": ("n_atoms", 3),
    "strain_gradient": (3, 3),
    "removal_effect": ("n_edges",),
    "sites": ("n_sites",),
}
_OF_ATOMS = ("edge_index", "sites")
"""Arrays of numbers of atoms."""


def _read_header(text: str) -> dict[str, Any]:
    damaged = "copy or make the file again"
    try:
        header = json.loads(text)
        version = header["schema_version"]
        fields = {name: header[name] for name in _TEXTS + _NUMBERS} if version == EXPLANATION_VERSION else {}
        texts = all(isinstance(fields[name], str) for name in _TEXTS if fields)
        numbers = all(type(fields[name]) in (int, float) for name in _NUMBERS if fields)
        newer = type(version) is int and version > EXPLANATION_VERSION
        notes = PredictionNotes.from_header(header)
        tested = header.get("order_test")  # older records lack it
        order_test = None if tested is None else OrderTest(**tested)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"its header is damaged ({error!r}); {damaged}") from error
    if newer:
        problem = f"schema version {version}; this crystalframer reads versions up to {EXPLANATION_VERSION}"
        raise TraceError(f"{problem}: install a newer one", field="schema_version", value=version)
    if not (fields and texts and numbers):
        raise TraceError(f"its header is damaged; {damaged}")
    return fields | {"notes": notes, "order_test": order_test}


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays that are missing or whose shapes do not fit together, and atoms that are not there."""
    sizes: dict[str, int] = {}
    again = "copy or make the file again"
    for name, shape in {**_SHAPES, **_OPTIONAL}.items():
        array = arrays.get(name)
        if array is None:
            if name in _SHAPES:
                raise TraceError(f"array {name!r} is missing; {again}", field=name)
            continue
        pairs = zip(shape, array.shape, strict=False)
        known = [sizes.setdefault(dim, size) if isinstance(dim, str) else dim for dim, size in pairs]
        if len(shape) != array.ndim or tuple(known) != array.shape:
            raise TraceError(f"its shape {array.shape} does not fit the other arrays; {again}", field=name)
    for name in _OF_ATOMS:
        array = arrays.get(name)
        if array is not None and array.size and not 0 <= array.min() <= array.max() < sizes["n_atoms"]:
            raise TraceError(f"it names atoms that are not there; {again}", field=name)
    numbers = arrays["atomic_numbers"]
    if numbers.size and not 1 <= numbers.min() <= numbers.max() <= len(SYMBOLS):
        raise TraceError(f"it names elements that do not exist; {again}", field="atomic_numbers")
