"""Whether explanations find what is known to be true: small models are trained on labels that are made of known parts.

    python -m benchmarks.truths [--crystals 600] [--epochs 60] [--seed 0]

Real structures of the demo set, whose atoms become Ti, O, Sr and Al at random. Three kinds of labels:

- bonds: the number of Ti-O pairs within 3.5 Å for each atom of the cell. The true edges join these pairs.
- sites: the share of Ti atoms. The true sites are those of Ti.
- Ewald: the electrostatic energy per atom of charges +1 and -1 (Na and Cl at random), whose share of each site pymatgen
  gives. Labels of whole crystals do not fix how a model divides their energy among sites, so no limit is set; the
  agreement of two seeds stands beside it.

The share of true ones is counted among the k first of an order, where k is the number of true ones (precision at k).
Shares of the Ewald energy are compared by rank correlation, within crystals and for all sites together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from tqdm.auto import trange

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.report import Bar, Report, Row
from crystalframer.config import DistanceBasis, FrameConfig, ModelConfig, Target
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import PreparedCrystals, make_batch, prepare
from crystalframer.elements import ATOMIC_NUMBERS

ELEMENTS = np.array([ATOMIC_NUMBERS[symbol] for symbol in ("Ti", "O", "Sr", "Al")])
TITANIUM, OXYGEN = (ATOMIC_NUMBERS[symbol] for symbol in ("Ti", "O"))
CHARGES = {ATOMIC_NUMBERS["Na"]: 1, ATOMIC_NUMBERS["Cl"]: -1}
REACH, WIDTH = 3.5, 0.1
"""Å: where pairs end to count, and how smoothly."""
LARGEST_CELL, N_EXPLAINED, LIMIT = 6, 40, 0.9
N_CALIBRATED = 64


def bonds(numbers: np.ndarray, index: np.ndarray, lengths: np.ndarray) -> tuple[float, Bool[np.ndarray, " n_edges"]]:
    """The number of Ti-O pairs for each atom, and which edges join them."""
    query, key = numbers[index]
    is_pair = ((query == TITANIUM) & (key == OXYGEN)) | ((query == OXYGEN) & (key == TITANIUM))
    counts = 1.0 / (1.0 + np.exp((lengths - REACH) / WIDTH))
    return float((is_pair * counts).sum() / 2.0 / len(numbers)), is_pair & (lengths < REACH)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("truths", "Whether explanations find the known parts of synthetic labels.")
    options.add_argument("--crystals", type=int, default=600, help="training crystals (default: 600)")
    options.add_argument("--epochs", type=int, default=60, help="epochs (default: 60)")
    options.add_argument("--seed", type=int, default=0, help="seed of structures and weights (default: 0)")
    options.set_defaults(threads=1)
    chosen = parse(options, arguments)
    if chosen.quick:
        chosen.crystals, chosen.epochs = 40, 2
    with session(chosen) as report:
        measure(chosen, report)


def measure(chosen: argparse.Namespace, report: Report) -> None:
    crystals = drawn(chosen.crystals + (4 if chosen.quick else N_EXPLAINED), chosen.seed)
    report.data["name"] = f"demo, cells of up to {LARGEST_CELL} atoms, with Ti, O, Sr and Al at random"
    kinds: dict[str, Callable[[cf.Crystal], float]] = {
        "bonds": lambda crystal: bonds(crystal.atomic_numbers, *edges_of(crystal))[0],
        "sites": lambda crystal: float((crystal.atomic_numbers == TITANIUM).mean()),
    }
    for kind, label in kinds.items():
        labelled = [replace(crystal, targets={kind: label(crystal)}) for crystal in crystals]
        train, rest = labelled[: chosen.crystals], labelled[chosen.crystals :]
        model = trained(train, kind, chosen.epochs, chosen.seed)
        r2 = score(model, rest, kind)
        found = of_bonds(model, rest) if kind == "bonds" else of_sites(model, rest, train)
        for order, values in found.items():
            details = {"R² of the model": r2, "crystals": float(len(values))}
            report.rows.append(Row(kind, order, "", "", float(np.mean(values)), details=details))
        ours = float(np.mean(next(iter(found.values()))))
        report.bars.append(Bar(f"{kind}: share of true ones among the first", ours, LIMIT, "", at_most=False))
    measure_ewald(chosen, report)


def measure_ewald(chosen: argparse.Namespace, report: Report) -> None:
    """Contributions of two models of other seeds beside the true shares of the sites."""
    n_rest = 4 if chosen.quick else N_EXPLAINED
    crystals, shares = zip(*(charged(crystal) for crystal in salts(chosen.crystals + n_rest, chosen.seed)), strict=True)
    train, rest = crystals[: chosen.crystals], crystals[chosen.crystals :]
    true = shares[chosen.crystals :]
    models = [trained(train, "ewald", chosen.epochs, seed) for seed in (chosen.seed, chosen.seed + 1)]
    found = [
        [
            cf.explain(each, model, references=list(train[:N_CALIBRATED]), progress=False).site_contributions
            for each in rest
        ]
        for model in models
    ]
    first, second = (score(model, rest, "ewald") for model in models)
    details = {"R² of the model": first, "R² of the second seed": second, "crystals": float(len(rest))}
    pairs = {"contribution, true shares": (found[0], true), "contributions of two seeds": (found[0], found[1])}
    for name, (ours, others) in pairs.items():
        within = [_rank_correlation(*pair) for pair in zip(ours, others, strict=True)]
        sizes = [len(each) for each in ours]
        pooled = _rank_correlation(*(np.concatenate(part) * np.repeat(sizes, sizes) for part in (ours, others)))
        for what, value in (("within crystals", float(np.nanmean(within))), ("all sites", pooled)):
            report.rows.append(Row(f"Ewald, {what}", name, "", "", value, details=details))


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [rankdata(np.round(values, 6)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1]) if min(np.ptp(each) for each in ranks) > 0 else float("nan")


def salts(n: int, seed: int) -> list[cf.Crystal]:
    """Structures of the demo set with as many Na as Cl, at random."""
    rng = np.random.default_rng(seed)
    small = [crystal for crystal in cf.dataset("demo") if len(crystal) in (4, 6)]
    found = []
    for number in range(n):
        base = small[rng.integers(len(small))]
        numbers = rng.permutation(np.repeat(list(CHARGES), len(base) // 2))
        found.append(replace(base, atomic_numbers=numbers, targets={}, id=str(number)))
    return found


def charged(crystal: cf.Crystal) -> tuple[cf.Crystal, Float[np.ndarray, " n_atoms"]]:
    """The crystal labelled with its Ewald energy per atom, eV, and the share of each site in it."""
    charges = [CHARGES[number] for number in crystal.atomic_numbers.tolist()]
    core, ewald = (import_module(f"pymatgen.{name}") for name in ("core", "analysis.ewald"))
    structure = core.Structure(
        crystal.lattice,
        crystal.atomic_numbers.tolist(),
        crystal.positions,
        coords_are_cartesian=True,
        site_properties={"charge": charges},
    )
    structure.add_oxidation_state_by_site(charges)
    summation = ewald.EwaldSummation(structure)
    shares = np.array([summation.get_site_energy(site) for site in range(len(crystal))]) / len(crystal)
    return replace(crystal, targets={"ewald": float(summation.total_energy) / len(crystal)}), shares


def drawn(n: int, seed: int) -> list[cf.Crystal]:
    """Structures of the demo set with other elements; each has some Ti and some O."""
    rng = np.random.default_rng(seed)
    small = [crystal for crystal in cf.dataset("demo") if 3 <= len(crystal) <= LARGEST_CELL]
    crystals: list[cf.Crystal] = []
    while len(crystals) < n:
        base = small[rng.integers(len(small))]
        numbers = rng.choice(ELEMENTS, len(base))
        if TITANIUM in numbers and OXYGEN in numbers:
            crystals.append(replace(base, atomic_numbers=numbers, targets={}, id=f"{len(crystals)}"))
    return crystals


CONFIG = ModelConfig(
    n_layers=2,
    n_heads=4,
    d_model=32,
    d_feedforward=64,
    d_readout=32,
    frame=FrameConfig("none"),
    distance=DistanceBasis(n_centers=32),
    weight_tolerance=1e-3,
)


def edges_of(crystal: cf.Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Edges as in an explanation, and their lengths."""
    batch = make_batch([crystal], CONFIG.radius)
    return batch.edge_index.numpy(), batch.edge_lengths.double().numpy()


