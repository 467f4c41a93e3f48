"""Structures that nobody would draw, each from a number, and everything that can be done with one.

A seed names its case for good: `check(seed)` repeats it. `tests/test_fuzz.py` tries some, `scripts/fuzz.py` very many.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from attention_cases import GRADIENT_BAR

import crystalframer as cf
import viz
from crystalframer import memory, ops
from crystalframer.analysis.bonds import find_bonds
from crystalframer.config import FRAME_METHODS, FrameConfig, FrameMethod, ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal, cell_heights, closest_pair
from crystalframer.crystals.loading import make_batch
from crystalframer.crystals.neighbors import MIN_NEIGHBORS, SMALLEST_DISTANCE
from crystalframer.elements import HIGHEST_ATOMIC_NUMBER
from crystalframer.errors import CrystalError
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.objects import to_crystal
from crystalframer.testing import prototypes, random_rotation, supercell
from crystalframer.traces import CrystalTrace
from viz.encoding import encode
from viz.scene import _whole

SHORTEST_CELL, LONGEST_CELL = 2.0, 60.0
"""Å."""
ANGLES = (20.0, 160.0)
"""Degrees."""
FLATTEST = 0.02
"""Volume of a cell as a share of a·b·c, at least."""
MOST_ATOMS = 300
MOST_EDGES = 100_000
"""Beyond, the prediction is made and nothing that needs the reference, which takes many times the memory."""
TOLERANCE = 1e-4
"""Of kernels against the reference, as a share of the spread of the features that are compared, at least 1."""


@dataclass(frozen=True)
class Case:
    """A structure as a user might hold it, and the frame method of the model that gets it."""

    kind: str
    atomic_numbers: np.ndarray
    positions: np.ndarray
    lattice: np.ndarray
    method: FrameMethod

    def crystal(self) -> Crystal:
        return Crystal(self.atomic_numbers, self.positions, self.lattice, id=self.kind)


# --- generators -------------------------------------------------------------------------------------------------------


def case(seed: int, kinds: Sequence[str] = ()) -> Case:
    """The structure of a seed, of one of these kinds (default: of all)."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(kinds or KINDS)))
    lattice, frac = KINDS[kind](rng)
    numbers = rng.integers(1, HIGHEST_ATOMIC_NUMBER + 1, len(frac))
    if rng.random() < 0.5:  # few elements, as in most crystals
        numbers = rng.choice(numbers[:3], len(frac))
    if rng.random() < 0.5:
        lattice = lattice @ random_rotation(seed).T
    if rng.random() < 0.1:
        lattice = lattice * np.array([1.0, 1.0, -1.0])  # a mirror image: left-handed
    if rng.random() < 0.2:
        frac = frac + rng.integers(-2, 3, frac.shape)
    method = FRAME_METHODS[rng.integers(len(FRAME_METHODS))]
    return Case(kind, numbers, frac @ lattice, lattice, method)


def _n_atoms(rng: np.random.Generator) -> int:
    low, high = ((1, 13), (13, 61), (61, MOST_ATOMS + 1))[rng.choice(3, p=(0.85, 0.12, 0.03))]
    return int(rng.integers(low, high))


def _cell(rng: np.random.Generator, shortest: float = SHORTEST_CELL, longest: float = LONGEST_CELL) -> np.ndarray:
    """Lengths from the whole range, short ones as often as long ones; any angles that make a cell."""
    a, b, c = np.exp(rng.uniform(np.log(shortest), np.log(longest), 3))
    while True:
        angles = rng.uniform(*ANGLES, 3) if rng.random() < 0.7 else rng.choice([90.0, 60.0, 120.0], 3)
        x, y, z = np.cos(np.radians(angles))
        volume = 1 + 2 * x * y * z - x * x - y * y - z * z
        if volume > FLATTEST**2:
            break
    sine = np.sqrt(1 - z * z)
    return np.array([[a, 0, 0], [b * z, b * sine, 0], [c * y, c * (x - y * z) / sine, c * np.sqrt(volume) / sine]])


