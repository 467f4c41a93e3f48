"""Does a crystal look like those that the model was trained on, or like one of them that was made wrong?

A network that was trained on relaxed, complete crystals has features for others too, and its predictions for them may
be far off. A small classifier looks at the features of the atoms in all blocks and tells crystals from altered ones
(`alterations`): atoms displaced or missing, species exchanged, and so on. From its probability that a crystal is sound
follow two flags, which are two questions: is this crystal unlike the training crystals, and are its atoms at rest?

Like predictions, the probability is the same for every description of a crystal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from crystalframer import functional, seals
from crystalframer.errors import UncertaintyError

N_HIDDEN = 64
SOUND = "sound"
FLAGGED = 0.02
"""Share of sound crystals that are flagged."""
N_EPOCHS, BATCH_SIZE = 14, 128
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 3e-3, 0.05, 0.2
WEIGHT_OF_SOUND = 4.0
"""How much a sound crystal counts in the loss: each comes once, and altered several times."""


class Alteration(NamedTuple):
    """A way to make a crystal wrong, as the classifier sees it."""

    words: str
    """How such crystals differ from sound ones."""
    is_unrelaxed: bool
    """Whether a relaxation would mend it."""


ALTERATIONS: Mapping[str, Alteration] = {
    "displaced": Alteration("atoms are displaced", True),
    "strained": Alteration("the cell is strained", True),
    "missing": Alteration("atoms are missing", False),
    "additional": Alteration("there are atoms too many", False),
    "exchanged": Alteration("species have changed places", False),
    "replaced": Alteration("an element was replaced by another one", False),
}


class Flags(NamedTuple):
    """Descriptions, None where there is nothing to say."""

    unlike: list[str | None]
    not_relaxed: list[str | None]


@dataclass(frozen=True, eq=False)
class Soundness:
    """A classifier of crystals by the features of their atoms. `cf.learn_soundness` makes it."""

    kinds: tuple[str, ...]
    """`sound`, then keys of `ALTERATIONS`."""
    least: float
    """Logarithm of the probability of being sound below which a crystal is flagged."""
    layer_weight: Float32[np.ndarray, "n_features_of_all d_model n_hidden"]
    """For the features of the embedding, and of each block."""
    layer_bias: Float32[np.ndarray, " n_hidden"]
    pooled_weight: Float32[np.ndarray, "n_pooled n_hidden"]
    """For mean, standard deviation and maximum over the atoms."""
    pooled_bias: Float32[np.ndarray, " n_hidden"]
    kind_weight: Float32[np.ndarray, "n_hidden n_kinds"]
    kind_bias: Float32[np.ndarray, " n_kinds"]

    def __post_init__(self) -> None:
        """Raises: UncertaintyError: arrays that do not belong together, unknown kinds, or values that cannot be."""
        _, _, n_hidden = self.layer_weight.shape
        shapes = {
            "layer_bias": (n_hidden,),
            "pooled_weight": (3 * n_hidden, n_hidden),
            "pooled_bias": (n_hidden,),
            "kind_weight": (n_hidden, len(self.kinds)),
            "kind_bias": (len(self.kinds),),
        }
        for name in _ARRAYS:
            array = getattr(self, name)
            if array.shape != shapes.get(name, array.shape) or not np.isfinite(array).all():
                raise UncertaintyError(f"{name} must be {shapes.get(name, array.shape)} finite numbers", field=name)
        if self.kinds[:1] != (SOUND,) or not set(self.kinds[1:]) <= set(ALTERATIONS) or len(self.kinds) < 2:
            raise UncertaintyError("unknown kinds of crystals", field="kinds", value=self.kinds)
        if not self.least < 0.0:
            raise UncertaintyError("must be below 0", field="least", value=self.least)

    def log_probabilities(
        self,
        layers: Iterable[Float[Any, "n_atoms d_model"]],
        crystal_index: Int[Any, " n_atoms"],
        n_crystals: int,
    ) -> Float[np.ndarray, "n_crystals n_kinds"]:
        """Logarithms of the probabilities of each kind.

        Args:
            layers: features of the atoms after the embedding and after each block (`CrystalFramer.layers`), as
                arrays or tensors.
            crystal_index: which crystal each atom belongs to, likewise.
        """
        weights = [getattr(self, name) for name in _ARRAYS]
        if isinstance(crystal_index, np.ndarray):
            found = self._logits(layers, crystal_index, n_crystals, weights, functional)
            return functional.log_softmax(found, dim=1).astype(np.float64)
        import torch

        weights = [torch.from_numpy(array).to(crystal_index.device) for array in weights]
        with torch.no_grad():
            features = (layer.float() for layer in layers)
            found = self._logits(features, crystal_index, n_crystals, weights, _on_tensors())
        return torch.log_softmax(found, dim=1).double().cpu().numpy()

    @staticmethod
    def _logits(layers: Iterable[Any], crystal_index: Any, n_crystals: int, weights: Sequence[Any], by: Any) -> Any:
        hidden = sum(features @ weight for features, weight in zip(layers, weights[0], strict=True)) + weights[1]
        return _kinds(hidden, crystal_index, n_crystals, weights[2:], by)

    def flags(self, found: Float[np.ndarray, "n_crystals n_kinds"]) -> Flags:
        """What to say of crystals with these logarithms of probabilities."""
        flags = Flags([None] * len(found), [None] * len(found))
        unrelaxed = np.array([kind != SOUND and ALTERATIONS[kind].is_unrelaxed for kind in self.kinds])
        for row in np.flatnonzero(~(found[:, 0] >= self.least)).tolist():  # NaN is flagged
            shares = np.where(np.arange(len(self.kinds)) > 0, np.exp(found[row]), 0.0)
            is_unrelaxed = bool(shares[unrelaxed].sum() > shares[~unrelaxed].sum())
            chosen = int(np.where(unrelaxed == is_unrelaxed, shares, -1.0).argmax())
            side, words = (flags.not_relaxed if is_unrelaxed else flags.unlike), ALTERATIONS[self.kinds[chosen]].words
            side[row] = (
                f"looks like a crystal in which {words} ({FLAGGED:.0%} of correct crystals get this flag by mistake)"
            )
        return flags

    def to_bytes(self, weights: str | None = None) -> bytes:
        """The content of a safetensors file.

        Args:
            weights: SHA-256 of the weights that these features belong to. With it, the file states both checksums.
        """
        described = {"kinds": self.kinds, "least": self.least}
        return seals.to_bytes("soundness", described, {name: getattr(self, name) for name in _ARRAYS}, weights)

    @classmethod
    def from_bytes(cls, content: bytes, weights: str | None = None) -> Soundness:
        """Read the content of a file that `to_bytes` gave.

        Args:
            weights: SHA-256 of the weights that the features must belong to. Default: any.

        Raises:
            UncertaintyError: the content is not that of such a file, or damaged, or has values that cannot be.
            CheckpointError: a checksum in it is not that of its content, or of other weights.
        """
        with seals.reading("the classifier"):
            described, arrays = seals.from_bytes("soundness", content, weights)
            given = {name: arrays[name] for name in _ARRAYS}
            return cls(tuple(described["kinds"]), float(described["least"]), **given)


_ARRAYS = ("layer_weight", "layer_bias", "pooled_weight", "pooled_bias", "kind_weight", "kind_bias")


class AtomFeatures(NamedTuple):
    """Features of the atoms of many crystals of one kind, after the embedding and after each block."""

    features: Float[np.ndarray, "n_atoms n_all"]
    """Those of all layers side by side, float16."""
    n_atoms: Int[np.ndarray, " n_crystals"]


def fitted(
    of_kinds: Mapping[str, AtomFeatures], held_out: AtomFeatures, d_model: int, seed: int, epochs: Collection[int]
) -> Soundness:
    """Train a classifier, and set its limit by sound crystals that the model was not trained on.

    Args:
        of_kinds: training crystals as they are (`sound`), and altered.
        held_out: sound crystals.
        d_model: number of features of each layer.
        seed: of the weights and of the order of the crystals.
        epochs: as many passes; a progress bar, perhaps.
    """
    import torch
    from torch import nn

    sound = of_kinds[SOUND].features.astype(np.float32)
    mean, std = sound.mean(axis=0), sound.std(axis=0) + 1e-4
    features = torch.from_numpy(np.concatenate([kind.features for kind in of_kinds.values()]))
    n_atoms = np.concatenate([kind.n_atoms for kind in of_kinds.values()])
    labels = torch.from_numpy(np.repeat(np.arange(len(of_kinds)), [len(kind.n_atoms) for kind in of_kinds.values()]))
    starts = np.concatenate([[0], np.cumsum(n_atoms)])
    counts = torch.ones(len(of_kinds))
    counts[0] = WEIGHT_OF_SOUND
    n_steps, by = max(1, len(n_atoms) // BATCH_SIZE), _on_tensors()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(features.shape[1], N_HIDDEN)
        pooled, kinds = nn.Linear(3 * N_HIDDEN, N_HIDDEN), nn.Linear(N_HIDDEN, len(of_kinds))
        dropout, shift, scale = nn.Dropout(DROPOUT), torch.from_numpy(mean), torch.from_numpy(std)
        parameters = [parameter for part in (layers, pooled, kinds) for parameter in part.parameters()]
        optimiser = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=n_steps * len(epochs))
        for _ in epochs:
            for batch in torch.randperm(len(n_atoms)).tensor_split(n_steps):
                rows = batch.numpy()
                atoms = np.concatenate([np.arange(*ends) for ends in zip(starts[rows], starts[rows + 1], strict=True)])
                index = torch.from_numpy(np.repeat(np.arange(len(rows)), n_atoms[rows]))
                given = dropout((features[atoms].float() - shift) / scale)
                weights = (pooled.weight.T, pooled.bias, kinds.weight.T, kinds.bias)
                found = _kinds(layers(given), index, len(rows), weights, by, dropout)
                optimiser.zero_grad()
                nn.functional.cross_entropy(found, labels[batch], weight=counts).backward()
                optimiser.step()
                schedule.step()
    # What standardises the features is part of the first weights.
    layer_weight = (layers.weight.detach() / scale).T
    layer_bias = layers.bias.detach() - shift @ layer_weight
    rest = (pooled.weight.T, pooled.bias, kinds.weight.T, kinds.bias)
    arrays = [layer_weight.reshape(-1, d_model, N_HIDDEN), layer_bias, *(part.detach() for part in rest)]
    classifier = Soundness(tuple(of_kinds), -1e-9, *(np.ascontiguousarray(part.numpy()) for part in arrays))
    of_layers = torch.from_numpy(held_out.features).unflatten(1, (-1, d_model)).unbind(dim=1)
    index = torch.from_numpy(np.repeat(np.arange(len(held_out.n_atoms)), held_out.n_atoms))
    of_sound = classifier.log_probabilities(of_layers, index, len(held_out.n_atoms))[:, 0]
    least = min(float(np.quantile(of_sound, FLAGGED)), -1e-9)
    return Soundness(classifier.kinds, least, *(getattr(classifier, name) for name in _ARRAYS))


def _kinds(
    hidden: Float[Any, "n_atoms n_hidden"],
    crystal_index: Int[Any, " n_atoms"],
    n_crystals: int,
    weights: Sequence[Any],
    by: Any,
    dropout: Callable[[Any], Any] = lambda pooled: pooled,
) -> Float[Any, "n_crystals n_kinds"]:
    """Logits of the kinds. What is pooled is the same for a supercell.

    Args:
        by: has the functions for these arrays (`functional`) or tensors.
    """
    pooled_weight, pooled_bias, kind_weight, kind_bias = weights
    hidden = by.silu(hidden)
    mean = by.segment_mean(hidden, crystal_index, n_crystals)
    variance = by.segment_mean((hidden - mean[crystal_index]) ** 2, crystal_index, n_crystals)
    highest = by.segment_max(hidden, crystal_index, n_crystals)
    pooled = by.concatenate([mean, (variance + 1e-8) ** 0.5, highest], axis=1)
    return dropout(by.silu(pooled @ pooled_weight + pooled_bias)) @ kind_weight + kind_bias


def _on_tensors() -> Any:
    """The functions of `_kinds` for tensors."""
    import torch

    from crystalframer.maths import segments

    return SimpleNamespace(
        silu=torch.nn.functional.silu,
        segment_mean=segments.segment_mean,
        segment_max=segments.segment_max,
        concatenate=torch.concatenate,
    )