def trained(crystals: Sequence[cf.Crystal], kind: str, n_epochs: int, seed: int) -> cf.CrystalFramer:
    """A small model after plain training by Adam, whose rate falls to 0."""
    config = replace(CONFIG, targets=(Target(kind),))
    model = cf.CrystalFramer(config, torch.Generator().manual_seed(seed))
    packed = prepare(crystals, config.radius, [kind])
    labels = torch.from_numpy(packed.targets)
    model.target_mean.fill_(float(labels.mean()))
    model.target_std.fill_(float(labels.std()))
    model.calibrate(_batch(packed, range(min(len(crystals), N_CALIBRATED))))
    size, order = 32, np.random.default_rng(seed)
    n_steps = n_epochs * -(-len(crystals) // size)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=n_steps, pct_start=0.1)
    for _ in trange(n_epochs, desc=kind, delay=2, leave=False, mininterval=10):
        rows = order.permutation(len(crystals))
        for first in range(0, len(rows), size):
            batch = _batch(packed, rows[first : first + size])
            loss = ((model(batch) - batch.targets) / model.target_std).square().mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


def _batch(packed: PreparedCrystals, rows: Any) -> CrystalBatch:
    return packed.batch(np.asarray(rows), torch.float32)


def score(model: cf.CrystalFramer, crystals: Sequence[cf.Crystal], kind: str) -> float:
    """R² on crystals that it was not trained on."""
    labels = np.array([crystal.targets[kind] for crystal in crystals])
    predicted = cf.predict(list(crystals), model, progress=False)[kind].to_numpy()
    return float(1.0 - ((predicted - labels) ** 2).sum() / ((labels - labels.mean()) ** 2).sum())


def of_bonds(model: cf.CrystalFramer, crystals: Sequence[cf.Crystal]) -> dict[str, list[float]]:
    """For each order the share of true edges among the first, crystal by crystal."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"relevance": [], "attention": [], "nearest first": [], "random": []}
    for crystal in crystals:
        explanation = cf.explain(crystal, model, progress=False)
        attention = sum(layer.attention.sum(1) for layer in cf.trace(crystal, model).layers)
        _, is_true = bonds(crystal.atomic_numbers, explanation.edge_index, explanation.edge_lengths)
        others = ~explanation.is_self
        orders = (explanation.total_relevance, attention, -explanation.edge_lengths, rng.random(len(is_true)))
        if is_true.any():
            for order, values in zip(found.values(), orders, strict=True):
                sizes = np.abs(values) if order is found["relevance"] else np.asarray(values)
                order.append(precision(sizes[others], is_true[others]))
    return found


def of_sites(
    model: cf.CrystalFramer, crystals: Sequence[cf.Crystal], references: Sequence[cf.Crystal]
) -> dict[str, list[float]]:
    """The share of Ti among the sites with the largest contributions; attention: those that are attended most."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"contribution": [], "attention": [], "random": []}
    for crystal in crystals:
        explanation = cf.explain(crystal, model, references=list(references[:N_CALIBRATED]), progress=False)
        attention = np.zeros(len(crystal))
        for layer in cf.trace(crystal, model).layers:
            np.add.at(attention, explanation.edge_index[1], layer.attention.sum(1))
        is_true = crystal.atomic_numbers == TITANIUM
        orders = (explanation.site_contributions, attention, rng.random(len(crystal)))
        for order, values in zip(found.values(), orders, strict=True):
            order.append(precision(values, is_true))
    return found


def precision(values: Float[np.ndarray, " n"], is_true: Bool[np.ndarray, " n"]) -> float:
    """Share of true ones among the first, as many as there are true ones."""
    return float(is_true[np.argsort(-values, kind="stable")[: is_true.sum()]].mean())


if __name__ == "__main__":
    main()
