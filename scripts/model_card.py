"""Write the model card of a checkpoint: README.md, errors.json, by_element.csv and pictures, in its folder.

    python scripts/model_card.py crystalframer/pretrained --data ../shared/data/mp2018_val.parquet \\
        --away ../shared/data/wbm_val.parquet --runs crystalframer/pretrained/training/* --hardware "2 CPU cores"

All numbers are computed here: errors on the labelled crystals of the table (which must not have been used in training),
coverage of cross-fitted intervals, errors and coverage on crystals of another origin, on strained and on senseless
crystals, hours and epochs from the folders of the training runs. The table needs a column `spacegroup` (number) for the
errors by crystal system.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymatgen.core import Element
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks.corruptions import CORRUPTIONS
from crystalframer.checkpoint import add_errors
from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.elements import SYMBOLS
from crystalframer.evaluation import pooled_and_predicted, score_crystals
from crystalframer.measured_errors import measured
from crystalframer.training_index import interval_inputs
from crystalframer.uncertainty import calibrated

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
FIRST_GROUP = (1, 3, 16, 75, 143, 168, 195)
"""First space group of each crystal system."""
SIZES = ((1, 10), (11, 20), (21, 40), (41, 80), (81, 10_000))
NOMINAL = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMALL_SIZES = ((1, 2), (3, 10), (11, 20), (21, 40), (41, 10_000))
GAPS = (("metals (0)", -1.0, 0.0), ("above 0 to 1", 0.0, 1.0), ("1 to 3", 1.0, 3.0), ("above 3", 3.0, np.inf))
"""Name, lower and upper end (included) of groups of labels, eV."""
ENERGY, GAP = "formation_energy_per_atom", "band_gap"
LARGE_GAP_ERROR = 1.5
"""eV."""
STRAINS = (-0.05, -0.03, -0.01, 0.01, 0.03)
"""Relative changes of all lengths."""
N_TRIED = 300
"""Number of small crystals that are strained, or made senseless."""
N_WORST = 10
N_COLUMNS = 3
"""Panels side by side in a picture."""
WRONG_LABELS = {"mp-675106": "TmPaO4 at +2.0 eV/atom", "mp-582464": "NdGd2 at +1.7 eV/atom"}
"""Validation crystals whose label cannot be right: the structure, or its energy, is not that of the compound."""

ABOUT = """# Model card

`cf.load()` and `cf.predict("NaCl.cif")` use these weights. {predicts}.

**Data, licence, attribution.** The labels come from the Materials Project (PBE): the MEGNet 2018.6.1 snapshot and its
split, limited to crystals whose structure is still available. The structures are those of the Materials Project in
2025, often relaxed again with r2SCAN. So labels and geometry differ slightly, and the errors cannot be compared
directly with those of the published split. Data of the Materials Project are licensed CC-BY 4.0: cite Jain et al., APL
Materials 1, 011002 (2013), and for the snapshot Chen et al., Chem. Mater. 31, 3564 (2019).

