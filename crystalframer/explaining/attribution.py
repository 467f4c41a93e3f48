"""Explanations: what a prediction is made of, by atoms, by neighbours, and by directions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from tqdm.auto import tqdm

from crystalframer.batched import MAX_EDGES
from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal, EdgesOfAtoms
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.datasets.symmetry import equivalent_sites
from crystalframer.errors import ConfigError, CrystalError, Setting
from crystalframer.explaining.removal import predictions_with
from crystalframer.explanations import Explanation
from crystalframer.maths.edges import SELF_LENGTH, EdgeChunks, Edges
from crystalframer.model.activation import Perceptron
from crystalframer.model.attention import Projected
from crystalframer.model.network import Block, CrystalFramer
from crystalframer.prediction import notes, ready
from crystalframer.reading.inputs import read, readable
from crystalframer.surroundings import plain

EDGES_AT_ONCE = 10_000
"""Edges whose gradients are computed at a time: about a third of a gigabyte for 8 heads."""
SAME_SITE = 0.01
"""Å by which equivalent atoms may miss the place that the symmetry gives them."""
MOST_ATOMS = 5_000
"""A whole explanation of more atoms takes minutes, and gigabytes, so it is asked for site by site."""
SECONDS_PER_EDGE = 2e-5
"""Rough time for each edge and layer, on one core of 2024, for 8 heads and weighted sets of frames."""
MOST_FOR_SYMMETRY = 500
"""Symmetry of larger cells is not searched, which takes longer than the explanation."""


@dataclass(frozen=True, eq=False)
class Explained:
    """What is explained: a linear function of the outputs of the network."""

    name: str
    unit: str
    scale: str
    weights: Float[np.ndarray, " n_outputs"]

    def of(self, outputs: Float[Tensor, "*n n_outputs"]) -> Float[Tensor, "*n"]:
        """Its value from outputs in physical units."""
        return outputs @ torch.from_numpy(self.weights).to(outputs)


@plain()
def explain(
    structure: Any,
    model: CrystalFramer | str | Path | None = None,
    target: str | None = None,
    *,
    sites: Sequence[int] | None = None,
    references: Any = None,
    removals: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Explanation:
    """Explain a prediction: which atoms, neighbours and directions it is made of.

    How far each of these answers can be trusted is measured by `faithfulness`.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> explanation = cf.explain(prototypes()[4])
    >>> total = explanation.base + explanation.site_contributions.sum()
    >>> bool(abs(total - explanation.prediction) < 1e-5)
    True

    Args:
        structure: a structure, or the path of a file with one (see `read`).
        model: a model, or the path of one. Default: the weights that come with the package.
        target: the target to explain. Default: the first one. A target of classes is explained on the scale of logits:
            of two classes that of the second, of more that of the likeliest class (or name one: `TARGET_CLASS`); a
            target that is a logarithm, on its scale of logarithms.
        sites: atoms whose edges to neighbours are explained, counted from 0; for large cells. Contributions are those
            of all atoms. Default: all atoms.
        references: crystals, as in `predict`, whose mean features are the base. Default: the training crystals; for a
            model without an index of them, features of 0.
        removals: number of edges of each of these atoms, those of the largest relevance first, which are hidden one by
            one to see how the prediction changes (`Explanation.removal_effect`). Each takes as long as a prediction.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        The record (NumPy arrays).

    Raises:
        ConfigError: the model has no such target, or `removals` is below 0.
        CrystalError: a structure that the model cannot take, no such site, or so many atoms that `sites` is needed.
        CheckpointError: the model cannot be loaded.
    """
    if removals < 0:
        raise ConfigError("must not be below 0", field="removals", value=removals)
    model = ready(model, device)
    explained = explained_output(target, model.config)
    crystal = read(structure)
    prepared = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    chunked = ChunkedCrystal(prepared, 0, MAX_EDGES)
    asked = _asked(crystal, sites, int(prepared.n_edges[0]), model)
    with torch.no_grad():
        layers = features_of(model, chunked)
    if explained.scale == "logit" and target in (None, *model.config.target_names):
        explained = _likeliest(explained, target, layers[-1], model)
    start = _base(model, references)
    contributions, base, prediction = _contributions(model, explained, layers[-1], start)
    found = backward(model, explained, chunked, layers, asked, progress)
    relevant = relevance(found)
    effect = _removal_effect(model, explained, prepared, found, relevant, removals) if removals else None
    return Explanation(
        atomic_numbers=crystal.atomic_numbers,
        positions=crystal.positions,
        lattice=crystal.lattice,
        edge_index=found.index,
        edge_image=found.image,
        target=explained.name,
        unit=explained.unit,
        scale=explained.scale,
        prediction=prediction,
        base=base,
        site_contributions=contributions,
        edge_relevance=relevant,
        site_groups=_groups(crystal),
        position_gradient=found.of_positions,
        strain_gradient=found.of_strain,
        removal_effect=effect,
        sites=asked,
        id=crystal.id,
        notes=notes(layers, chunked, model),
        order_test=None if model.order_tests is None else model.order_tests.of(explained.name),
    )


def explained_output(target: str | None, config: ModelConfig) -> Explained:
    """The output that a name stands for: a target, or one class of a target.

    Raises:
        ConfigError: the model has no such target.
    """
    name = config.target_names[0] if target is None else target
    config.check_output(name)
    for each, columns in zip(config.targets, config.columns, strict=True):
        weights = np.zeros(len(config.outputs))
        if name == each.name or name in each.output_names:
            number = each.output_names.index(name) if name in each.output_names else 0
            weights[columns.start + number] = 1.0
            if each.n_outputs > 1:
                weights[columns] -= 1.0 / each.n_outputs
            scale = "logit" if each.is_class else "log10" if each.is_logarithm else "value"
            return Explained(name, each.unit, scale, weights)
    raise AssertionError("a known name is that of a target or of one of its classes")


def _likeliest(
    explained: Explained, target: str | None, features: Float[Tensor, "n_atoms d_model"], model: CrystalFramer
) -> Explained:
    """Of more than two classes, the likeliest.

    Args:
        features: of the last block.
    """
    config = model.config
    number = 0 if target is None else config.target_names.index(target)
    if config.targets[number].n_outputs == 1:
        return explained
    with torch.no_grad():
        outputs = model.read_out(features.mean(0, keepdim=True))[0]
    likeliest = int(outputs[config.columns[number]].argmax())
    return explained_output(config.targets[number].output_names[likeliest], config)


def _asked(
    crystal: Crystal, sites: Sequence[int] | None, n_edges: int, model: CrystalFramer
) -> Int64[np.ndarray, " n_sites"] | None:
    """The atoms whose edges are explained; None: all.

    Raises:
        CrystalError: no such site, or too many atoms to explain all of them.
    """
    if sites is None:
        if len(crystal) > MOST_ATOMS:
            minutes = SECONDS_PER_EDGE * n_edges * model.config.n_layers / 60.0
            size = 4e-9 * n_edges * model.config.n_layers * model.config.n_heads
            problem = (
                f"{crystal.name}: to explain all of {len(crystal):,} atoms takes about {minutes:.1f} minutes, and "
            )
            problem += f"the record {size:.1f} GB; name the atoms of interest with "
            raise CrystalError(problem, Setting("sites"))
        return None
    crystal.check_sites(sites)
    return np.array(list(dict.fromkeys(sites)), dtype=np.int64)


def _groups(crystal: Crystal) -> Int64[np.ndarray, " n_atoms"]:
    if len(crystal) > MOST_FOR_SYMMETRY:
        return np.arange(len(crystal))
    return equivalent_sites(crystal.lattice, crystal.positions, crystal.atomic_numbers, SAME_SITE)


# --- contributions of sites -------------------------------------------------------------------------------------------


def _base(model: CrystalFramer, references: Any) -> Float[Tensor, " d_model"]:
    """The features from which contributions are counted, in float64."""
    if references is not None:
        crystals = readable(references)
        packed = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
        with torch.no_grad():
            pooled = [model.pooled_features_in_chunks(ChunkedCrystal(packed, n, MAX_EDGES)) for n in range(len(packed))]
        return torch.cat(pooled).double().mean(0)
    if model.index is not None:
        return torch.from_numpy(model.index.mean).to(model.target_mean.device).double()
    return torch.zeros(model.config.d_model, dtype=torch.float64, device=model.target_mean.device)


def _contributions(
    model: CrystalFramer,
    explained: Explained,
    features: Float[Tensor, "n_atoms d_model"],
    start: Float[Tensor, " d_model"],
) -> tuple[Float[np.ndarray, " n_atoms"], float, float]:
    """The share of each atom in the prediction, the base and the prediction.

    The readout f is integrated along the straight line from the base to the mean over the atoms. Along it, the mean
    slope of an activation between two values is their difference quotient, so that the integral has a closed form, and
    the shares add up exactly.
    """
    features = features.double()
    readout, end = copy.deepcopy(model.readout).double(), features.mean(0)
    weights = torch.from_numpy(explained.weights).to(end.device) * model.target_std.double()
    gradient = mean_gradient(readout, start, end, weights)
    with torch.no_grad():
        scale, shift = model.target_std.double(), model.target_mean.double()
        base, prediction = (float(explained.of(readout(point) * scale + shift)) for point in (start, end))
        contributions = (features - start) @ gradient / len(features)
    return contributions.cpu().numpy(), base, prediction


def mean_gradient(
    perceptron: Perceptron,
    start: Float[Tensor, " n_in"],
    end: Float[Tensor, " n_in"],
    weights: Float[Tensor, " n_out"],
) -> Float[Tensor, " n_in"]:
    """Mean gradient of `weights · perceptron(x)` along the straight line from start to end."""
    first, activation, last = perceptron
    matrices = first.get_parameter("weight"), last.get_parameter("weight")
    before = first(start).detach().requires_grad_()
    value = activation(before)
    (slope,) = torch.autograd.grad(value.sum(), before)
    with torch.no_grad():
        step = first(end) - before
        moves = step.abs() > 1e-9 * (1.0 + before.abs())
        quotient = (activation(before + step) - value) / torch.where(moves, step, 1.0)
        return (weights @ matrices[1] * torch.where(moves, quotient, slope)) @ matrices[0]


# --- relevance of edges, gradients of positions -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """Results of the backward pass."""

    index: Int64[np.ndarray, "2 n_edges"]
    image: Int[np.ndarray, "n_edges 3"]
    attention: Float[np.ndarray, "n_layers n_heads n_edges"]
    products: Float[np.ndarray, "n_layers n_heads n_edges"]
    """Attention × value × gradient: the derivative with respect to a factor on what each edge brings."""
    of_positions: Float[np.ndarray, "n_atoms 3"] | None
    of_strain: Float[np.ndarray, "3 3"] | None


def relevance(found: Found) -> Float[np.ndarray, "n_layers n_heads n_edges"]:
    """The derivative of the prediction with respect to the logarithm of the weight of each edge, layer and head.

    Weights of one atom and head add up to 1, so that more weight for one edge is less for all others:
    attention × (value - mean value of the atom) × gradient.
    """
    query = found.index[0]
    sums = np.zeros((int(query.max(initial=-1)) + 1, *found.products.shape[:2]))
    np.add.at(sums, query, found.products.transpose(2, 0, 1))
    return found.products - found.attention * sums[query].transpose(1, 2, 0)


def _removal_effect(
    model: CrystalFramer,
    explained: Explained,
    prepared: PreparedCrystals,
    found: Found,
    relevant: Float[np.ndarray, "n_layers n_heads n_edges"],
    n_each: int,
) -> Float[np.ndarray, " n_edges"]:
    """The change of the prediction without some edges, one by one."""
    weights = model.target_mean
    batch = prepared.batch([0], weights.dtype).to(weights.device)
    is_self = (batch.edge_lengths < SELF_LENGTH).cpu().numpy()
    query = batch.edge_index[0].cpu().numpy()
    first = np.searchsorted(query, np.arange(batch.n_atoms))
    effect, size = np.full(found.index.shape[1], np.nan), np.abs(relevant.sum((0, 1)))
    kept, chosen = [torch.ones(len(query), dtype=torch.bool, device=weights.device)], []
    start = 0
    for atom in dict.fromkeys(found.index[0].tolist()):
        edges = first[atom] + np.arange(int((found.index[0] == atom).sum()))
        ranked = np.argsort(-np.where(is_self[edges], -1.0, size[start : start + len(edges)]), kind="stable")
        for number in ranked[: min(n_each, len(edges) - 1)]:
            chosen.append(start + number)
            kept.append(kept[0].clone())
            kept[-1][edges[number]] = False
        start += len(edges)
    outputs = explained.of(predictions_with(model, batch, kept)).cpu().numpy()
    effect[chosen] = outputs[1:] - outputs[0]
    return effect


def features_of(model: CrystalFramer, crystal: ChunkedCrystal) -> list[Float[Tensor, "n_atoms d_model"]]:
    """Features before the first block and after each block."""
    weights = model.target_mean
    chunks = EdgeChunks(crystal, weights.device, weights.dtype, lambda n_atoms: None)
    layers = [model.embed(chunks.atomic_numbers)]
    for block in model.blocks:
        layers.append(block.in_chunks(layers[-1], chunks))
    return layers


def backward(
    model: CrystalFramer,
    explained: Explained,
    crystal: ChunkedCrystal,
    layers: Sequence[Float[Tensor, "n_atoms d_model"]],
    sites: Int64[np.ndarray, " n_sites"] | None,
    progress: bool,
    geometry: bool = True,
) -> Found:
    """Gradients layer by layer, from the last to the first, for some query atoms at a time.

    Only the features of the layers are kept; each layer is computed again, with gradients (`ops.contracted`).

    Args:
        geometry: also with respect to the structure, if the model has these gradients and all sites are asked for.
    """
    differentiable = geometry and sites is None and not model.evaluation_config.frame.chooses
    readout = copy.deepcopy(model.readout).double()
    mean = layers[-1].double().mean(0)
    weights = torch.from_numpy(explained.weights).to(mean.device) * model.target_std.double()
    of_mean = mean_gradient(readout, mean, mean, weights).to(layers[-1].dtype)
    gradient = (of_mean / crystal.n_atoms).expand_as(layers[-1])
    queries = _queries(crystal, sites, len(model.blocks))
    asked = np.arange(crystal.n_atoms) if sites is None else sites
    given = crystal.edges_from(asked)
    products, attention = [], []
    total = _Geometry(np.zeros((crystal.n_atoms, 3)), np.zeros((3, 3))) if differentiable else None
    with _bar(crystal, sum(map(len, queries)), progress) as done:
        for block, features, atoms in reversed(list(zip(model.blocks, layers[:-1], queries, strict=True))):
            passed = _Backward(block, features, gradient, asked, total)
            for chunk in _chunks(crystal, atoms):
                passed.add(chunk)
                done(len(chunk.atoms))
            gradient = passed.of_features()
            products.insert(0, np.concatenate(passed.products).T)
            attention.insert(0, np.concatenate(passed.attention).T)
    index = np.stack([given.atoms[given.index[0]], given.index[1]])
    of_positions, of_strain = (None, None) if total is None else (total.positions, (total.strain + total.strain.T) / 2)
    return Found(index, given.image, np.stack(attention), np.stack(products), of_positions, of_strain)


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Sums of gradients with respect to the structure."""

    positions: Float[np.ndarray, "n_atoms 3"]
    strain: Float[np.ndarray, "3 3"]


