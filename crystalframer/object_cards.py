"""The cards of data sets, models, results and records (`cards`), made from what these objects hold."""

from __future__ import annotations

import dataclasses
import html
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from crystalframer.cards import Html, bars, card, facts, histogram, lines, number, side_by_side, table
from crystalframer.elements import SYMBOLS, reduced_formula
from crystalframer.errors import listed

if TYPE_CHECKING:
    from crystalframer.config import Config, Target
    from crystalframer.crystals.crystal import Crystal
    from crystalframer.datasets.dataset import CrystalDataset
    from crystalframer.evaluation import Evaluation, TargetScore
    from crystalframer.explanations import Explanation
    from crystalframer.measured_errors import GroupError, MeasuredErrors
    from crystalframer.model.network import CrystalFramer
    from crystalframer.traces import CrystalTrace
    from crystalframer.training.result import FitResult

N_ELEMENTS, N_TARGETS, N_CLASSES, N_GROUPS, N_SETTINGS = 14, 8, 8, 8, 30
"""Shown in a card at most."""
N_ERROR_TARGETS = 3
"""Targets whose errors are shown by element and size."""
FEW = 5
"""Elements in fewer crystals than this have no bar: their error says little."""


def crystal_card(crystal: Crystal) -> str:
    """Formula, cell and composition of a crystal."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    first, second, third = crystal.lattice / lengths[:, None]
    pairs = ((second, third), (third, first), (first, second))
    angles = [float(np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0)))) for a, b in pairs]
    volume = abs(float(np.linalg.det(crystal.lattice)))
    rows = {
        "formula": crystal.formula,
        "atoms": f"{len(crystal):,}: {_composition(crystal.atomic_numbers)}",
        "a, b, c": ", ".join(f"{length:.4g}" for length in lengths) + " Å",
        "α, β, γ": ", ".join(f"{angle:.4g}" for angle in angles) + "°",
        "volume": f"{volume:,.4g} Å³, {volume / len(crystal):.3g} Å³ per atom",
        "labels": ", ".join(f"{name} {number(value)}" for name, value in list(crystal.targets.items())[:N_TARGETS]),
    }
    return card(f"Crystal {crystal.id or crystal.formula}", facts(rows))


def dataset_card(data: CrystalDataset) -> str:
    """Numbers, split, elements and labels of a data set, with histograms."""
    n_atoms = data.n_atoms
    rows = {"crystals": f"{len(data):,}", "atoms": f"{len(data.atomic_numbers):,}"}
    if not len(data):
        return card("Data set", facts(rows))
    rows["atoms"] += f"; {n_atoms.min():,} to {n_atoms.max():,} per crystal, median {np.median(n_atoms):g}"
    if data.parts is not None:
        counts = Counter(data.parts.tolist())
        rows["split"] = ", ".join(
            f"{name} {counts[name]:,}" for name in ("train", "validation", "test") if counts[name]
        )
    rows["elements"] = _elements(data)
    rows |= {name: said for name, said in dataclasses.asdict(data.provenance).items() if said}
    names = list(data.targets)
    more = f"{len(names) - N_TARGETS} more labels: {listed(names[N_TARGETS:], 20)}" if len(names) > N_TARGETS else ""
    return card("Data set", facts(rows), side_by_side(_labels(data, name) for name in names[:N_TARGETS]), note=more)


def model_card(model: CrystalFramer) -> str:
    """What a model predicts, from what it learned, and its errors by element and size."""
    config, frame = model.config, model.evaluation_config.frame
    sets = f", weighted sets within {frame.weighted_margin:g} of the best" if frame.weighted_margin else ""
    rows = {
        "predicts": ", ".join(target.label for target in config.targets),
        "network": f"{config.n_layers} layers with {config.n_heads} heads, {_n_parameters(model):,} parameters",
        "frames": f"{frame.method}{sets}",
        "symmetry": str(model.promises),
        "trained on": _training(model),
        "intervals": "" if model.uncertainty is None else f"{model.uncertainty.coverage:.0%}, {_calibration(model)}",
        "index": ""
        if model.index is None
        else f"{len(model.index.ids):,} training crystals; predictions name the nearest",
    }
    return card("CrystalFramer model", facts(rows), *_errors(model.errors, config.targets))


def result_card(result: FitResult) -> str:
    """Scores, course and folder of a training."""
    targets = result.model.config.targets
    shown = [(target, name, score) for target in targets[:N_TARGETS] for name, score in result.scores.items()]
    columns: dict[str, list[str]] = {"target": [], "weights": [], "validation": [], "test": [], "training mean": []}
    for target, name, score in shown:
        validation, test = ((getattr(score, f"{part}_{target.metric}")) for part in ("validation", "test"))
        baseline = getattr(result, f"baseline_{target.metric}")
        chosen = f"{name} (chosen)" if name == result.chosen else name
        cells = (
            target.label,
            chosen,
            *(_scored(values.get(target.name), target) for values in (validation, test, baseline)),
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    history = result.history
    rows = {
        "run folder": str(result.output),
        "epochs": f"{len(history):,}",
        "best epoch": f"{history['epoch'].to_numpy()[history['validation_loss'].to_numpy().argmin()]}",
    }
    if "seconds" in history:
        rows["time"] = f"{history['seconds'].sum():,.0f} s"
    rows["validation loss by epoch"] = _curve(history["validation_loss"].to_numpy(dtype=np.float64))
    errors = _errors(result.model.errors, targets)
    return card(
        "Finished training", facts(rows), table(columns, "mean absolute errors (of classes, accuracies)"), *errors
    )


def evaluation_card(evaluation: Evaluation) -> str:
    """Scores, remarks and errors by element and size."""
    failed = f", {evaluation.n_failed:,} of them without a prediction" if evaluation.n_failed else ""
    parts: list[str] = [lines(*evaluation.remarks)] if evaluation.remarks else []
    if evaluation.scores:
        parts.append(_scores(evaluation))
    for name, score in list(evaluation.class_scores.items())[:N_TARGETS]:
        shown = {
            "labels": f"{score.n_crystals:,}",
            "accuracy": f"{score.accuracy:.1%}",
            "ROC-AUC": number(score.roc_auc, 3),
        }
        columns = {name: list(shown), "": list(shown.values())}
        parts.append(table(columns, f"most frequent class: {score.baseline_accuracy:.1%}"))
    targets = [s.target for s in (*evaluation.scores.values(), *evaluation.class_scores.values())]
    return card(
        f"Evaluation of {evaluation.n_crystals:,} crystals{failed}", *parts, *_errors(evaluation.errors, targets)
    )


def trace_card(trace: CrystalTrace) -> str:
    """Crystal, layers and prediction of a trace, and how much attention leaves the atoms."""
    predicted = (
        str(trace.notes.predicted(name, value, trace.units.get(name, ""))) for name, value in trace.prediction.items()
    )
    region = "" if trace.sites is None else f"{trace.n_queries:,} atoms, and those that they see"
    rows = {
        "crystal": f"{reduced_formula(trace.atomic_numbers)}, {_composition(trace.atomic_numbers)}",
        "recorded": region,
        "neighbour pairs": f"{trace.n_edges:,}, up to {trace.edge_lengths.max(initial=0.0):.3g} Å",
        "prediction": lines(*list(predicted)[:N_TARGETS]),
        **trace.notes.flags,
    }
    parts = [facts(rows)]
    if trace.layers:
        outgoing = trace.outgoing_attention.mean(axis=2)
        layers = [str(layer) for layer in range(trace.n_layers)]
        said = [f"{100 * share:.0f} %" for share in outgoing.mean(axis=1).tolist()]
        frames = sorted({layer.frame_method for layer in trace.layers})
        parts[0] = facts(rows | {"layers": f"{trace.n_layers} with {trace.n_heads} heads, frames: {', '.join(frames)}"})
        title = "attention that leaves the atom, by layer (mean over atoms and heads)"
        parts.append(bars([f"layer {layer}" for layer in layers], outgoing.mean(axis=1).tolist(), said, title))
    hint = "viz.AttentionExplorer(trace) shows it in 3D."
    return card(f"Trace of {trace.id or 'a crystal'}", *parts, note=hint)


def explanation_card(explanation: Explanation) -> str:
    """What a prediction is made of: contributions of equivalent atoms, and shells of neighbours."""
    unit = explanation.shown_unit
    rows = {
        "prediction": str(explanation.notes.predicted(explanation.target, explanation.prediction, unit)),
        **explanation.notes.flags,
        "base": f"{number(explanation.base)} {unit}",
        "crystal": f"{reduced_formula(explanation.atomic_numbers)}, {_composition(explanation.atomic_numbers)}",
    }
    sites = explanation.by_site_group()
    sites = sites.iloc[np.argsort(-np.abs(sites["contribution"].to_numpy()), kind="stable")[:N_GROUPS]]
    shells = explanation.by_shell().query("shell > 0")
    shells = shells.iloc[np.argsort(-np.abs(shells["relevance"].to_numpy()), kind="stable")[:N_GROUPS]]
    parts = [
        bars(
            [f"{row['element']}, {_atoms(row['n_sites'])}" for row in sites.to_dict("records")],
            sites["contribution"].tolist(),
            [_signed(value) for value in sites["contribution"].tolist()],
            f"contributions of equivalent atoms ({unit}): with the base, they add up to the prediction",
        ),
        bars(
            [
                f"{row['element']} – {row['neighbour_element']}, shell {row['shell']} ({row['distance']:.3g} Å)"
                for row in shells.to_dict("records")
            ],
            shells["relevance"].tolist(),
            [_signed(value) for value in shells["relevance"].tolist()],
            f"relevance of shells of neighbours ({unit})",
        ),
    ]
    said = Html(html.escape(f"{explanation.about_scale} {explanation.about_order}"))  # in full
    return card(f"Explanation of {explanation.id or 'a crystal'}", facts(rows), side_by_side(parts), note=said)


def config_card(config: Config) -> str:
    """What differs from the nearest preset."""
    from crystalframer.presets import nearest

    name, changes = nearest(config)
    names = list(changes)[:N_SETTINGS]
    columns = {
        "setting": names,
        "here": [str(changes[setting][1]) for setting in names],
        f"preset {name!r}": [str(changes[setting][0]) for setting in names],
    }
    predicts = facts({"predicts": ", ".join(target.label for target in config.model.targets)})
    if not changes:
        return card(f"Config: preset {name!r}", predicts)
    rest = f"{len(changes) - N_SETTINGS} more settings differ" if len(changes) > N_SETTINGS else ""
    return card(
        f"Config: preset {name!r} with {len(changes)} {'change' if len(changes) == 1 else 'changes'}",
        predicts,
        table(columns),
        note=rest,
    )


def _labels(data: CrystalDataset, name: str) -> Html:
    """A histogram of labels; of classes, their numbers."""
    target, labels = data.target(name), data.targets[name]
    present = labels[~np.isnan(labels)]
    title = f"{target.label}, {len(present):,} labels"
    if target.is_class:
        counts = np.bincount(present.astype(np.int64), minlength=len(target.classes))[:N_CLASSES].tolist()
        return bars(target.classes[:N_CLASSES], counts, [f"{n:,}" for n in counts], title)
    return histogram(present, title)


def _elements(data: CrystalDataset) -> str:
    """The elements, those in most crystals first."""
    crystal = np.repeat(np.arange(len(data), dtype=np.int64), data.n_atoms)
    pairs = np.unique(crystal * 256 + data.atomic_numbers)
    numbers, counts = np.unique(pairs % 256, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [f"{SYMBOLS[numbers[n] - 1]} {counts[n]:,}" for n in order[:N_ELEMENTS]]
    return f"{len(numbers)}: {', '.join(shown)}{', ...' if len(numbers) > N_ELEMENTS else ''} (crystals with each)"


def _atoms(n: int) -> str:
    return "1 atom" if n == 1 else f"{n:,} atoms"


def _composition(atomic_numbers: np.ndarray) -> str:
    counts = Counter(atomic_numbers.tolist())
    return listed([f"{n:,} {SYMBOLS[z - 1]}" for z, n in sorted(counts.items())], N_ELEMENTS)


def _training(model: CrystalFramer) -> str:
    if model.domain is not None:
        smallest, median, largest = model.domain.n_atoms
        sizes = f"of {smallest:,} to {largest:,} atoms (median {median:,})"
        return f"{model.domain.n_crystals:,} crystals {sizes}, {len(model.domain.elements)} elements"
    return "" if model.used is None else f"{model.used.count('train'):,} crystals"


def _calibration(model: CrystalFramer) -> str:
    assert model.uncertainty is not None
    counts = zip(model.uncertainty.target_names, model.uncertainty.n_crystals, strict=True)
    return "from " + listed([f"{n:,} crystals ({name})" for name, n in counts], N_TARGETS)


def _n_parameters(model: CrystalFramer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _errors(errors: MeasuredErrors | None, targets: Sequence[Target]) -> Iterator[Html]:
    """For each target, its errors by size and by element."""
    for target in targets[:N_ERROR_TARGETS] if errors is not None else ():
        assert errors is not None
        everywhere = errors.of(target.name, "all")
        if not everywhere:
            continue
        what = (
            "share of wrong classes" if target.is_class else f"mean absolute error ({target.unit})".replace(" ()", "")
        )
        title = f"{target.name}: {what}, {everywhere[0].n_crystals:,} {errors.crystals}"
        elements = [row for row in errors.of(target.name, "element") if row.n_crystals >= FEW]
        worst = sorted(elements, key=lambda row: -row.error)[:N_GROUPS]
        sizes = everywhere + errors.of(target.name, "size")
        yield side_by_side([_groups(sizes, title), _groups(worst, "elements with the largest errors") if worst else ""])


def _groups(rows: Sequence[GroupError], caption: str) -> Html:
    names = [f"{row.group or 'all'} ({row.n_crystals:,})" for row in rows]
    return bars(names, [row.error for row in rows], [number(row.error, 3) for row in rows], caption)


def _scores(evaluation: Evaluation) -> Html:
    """A row for each target, and each part if the model knows its run."""
    found: list[tuple[str, TargetScore]] = [("", score) for score in evaluation.scores.values()]
    if evaluation.parts:
        found = [(role, scores[name]) for name in evaluation.scores for role, scores in evaluation.parts.items()]
    found = found[: 4 * N_TARGETS]
    columns: dict[str, list[str]] = {"target": [score.target.label for _, score in found]}
    if evaluation.parts:
        columns["part"] = [role for role, _ in found]
    columns |= {
        "labels": [f"{score.n_crystals:,}" for _, score in found],
        "MAE": [number(score.mae) for _, score in found],
        "RMSE": [number(score.rmse) for _, score in found],
        "R²": [number(score.r2, 3) for _, score in found],
        "MAE of the training mean": [number(score.baseline_mae) for _, score in found],
    }
    covered = [score.covered for _, score in found]
    if np.isfinite(covered).any():
        title = f"in the {evaluation.coverage:.0%} interval"
        columns[title] = [f"{share:.1%}" if np.isfinite(share) else "–" for share in covered]
    return table(columns)


def _scored(value: float | None, target: Target) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if target.is_class else number(value)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 3)


def _curve(values: np.ndarray) -> Html:
    """A line of values on a logarithmic scale, with first, lowest and last value in words."""
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) < 2:
        return Html("–")
    heights = np.log(known)
    spread = float(heights.max() - heights.min()) or 1.0
    x = np.linspace(1.0, 199.0, len(known))
    kept = np.unique(np.linspace(0, len(known) - 1, 200).astype(np.int64))
    points = " ".join(f"{x[n]:.1f},{2.0 + 26.0 * (heights.max() - heights[n]) / spread:.1f}" for n in kept)
    line = f'<polyline points="{points}" fill="none" stroke="#4a90d9" stroke-width="1.5"/>'
    words = f"{number(known[0], 3)} to {number(known[-1], 3)}, lowest {number(float(known.min()), 3)}"
    return Html(
        f'<svg width="200" height="30" role="img" aria-label="validation loss by epoch">{line}</svg><br>{words}'
    )