def _roomy_cell(rng: np.random.Generator, n_atoms: int) -> np.ndarray:
    """At least 4 Å³ for an atom, if 60 Å allow: what is denser than diamond has thousands of neighbours."""
    lattice = _cell(rng)
    volume = abs(np.linalg.det(lattice)) / n_atoms
    lengths = np.linalg.norm(lattice, axis=1)
    return lattice * max(1.0, min((rng.uniform(4.0, 40.0) / volume) ** (1 / 3), LONGEST_CELL / lengths.max()))


def _scattered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Atoms anywhere, just not on top of each other."""
    n_atoms = _n_atoms(rng)
    lattice = _roomy_cell(rng, n_atoms)
    return lattice, _apart(rng, lattice, rng.random((n_atoms, 3)), [0, 1, 2])


def _apart(rng: np.random.Generator, lattice: np.ndarray, frac: np.ndarray, free: Sequence[int]) -> np.ndarray:
    """The atoms, those that are closer than any two atoms can be with other coordinates of these numbers."""
    for _ in range(300):
        pair = closest_pair(frac, lattice, SMALLEST_DISTANCE)
        if pair is None:
            break
        frac[pair[1], free] = rng.random(len(free))
    return frac


def _crowded(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Any number of atoms in any cell: up to hundreds in one Å³."""
    return _cell(rng), rng.random((_n_atoms(rng), 3))


