"""Records of what a model attended to, as plain NumPy arrays that need no model.

`CrystalFramer.trace` makes a `CrystalTrace` for each crystal. Everything in `viz` and `analysis` starts from one, so
that every figure can be made again without the model, years later. Row 0 of `edge_index` is the query atom i, row 1 the
key atom j, and `edge_image` is the lattice translation n of the key atom. Sizes: n_atoms, n_queries, n_edges, n_heads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalframer import files
from crystalframer.errors import TraceError
from crystalframer.frame_methods import NO_FRAMES
from crystalframer.notes import PredictionNotes

SCHEMA_VERSION = 3

DEAD_BELOW = 1e-3
"""Attention of an atom to all others. Below it the frame of this atom and head is dead: it changes next to nothing."""

LARGEST_EXCESS = 1e-3
"""Largest difference of the total weight of a set from 1: the rounding of many members in float32 is far below."""

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class FrameSets:
    """The frames of one layer as weighted sets, one set for each atom and head, one after another.

    The set of atom i and head h has the number i·n_heads + h. Its frames (the members) are in order of weight, the
    heaviest first.
    """

    offsets: IntArray
    """(n_sets + 1): set n holds the members from offsets[n] to before offsets[n + 1]; no set is empty."""
    weights: FloatArray
    """(n_members): add up to 1 in each set."""
    axes: FloatArray
    """(n_members, 3, 3): row k is the unit axis e_k, Cartesian; right-handed."""
    anchor_edges: IntArray | None = None
    """(n_members, 2): edges that fixed e₁ and e₂; None for methods whose axes are not fixed by edges."""

    def __repr__(self) -> str:
        return f"FrameSets: {len(self.weights):,} frames in {len(self.sizes):,} sets"

    @property
    def sizes(self) -> IntArray:
        """(n_sets): number of members of each set."""
        return np.diff(self.offsets)

    @property
    def set_of_member(self) -> IntArray:
        """(n_members): the set of each member."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def of(self, number: int) -> slice:
        """The members of one set.

        Example:
            >>> sets = trace.layers[0].frame.sets
            >>> float(sets.weights[sets.of(0)].sum().round(5))
            1.0
        """
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def part(self, first: int, last: int) -> FrameSets:
        """The sets from `first` to before `last`."""
        offsets = self.offsets[first : last + 1]
        members = slice(int(offsets[0]), int(offsets[-1]))
        edges = None if self.anchor_edges is None else self.anchor_edges[members]
        return FrameSets(offsets - offsets[0], self.weights[members], self.axes[members], edges)

    def mean(self, values: FloatArray) -> FloatArray:
        """(n_sets, ...): mean of a value of each member, (n_members, ...), over every set, by the weights."""
        weights = self.weights.reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(weights * values, self.offsets[:-1], axis=0)

    @property
    def is_valid(self) -> bool:
        """Whether the arrays fit together, and the weights of each set add up to 1."""
        n_members = self.weights.size
        shapes = self.weights.shape == (n_members,) and self.axes.shape == (n_members, 3, 3) and self.offsets.ndim == 1
        if self.anchor_edges is not None:
            shapes = shapes and self.anchor_edges.shape == (n_members, 2)
        if not shapes or not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != n_members:
            return False
        if not (self.sizes > 0).all():
            return False
        totals = self.mean(np.ones(n_members))
        return bool((self.weights >= 0).all() and (np.abs(totals - 1.0) < LARGEST_EXCESS).all())


@dataclass(frozen=True, eq=False, repr=False)
class FrameTrace:
    """The local frames of one layer. Where frames are weighted sets, `axes` and all else but `members` is that of the
    heaviest frame of each set; of equally heavy ones, of the frame that the rule for ties chooses."""

    method: str
    axes: FloatArray
    """(n_queries, n_heads, 3, 3): row k is the unit axis e_k, Cartesian; right-handed."""
    anchor_edges: IntArray | None = None
    """(n_queries, n_heads, 2): edges that fixed e₁ and e₂, for methods whose axes are fixed by edges."""
    eigenvalues: FloatArray | None = None
    """(n_queries, n_heads, 3), Å², ascending, for methods whose axes are principal axes."""
    tie_margin: FloatArray | None = None
    """(n_queries, n_heads, 2): score of the anchor edge minus that of the best other edge, for e₁ and e₂. Near 0 or
    negative: a tie that moments decided."""
    members: FrameSets | None = None
    """The weighted sets of `FrameConfig.weighted_margin`. None: each atom and head has one frame."""
    unsigned_axis: int | None = None
    """The axis that is a line without a direction, as in models that give mirror images one prediction
    (`FrameConfig.both_hands`): 2 for e₃. None: all axes have a direction."""

    @property
    def sets(self) -> FrameSets:
        """The frames as weighted sets, also where each is a set of one."""
        if self.members is not None:
            return self.members
        n = self.axes.shape[0] * self.axes.shape[1]
        edges = None if self.anchor_edges is None else self.anchor_edges.reshape(n, 2)
        return FrameSets(np.arange(n + 1), np.ones(n), self.axes.reshape(n, 3, 3), edges)

    def __repr__(self) -> str:
        sets = "" if self.members is None else f", {len(self.members.weights):,} in weighted sets"
        return f"FrameTrace: {self.method} frames of {self.axes.shape[0]} atoms, {self.axes.shape[1]} heads{sets}"