class _Backward:
    """The backward pass through one block, for some query atoms after others."""

    def __init__(
        self,
        block: Block,
        features: Float[Tensor, "n_atoms d_model"],
        gradient: Float[Tensor, "n_atoms d_model"],
        asked: Int64[np.ndarray, " n_sites"],
        total: _Geometry | None,
    ) -> None:
        """Args:
        gradient: with respect to the output of the block.
        asked: atoms whose edges are recorded, in this order.
        total: sums to which gradients with respect to the structure are added.
        """
        self.block, self.gradient, self.total, self.asked = block, gradient, total, asked
        self.features = features.detach().requires_grad_()
        self.projected = block.attention.project(self.features)
        self.sums = [torch.zeros_like(part) for part in (self.features, *self.projected)]
        self.products: list[np.ndarray] = [np.empty((0, block.attention.config.n_heads))] * len(asked)
        self.attention = list(self.products)
        self.place = {int(atom): place for place, atom in enumerate(asked)}

    def add(self, given: EdgesOfAtoms) -> None:
        """Compute these query atoms."""
        device, dtype, attention = self.features.device, self.features.dtype, self.block.attention
        edges = Edges.of_atoms(given, device, dtype, self.total is not None)
        constant = Projected(*(part.detach() for part in self.projected))
        with torch.no_grad():
            framed = attention.framed(constant, Edges.of_atoms(given, device, dtype))
        leaves = [part.detach().requires_grad_() for part in (self.features, *constant)]
        output = edges.at_queries(leaves[0]) + attention.put_out(framed.requires_grad_())
        output = output + self.block.feedforward(output)
        of_features, of_framed = torch.autograd.grad(output, [leaves[0], framed], edges.at_queries(self.gradient))
        factors = leaves[0].new_ones(len(edges.query), attention.config.n_heads, requires_grad=True)
        value, weights = attention.contracted(Projected(*leaves[1:]), edges, of_framed, factors)
        wanted = [*leaves[1:], factors] + ([edges.vectors] if self.total is not None else [])
        found = (of_features, *torch.autograd.grad(value, wanted))
        for one, part in zip(self.sums, found, strict=False):
            one += part
        self._record(given, found[5], weights)
        if self.total is not None:
            self._add_geometry(given, found[6])

    def _record(self, given: EdgesOfAtoms, products: Tensor, attention: Tensor) -> None:
        ends = np.searchsorted(given.index[0], np.arange(1, len(given.atoms)))
        parts = (np.split(array.detach().cpu().numpy(), ends) for array in (products, attention))
        for atom, product, weight in zip(given.atoms.tolist(), *parts, strict=True):
            place = self.place.get(atom)
            if place is not None:
                self.products[place], self.attention[place] = product, weight

    def _add_geometry(self, given: EdgesOfAtoms, of_vectors: Tensor) -> None:
        assert self.total is not None
        gradient = of_vectors.double().cpu().numpy()
        np.add.at(self.total.positions, given.index[1], gradient)
        np.subtract.at(self.total.positions, given.atoms[given.index[0]], gradient)
        np.add(self.total.strain, given.vectors.T @ gradient, out=self.total.strain)

    def of_features(self) -> Float[Tensor, "n_atoms d_model"]:
        """The gradient with respect to the input of the block, after all query atoms."""
        direct, *of_projected = self.sums
        (through,) = torch.autograd.grad(self.projected, self.features, of_projected)
        return direct + through