def _doubled(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Some atoms a second time: on the same place, across a face of the cell, or from 1e-12 to 1 Å away."""
    lattice, frac = _scattered(rng)
    chosen = frac[rng.integers(len(frac), size=min(int(rng.integers(1, 4)), MOST_ATOMS - len(frac) + 1))]
    step = 10.0 ** rng.uniform(-12, 0) * (rng.random() < 0.8)
    away = rng.normal(size=chosen.shape)
    away *= step / np.linalg.norm(away, axis=1, keepdims=True)
    again = chosen + away @ np.linalg.inv(lattice) + rng.integers(-1, 2, chosen.shape)
    return lattice, np.concatenate([frac, again])[:MOST_ATOMS]


def _isolated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One or two atoms, far from their images."""
    return _cell(rng, 15.0), rng.random((int(rng.integers(1, 3)), 3))


def _molecule(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A ball, ring or stick of atoms in a box."""
    n_atoms = int(rng.integers(2, 31))
    turn = 2 * np.pi * np.arange(n_atoms) / n_atoms
    height = np.linspace(-1, 1, n_atoms)
    width = np.sqrt(1 - height**2)
    golden = np.pi * (3 - np.sqrt(5)) * np.arange(n_atoms)
    points = (
        np.stack([width * np.cos(golden), width * np.sin(golden), height], axis=1),
        np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1),
        np.stack([0 * turn, 0 * turn, np.arange(n_atoms)], axis=1),
    )[rng.integers(3)]
    nearest = np.linalg.norm(points[0] - points[1:], axis=1).min()
    points = points * rng.uniform(0.7, 2.0) / nearest
    reach = 2 * np.linalg.norm(points, axis=1).max() + 1
    lattice = _cell(rng, min(reach, 40.0))
    return lattice, (points @ random_rotation(int(rng.integers(1 << 30))).T) @ np.linalg.inv(lattice) + rng.random(3)


def _planar(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All atoms in one plane of the cell, exactly or nearly, empty space above it or not."""
    n_atoms = min(_n_atoms(rng), 60)
    lattice, frac = _roomy_cell(rng, n_atoms), rng.random((n_atoms, 3))
    flat = int(rng.integers(3))
    frac[:, flat] = (rng.random() + rng.choice([0.0, 1e-9, 1e-4]) * rng.normal(size=n_atoms)) % 1.0
    return lattice, _apart(rng, lattice, frac, [axis for axis in range(3) if axis != flat])


def _linear(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All atoms on one line of the cell, evenly or not."""
    n_atoms = min(_n_atoms(rng), 30)
    lattice = _roomy_cell(rng, n_atoms)
    along = np.arange(n_atoms) / n_atoms if rng.random() < 0.5 else rng.random(n_atoms)
    frac = np.tile(rng.random(3), (n_atoms, 1))
    frac[:, rng.integers(3)] = along
    return lattice, frac


def _symmetric(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prototype at any scale, its supercells among them, exact or shaken a little."""
    known = prototypes()
    crystal = known[rng.integers(len(known))]
    scale = rng.uniform(3.0, 12.0) / crystal.lattice[0, 0]
    crystal = replace(crystal, positions=scale * crystal.positions, lattice=scale * crystal.lattice)
    if rng.random() < 0.3:
        a, b, c = (int(n) for n in rng.integers(1, 4, 3))
        crystal = supercell(crystal, (a, b, c))
    shaken = crystal.frac_coords + rng.choice([0.0, 0.0, 1e-8, 1e-5, 1e-3]) * rng.normal(size=(len(crystal), 3))
    return crystal.lattice * min(1.0, LONGEST_CELL / np.linalg.norm(crystal.lattice, axis=1).max()), shaken


KINDS: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "scattered": _scattered,
    "crowded": _crowded,
    "doubled": _doubled,
    "isolated": _isolated,
    "molecule": _molecule,
    "planar": _planar,
    "linear": _linear,
    "symmetric": _symmetric,
}
"""Kind → lattice and fractional coordinates."""


# --- what must hold ---------------------------------------------------------------------------------------------------


@cache
def model_of(method: FrameMethod) -> CrystalFramer:
    """A small model with the radius of the default one, and attention that is not only a matter of distance."""
    tiny = cf.preset("tiny").config.model
    config = replace(tiny, frame=FrameConfig(method), weight_tolerance=ModelConfig().weight_tolerance)
    model = CrystalFramer(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.embedding.weight.mul_(4.0)
    return model


def prepare() -> None:
    """Compile and import what the checks need, so that time and memory of a case are its own."""
    crystal = prototypes()[0]
    for method in FRAME_METHODS:
        everything = Case(crystal.id, crystal.atomic_numbers, crystal.positions, crystal.lattice, method)
        check_case(everything, np.random.default_rng(0), share=1.0)


def check(seed: int) -> str:
    """Do everything with the structure of a seed, and say what came of it.

    Raises:
        AssertionError: something did not hold. Any other error is a finding as well.
    """
    return check_case(case(seed), np.random.default_rng((seed, 1)))


def check_case(made: Case, rng: np.random.Generator, share: float = 0.0) -> str:
    """Args: share: of the costly checks that are made anyway, 0 to 1."""

    def chance(frequency: float) -> bool:
        return rng.random() < max(frequency, share)

    model = model_of(made.method)
    model.zero_grad(set_to_none=True)
    row = predicted_row(made, model, as_table=chance(0.5)) if chance(0.25) else None
    try:
        crystal = to_crystal(made.crystal())
        batch = make_batch([crystal], model.config.radius)
    except CrystalError as refusal:
        assert row is None or row.error, f"refused ({refusal}) and yet predicted: {row.value}"
        assert made.kind in str(refusal), f"names no crystal: {refusal}"
        return f"refused: {_kind_of(str(refusal))}"
    missing = memory.shortage(model.config, batch.n_atoms, batch.n_edges, torch.device("cpu"), torch.float32, True)
    if missing:
        return "too large for the memory, and said so"
    check_edges(batch)
    noise_seed = int(rng.integers(1 << 40)) if chance(0.3) else None
    output = model(batch, noise_seed)
    assert output.isfinite().all(), f"predicts {output}"
    output.sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), f"gradient of {name}: {weight.grad}"
    if row is not None:
        assert row.error is None, f"computes {output.tolist()}, but predict says {row.error}"
    if row is not None and noise_seed is None:
        assert np.isclose(row.value, output.item(), rtol=1e-4, atol=1e-5), f"{row.value} is not {output.item()}"
    if batch.n_edges > MOST_EDGES:
        return "predicted, not traced"
    agreed = ""
    if chance(0.1):
        agreed = ", kernels agree" if kernels_agree(model, batch) else ", frames on a knife's edge"
    (trace,) = model.trace(batch)
    check_trace(trace)
    check_pictures(trace, rng, chance)
    return f"predicted{agreed}"


def _kind_of(message: str) -> str:
    """The part of an error that is the same for all crystals."""
    known = ("Å apart", "coplanar", "where diamond has")
    return next((text for text in known if text in message), message)


class Row(NamedTuple):
    """What `predict` says of a structure."""

    value: float
    error: str | None


def predicted_row(made: Case, model: CrystalFramer, as_table: bool) -> Row:
    """Through the public door; a structure as a `Crystal` or as the row of a table. NaN where there is an error."""
    row = {"id": made.kind, "atomic_numbers": made.atomic_numbers, "positions": made.positions, "lattice": made.lattice}
    try:
        structure = row if as_table else made.crystal()
    except CrystalError:
        structure = row
    table = cf.predict([structure], model, progress=False)
    assert len(table) == 1
    (value,), (error,) = table[model.config.target_names[0]], table["error"]
    if error is None:
        assert np.isfinite(value), f"predict gives {value} and no error"
    else:
        assert np.isnan(value) and isinstance(error, str) and error, f"value {value}, error {error!r}"
        assert "the prediction failed" not in error, error
    return Row(float(value), error)


def check_edges(batch: CrystalBatch) -> None:
    """Every atom has itself first, then enough others that are not all in one plane, nearest first."""
    query, lengths = batch.edge_index[0], batch.edge_vectors.double().norm(dim=1)
    assert lengths.isfinite().all()
    counts = torch.bincount(query, minlength=batch.n_atoms)
    first = counts.cumsum(0) - counts
    assert (query.diff() >= 0).all() and (counts > MIN_NEIGHBORS).all()
    assert (batch.edge_index[1][first] == torch.arange(batch.n_atoms)).all() and (lengths[first] == 0).all()
    is_first = torch.zeros(batch.n_edges, dtype=torch.bool)
    is_first[first] = True
    assert (lengths[~is_first] > 0.999 * SMALLEST_DISTANCE).all()
    assert (lengths.diff()[~is_first[1:]] > -1e-4).all(), "not sorted by length"


def kernels_agree(model: CrystalFramer, batch: CrystalBatch) -> bool:
    """Whether compiled kernels give what plain torch gives; or else that its frames turn over by rounding too.

    Where two choices of an axis are equal to the last digits, no two ways of computing need to agree on it. What then
    is left to hold: plain torch itself, in another precision or on edges that differ by rounding, moves as far.
    """
    with torch.no_grad():
        fast = model.pooled_features(batch)
        with ops.use("reference"):
            plain = model.pooled_features(batch)
            if _distance(fast, plain) <= TOLERANCE:
                return True
            others = [plain, *(model.pooled_features(moved) for moved in _shaken(batch))]
            model.double()
            others.append(model.pooled_features(batch.to(dtype=torch.float64)).float())
            model.float()
    assert fast.isfinite().all()
    spread = max(_distance(one, other) for one in others for other in others)
    difference = min(_distance(fast, other) for other in others)
    assert difference <= TOLERANCE + 2 * spread, f"kernels are off by {difference:.1e}; rounding moves by {spread:.1e}"
    return False


def _shaken(batch: CrystalBatch) -> Iterator[CrystalBatch]:
    for seed in range(4):
        noise = torch.randn(batch.edge_vectors.shape, generator=torch.Generator().manual_seed(seed))
        yield replace(batch, edge_vectors=batch.edge_vectors * (1 + 1e-6 * noise))


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))