@dataclass(frozen=True, eq=False, repr=False)
class LayerTrace:
    """One attention layer."""

    attention: FloatArray
    """(n_edges, n_heads): sums to 1 over all edges of one query atom and head."""
    content_logits: FloatArray
    """(n_edges, n_heads): q·k/√d_head."""
    distance_logits: FloatArray
    """(n_edges, n_heads): -r²/2σᵢ², plus the logarithm of the envelope in models with `DecayConfig.reach`."""
    decay_length: FloatArray
    """(n_queries, n_heads): σᵢ, Å."""
    atom_features: FloatArray
    """(n_queries, d_model): output of the layer's block."""
    frame: FrameTrace | None = None
    """None without frames (method `none`)."""

    @property
    def frame_method(self) -> str:
        """Name of the frame method; `none` without frames."""
        return self.frame.method if self.frame else NO_FRAMES

    def __repr__(self) -> str:
        frames = "no frames" if self.frame is None else f"{self.frame.method} frames"
        return f"LayerTrace: {self.attention.shape[0]:,} edges, {self.attention.shape[1]} heads, {frames}"


@dataclass(frozen=True, eq=False, repr=False)
class CrystalTrace:
    """One crystal, what every layer attended to in it, and the prediction."""

    atomic_numbers: IntArray
    """(n_atoms)"""
    positions: FloatArray
    """(n_atoms, 3), Cartesian, Å."""
    lattice: FloatArray
    """(3, 3), rows a, b, c, Å."""
    edge_index: IntArray
    """(2, n_edges)"""
    edge_image: IntArray
    """(n_edges, 3)"""
    layers: tuple[LayerTrace, ...]
    prediction: dict[str, float] = field(default_factory=dict)
    """Target name → value in its unit."""
    units: dict[str, str] = field(default_factory=dict)
    """Target name → unit."""
    id: str = ""
    sites: IntArray | None = None
    """(n_atoms), in a trace of a region: number of each atom in the structure. The first `n_queries` atoms are the
    region. The others are those that the region sees, each in its image nearest to the first atom. None: the trace
    holds all atoms of the structure, in order."""
    notes: PredictionNotes = field(default_factory=PredictionNotes)
    """Intervals and flags of the prediction, and which model made it when."""

    def __repr__(self) -> str:
        predicted = "".join(f"; {name} = {value:.4g} {self.units[name]}" for name, value in self.prediction.items())
        heads = f" with {self.n_heads} heads" if self.layers else ""
        region = "" if self.sites is None else f"a region of {self.n_queries} atoms that see "
        return (
            f"CrystalTrace {self.id!r}: {region}{self.n_atoms} atoms, {self.n_edges:,} edges, "
            f"{self.n_layers} layers{heads}{predicted.rstrip()}"
        )

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import trace_card

        return trace_card(self)

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_queries(self) -> int:
        """Number of atoms whose attention is recorded: all atoms, or the first ones in a trace of a region."""
        return len(self.layers[0].decay_length) if self.layers else self.n_atoms

    @property
    def n_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        return self.layers[0].attention.shape[1]

    @property
    def edge_vectors(self) -> FloatArray:
        """(n_edges, 3): p_j(n) - p_i, Å."""
        query, key = self.edge_index
        return self.positions[key] - self.positions[query] + self.edge_image @ self.lattice

    @property
    def edge_lengths(self) -> FloatArray:
        """(n_edges), Å."""
        return np.linalg.norm(self.edge_vectors, axis=1)

    @property
    def outgoing_attention(self) -> FloatArray:
        """(n_layers, n_heads, n_queries): attention of each atom to all others, 0 to 1. The rest stays on the atom."""
        query, key = self.edge_index
        others = (query != key) | self.edge_image.any(axis=1)
        outgoing = np.zeros((self.n_layers, self.n_heads, self.n_queries))
        for layer, head in np.ndindex(self.n_layers, self.n_heads):
            attention = self.layers[layer].attention[others, head]
            outgoing[layer, head] = np.bincount(query[others], attention, self.n_queries)
        return outgoing

    @property
    def dead_frames(self) -> BoolArray:
        """(n_layers, n_heads, n_queries): frames that change nothing, as almost no attention leaves the atom."""
        return self.outgoing_attention < DEAD_BELOW

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, and its folder if necessary, and return its path.

        Raises:
            TraceError: the suffix is not .safetensors, or the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _CRYSTAL_ARRAYS}
        if self.sites is not None:
            arrays["sites"] = self.sites
        for index, layer in enumerate(self.layers):
            arrays |= {f"layers.{index}.{name}": getattr(layer, name) for name in _LAYER_ARRAYS}
            if layer.frame is not None:
                arrays |= {f"layers.{index}.frame.{name}": array for name, array in _arrays_of(layer.frame)}
        header = {
            "schema_version": SCHEMA_VERSION,
            "n_layers": self.n_layers,
            "frame_methods": [layer.frame_method for layer in self.layers],
            "unsigned_axes": [layer.frame and layer.frame.unsigned_axis for layer in self.layers],
            "prediction": self.prediction,
            "units": self.units,
            "id": self.id,
            "notes": self.notes.header(),
        }
        return write_record(Path(path), "crystal_trace", "a trace", arrays, header)

    @classmethod
    def load(cls, path: str | Path) -> CrystalTrace:
        """Read a file that `save` wrote.

        Raises:
            TraceError: there is no such file, or it is no trace, damaged, or of a newer schema version.
        """
        path = Path(path)
        text, arrays = read_record(path, "crystal_trace", "a trace", "trace")
        layers = []
        try:
            header = _read_header(text)
            for index, method in enumerate(header["frame_methods"]):
                prefix = f"layers.{index}."
                frame = None
                if method != NO_FRAMES:
                    frame = _read_frame(method, arrays, f"{prefix}frame.", header["unsigned_axes"][index])
                elif any(name.startswith(f"{prefix}frame.") for name in arrays):
                    problem = "its header says that a layer has no frames, and there are; copy or make the file again"
                    raise TraceError(problem, field=f"{prefix}frame")
                layers.append(LayerTrace(**{n: arrays[prefix + n] for n in _LAYER_ARRAYS}, frame=frame))
            crystal = {name: arrays[name] for name in _CRYSTAL_ARRAYS}
            _check_arrays(arrays)
        except TraceError as error:
            error.at(path=path)
            raise
        except KeyError as error:
            problem = f"array {error} is missing; copy or make the file again"
            raise TraceError(problem, path=path, field=error.args[0]) from error
        return cls(
            **crystal,
            layers=tuple(layers),
            prediction=header["prediction"],
            units=header["units"],
            id=header["id"],
            sites=arrays.get("sites"),
            notes=header["notes"],
        )


