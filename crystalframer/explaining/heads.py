"""What each head does for a model on labelled crystals: its error without the head, and without the head's frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.scored import labelled_targets
from crystalframer.errors import ConfigError, DataError, suggestion
from crystalframer.explaining.interventions import random_axes
from crystalframer.explaining.removal import EDGES_AT_ONCE
from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_mean, segment_sum
from crystalframer.model.network import Block, CrystalFramer
from crystalframer.ops.reference import Change
from crystalframer.prediction import ready
from crystalframer.surroundings import left_alone, plain

if TYPE_CHECKING:
    import pandas

N_RESAMPLED = 2000
"""Samples of the crystals, with replacement, from which the intervals follow."""
INTERVAL = (2.5, 97.5)
"""Percentiles."""
CHANGES = ("silent", "random_frames")


@dataclass(frozen=True)
class _Asked:
    """A target, as the outputs of the model hold it."""

    name: str
    columns: slice
    is_class: bool


@plain()
@left_alone()
def head_importance(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    target: str | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """How much larger the error of a model is without each head, and with random frames in each head.

    >>> import crystalframer as cf
    >>> table = cf.head_importance(cf.dataset("demo").select(range(4)))
    >>> table.columns.tolist()[:5]
    ['layer', 'head', 'silent', 'silent_low', 'silent_high']

    Args:
        data: a data set, or the name or path of one (see `dataset`), with the target in the unit of the model. Crystals
            without a label are left out. Take crystals that the model was not trained on.
        model: a model, or the path of one. Default: the weights that come with the package.
        target: the target whose error is compared. Default: the first one that data and model have.
        seed: random seed of the frames and of the intervals.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row for each layer and head, with the columns `layer`, `head`; `silent`: mean increase of the absolute
        error, in the unit of the target (of classes: of the log loss, in nats), if the head brings nothing;
        `random_frames`: the same if its frames are random rotations, one for each atom (NaN without frames); `_low` and
        `_high`: ends of the 95 % interval of both, from crystals that are drawn again with replacement, the same for
        the model and the change; `distance`: mean distance of its attention to neighbours, Å; `itself`: mean share of
        its attention that stays on the atom. `table.attrs` has `target`, `unit`, `error` (of the whole model) and
        `n_crystals`.

    Raises:
        ConfigError: the model has no such target.
        DataError: the data set lacks the target, or fewer than two crystals have a label.
        CrystalError: a crystal that the model cannot take.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    model = ready(model, device)
    data = labelled_targets(data, model.config.targets)
    asked = _asked(target, data, model)
    data = data.select(np.flatnonzero(~np.isnan(data.targets[asked.name])))
    if len(data) < 2:
        raise DataError(f"intervals need at least two labels of {asked.name}, and there are {len(data)}", field="data")
    prepared = prepare(data, model.config.radius, [asked.name], "data", enlarge=model.config.enlarges_radius)
    generator = torch.Generator().manual_seed(seed)
    found = [_of_batch(model, batch, asked, generator) for batch in _batches(prepared, model, progress)]
    whole, changed, seen = (torch.cat(parts, dim=-1).cpu().numpy() for parts in zip(*found, strict=True))
    increase = changed - whole
    low, high = _interval(increase, seed)
    n_layers, n_heads = changed.shape[1:3]
    layers, heads = np.indices((n_layers, n_heads)).reshape(2, -1)
    columns = {"layer": layers, "head": heads}
    for k, name in enumerate(CHANGES):
        parts = zip(("", "_low", "_high"), (increase.mean(-1), low, high), strict=True)
        columns |= {f"{name}{end}": values[k].ravel() for end, values in parts}
    reach, away = seen.mean(-1)
    columns |= {"distance": (reach / np.maximum(away, 1e-12)).ravel(), "itself": 1.0 - away.ravel()}
    table = pandas.DataFrame(columns)
    unit = "nats" if asked.is_class else dict(data.units)[asked.name]
    table.attrs |= {"target": asked.name, "unit": unit, "error": float(whole.mean()), "n_crystals": len(data)}
    return table


def _asked(target: str | None, data: CrystalDataset, model: CrystalFramer) -> _Asked:
    config = model.config
    if target is not None and target not in config.target_names:
        known = suggestion(target, config.target_names)
        raise ConfigError(f"the model does not predict it{known}", field="target", value=target)
    names = [name for name in config.target_names if name in data.targets]
    name = names[0] if target is None else target
    if name not in names:
        raise DataError(f"the data set has no labels of {name}, only of {', '.join(names)}", field="target", value=name)
    number = config.target_names.index(name)
    return _Asked(name, config.columns[number], config.targets[number].is_class)


