"""The fast path in float32 against the float64 reference, on structures that hypothesis draws, for every frame method.

Both get the same float32 numbers. Bars: 2e-5 of the largest output, 1e-4 of the largest entry of each gradient.

Some frames are not determined by float32 numbers: candidates for an axis at the edge of the tie margin, principal axes
of nearly equal moments, signs that nothing decides. Which they are the reference alone says: its inputs are moved by as
much as rounding moves them, the crystal turned, the tie margin halved and doubled. An atom and head whose output or
gradient of query or decay length then moves by more than a quarter of its bar is left out of the comparison and of the
loss. How many are is bounded too. `pytest tests/test_ops_accuracy.py -s` prints that share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_cases import GRADIENT_BAR, OUTPUT_BAR, evaluated, reference_output, weights
from fuzzed_structures import case
from hypothesis import assume, example, given, settings, strategies as st
from torch import Tensor

from crystalframer.config import FRAME_METHODS, FrameConfig, FrameMethod, ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import CrystalError
from crystalframer.maths.edges import Edges
from crystalframer.ops import cpu
from crystalframer.presets import LIGHTWEIGHT_MODEL
from crystalframer.testing import random_crystal, random_rotation

ROUNDING = 2.0**-22
"""Relative: what a handful of float32 operations may be off by."""
VANISHING = 0.01
"""Entries of a gradient count relative to its largest, and that at least as this share of the terms it is the sum of.

Sums that vanish: queries and keys where all keys are images of one atom (the softmax does not see a constant), decay
lengths and cosines where an atom has nothing but itself in reach. What is left of them is rounding.
"""

MODELS = {"default": ModelConfig(), "lightweight": LIGHTWEIGHT_MODEL}
KINDS = ("scattered", "isolated", "planar", "symmetric")
"""Of structures: not those that have thousands of neighbours, or two atoms on one place."""
INPUTS = {
    # The longest that the default config allows is 2.0 Å.
    "decay": st.sampled_from([0.1, 0.3, 0.6, 1.0, 1.4, 1.98, 4.0, 50.0]),
    "spread": st.sampled_from([0.0, 0.1, 1.0]),
    "content": st.sampled_from([0.3, 1.0, 2.0]),
    "seed": st.integers(0, 2**20),
}
ORDINARY = {"decay": 1.4, "spread": 0.2, "content": 1.0, "seed": 1}
N_EXAMPLES = 12

LEFT_OUT: dict[FrameMethod, float] = {
    "max": 0.01,
    "weighted-pca": 0.1,
    "static-max": 0.01,
    "pca": 0.08,
    "lattice": 0.01,
    "none": 0.0,
}
"""Largest share of atoms × heads whose frame need not be determined.