def write_record(path: Path, key: str, what: str, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Path:
    """Write a record as one safetensors file, with a header under this key; return its path.

    Args:
        what: the record in messages, such as `a trace`.

    Raises:
        TraceError: the suffix is not .safetensors, or the file cannot be written.
    """
    from safetensors.numpy import save

    if path.suffix != ".safetensors":
        raise TraceError(f"{what} is a .safetensors file; call it {path.stem}.safetensors", path=path)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with files.writing(path, TraceError):
        files.write(path, save(contiguous, {key: json.dumps(header)}))
    return path


def read_record(path: Path, key: str, what: str, verb: str) -> tuple[str, dict[str, np.ndarray]]:
    """The header under this key and the arrays of a file that `write_record` wrote.

    Args:
        what: the record in messages, such as `a trace`.
        verb: the command that makes one.

    Raises:
        TraceError: there is no such file, or it is no such record.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise TraceError("no such file; check the path", path=path) from error
    except (OSError, SafetensorError) as error:
        problem = f"not a readable {what.partition(' ')[2]} ({error}); copy or make the file again"
        raise TraceError(problem, path=path) from error
    if key not in metadata:
        problem = f"a safetensors file, but not {what}; make one with `crystalframer {verb}`"
        raise TraceError(problem, path=path)
    return metadata[key], arrays


def _arrays_of(frame: FrameTrace) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of the frames of a layer, with their names in the file."""
    for prefix, owner, names in (("", frame, _FRAME_ARRAYS), ("members.", frame.members, _SET_ARRAYS)):
        for name in names:
            array = owner and getattr(owner, name)
            if array is not None:
                yield prefix + name, array


def _read_frame(method: str, arrays: dict[str, np.ndarray], prefix: str, unsigned_axis: int | None) -> FrameTrace:
    given: dict[str, Any] = {name: arrays.get(prefix + name) for name in _FRAME_ARRAYS} | {
        "axes": arrays[f"{prefix}axes"]
    }
    members = None
    if any(name.startswith(f"{prefix}members.") for name in arrays):
        offsets, weights, axes = (arrays[f"{prefix}members.{name}"] for name in _SET_ARRAYS[:3])
        members = FrameSets(offsets, weights, axes, arrays.get(f"{prefix}members.anchor_edges"))
        if len(members.offsets) != given["axes"][..., 0, 0].size + 1 or not members.is_valid:
            problem = "the weighted sets of frames are damaged; copy or make the file again"
            raise TraceError(problem, field=f"{prefix}members")
    return FrameTrace(method, **given, members=members, unsigned_axis=unsigned_axis)


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays whose shapes do not fit together, and edges and atoms that are not there."""
    sizes: dict[str, int] = {}
    numbers: list[tuple[str, np.ndarray, str]] = []
    for name, array in arrays.items():
        kind = name.split(".", maxsplit=2)[2] if name.startswith("layers.") else name
        shape = _SHAPES.get(kind)
        if kind in _NUMBERS:
            numbers.append((name, array, _NUMBERS[kind]))
        if shape is None:  # of weighted sets, whose shapes are checked with their weights
            continue
        named = zip(shape, array.shape, strict=False)
        known = [sizes.setdefault(dim, size) if isinstance(dim, str) else dim for dim, size in named]
        if len(shape) != array.ndim or tuple(known) != array.shape:
            problem = f"its shape {array.shape} does not fit the other arrays; copy or make the file again"
            raise TraceError(problem, field=name)
    for name, array, what in numbers:
        if array.size and not 0 <= array.min() <= array.max() < sizes[what]:
            raise TraceError(f"it names {what[2:]} that are not there; copy or make the file again", field=name)
    if sizes.get("n_queries", 0) > sizes["n_atoms"]:
        raise TraceError("more atoms attend than there are; copy or make the file again", field="atomic_numbers")


def _read_header(text: str) -> dict[str, Any]:
    """The part of a trace that is no array: names are texts, and predictions are numbers."""
    try:
        header = json.loads(text)
        version = header["schema_version"]
        if isinstance(version, bool) or version < 1:
            raise ValueError("no version")
        if version <= SCHEMA_VERSION:
            texts = [header["id"], *header["frame_methods"], *header["units"].values()]
            if not all(isinstance(value, str) for value in texts):
                raise TypeError("a name is no text")
            if not all(isinstance(value, (int, float)) for value in header["prediction"].values()):
                raise TypeError("a prediction is no number")
            unsigned = header.get("unsigned_axes", [None] * len(header["frame_methods"]))  # no axis, before version 3
            if len(unsigned) != len(header["frame_methods"]) or not {*unsigned} <= {None, 0, 1, 2}:
                raise ValueError("no list of axes")
            return header | {"unsigned_axes": unsigned, "notes": PredictionNotes.from_header(header)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"its header is damaged ({error!r}); copy or make the file again") from error
    problem = f"schema version {version}; this crystalframer reads versions up to {SCHEMA_VERSION}: install a newer one"
    raise TraceError(problem, field="schema_version", value=version)


_CRYSTAL_ARRAYS = ("atomic_numbers", "positions", "lattice", "edge_index", "edge_image")
_LAYER_ARRAYS = ("attention", "content_logits", "distance_logits", "decay_length", "atom_features")
_FRAME_ARRAYS = ("axes", "anchor_edges", "eigenvalues", "tie_margin")
_OF_FRAMES = ("n_queries", "n_heads")
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "atomic_numbers": ("n_atoms",),
    "positions": ("n_atoms", 3),
    "lattice": (3, 3),
    "edge_index": (2, "n_edges"),
    "edge_image": ("n_edges", 3),
    "sites": ("n_atoms",),
    "attention": ("n_edges", "n_heads"),
    "content_logits": ("n_edges", "n_heads"),
    "distance_logits": ("n_edges", "n_heads"),
    "decay_length": _OF_FRAMES,
    "atom_features": ("n_queries", "d_model"),
    "frame.axes": (*_OF_FRAMES, 3, 3),
    "frame.anchor_edges": (*_OF_FRAMES, 2),
    "frame.eigenvalues": (*_OF_FRAMES, 3),
    "frame.tie_margin": (*_OF_FRAMES, 2),
}
"""Array, without its layer → shape. The same name is the same size in all arrays."""
_NUMBERS = {"edge_index": "n_atoms", "frame.anchor_edges": "n_edges", "frame.members.anchor_edges": "n_edges"}
"""Array of numbers → how many there are of what it numbers."""
_SET_ARRAYS = ("offsets", "weights", "axes", "anchor_edges")