def _batches(prepared: PreparedCrystals, model: CrystalFramer, progress: bool) -> Iterator[CrystalBatch]:
    ends = list(batch_ends([(prepared.n_edges, EDGES_AT_ONCE)], len(prepared), len(prepared)))
    starts = [0, *ends[:-1]]
    bar = tqdm(total=len(prepared), desc="heads", unit=" crystals", delay=2, leave=False, disable=not progress)
    with bar:
        for first, last in zip(starts, ends, strict=True):
            batch = prepared.batch(np.arange(first, last), model.target_mean.dtype)
            yield batch.to(model.target_mean.device)
            bar.update(last - first)


@torch.no_grad()
def _of_batch(
    model: CrystalFramer, batch: CrystalBatch, asked: _Asked, generator: torch.Generator
) -> tuple[
    Float[Tensor, " n_crystals"],
    Float[Tensor, "2 n_layers n_heads n_crystals"],
    Float[Tensor, "2 n_layers n_heads n_crystals"],
]:
    """Errors of the model; errors without each head and with its frames random; attention to neighbours times distance,
    and attention to neighbours.

    Heads of a layer do not know each other, so that one pass with random frames serves all of them.
    """
    edges, labels = Edges.of(batch), batch.targets[:, 0]
    features = model.embed(batch.atomic_numbers)
    changed, seen = [], []

    def errors(features: Tensor, rest: Sequence[Block]) -> Tensor:
        for block in rest:
            features = block(features, edges)
        outputs = model.read_out(segment_mean(features, batch.crystal_index, batch.n_crystals))
        return _errors(outputs[:, asked.columns], labels, asked.is_class)

    for layer, block in enumerate(model.blocks):
        rest = list(model.blocks)[layer + 1 :]
        framed, turned, of_heads = _framed(block, features, edges, batch, generator)
        seen.append(of_heads)
        rows = []
        for other in (torch.zeros_like(framed), turned):
            rows.append([errors(_put_out(block, features, _with(framed, other, h)), rest) for h in _heads(model)])
        changed.append(torch.stack([torch.stack(row) for row in rows]))
        features = _put_out(block, features, framed)
    whole = errors(features, [])
    if model.evaluation_config.frame.promises.axes is None:
        for each in changed:
            each[1] = torch.nan
    return whole, torch.stack(changed, dim=1), torch.stack(seen, dim=1)


def _heads(model: CrystalFramer) -> range:
    return range(model.config.n_heads)


def _framed(
    block: Block, features: Tensor, edges: Edges, batch: CrystalBatch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Float[Tensor, "2 n_heads n_crystals"]]:
    """What the heads gather; the same with random frames; and where they look."""
    projected = block.attention.project(features)
    framed = block.attention.framed(projected, edges)
    axes = None
    if block.attention.evaluation_config.frame.promises.axes is not None:
        axes = random_axes(framed[..., 0].numel(), generator).to(framed).view(*framed.shape[:2], 3, 3)
    traced = block.attention.trace(projected, edges, Change(axes=axes)).framed
    to_others = traced.attention.masked_fill(edges.is_self[:, None], 0.0)
    away, reach = (
        segment_sum(to_others * factor, edges.query, edges.n_atoms) for factor in (1.0, edges.lengths[:, None])
    )
    of_crystals = [segment_mean(values, batch.crystal_index, batch.n_crystals).T for values in (reach, away)]
    return framed, traced.output, torch.stack(of_crystals)


def _with(framed: Tensor, other: Tensor, head: int) -> Tensor:
    """The output of one head replaced."""
    replaced = framed.clone()
    replaced[:, head] = other[:, head]
    return replaced


def _put_out(block: Block, features: Tensor, framed: Tensor) -> Tensor:
    """Features after the block, if its heads gathered this."""
    features = features + block.attention.put_out(framed)
    return features + block.feedforward(features)


def _errors(outputs: Float[Tensor, "n n_outputs"], labels: Float[Tensor, " n"], is_class: bool) -> Float[Tensor, " n"]:
    """Absolute errors; log losses of classes."""
    if not is_class:
        return (outputs[:, 0] - labels).abs().double()
    if outputs.shape[1] > 1:
        return functional.cross_entropy(outputs, labels.long(), reduction="none").double()
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none").double()


def _interval(
    increase: Float[np.ndarray, "*changes n_crystals"], seed: int
) -> tuple[Float[np.ndarray, "*changes"], Float[np.ndarray, "*changes"]]:
    """Ends of the interval of the mean, by the bootstrap."""
    n = increase.shape[-1]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), N_RESAMPLED)
    means = increase @ counts.T / n
    low, high = np.percentile(means, INTERVAL, axis=-1)
    return low, high