def check_trace(trace: CrystalTrace) -> None:
    """Records of real attention and real frames, which a file gives back."""
    query, ones = trace.edge_index[0], np.ones((trace.n_atoms, trace.n_heads))
    for layer in trace.layers:
        sums = np.stack([np.bincount(query, head, minlength=trace.n_atoms) for head in layer.attention.T], axis=1)
        assert np.allclose(sums, ones, atol=GRADIENT_BAR), "attention does not sum to 1"
        for field in fields(layer):
            value = getattr(layer, field.name)
            assert field.name == "frame" or np.isfinite(value).all(), f"{field.name} is not finite"
        if layer.frame is None:
            continue
        axes = layer.frame.axes
        assert np.isfinite(axes).all(), "axes are not finite"
        assert np.allclose(np.linalg.norm(axes, axis=-1), 1.0, atol=1e-4), "axes are not of length 1"
        assert (np.linalg.det(axes) > 0).all(), "axes are left-handed"
        if FrameConfig(layer.frame.method).promises.axes == "orthogonal":
            assert np.allclose(axes @ axes.swapaxes(-1, -2), np.eye(3), atol=1e-3), "axes are not perpendicular"
        if layer.frame.anchor_edges is not None:
            atoms = np.arange(trace.n_atoms)[:, None, None]
            assert (query[layer.frame.anchor_edges] == atoms).all(), "an anchor edge is another atom's"
    with tempfile.TemporaryDirectory() as folder:
        again = CrystalTrace.load(trace.save(Path(folder) / "trace.safetensors"))
    for name in ("atomic_numbers", "positions", "lattice", "edge_index", "edge_image"):
        assert np.array_equal(getattr(again, name), getattr(trace, name)), f"{name} came back different"
    assert (again.prediction, again.units, again.id) == (trace.prediction, trace.units, trace.id)
    for mine, theirs in zip(again.layers, trace.layers, strict=True):
        assert np.array_equal(mine.attention, theirs.attention) and (mine.frame is None) == (theirs.frame is None)