Most are in symmetric cells: equal moments, and lattice vectors at right angles, where `lattice` has no rule for the
sign. Or a head attends to so little but the atom itself that no moment of `weighted-pca` exceeds the tie margin.
"""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_accuracy_on_random_crystals(method: FrameMethod, model: str) -> None:
    determined: list[Tensor] = []

    @settings(max_examples=N_EXAMPLES, derandomize=True, deadline=None, database=None)
    @given(
        seeds=st.lists(st.integers(0, 2**20), min_size=1, max_size=3),
        inputs=st.fixed_dictionaries(INPUTS),
        n_heads=st.sampled_from([1, 2, 3]),
        d_head=st.sampled_from([4, 10, 16]),
    )
    @example(seeds=[469, 0], inputs=ORDINARY, n_heads=2, d_head=16)  # 182 atoms and more
    @example(seeds=[585, 2], inputs=ORDINARY, n_heads=8, d_head=16)
    def search(seeds: list[int], inputs: dict[str, Any], n_heads: int, d_head: int) -> None:
        config = replace(MODELS[model], frame=FrameConfig(method), n_heads=n_heads, d_model=n_heads * d_head)
        try:
            batch = make_batch([case(seed, KINDS).crystal() for seed in seeds], config.radius)
        except CrystalError:  # two atoms by chance on one place
            assume(False)
            return
        determined.append(compare(batch, weights(batch.n_atoms, config, **inputs), config).flatten())

    search()
    left_out = 1.0 - float(torch.cat(determined).double().mean())
    print(f"\n{method}, {model}: left out {left_out:.2%} of {len(torch.cat(determined))} atoms × heads")
    assert left_out <= LEFT_OUT[method]


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_an_ordinary_crystal_is_as_in_the_reference(method: FrameMethod) -> None:
    config = replace(MODELS["default"], frame=FrameConfig(method))
    batch = make_batch([random_crystal(1, 5)], config.radius)
    assert compare(batch, weights(batch.n_atoms, config, **ORDINARY), config).all()


def compare(batch: CrystalBatch, tensors: Sequence[Tensor | None], config: ModelConfig) -> Tensor:
    """Compare with the reference what is determined, and say what is: (n_atoms, n_heads)."""
    exact_edges = Edges.of(batch.to(dtype=torch.float64))
    expected = evaluated(reference_output, tensors, exact_edges, config)
    determined = is_determined(expected, tensors, exact_edges, config)
    expected = evaluated(reference_output, tensors, exact_edges, config, counted=determined)
    found = evaluated(cpu.framed_attention, tensors, Edges.of(batch), config, counted=determined)
    found["output"] = torch.where(determined[..., None], found["output"], expected["output"])
    for name, errors in errors_by_entry(found, expected, tensors, config).items() if determined.any() else ():
        bar = OUTPUT_BAR if name == "output" else GRADIENT_BAR
        assert errors.max() <= bar, f"{name} off by {float(errors.max()):.1e} of the largest, bar {bar:.0e}"
    return determined


def errors_by_entry(
    found: dict[str, Tensor], expected: dict[str, Tensor], tensors: Sequence[Tensor | None], config: ModelConfig
) -> dict[str, Tensor]:
    """Differences relative to the largest entry, or to what counts as vanishing."""
    size = float(expected["output"].abs().max())
    query, key, _, decay_length, *_ = tensors
    assert query is not None and key is not None and decay_length is not None
    terms = {
        "query": size * float(key.abs().max()),
        "key": size * float(query.abs().max()),
        "decay_length": size / float(decay_length.min()),
        "cosine_projection": config.cosine.coefficient,
    }
    return {
        name: (found[name] - value).abs() / max(float(value.abs().max()), VANISHING * terms.get(name, 0.0))
        for name, value in expected.items()
    }


def is_determined(
    expected: dict[str, Tensor], tensors: Sequence[Tensor | None], edges: Edges, config: ModelConfig
) -> Tensor:
    """(n_atoms, n_heads): whose output and gradients stay where they are when the numbers are rounded."""
    stays = torch.ones_like(expected["decay_length"], dtype=torch.bool)
    if config.frame.method == "none":
        return stays
    for seed, share_of_margin in enumerate((0.5, 1.0, 2.0)):
        moved_tensors = [t if t is None or n not in (0, 1, 3) else rounded(t, seed) for n, t in enumerate(tensors)]
        rotation = torch.from_numpy(random_rotation(seed))
        moved_edges = replace(
            edges,
            lengths=rounded(edges.lengths, seed),
            **{
                name: rounded(getattr(edges, name), seed) @ rotation.T
                for name in ("vectors", "directions", "positions", "lattice")
            },
        )
        frame = replace(config.frame, tie_margin=share_of_margin * config.frame.tie_margin)
        moved = evaluated(reference_output, moved_tensors, moved_edges, replace(config, frame=frame))
        errors = errors_by_entry(moved, expected, tensors, config)
        stays &= errors["output"].amax(-1) <= 0.25 * OUTPUT_BAR
        stays &= errors["query"].amax(-1) <= 0.25 * GRADIENT_BAR
        stays &= errors["decay_length"] <= 0.25 * GRADIENT_BAR
    return stays


def rounded(tensor: Tensor, seed: int) -> Tensor:
    noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=tensor.dtype)
    return tensor * (1 + ROUNDING * (2 * noise - 1))
