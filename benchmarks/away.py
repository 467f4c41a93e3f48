"""How far predictions, intervals and flags of the shipped weights can be relied on, also away from home.

Errors on validation crystals of the Materials Project, with their moduli, refractive indices and metals; errors and
intervals on WBM crystals that no database of known crystals has, and on validation crystals of chemical systems or
prototypes that no training crystal has; crystals that are wrong in a known way, which a flag should mark; bulk moduli
from the energies of squeezed cells; energies of elements; gaps of textbook compounds; energies above hull of binaries.
Intervals of validation crystals are calibrated again on the half of them to which a crystal does not belong.

The command ends with status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from sklearn.metrics import roc_auc_score

import crystalframer as cf
from benchmarks import command
from benchmarks.corruptions import CORRUPTIONS, scaled
from benchmarks.report import Bar, Report, Row
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.evaluation import inputs_and_errors, relative_counts
from crystalframer.model.network import CrystalFramer
from crystalframer.uncertainty import calibrated

SHARED = Path(__file__).parents[2] / "shared" / "data"
ENERGY, GAP = "formation_energy_per_atom", "band_gap"
ELASTIC_OPTICAL = {
    "log10_K_VRH_GPa": ("log10_bulk_modulus", 0.075),
    "log10_G_VRH_GPa": ("log10_shear_modulus", 0.095),
    "refractive_index": ("refractive_index", 0.40),
}
"""Label → target and largest MAE."""
VOLUMES = np.linspace(0.94, 1.06, 9)
NEAR_HULL = 0.05
"""eV/atom, up to which a crystal counts as one that may exist."""
GPA = 160.2176634
"""GPa in eV/Å³."""
TEXTBOOK = """
    mp-149 mp-32 mp-66 mp-2534 mp-804 mp-2490 mp-1156 mp-661 mp-1550 mp-2172 mp-20351 mp-20012 mp-22205 mp-1639
    mp-1479 mp-10044 mp-8062 mp-2133 mp-10695 mp-1190 mp-2176 mp-672 mp-2691 mp-406 mp-1265 mp-2472 mp-1342
    mp-1138 mp-22905 mp-682 mp-22862 mp-23251 mp-2741 mp-981 mp-1029 mp-2657 mp-856 mp-5229 mp-5020 mp-20459
    mp-4019 mp-19717 mp-2201 mp-21276 mp-2815 mp-1143 mp-7000 mp-2858 mp-352 mp-226 mp-34202 mp-1201 mp-1367
    mp-1249 mp-2542 mp-3614 mp-22922 mp-23167 mp-2652 mp-3731 mp-422 mp-2730 mp-2231 mp-2242 mp-691 mp-641
    mp-7375 mp-14 mp-19 mp-157 mp-1315 mp-22914
"""
"""Materials Project ids of 72 compounds of textbooks, from Si to CuCl; gaps by PBE, of the snapshot of 2018."""
NAMED = {"mp-149": "Si", "mp-2534": "GaAs", "mp-5020": "BaTiO3", "mp-19717": "PbTe"}
N_CORRUPTED, LARGEST_CORRUPTED = 500, 60
"""Crystals, and atoms in each at most."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("away", __doc__ or "")
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of the data sets (default: ../shared/data)")
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


def measure(options: argparse.Namespace, report: Report) -> None:
    model = cf.load(options.model, device=options.device)
    files = {name: options.data / f"{name}.parquet" for name in ("mp2018_val", "wbm_val", "elastic_optical")}
    train = pandas.read_parquet(options.data / "mp2018_train.parquet", columns=["formula", "spacegroup"])
    validation = Part(files["mp2018_val"], model)
    to_fit = Part(files["wbm_val"], model, "part == 'fit' and no_correction").data
    at_home(validation, train, to_fit, model, report)
    others(files["elastic_optical"], model, report)
    wbm(files["wbm_val"], model, report)
    flags(validation, model, report)
    squeezed(files["elastic_optical"], model, report)
    stability(options.data, model, report)
    textbook_gaps(options.data, model, report)


class Part:
    """Labelled crystals and the table of predictions."""

    def __init__(self, path: Path, model: CrystalFramer, rows: str | None = None) -> None:
        """Args: rows: an expression of columns that chooses some."""
        columns = pandas.read_parquet(path)
        chosen = np.arange(len(columns)) if rows is None else np.flatnonzero(columns.eval(rows))
        self.labels = columns.iloc[chosen].reset_index(drop=True)
        known = [target for target in model.config.targets if target.name in columns]
        self.data = cf.dataset(str(path), targets=known).select(chosen)
        self.table = cf.predict(self.data, model)

    def error(self, name: str) -> np.ndarray:
        return (self.table[name] - self.labels[name]).to_numpy()