**Intended use.** Quick estimates for relaxed, ordered, periodic inorganic crystals, with an interval and flags for
crystals unlike the training crystals (`outside_training`) and for crystals that are not relaxed (`not_relaxed`). Do
not use the model for strained or unrelaxed structures, molecules, energies above hull of close competitors, or true
(not PBE) band gaps. Intervals hold what they promise on crystals like those of the Materials Project, and widen with
the distance from the training crystals; how much they hold [elsewhere](#away-from-the-training-data) was measured.
"""


@dataclass(frozen=True, eq=False)
class Scored:
    """Labelled crystals and the predictions of the model."""

    model: cf.CrystalFramer
    data: CrystalDataset
    inputs: np.ndarray
    """What intervals follow from (`training_index.interval_inputs`)."""
    predictions: np.ndarray
    labels: np.ndarray
    """Of the scalar targets, as the predictions."""
    flags: np.ndarray
    """What the columns of flags say of a crystal, or None."""
    system: np.ndarray
    """Crystal system of each, as an index into SYSTEMS."""

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(target for target in self.model.config.targets if not target.is_class)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    @property
    def sizes(self) -> np.ndarray:
        return np.abs(self.predictions - self.labels)


def main(checkpoint: Path, data: Path, away: Path | None, runs: list[Path], hardware: str) -> None:
    scored = score(cf.load(checkpoint), data)
    errors = measured(score_crystals(scored.data, scored.model).crystals, "validation crystals")
    assert errors is not None
    add_errors(checkpoint, errors)
    elements = by_element(scored)
    elements.to_csv(checkpoint / "by_element.csv", index=False, float_format="%.4g")
    coverage = cross_fitted_coverage(scored)
    for name, figure in {
        "parity": parity_figure(scored),
        "elements": element_figure(scored, elements),
        "coverage": coverage_figure(scored, coverage),
        **({"training": training_figure(runs, scored.targets)} if runs else {}),
    }.items():
        figure.savefig(checkpoint / f"{name}.png", dpi=80, bbox_inches="tight", pil_kwargs={"optimize": True})
    words = card(scored, elements, coverage, away, runs, hardware)
    (checkpoint / "README.md").write_text(words, encoding="utf-8")
    print(f"{checkpoint / 'README.md'}, by_element.csv and pictures are written")


def score(model: cf.CrystalFramer, path: Path) -> Scored:
    data = cf.dataset(str(path), targets=model.config.targets).labelled()
    crystals = prepare(data, model.config.radius, model.config.scalar_names, enlarge=model.config.enlarges_radius)
    pooled, predictions = pooled_and_predicted(crystals, model, "scoring")
    inputs = interval_inputs(model.index, pooled)[0]
    table = pandas.read_parquet(path)
    groups = table.set_index(table["material_id"].astype(str))["spacegroup"].loc[data.ids.tolist()].to_numpy()
    system = np.searchsorted(FIRST_GROUP, groups, side="right") - 1
    said, predicted = flags(cf.predict(data, model)), predictions[:, model.config.scalar_columns]
    return Scored(model, data, inputs, predicted, crystals.targets, said, system)


def by_element(scored: Scored) -> pandas.DataFrame:
    """A row for each element: number of crystals with it in training and here, and the MAE of the latter."""
    domain = scored.model.domain
    trained_on = {} if domain is None else {element.symbol: element.n_crystals for element in domain.elements}
    crystal = np.repeat(np.arange(len(scored.data)), scored.data.n_atoms)
    rows = []
    for z in np.unique(scored.data.atomic_numbers).tolist():
        mine = np.unique(crystal[scored.data.atomic_numbers == z])
        row = {"element": SYMBOLS[z - 1], "training_crystals": trained_on.get(SYMBOLS[z - 1], 0), "crystals": len(mine)}
        mae = np.nanmean(scored.sizes[mine], axis=0)
        rows.append(row | {f"mae_{target.name}": mae[t] for t, target in enumerate(scored.targets)})
    return pandas.DataFrame(rows)


def cross_fitted_coverage(scored: Scored) -> np.ndarray:
    """Coverage by nominal coverage and target."""
    found = []
    for nominal in tqdm(NOMINAL, "coverage"):
        found.append(inside(scored, *cross_fitted_ends(scored, nominal)))
    return np.nanmean(found, axis=1)


def cross_fitted_ends(scored: Scored, nominal: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals of all crystals, each calibrated on the half of them to which it does not belong.

    As those of the model, but without crystals of other kinds.
    """
    errors = scored.predictions - scored.labels
    lowest = None if scored.model.uncertainty is None else scored.model.uncertainty.lowest
    halves = np.array_split(np.random.default_rng(0).permutation(len(errors)), 2)
    low, high = np.empty_like(errors), np.empty_like(errors)
    for rows, others in (halves, halves[::-1]):
        found = calibrated(scored.inputs[rows], errors[rows], scored.names, nominal, lowest=lowest)
        low[others], high[others] = found.ends(scored.predictions[others], scored.inputs[others])
    return low, high


def inside(scored: Scored, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """1 for each label in its interval, 0 for others, NaN where there is none."""
    return np.where(np.isnan(scored.labels), np.nan, (scored.labels >= low) & (scored.labels <= high))


def parity_figure(scored: Scored) -> Figure:
    targets = scored.targets
    figure, axes = axes_of(len(targets), height=4.0)
    for t, (target, axis) in enumerate(zip(targets, axes, strict=True)):
        known = ~np.isnan(scored.labels[:, t])
        labels, predictions = scored.labels[known, t], scored.predictions[known, t]
        axis.hexbin(labels, predictions, gridsize=60, bins="log", mincnt=1, cmap="viridis")
        axis.plot([labels.min(), labels.max()], [labels.min(), labels.max()], color="0.5", linewidth=1)
        axis.set(xlabel=f"label: {target.label}", ylabel="prediction")
    figure.tight_layout()
    return figure


def axes_of(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels, at most three in a row."""
    columns = min(n, N_COLUMNS)
    rows = -(-n // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, height * rows), squeeze=False)
    for empty in grid.flat[n:]:
        empty.set_axis_off()
    return figure, list(grid.flat[:n])


def element_figure(scored: Scored, elements: pandas.DataFrame) -> Figure:
    targets = scored.targets
    figure, axes = plt.subplots(len(targets), 1, figsize=(8, 4 * len(targets)), squeeze=False)
    for target, axis in zip(targets, axes[:, 0], strict=True):
        grid = np.full((10, 18), np.nan)
        brightest = np.nanquantile(elements[f"mae_{target.name}"], 0.95)
        for symbol, mae in zip(elements["element"], elements[f"mae_{target.name}"], strict=True):
            element = Element(symbol)
            row, column = element.row - 1, element.group - 1
            if element.is_lanthanoid or element.is_actinoid:
                row, column = (8 if element.is_lanthanoid else 9), element.Z - (57 if element.is_lanthanoid else 89) + 2
            grid[row, column] = mae
            color = "black" if mae > 0.75 * brightest else "white"
            axis.text(column, row, symbol, ha="center", va="center", fontsize=7, color=color)
        image = axis.imshow(grid, cmap="plasma", vmax=brightest)
        figure.colorbar(image, ax=axis, label=f"MAE, {target.unit}", shrink=0.8)
        axis.set(title=target.name, xticks=[], yticks=[])
    return figure


def coverage_figure(scored: Scored, coverage: np.ndarray) -> Figure:
    figure, axis = plt.subplots(figsize=(4, 4))
    for t, target in enumerate(scored.targets):
        axis.plot(NOMINAL, coverage[:, t], marker="o", label=target.name)
    axis.plot((0.45, 1), (0.45, 1), color="0.5", linewidth=1)
    axis.set(xlabel="coverage asked for", ylabel="coverage found (cross-fitted)")
    axis.legend()
    return figure


def training_figure(runs: list[Path], targets: tuple[Target, ...]) -> Figure:
    """Validation errors of each run, against the hours of all runs."""
    figure, axes = axes_of(len(targets), height=3.0)
    start = 0.0
    for run in runs:
        metrics = pandas.read_csv(run / "metrics.csv")
        hours = start + metrics["seconds"].cumsum() / 3600
        for target, axis in zip(targets, axes, strict=True):
            if f"validation_mae/{target.name}" in metrics:
                axis.plot(hours, metrics[f"validation_mae/{target.name}"], marker=".", label=run.name)
            axis.set(xlabel="hours of training", ylabel=f"validation MAE ({target.unit})", title=target.name)
            axis.set_ylim(bottom=0)
        start = hours.iloc[-1]
    axes[0].legend(fontsize=6)
    figure.tight_layout()
    return figure


def card(
    scored: Scored,
    elements: pandas.DataFrame,
    coverage: np.ndarray,
    away: Path | None,
    runs: list[Path],
    hardware: str,
) -> str:
    targets, n_atoms = scored.targets, scored.data.n_atoms
    n_parameters = sum(parameter.numel() for parameter in scored.model.parameters())
    listed = ", ".join(target.label for target in scored.model.config.targets)
    predicts = f"They predict {listed} ({n_parameters:,} parameters)"
    text = [ABOUT.format(predicts=predicts)]
    domain = scored.model.domain
    if domain is not None:
        fewest, median, most = domain.n_atoms
        rare = [f"{element.symbol} ({element.n_crystals})" for element in domain.elements if element.n_crystals < 20]
        text.append(
            f"**Trained on** {domain.n_crystals:,} crystals of {fewest} to {most} atoms (median {median}) with "
            f"{len(domain.elements)} elements; in fewer than 20 of them: {', '.join(rare) or 'none'}.\n"
        )
    if runs:
        text += [f"## Training\n\nBy `scripts/train_pretrained.py`, on {hardware}:\n", *(training(run) for run in runs)]
        text += ["\nSettings and errors of all epochs: `training/`.\n\n![validation errors](training.png)"]
    masks = {"all": n_atoms > 0, "at most 20 atoms": n_atoms <= 20}
    text += [
        "\n## Errors (MAE)\n\nErrors on the validation crystals. They did not choose the epoch: each training gives "
        "its weights after the last one.\n",
        table(scored, masks),
    ]
    text += of_classes(scored)
    text += ["\n![predictions against labels](parity.png)\n\nBy atoms in the cell:\n"]
    text += [table(scored, {f"{low} to {high}": (n_atoms >= low) & (n_atoms <= high) for low, high in SIZES})]
    text += ["\nBy crystal system:\n", table(scored, {name: scored.system == n for n, name in enumerate(SYSTEMS)})]
    text += ["\nBy the flags (`outside_training`, `not_relaxed`):\n"]
    is_outside = np.array([flag is not None for flag in scored.flags])
    text += [table(scored, {"without a flag": ~is_outside, "flagged": is_outside}), *wrong_labels(scored, is_outside)]
    text += [f"\nBy element (by_element.csv has all {len(elements)}):\n\n![errors by element](elements.png)\n"]
    text += [
        "## Intervals\n\nRequested coverage, and coverage measured by cross-validation: on validation crystals that "
        "were not used to make the intervals.\n"
    ]
    text += ["| requested | " + " | ".join(target.name for target in targets) + " |", "|---" * (1 + len(targets)) + "|"]
    text += [
        f"| {n:.0%} | " + " | ".join(f"{x:.1%}" for x in row) + " |" for n, row in zip(NOMINAL, coverage, strict=True)
    ]
    text += ["\n![coverage](coverage.png)\n", *by_need(scored)]
    text += ["## Away from the training data\n"]
    if away is not None:
        text += away_from_home(scored.model, away)
    text += [*strained(scored), *senseless(scored), "## Known failures\n"]
    for t, target in enumerate(targets):
        text += [f"The {N_WORST} largest errors of {target.label}:\n", worst(scored, t), ""]
    return "\n".join(text) + "\n"


def of_classes(scored: Scored) -> list[str]:
    """Scores of the targets of classes."""
    if len(scored.targets) == len(scored.model.config.targets):
        return []
    lines = ["\nClasses:\n", "| | crystals | accuracy | ROC-AUC | log loss | calibration error |", "|---" * 6 + "|"]
    for name, found in score_crystals(scored.data, scored.model).class_scores.items():
        figures = found.accuracy, found.roc_auc, found.log_loss, found.calibration_error
        lines.append(f"| {name} | {found.n_crystals:,} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    return [*lines, ""]


def wrong_labels(scored: Scored, is_outside: np.ndarray) -> list[str]:
    """What two wrong labels do to the error of the crystals that are flagged."""
    is_wrong = np.isin(scored.data.ids.astype(str), list(WRONG_LABELS)) & is_outside
    if not is_wrong.any() or ENERGY not in scored.names:
        return []
    sizes = scored.sizes[:, scored.names.index(ENERGY)]
    with_them, without = np.nanmean(sizes[is_outside]), np.nanmean(sizes[is_outside & ~is_wrong])
    return [
        f"\nThe {with_them:.3f} eV/atom of the flagged crystals are mostly wrong labels: "
        f"{' and '.join(WRONG_LABELS.values())}. Without them the error is {without:.3f} eV/atom."
    ]


def by_need(scored: Scored) -> list[str]:
    """Coverage of the 90 % intervals where it is needed: by label of the gap, and by size of the cell."""
    names, (low, high) = scored.names, cross_fitted_ends(scored)
    is_inside = inside(scored, low, high)
    n_atoms = scored.data.n_atoms
    groups = {f"{low} to {high} atoms": (n_atoms >= low) & (n_atoms <= high) for low, high in SMALL_SIZES}
    text = ["The 90 % are a mean over all validation crystals. By group, cross-validated as above:\n"]
    text += ["| | crystals | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    if GAP in names:
        gaps = scored.labels[:, names.index(GAP)]
        groups = {f"gap {name} eV": (gaps > low) & (gaps <= high) for name, low, high in GAPS} | groups
    for name, mask in groups.items():
        shares = " | ".join(map(_share, is_inside[mask].T))
        text.append(f"| {name.replace(f' to {SMALL_SIZES[-1][1]}', ' or more')} | {mask.sum():,} | {shares} |")
    if GAP in names:
        t = names.index(GAP)
        below = (low[:, t] < 0).mean()
        large = scored.sizes[:, t] > LARGE_GAP_ERROR
        n_flagged = sum(flag is not None for flag in scored.flags[large])
        text.append(
            f"\n{below:.0%} of the intervals of the gap reach below 0 eV. Of {large.sum()} errors of the gap above "
            f"{LARGE_GAP_ERROR} eV, {n_flagged} have the flag, and {np.nanmean(is_inside[large, t]):.0%} lie in their "
            "interval."
        )
    return [*text, ""]


def _share(is_inside: np.ndarray) -> str:
    """Of the labels, those in their intervals; a dash where there is no label."""
    known = is_inside[~np.isnan(is_inside)]
    return f"{known.mean():.0%}" if len(known) else "–"


def away_from_home(model: cf.CrystalFramer, path: Path) -> list[str]:
    """Errors, coverage and flags of formation energies on crystals that the Materials Project does not have."""
    rows = pandas.read_parquet(path)
    rows = rows.loc[(rows["part"] == "score") & rows["no_correction"]]
    target = next(target for target in model.config.targets if target.name == ENERGY)
    data = cf.dataset(str(path), targets=[target])
    data = data.select(np.flatnonzero(np.isin(data.ids.astype(str), rows["material_id"].astype(str))))
    found = cf.predict(data, model)
    deviation = (found[ENERGY] - data.targets[ENERGY]).to_numpy()
    width = (found[f"{ENERGY}_high"] - found[f"{ENERGY}_low"]).to_numpy()
    is_inside = (
        (data.targets[ENERGY] >= found[f"{ENERGY}_low"]) & (data.targets[ENERGY] <= found[f"{ENERGY}_high"])
    ).mean()
    flagged = np.mean([flag is not None for flag in flags(found)])
    rank = pandas.Series(width).corr(pandas.Series(np.abs(deviation)), method="spearman")
    return [
        "**Away from home.** WBM crystals were made by substituting elements in crystals of the Materials Project, "
        f"which has none of them. On {len(data)} of them, with labels that need no correction, the formation energy "
        f"has an error of {np.abs(deviation).mean():.3f} {target.unit} (mean of prediction - label: "
        f"{deviation.mean():+.3f}). **The 90 % interval holds {is_inside:.0%}**; its mean width is "
        f"{width.mean():.3f} {target.unit}. {flagged:.0%} are flagged. The rank "
        f"correlation of width and error is {rank:.2f}.\n"
    ]


def small_crystals(scored: Scored) -> list[Crystal]:
    """The first validation crystals of 2 to 10 atoms."""
    is_small = (scored.data.n_atoms >= 2) & (scored.data.n_atoms <= 10)
    return list(scored.data.select(np.flatnonzero(is_small)[:N_TRIED]))


def strained(scored: Scored) -> list[str]:
    """How predictions, flags and intervals change when all lengths of a crystal change."""
    names, crystals = scored.names, small_crystals(scored)
    if ENERGY not in names:
        return []
    before = cf.predict(crystals, scored.model, progress=False)
    text = [
        f"**Strained cells.** All lengths of {len(crystals)} validation crystals of 2 to 10 atoms changed. The energy "
        "of a relaxed crystal must rise.\n",
        "| change of lengths | median change of the energy (eV/atom) | energy falls | width of its interval | flagged "
        "| gap lost |",
        "|---|---|---|---|---|---|",
    ]
    for strain in STRAINS:
        changed = [replace(c, positions=c.positions * (1 + strain), lattice=c.lattice * (1 + strain)) for c in crystals]
        after = cf.predict(changed, scored.model, progress=False)
        change = after[ENERGY] - before[ENERGY]
        widths = [(found[f"{ENERGY}_high"] - found[f"{ENERGY}_low"]).median() for found in (after, before)]
        had_gap = before[GAP] > 0.5 if GAP in names else before[ENERGY] > np.inf
        lost = f"{(after[GAP][had_gap] < 0.1).mean():.0%}" if had_gap.to_numpy().any() else ""
        text.append(
            f"| {strain:+.0%} | {change.median():+.3f} | {(change < 0).mean():.0%} | × {widths[0] / widths[1]:.2f} | "
            f"{np.mean([flag is not None for flag in flags(after)]):.0%} | {lost} |"
        )
    return [*text, ""]


def senseless(scored: Scored) -> list[str]:
    """How many crystals that are wrong in a known way are flagged, and by which column."""
    crystals = small_crystals(scored)
    text = [
        f"**Crystals that are wrong.** {len(crystals)} validation crystals of 2 to 10 atoms, made wrong in known ways. "
        "The flags learned from alterations like the first eight, and from none like the last four.\n",
        "| what is wrong | crystals | flagged | in `outside_training` | in `not_relaxed` |",
        "|---|---|---|---|---|",
    ]
    for name, corrupt in CORRUPTIONS.items():
        rng = np.random.default_rng(0)
        changed = [wrong for crystal in crystals if (wrong := corrupt(crystal, rng)) is not None]
        found = cf.predict(changed, scored.model, progress=False)
        shares = " | ".join(f"{found[column].notna().mean():.0%}" for column in ("outside_training", "not_relaxed"))
        flagged = np.mean([flag is not None for flag in flags(found)])
        text.append(f"| {name} | {len(changed)} | {flagged:.0%} | {shares} |")
    return [*text, ""]


def flags(found: pandas.DataFrame) -> np.ndarray:
    """What both columns of flags, or the error, say of each prediction; None where nothing is said."""
    columns = [name for name in ("outside_training", "not_relaxed", "error") if name in found]
    said = ["; ".join(text for text in row if isinstance(text, str)) for row in found[columns].itertuples(index=False)]
    return np.array([text or None for text in said], dtype=object)


def training(run: Path) -> str:
    """A line about a run, from its config and the rows of its epochs."""
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    metrics = pandas.read_csv(run / "metrics.csv")
    best = metrics.loc[metrics["validation_loss"].idxmin()]
    columns = [name for name in metrics.columns if name.startswith("validation_mae/")]
    errors = ", ".join(f"{name.partition('/')[2]} {best[name]:.4g}" for name in columns)
    settings = config["training"]
    optimizer = {"adamw": "AdamW", "muon": "Muon"}[settings.get("optimizer", "adamw")]
    return (
        f"- `{run.name}`: {len(metrics)} epochs in {metrics['seconds'].sum() / 3600:.2f} h, at most "
        f"{config['data']['max_atoms_per_crystal'] or 'any number of'} atoms per cell, batches of "
        f"{settings['batch_size']}, {optimizer} with learning rate {settings['learning_rate']:g}, seed "
        f"{settings['seed']}; lowest validation loss in epoch {best['epoch']:.0f} with MAE {errors}"
    )


def table(scored: Scored, masks: dict[str, np.ndarray]) -> str:
    targets = scored.targets
    lines = [
        "| | crystals | " + " | ".join(target.label for target in targets) + " |",
        "|---" * (2 + len(targets)) + "|",
    ]
    for name, mask in masks.items():
        if mask.any():
            errors = " | ".join(f"{mae:.4f}" for mae in np.nanmean(scored.sizes[mask], axis=0))
            lines.append(f"| {name} | {mask.sum():,} | {errors} |")
    return "\n".join(lines)


def worst(scored: Scored, target: int) -> str:
    lines = ["| id | formula | atoms | label | prediction | what is unusual |", "|---|---|---|---|---|---|"]
    for row in np.argsort(-np.nan_to_num(scored.sizes[:, target]))[:N_WORST].tolist():
        label, prediction = scored.labels[row, target], scored.predictions[row, target]
        lines.append(
            f"| {scored.data.ids[row]} | {scored.data.formulas[row]} | {scored.data.n_atoms[row]} | {label:.3f} | "
            f"{prediction:.3f} | {scored.flags[row] or ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="table of labelled crystals that were not used in training"
    )
    parser.add_argument("--away", type=Path, help="table of WBM crystals, with columns part and no_correction")
    parser.add_argument("--hardware", default="hardware that was not noted", help="description of the training data")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of the training runs, in order")
    main(**vars(parser.parse_args()))