def _queries(
    crystal: ChunkedCrystal, sites: Int64[np.ndarray, " n_sites"] | None, n_layers: int
) -> list[Int64[np.ndarray, " n_queries"]]:
    """For each layer the atoms through which the edges of the sites reach the prediction: in the first layer the sites,
    and in each further layer also the atoms that see them."""
    everything = np.arange(crystal.n_atoms)
    if sites is None:
        return [everything] * n_layers
    queries = [np.sort(sites)]
    index = crystal.edges_from(everything).index
    for _ in range(n_layers - 1):
        queries.append(np.unique(np.concatenate([queries[-1], index[0][np.isin(index[1], queries[-1])]])))
    return queries


def _chunks(crystal: ChunkedCrystal, atoms: Int64[np.ndarray, " n_atoms"]) -> Iterator[EdgesOfAtoms]:
    """The edges of these atoms, of some atoms at a time."""
    n_edges = crystal.edges_per_atom[atoms]
    first = 0
    for last in batch_ends([(n_edges, EDGES_AT_ONCE)], len(atoms), len(atoms)):
        yield crystal.edges_from(atoms[first:last])
        first = last


@contextmanager
def _bar(crystal: ChunkedCrystal, total: int, progress: bool) -> Iterator[Any]:
    title = f"explaining {crystal.id or 'the crystal'}, {crystal.n_atoms:,} atoms"
    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=total, desc=title, bar_format=form, delay=2, leave=False, disable=not progress) as bar:
        yield bar.update