def scored(error: np.ndarray, low: np.ndarray, high: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Coverage, mean width, interval score for 90 %, and rank correlation of width and error, for crystals with an
    interval.

    The MAE is that of all crystals, and `no interval` the share that has none.
    """
    crystals, mae, is_known = float(len(error)), float(np.abs(error).mean()), ~np.isnan(low)
    error, low, high, label = error[is_known], low[is_known], high[is_known], label[is_known]
    width, outside = high - low, np.maximum(low - label, 0.0) + np.maximum(label - high, 0.0)
    ranks = pandas.DataFrame({"width": width, "error": np.abs(error)}).corr(method="spearman")
    return {
        "crystals": crystals,
        "MAE": mae,
        "no interval": float((~is_known).mean()),
        "coverage": float((outside == 0.0).mean()),
        "width": float(width.mean()),
        "interval score": float((width + 20.0 * outside).mean()),
        "rank correlation": float(ranks.loc["width", "error"]),
    }


def at_home(part: Part, train: pandas.DataFrame, to_fit: CrystalDataset, model: CrystalFramer, report: Report) -> None:
    """Validation crystals, together and by what of them is new."""
    low, high = _cross_fitted(part, model, to_fit)
    labels = part.labels
    known_systems = set(map(_system, train["formula"].unique()))
    known_prototypes = {_prototype(*row) for row in train.itertuples(index=False)}
    rows = zip(labels["formula"], labels["spacegroup"], strict=True)
    groups = {
        "all": np.ones(len(labels), dtype=bool),
        "new chemical system": np.array([_system(formula) not in known_systems for formula in labels["formula"]]),
        "new prototype": np.array([_prototype(*row) not in known_prototypes for row in rows]),
        "cells of 1 or 2 atoms": part.data.n_atoms <= 2,
        "gaps above 0 to 1 eV": ((labels[GAP] > 0) & (labels[GAP] < 1)).to_numpy(),
    }
    limits = {ENERGY: (0.034, 0.179, "eV/atom"), GAP: (0.195, 1.00, "eV")}
    for t, (name, (largest, widest, unit)) in enumerate(limits.items()):
        error, label = part.error(name), labels[name].to_numpy()
        for group, mask in groups.items():
            found = scored(error[mask], low[mask, t], high[mask, t], label[mask])
            work = f"{name}, mp2018_val, {group}"
            report.rows.append(Row(work, "crystalframer", cf.__version__, unit, found["MAE"], details=found))
            if name == ENERGY or group in ("all", "gaps above 0 to 1 eV", "new chemical system", "new prototype"):
                report.bars += _covered(work, found["coverage"])
            if group == "all":
                report.bars.append(Bar(f"{work}, MAE", found["MAE"], largest, unit))
                report.bars.append(Bar(f"{work}, mean width", found["width"], widest, unit))
            if group == "all" and name == ENERGY:
                report.bars.append(Bar(f"{work}, rank correlation", found["rank correlation"], 0.40, "", at_most=False))
    if "is_metal" in part.table:
        is_metal = (labels[GAP] == 0).to_numpy()
        probability = part.table["is_metal"].to_numpy()
        bins = np.digitize(probability, np.linspace(0, 1, 11)[1:-1])
        gaps = [abs(probability[bins == b].mean() - is_metal[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
        report.bars.append(
            Bar("metal or not, ROC-AUC", float(roc_auc_score(is_metal, probability)), 0.95, "", at_most=False)
        )
        report.bars.append(Bar("metal or not, expected calibration error", float(sum(gaps)), 0.03, ""))
    is_element = np.array(["-" not in _system(formula) for formula in labels["formula"]])
    ground = is_element & (np.abs(labels[ENERGY].to_numpy()) < 0.005)
    size = float(np.median(np.abs(part.table[ENERGY].to_numpy()[ground])))
    details = {"crystals": float(ground.sum())}
    report.rows.append(
        Row("ground states of elements", "crystalframer", cf.__version__, "eV/atom", size, details=details)
    )
    report.bars.append(Bar("ground states of elements, median size of the energy", size, 0.020, "eV/atom"))


def _covered(work: str, coverage: float) -> list[Bar]:
    name = f"{work}, 90 % intervals hold"
    return [Bar(name, coverage, 0.84, "", at_most=False), Bar(name, coverage, 0.95, "")]


def _cross_fitted(part: Part, model: CrystalFramer, away: CrystalDataset) -> tuple[np.ndarray, np.ndarray]:
    """Ends for energy and gap, calibrated with crystals of another kind, as those of the shipped weights were."""
    columns = [model.config.scalar_names.index(name) for name in (ENERGY, GAP)]
    home, other = (inputs_and_errors(data, model, progress=False)[:2] for data in (part.data, away))
    predicted = part.table[[ENERGY, GAP]].to_numpy()
    halves = np.array_split(np.random.default_rng(0).permutation(len(predicted)), 2)
    low, high = np.empty_like(predicted), np.empty_like(predicted)
    for rows, rest in (halves, halves[::-1]):
        inputs, errors = (
            np.concatenate([of_home[rows], of_other]) for of_home, of_other in zip(home, other, strict=True)
        )
        counts = relative_counts(len(rows), len(away))
        found = calibrated(inputs, errors[:, columns], (ENERGY, GAP), weights=counts, lowest=np.array([-np.inf, 0.0]))
        low[rest], high[rest] = found.ends(predicted[rest], home[0][rest])
    return low, high


def _system(formula: str) -> str:
    """The elements of a formula: `Na-Cl`."""
    from pymatgen.core import Composition

    return "-".join(sorted(element.symbol for element in Composition(formula)))


def _prototype(formula: str, space_group: int) -> str:
    from pymatgen.core import Composition

    return f"{Composition(formula).anonymized_formula} {space_group}"


def others(path: Path, model: CrystalFramer, report: Report) -> None:
    """Moduli and refractive indices of validation crystals."""
    known = {label: found for label, found in ELASTIC_OPTICAL.items() if found[0] in model.config.target_names}
    if not known:
        return
    part = Part(path, model, "split == 'validation'")
    for label, (name, limit) in known.items():
        error = (part.table[name] - part.labels[label]).to_numpy()
        has_label = ~np.isnan(error)
        low, high = (part.table[f"{name}_{end}"].to_numpy()[has_label] for end in ("low", "high"))
        found = scored(error[has_label], low, high, part.labels[label].to_numpy()[has_label])
        unit = dict(zip(model.config.target_names, (t.unit for t in model.config.targets), strict=True))[name]
        report.rows.append(
            Row(f"{name}, validation", "crystalframer", cf.__version__, unit, found["MAE"], details=found)
        )
        report.bars.append(Bar(f"{name}, MAE", found["MAE"], limit, unit))


def wbm(path: Path, model: CrystalFramer, report: Report) -> None:
    """Crystals that are in no database of known ones; intervals saw others of them (the part `fit`)."""
    part = Part(path, model, "part == 'score' and no_correction")
    low, high = (part.table[f"{ENERGY}_{end}"].to_numpy() for end in ("low", "high"))
    error = part.error(ENERGY)
    found = scored(error, low, high, part.labels[ENERGY].to_numpy())
    found |= {"bias": float(error.mean()), "flagged": _flagged(part.table)}
    work = f"{ENERGY}, wbm_val"
    report.rows.append(Row(work, "crystalframer", cf.__version__, "eV/atom", found["MAE"], details=found))
    report.bars += [
        Bar(f"{work}, MAE", found["MAE"], 0.068, "eV/atom"),
        *_covered(work, found["coverage"]),
        Bar(f"{work}, interval score", found["interval score"], 0.50, "eV/atom"),
        Bar(f"{work}, rank correlation", found["rank correlation"], 0.40, "", at_most=False),
    ]


def _flagged(table: pandas.DataFrame) -> float:
    """Share of the crystals that have one of both flags, or an error."""
    columns = [name for name in ("outside_training", "not_relaxed", "error") if name in table]
    return float(table[columns].notna().to_numpy().any(axis=1).mean())


def flags(part: Part, model: CrystalFramer, report: Report) -> None:
    """Crystals that are wrong in a known way, and how many sound ones have the flag."""
    sound = _flagged(part.table)
    report.bars.append(Bar("flagged, mp2018_val", sound, 0.04, ""))
    small = np.flatnonzero(part.data.n_atoms <= LARGEST_CORRUPTED)
    chosen = np.random.default_rng(0).permutation(small)[:N_CORRUPTED]
    crystals = list(part.data.select(np.sort(chosen)))
    usual = (part.table[f"{ENERGY}_high"] - part.table[f"{ENERGY}_low"]).to_numpy()[np.sort(chosen)]
    for name, corrupt in CORRUPTIONS.items():
        generator = np.random.default_rng(1)
        changed = [crystal for each in crystals if (crystal := corrupt(each, generator)) is not None]
        found = cf.predict(changed, model)
        widths = (found[f"{ENERGY}_high"] - found[f"{ENERGY}_low"]).to_numpy()
        details = {"crystals": float(len(changed)), "width / usual": float(np.nanmedian(widths) / np.median(usual))}
        share = _flagged(found)
        report.rows.append(Row(f"flagged, {name}", "crystalframer", cf.__version__, "", share, details=details))
        report.bars.append(Bar(f"flagged, {name}", share, 0.80, "", at_most=False))


def squeezed(path: Path, model: CrystalFramer, report: Report) -> None:
    """Bulk moduli from a parabola through the energies of nine volumes from -6 to +6 %."""
    textbook = Part(path, model, "textbook and spacegroup >= 195")
    cubic = Part(path, model, "split == 'validation' and spacegroup >= 195 and log10_K_VRH_GPa.notna()")
    deviations = {}
    for name, part in (("textbook", textbook), ("cubic validation crystals", cubic)):
        moduli = 10.0 ** part.labels["log10_K_VRH_GPa"].to_numpy()
        found = np.array([bulk_modulus(crystal, model) for crystal in part.data])
        deviations[name] = np.abs(found / moduli - 1.0)
        details: dict[str, float | str] = {
            "crystals": float(len(moduli)),
            "within 30 %": float((deviations[name] < 0.3).mean()),
        }
        if name == "textbook":
            rows = zip(part.labels["formula"], found, moduli, strict=True)
            details["found (label), GPa"] = ", ".join(f"{formula} {a:.0f} ({b:.0f})" for formula, a, b in rows)
        report.rows.append(
            Row(
                f"bulk modulus, {name}",
                "crystalframer",
                cf.__version__,
                "median deviation",
                float(np.median(deviations[name])),
                details=details,
            )
        )
    share = float((deviations["textbook"] < 0.3).mean())
    report.bars += [
        Bar("bulk modulus of textbook crystals, within 30 %", share, 0.75, "", at_most=False),
        Bar(
            "bulk modulus of cubic validation crystals, median deviation",
            float(np.median(deviations["cubic validation crystals"])),
            0.25,
            "",
        ),
    ]


def stability(folder: Path, model: CrystalFramer, report: Report) -> None:
    """Energies above hull of binaries that did not train the model, with predictions or labels of competing phases."""
    part = Part(folder / "binaries_val.parquet", model, "not in_mp2018_train")
    references = Part(folder / "binaries_train.parquet", model)
    label = part.labels["energy_above_hull"].to_numpy()
    for name, phases in (("predictions", references.table), ("labels", references.labels[["formula", ENERGY]])):
        found = cf.above_hull(part.table, phases)
        above, low, high = (found[f"above_hull{end}"].to_numpy() for end in ("", "_low", "_high"))
        above, high = np.maximum(above, 0.0), np.maximum(high, 0.0)  # phases of the label's hull may be among these
        stable, said = label <= NEAR_HULL, above <= NEAR_HULL
        details = {
            "crystals": float(len(label)),
            "median": float(np.median(np.abs(above - label))),
            "coverage": float(((label >= low) & (label <= high)).mean()),
            f"within {NEAR_HULL:g}": float(stable.mean()),
            "precision": float((said & stable).sum() / said.sum()),
            "recall": float((said & stable).sum() / stable.sum()),
        }
        work, mae = f"energy above hull, hull of {name}", float(np.abs(above - label).mean())
        report.rows.append(Row(work, "crystalframer", cf.__version__, "eV/atom", mae, details=details))


def textbook_gaps(folder: Path, model: CrystalFramer, report: Report) -> None:
    """Gaps of compounds that everybody knows. Most of them trained the model."""
    ids = TEXTBOOK.split()
    parts = [Part(folder / f"mp2018_{part}.parquet", model, f"material_id in {ids}") for part in ("train", "val")]
    errors = [part.error(GAP) for part in parts]
    tables = pandas.concat([part.labels.assign(predicted=part.table[GAP]) for part in parts])
    tables = tables.set_index("material_id")[[GAP, "predicted"]]
    named = [f"{name} {tables.loc[key, 'predicted']:.2f} ({tables.loc[key, GAP]:.2f})" for key, name in NAMED.items()]
    median = float(np.median(np.abs(np.concatenate(errors))))
    details: dict[str, float | str] = {
        "crystals": float(len(tables)),
        "in training": float(len(errors[0])),
        "median of the others": float(np.median(np.abs(errors[1]))),
        "predicted (label), eV": ", ".join(named),
    }
    report.rows.append(
        Row("gaps of textbook compounds", "crystalframer", cf.__version__, "eV", median, details=details)
    )
    report.bars.append(Bar("gaps of textbook compounds, median error", median, 0.25, "eV"))


def bulk_modulus(crystal: Crystal, model: CrystalFramer) -> float:
    """GPa, from V d²E/dV² of a parabola in V/V₀."""
    generator = np.random.default_rng(0)
    crystals = [scaled(volume ** (1.0 / 3.0))(crystal, generator) for volume in VOLUMES]
    energies = cf.predict(crystals, model, progress=False)[ENERGY].to_numpy()
    volume = abs(np.linalg.det(crystal.lattice)) / len(crystal)
    return float(2.0 * np.polyfit(VOLUMES - 1.0, energies, 2)[0] / volume * GPA)


if __name__ == "__main__":
    main()