def check_home_cell(scene: viz.Scene) -> None:
    """Atoms lie in the home cell, but for those of slabs that cross a face, and of molecules whose middle is in it."""
    bonds = find_bonds(scene.atomic_numbers, scene.positions, scene.lattice)
    _, molecule = _whole(scene.positions, scene.lattice, bonds)
    places = scene.positions.copy()
    for first in np.unique(molecule[molecule >= 0]):
        places[molecule == first] = scene.positions[molecule == first].mean(axis=0)
    frac, heights = places @ np.linalg.inv(scene.lattice), cell_heights(scene.lattice)
    is_inside = (frac * heights > -0.03) & ((frac - 1) * heights < 0.03)
    assert (is_inside | np.array(scene.vacuum)).all(), "an atom is outside the home cell"


def check_pictures(trace: CrystalTrace, rng: np.random.Generator, chance: Callable[[float], bool]) -> None:
    """Everything that `viz` builds of a trace, the dear ones now and then."""
    scene = viz.scene_from_trace(trace)
    check_home_cell(scene)
    header, data = encode(scene)
    json.dumps(header, allow_nan=False)
    for name, place in header["arrays"].items():
        dtype = np.dtype(place["dtype"])
        array = np.frombuffer(data, dtype, int(np.prod(place["shape"])), place["offset"])
        assert np.isfinite(array).all(), f"{name} for the browser is not finite"
    layer, atom = int(rng.integers(trace.n_layers)), int(rng.integers(trace.n_atoms))
    head = None if rng.random() < 0.3 else int(rng.integers(trace.n_heads))
    shapes = viz.drawing(scene, layer, head, atom)
    assert np.isfinite([ball.center for ball in shapes.balls]).all()
    if chance(0.002):
        matrix = viz.attention_matrix(scene, layer, head)
        assert np.allclose(matrix.sum(axis=1), 1.0, atol=1e-3)
        table = viz.layer_table(trace)
        later = table[table["layer"] > 0].select_dtypes("number")  # layer 0 has no axis turn
        alone = np.isnan(later["attended_distance"].to_numpy())  # as documented: everything stays on the atom
        assert (later["self_attention_share"].to_numpy()[alone] > 0.999).all()
        assert np.isfinite(later.drop(columns="attended_distance").to_numpy()).all()
        viz.attention_figure(scene, layer, head, atom)
        viz.attention_grid(scene, layer)
        viz.entropy_figure(trace)
        viz.attended_distance_figure(trace)
        viz.decay_length_figure(trace)
        viz.axis_turn_figure(trace) if trace.layers[0].frame else None
    if chance(0.002):
        viz.structure_view(scene, layer, head, atom)
        viz.structure_figure(scene, layer, head, atom)
    if chance(0.002):
        assert "</html>" in viz.explorer_html(scene, layer, head, atom)
