"""The command line: parse, call one function of the library, print."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import DisallowNone, Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from crystalframer._version import __version__
from crystalframer.config import FRAME_METHODS, Config, FrameMethod, Target
from crystalframer.errors import ConfigError, CrystalFramerError, suggestion
from crystalframer.presets import PRESETS, preset

if TYPE_CHECKING:
    import pandas

    from crystalframer.datasets.dataset import CrystalDataset

DEFAULT_PRESET = "demo"
SHOWN_ERRORS = 5
"""Failed structures that are named on the screen if a table names them all."""

Model = Annotated[
    Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the weights that come with the package)")
]
Device = Annotated[
    str | None, arg(metavar="cpu|cuda|...", help_behavior_hint="(default: a CUDA GPU if there is one, else the CPU)")
]
AverageTies = Annotated[bool, arg(help_behavior_hint="")]
Targets = Annotated[tuple[Target, ...], arg(help_behavior_hint="(default: every column of numbers, without units)")]


class Command(ABC):
    """What stands behind a verb: the docstring is its help, the fields are its options."""

    EXAMPLES: ClassVar[str]

    @abstractmethod
    def run(self) -> int:
        """Do it; returns the exit code."""


@dataclass(frozen=True)
class Train(Command):
    """Train a model on labelled crystals, and score it on crystals that it has not seen.

    Starts from a preset (`crystalframer presets` lists them); every setting can be changed by its option. The run
    folder receives the model, the errors of every epoch and the final scores. Ctrl-C keeps the last complete epoch;
    --resume with the folder goes on from there, with the settings that are kept in it. --devices and --nodes are short
    for --training.n-devices and --training.n-nodes.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer train
    $ crystalframer train --data.source my.parquet --model.targets band_gap:eV --output runs/gap
    $ crystalframer train --data.source cifs/ --data.split random --training.n-epochs 200
    $ crystalframer train --preset lightweight --training.batch-size 64 --training.max-atoms 2000
    $ crystalframer train --resume --output runs/gap
    $ crystalframer train --preset default --data.source jarvis --devices 4
    $ torchrun --nproc-per-node 4 -m crystalframer train --preset default --data.source jarvis
    """

    preset: Annotated[str, arg(metavar="NAME")] = DEFAULT_PRESET
    """Settings to start from."""
    output: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/train")
    """Run folder, to be made."""
    resume: Annotated[bool, arg(help_behavior_hint="")] = False
    """Continue the run in the folder. Other options are not needed, and must not say otherwise than before."""
    config: Annotated[Config, arg(name="")] = PRESETS[DEFAULT_PRESET].config

    def run(self) -> int:
        from crystalframer.training import fit

        result = fit(self.config, output=self.output, resume=self.resume)
        if not _speaks():
            return 0
        print(f"\n{result.summary()}\n")
        print(f"run folder   {self.output}")
        print(f"model        {result.checkpoint}")
        print(f"to use it    crystalframer predict YOUR.cif --model {self.output}")
        return 0


@dataclass(frozen=True)
class Ablate(Command):
    """Compare frame methods: train each with several seeds on the same data and budget.

    Takes the settings of `train` (but for `--model.frame.method`, which --frame-methods sets; `--training.seed` decides
    a random split alone). Prints mean ± standard deviation over the seeds; `table.csv` in the output folder has a row
    for each run, and `ablation.html` is their picture. The same command goes on where it was stopped, reads runs that
    are complete, and tries those that failed again. The exit code is 1 if a run has no result.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer ablate --frame-methods max weighted-pca none --seeds 0 1 2
    $ crystalframer ablate --preset lightweight --data.source my.parquet --model.targets band_gap:eV --n-workers 4
    """

    frame_methods: tuple[FrameMethod, ...] = FRAME_METHODS
    """Frame methods to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of initial weights, batches and noise: one run each for every method."""
    n_workers: int = 1
    """Runs at a time, by processes that share the CPU cores and take the GPUs in turn."""
    preset: Annotated[str, arg(metavar="NAME")] = DEFAULT_PRESET
    """Settings to start from."""
    output: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/ablation")
    """Folder of the run folders."""
    config: Annotated[Config, arg(name="")] = PRESETS[DEFAULT_PRESET].config

    def run(self) -> int:
        from crystalframer.studies import ablate

        result = ablate(self.config, self.frame_methods, self.seeds, output=self.output, n_workers=self.n_workers)
        print(f"\n{result.summary()}\n")
        print(f"run folders and table.csv   {self.output}")
        if len(result.failures) < len(result.table):
            _draw("ablation_figure", self.output / "ablation.html", result.table, result.histories)
        return 1 if len(result.failures) else 0


@dataclass(frozen=True)
class Sweep(Command):
    """Search for the settings that give the lowest validation loss, with Optuna.

    Takes the settings of `train`, which hold for all trials but where --search says what may be tried: a range of
    numbers (FIELD=LOW:HIGH, with :log or :STEP after it) or a choice (FIELD=VALUE,VALUE,...). Prints the best trials;
    `table.csv` in the output folder has a row for each, `sweep.html` is their picture, and the folder of each trial is
    one that `predict --model` takes. The same command goes on where it was stopped; a larger --n-trials adds trials.
    The exit code is 1 if no trial is complete.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer sweep --search training.learning-rate=1e-4:2e-3:log model.n-layers=2,3,4 --n-trials 20
    $ crystalframer sweep --preset laptop --data.source my.parquet --n-workers 4 --output runs/search \\
          --search training.batch-size=16,32,64 model.frame.method=max,none model.distance.width=0.5:2
    """

    search: Annotated[tuple[str, ...], arg(metavar="FIELD=VALUES ...", help_behavior_hint="")] = ()
    """What may be tried."""
    n_trials: int = 30
    """Trials in total, with those that are there."""
    n_workers: int = 1
    """Trials at a time, by processes that share the CPU cores and take the GPUs in turn."""
    search_seed: int = 0
    """What the suggestions follow from."""
    prune: bool = True
    """Stop trials that are worse than the median of the others."""
    preset: Annotated[str, arg(metavar="NAME")] = DEFAULT_PRESET
    """Settings to start from."""
    output: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/sweep")
    """Folder of the run folders of the trials."""
    config: Annotated[Config, arg(name="")] = PRESETS[DEFAULT_PRESET].config

    def run(self) -> int:
        from crystalframer.studies import space_from_words, sweep

        if not self.search:
            raise ConfigError("name what to search: --search training.learning-rate=1e-4:2e-3:log model.n-layers=2,3,4")
        space = space_from_words(self.search)
        result = sweep(
            self.config,
            space,
            self.n_trials,
            output=self.output,
            n_workers=self.n_workers,
            seed=self.search_seed,
            prune=self.prune,
        )
        print(f"\n{result.summary()}\n")
        print(f"run folders and table.csv   {self.output}")
        if "complete" not in result.table["state"].tolist():
            return 1
        _draw("sweep_figure", self.output / "sweep.html", result.table)
        print(f"best model                  {result.best_folder}")
        return 0


@dataclass(frozen=True)
class Predict(Command):
    """Predict properties of crystal structures.

    Takes structure files (CIF, POSCAR, extended XYZ, JSON of pymatgen, ...), folders of them, patterns in quotes, and
    tables (CSV, JSON lines, parquet) with a structure in each row. A structure that cannot be used has an error in its
    row and does not stop the others: how many and why goes to standard error. The exit code is 0 if at least one
    structure could be predicted, 1 if none could.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer predict NaCl.cif
    $ crystalframer predict structures/ POSCAR "more/*.cif" --output predictions.csv
    $ crystalframer predict candidates.parquet --model runs/gap --output gaps.parquet
    """

    files: Annotated[Positional[tuple[str, ...]], arg(metavar="FILE ...", help_behavior_hint="")]
    """Structure files, folders, patterns or tables."""
    model: Model = None
    """Run folder or checkpoint."""
    output: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="(default: print the table)")] = None
    """Table to write: .csv, .jsonl or .parquet."""
    batch_size: int = 64
    """Crystals predicted at a time, at most."""
    max_atoms: int = 1024
    """Atoms predicted at a time, at most. Lower it if memory runs out."""
    device: Device = None
    """Where to compute."""
    average_ties: AverageTies = False
    """Average over frames that tie in symmetric crystals: steadier when they are turned, and slower."""

    def run(self) -> int:
        from crystalframer.prediction import check_table_path, load, predict, save_table

        if not self.files:
            raise ConfigError("no structures to predict; name files, folders or patterns")
        if self.output is not None:
            check_table_path(self.output)
        model = load(self.model, self.device, self.average_ties)
        frame = predict(list(self.files), model, batch_size=self.batch_size, max_atoms=self.max_atoms)
        errors = frame["error"].dropna().tolist()
        if self.output is None:
            print(_readable(frame))
            _report_failures(errors, len(frame), shown=len(errors))
        else:
            save_table(frame, self.output)
            print(f"{len(frame) - len(errors):,} predictions in {self.output} ({_labels(frame)})")
            _report_failures(errors, len(frame))
        return 1 if len(errors) == len(frame) else 0


@dataclass(frozen=True)
class Screen(Command):
    """Predict properties of any number of structures, in tables that grow as it goes.

    Takes what `predict` takes, and writes parquet tables `part-00000.parquet`, ... into a folder, each of which is
    complete or not there. The same command goes on where it was stopped, whatever stopped it, and every structure has
    one row; `pandas.read_parquet("FOLDER")` reads all. Databases are those of ASE (.db) and LMDB with JSON values
    (.lmdb, .aselmdb); pickled values are refused. The exit code is 1 if nothing could be predicted.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer screen candidates.parquet screened/
    $ crystalframer screen cifs/ "more/*.extxyz" oqmd.db screened/ --model runs/gap --n-workers 8
    $ crystalframer screen candidates.parquet screened/ --where "band_gap > 3" --selection insulators.csv
    $ crystalframer screen candidates.parquet screened/ --top 20 --by formation_energy_per_atom --lowest
    """

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="INPUT ... FOLDER", help_behavior_hint="")]
    """Structure files, folders, patterns, tables or databases; last the folder for the tables."""
    model: Model = None
    """Run folder or checkpoint."""
    n_workers: int = 1
    """Processes, which share the CPU cores or GPUs."""
    shard_size: int = 10_000
    """Structures in a table: what is lost of each worker's work at most when it is stopped."""
    max_atoms: int = 1024
    """Atoms predicted at a time, at most. Lower it if memory runs out."""
    device: Device = None
    """Where to compute."""
    ray: Annotated[str | None, arg(metavar="auto|ADDRESS", help_behavior_hint="(default: this machine alone)")] = None
    """Ray cluster whose actors are the workers, one on each GPU. Input and folder must be there on all machines."""
    where: Annotated[str | None, arg(metavar="EXPRESSION", help_behavior_hint="")] = None
    """Show rows for which this holds."""
    top: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Show so many rows: those with the highest values of the column --by."""
    by: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")] = None
    """Column that decides which rows are the top."""
    lowest: Annotated[bool, arg(help_behavior_hint="")] = False
    """The top are the lowest values."""
    selection: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="(default: print them)")] = None
    """Table to write the chosen rows to: .csv, .jsonl or .parquet."""

    def run(self) -> int:
        from crystalframer.prediction import check_table_path, save_table
        from crystalframer.screening import read_screen, screen

        if len(self.paths) < 2:
            raise ConfigError("name what to screen, and last the folder for the tables")
        if self.selection is not None:
            check_table_path(self.selection)
        *inputs, output = self.paths
        result = screen(
            inputs,
            output,
            self.model,
            shard_size=self.shard_size,
            n_workers=self.n_workers,
            max_atoms=self.max_atoms,
            device=self.device,
            ray=self.ray,
        )
        print(result.summary())
        if self.where is not None or self.top is not None or self.by is not None or self.selection is not None:
            chosen = read_screen(output, self.where, self.top, self.by, self.lowest)
            if self.selection is None:
                print(_readable(chosen))
            else:
                save_table(chosen, self.selection)
                print(f"{len(chosen):,} rows in {self.selection}")
        return 1 if result.n_failed == result.n_structures else 0


@dataclass(frozen=True)
class Evaluate(Command):
    """Score a model on labelled crystals.

    Prints mean absolute error (MAE), root mean square error (RMSE) and R² of each target, and for comparison the MAE of
    always predicting the mean of the model's training labels. The data set needs every target of the model under the
    same name and in the same unit; missing labels are left out.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer evaluate runs/train demo
    $ crystalframer evaluate runs/gap measured.csv --split all --output comparison.csv
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    """Run folder or checkpoint."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """`demo`, or a table, packed data set or folder of structures with labels."""
    split: Annotated[
        Literal["train", "validation", "test", "all"] | None,
        arg(help_behavior_hint="(default: test if the data set has a split of its own, else all)"),
    ] = None
    """Which part of the data set."""
    output: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="")] = None
    """Also write labels and predictions of every crystal: .csv, .jsonl or .parquet."""
    batch_size: int = 64
    """Crystals predicted at a time, at most."""
    max_atoms: int = 1024
    """Atoms predicted at a time, at most. Lower it if memory runs out."""
    device: Device = None
    """Where to compute."""
    average_ties: AverageTies = False
    """Average over frames that tie in symmetric crystals: steadier when they are turned, and slower."""

    def run(self) -> int:
        from crystalframer.datasets.sources import dataset
        from crystalframer.prediction import check_table_path, evaluate, load, save_table

        if self.output is not None:
            check_table_path(self.output)
        model = load(self.model, self.device, self.average_ties)
        data = dataset(self.data, targets=model.config.targets)
        split = self.split or ("all" if data.parts is None else "test")
        part = None if split == "all" else split
        result = evaluate(model, data, part=part, batch_size=self.batch_size, max_atoms=self.max_atoms)
        print(f"{self.data}, {'all crystals' if part is None else f'{part} part'}: {result.summary()}")
        if self.output is not None:
            save_table(result.crystals, self.output)
            print(f"labels and predictions in {self.output}")
        _report_failures(result.crystals.drop_duplicates("id")["error"].dropna().tolist(), result.n_crystals)
        return 1 if result.n_failed == result.n_crystals else 0


@dataclass(frozen=True)
class Calibrate(Command):
    """Give a model intervals that hold the true value of 90 % of further crystals.

    Learns from labelled crystals that the model was not trained on how far its predictions are off, and writes that
    into the checkpoint. `predict` then gives a lowest and a highest value beside each prediction. The intervals hold
    for crystals like those of the data set.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer calibrate runs/gap --data my.parquet --split validation
    $ crystalframer calibrate models/jarvis --data measured.csv --coverage 0.95
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    """Run folder or checkpoint."""
    data: Annotated[str, arg(metavar="DATA")]
    """`demo`, or a table, packed data set or folder of structures with labels."""
    split: Annotated[
        Literal["train", "validation", "test", "all"] | None,
        arg(help_behavior_hint="(default: validation if the data set has a split of its own, else all)"),
    ] = None
    """Which part of the data set."""
    coverage: float = 0.9
    """Share of further crystals whose true value the intervals shall hold."""
    device: Device = None
    """Where to compute."""

    def run(self) -> int:
        from crystalframer import files
        from crystalframer.checkpoint import UNCERTAINTY_FILE, find
        from crystalframer.datasets.sources import dataset
        from crystalframer.prediction import calibrate, load

        folder = find(self.model)
        model = load(folder, self.device)
        data = dataset(self.data, targets=model.config.targets)
        split = self.split or ("all" if data.parts is None else "validation")
        uncertainty = calibrate(model, data, part=None if split == "all" else split, coverage=self.coverage)
        # A new file alone: what else lies in the folder, such as the state to resume from, stays.
        files.write(folder / UNCERTAINTY_FILE, uncertainty.to_bytes())
        counts = zip(model.config.targets, uncertainty.n_crystals, strict=True)
        learned = ", ".join(f"{target.name} of {n:,} crystals" for target, n in counts)
        print(f"{folder}: intervals of {self.coverage:.0%}, from the errors in {learned}")
        return 0


@dataclass(frozen=True)
class Trace(Command):
    """Record what the model looks at in one structure.

    The file holds attention, decay lengths and frames of every layer and head: all that the figures of the package
    `viz` need. They do not need the model.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer trace NaCl.cif
    $ crystalframer trace NaCl.cif --model runs/train --output traces/NaCl.safetensors
    $ crystalframer trace defect.cif --sites 512 --within 4
    """

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """File with one structure."""
    model: Model = None
    """Run folder or checkpoint."""
    output: Annotated[Path | None, arg(metavar="TRACE", help_behavior_hint="(default: FILE.safetensors, here)")] = None
    """Trace to write, .safetensors."""
    sites: tuple[int, ...] = ()
    """Atoms, counted from 0, at which to look: in a large cell, such as around a defect (default: all)."""
    within: Annotated[float, arg(metavar="A")] = 0.0
    """Å around these sites whose other atoms to look at, too."""
    device: Device = None
    """Where to compute."""

    def run(self) -> int:
        from crystalframer.prediction import trace

        if self.within and not self.sites:
            raise ConfigError("--within: around which sites? name them with --sites")
        record = trace(self.file, self.model, sites=self.sites or None, within=self.within, device=self.device)
        path = record.save(self.output or f"{record.id}.safetensors")
        for name, value in record.prediction.items():
            print(f"{record.id}: {name} = {value:.6g} {record.units[name]}")
        print(
            f"trace of {record.n_layers} layers with {record.n_heads} heads, {record.n_queries:,} atoms and "
            f"{record.n_edges:,} neighbour pairs in {path}"
        )
        return 0


@dataclass(frozen=True)
class Check(Command):
    """Try out what must not change a prediction: how a crystal is turned, described, batched and computed.

    Prints the largest change of every kind, and the structure that it is of. The exit code is 1 if one is more than
    rounding.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer check
    $ crystalframer check --average-ties
    $ crystalframer check runs/gap --structures structures/ --n-draws 20 --output check.csv
    """

    model: Annotated[
        Positional[Path | None],
        arg(metavar="[MODEL]", help_behavior_hint="(default: the weights that come with the package)"),
    ] = None
    """Run folder or checkpoint."""
    structures: Annotated[
        tuple[str, ...],
        arg(metavar="FILE ...", help_behavior_hint="(default: 12 prototypes, 24 shipped crystals and 8 random ones)"),
    ] = ()
    """Structure files, folders, patterns or tables to try it out on."""
    n_draws: int = 4
    """Other descriptions of each kind and structure."""
    average_ties: AverageTies = False
    """Average over frames that tie in symmetric crystals: steadier when they are turned, and slower."""
    output: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="")] = None
    """Also write the table: .csv, .jsonl or .parquet."""

    def run(self) -> int:
        from crystalframer.analysis.check import check
        from crystalframer.prediction import check_table_path, load, save_table

        if self.output is not None:
            check_table_path(self.output)
        model = load(self.model, average_ties=self.average_ties)
        report = check(model, list(self.structures) or None, self.n_draws)
        print(report.summary())
        if self.output is not None:
            save_table(report.table, self.output)
            print(f"table in {self.output}")
        return 0 if report.passed else 1


@dataclass(frozen=True)
class DataShow(Command):
    """Say what a data set holds: crystals, labels with units, split, origin and licence."""

    EXAMPLES: ClassVar[str] = """
    $ crystalframer data show demo
    $ crystalframer data show my.parquet
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """`demo`, or a table, packed data set or folder of structures."""

    def run(self) -> int:
        from crystalframer.datasets.sources import dataset

        print(dataset(self.source).summary())
        return 0


@dataclass(frozen=True)
class DataGet(Command):
    """Download a public data set once, check it, and pack it; without a name, list what there is.

    Afterwards its name stands for it wherever a data set is asked for, without network. A download that was cut off
    goes on where it stopped. $CRYSTALFRAMER_CACHE says where the files are kept (default: ~/.cache/crystalframer).
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer data get
    $ crystalframer data get jarvis
    $ crystalframer data get "optimade:https://optimade.materialsproject.org?elements HAS ALL \\"Li\\",\\"O\\""
    $ crystalframer train --data.source jarvis --model.targets mbj_bandgap:eV --output runs/mbj
    """

    name: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Public data set."""

    def run(self) -> int:
        from crystalframer.datasets.sources import catalogue, get

        print(catalogue() if self.name is None else get(self.name))
        return 0


@dataclass(frozen=True)
class DataPack(Command):
    """Pack structures and labels into one file that loads in seconds.

    Takes a table with a structure in each row, or a folder of structure files with a table of labels (`labels.csv` in
    it, or --labels) whose column `id` or `file` names the file. A column `split` (train, validation, test) is kept. The
    packed file states the units of the labels.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer data pack cifs/ my.parquet --targets band_gap:eV bulk_modulus:GPa
    $ crystalframer data pack cifs/ my.parquet --labels measured.csv --targets band_gap:eV
    """

    source: Annotated[Positional[str], arg(metavar="INPUT")]
    """Table or folder."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT.parquet")]
    """Packed file to write."""
    labels: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="(default: labels.csv in the folder)")] = (
        None
    )
    """Table of labels of a folder."""
    targets: Targets = ()
    """Label columns to keep, each with its unit."""

    def run(self) -> int:
        from crystalframer.datasets.sources import dataset

        data = dataset(self.source, self.labels, self.targets or None)
        data.save(self.output)
        print(f"{self.output}: {data.summary()}")
        _report_missing_labels(data, "--labels" if Path(self.source).is_dir() else "the table")
        return 0


@dataclass(frozen=True)
class DataPackAuthors(Command):
    """Pack pickled lists of crystals, the format of the CrystalFramer authors.

    Nothing in the pickles is run: one that asks for more than plain data and structures is refused.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer data pack-authors train.pkl val.pkl test.pkl my.parquet --targets formation_energy_peratom:eV/atom
    """

    train: Annotated[Positional[Path], arg(metavar="TRAIN")]
    """Pickle of the training part."""
    validation: Annotated[Positional[Path], arg(metavar="VALIDATION")]
    """Pickle of the validation part."""
    test: Annotated[Positional[Path], arg(metavar="TEST")]
    """Pickle of the test part."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT.parquet")]
    """Packed file to write."""
    targets: Targets = ()
    """Labels to keep, each with its unit."""

    def run(self) -> int:
        from crystalframer.datasets.authors_pickle import convert_authors_pickle

        files = {"train": self.train, "validation": self.validation, "test": self.test}
        data = convert_authors_pickle(files, self.targets or None)
        data.save(self.output)
        print(f"{self.output}: {data.summary()}")
        return 0


@dataclass(frozen=True)
class Presets(Command):
    """List the ready-made settings, with the errors that the paper reports."""

    EXAMPLES: ClassVar[str] = """
    $ crystalframer presets
    """

    def run(self) -> int:
        for name, found in PRESETS.items():
            print(f"{name:<16} {found.description}")
            for property, error in found.published_mae.items():
                print(f"{'':<16}   published test MAE {error:<8g} {property}")
        return 0


@dataclass(frozen=True)
class Convert(Command):
    """Convert a checkpoint of the CrystalFramer authors (.ckpt) for the other commands.

    No code in the file is run.
    """

    EXAMPLES: ClassVar[str] = """
    $ crystalframer convert best.ckpt models/jarvis
    $ crystalframer predict NaCl.cif --model models/jarvis
    """

    checkpoint: Annotated[Positional[Path], arg(metavar="CKPT")]
    """File of the authors' release."""
    output: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Checkpoint to write."""

    def run(self) -> int:
        from crystalframer.authors import load_authors_checkpoint
        from crystalframer.checkpoint import save

        model = load_authors_checkpoint(self.checkpoint)
        save(model, self.output)
        print(f"{self.output}: predicts {', '.join(target.label for target in model.config.targets)}")
        return 0


WITH_SETTINGS = (Train, Ablate, Sweep)
"""Commands that take the settings of a training."""
SHORT = {"--devices": "--training.n-devices", "--nodes": "--training.n-nodes"}
"""What other trainers call these options."""
COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "ablate": Ablate,
    "sweep": Sweep,
    "predict": Predict,
    "screen": Screen,
    "evaluate": Evaluate,
    "calibrate": Calibrate,
    "trace": Trace,
    "check": Check,
    "data get": DataGet,
    "data show": DataShow,
    "data pack": DataPack,
    "data pack-authors": DataPackAuthors,
    "presets": Presets,
    "convert": Convert,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 nothing could be predicted, 2 an error, 130 Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words in (["--version"], ["-V"]):
        print(f"crystalframer {__version__}")
        return 0
    if words in ([], ["--help"], ["-h"]):
        print(_overview("Predict properties of crystals with a transformer, and see what it looks at."))
        return 0 if words else 2
    if words in (["data"], ["data", "--help"], ["data", "-h"]):
        print(_overview("Data sets: published ones, and files made of your structures and labels.", "data "))
        return 0
    try:
        return _parse(words).run()
    except KeyboardInterrupt as stop:
        if _speaks():
            print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return 130
    except Exception as error:
        if debug or not _is_for_the_user(error):
            raise
        if _speaks(error):
            print(f"error: {_in_options(str(error))}{_advice(words[0], error)}", file=sys.stderr)
        return 2


def _speaks(error: BaseException | None = None) -> bool:
    """Whether it is for this process to say what came of a training, which may run in several at once."""
    from crystalframer.training.launch import launched

    place = launched()
    if place is None or place.rank == 0:
        return True
    if error is None:
        return False
    from crystalframer.training.ranks import is_said_elsewhere

    return not is_said_elsewhere(error)


def _overview(purpose: str, group: str = "") -> str:
    """The commands that begin so, a line each."""
    lines = [f"usage: crystalframer {group}COMMAND ...", "", purpose, ""]
    for verb, command in COMMANDS.items():
        if verb.startswith(group):
            lines.append(f"  {verb:<18} {_summary(command)}")
    lines += ["", f"crystalframer {group}COMMAND --help  options and examples of a command"]
    lines += ["crystalframer --version       version", "--debug with any command      show where an error arose"]
    return "\n".join(lines)


def _summary(command: type[Command]) -> str:
    return inspect.cleandoc(command.__doc__ or "").partition("\n")[0]


def _parse(words: Sequence[str]) -> Command:
    verb = " ".join(words[: 2 if words[0] == "data" else 1])
    if verb not in COMMANDS:
        raise ConfigError(f"command {verb!r} is unknown{suggestion(verb, COMMANDS)}")
    command, options = COMMANDS[verb], words[len(verb.split()) :]
    if command in WITH_SETTINGS:
        options = [_long(word) for word in options]
    examples = inspect.cleandoc(command.EXAMPLES)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                command,
                prog=f"crystalframer {verb}",
                description=f"{inspect.cleandoc(command.__doc__ or '')}\n\nExamples:\n{examples}",
                args=options,
                default=_start(command, options) if command in WITH_SETTINGS else tyro.MISSING_NONPROP,
                registry=_registry(),
                config=() if command in WITH_SETTINGS else (DisallowNone,),
            )
    except SystemExit as end:
        refused = _config_error(end)
        if refused is not None:  # tyro would show it in the words of the config, not of the options
            raise refused from None
        sys.stderr.write(complaint.getvalue())
        raise


def _long(word: str) -> str:
    """An option in the words of the config: `--devices=4` is `--training.n-devices=4`."""
    option, is_given, value = word.partition("=")
    return f"{SHORT.get(option, option)}{is_given}{value}"


def _start(command: type[Train | Ablate | Sweep], options: Sequence[str]) -> Train | Ablate | Sweep:
    """What the options change, so it has to be known before them: a preset, or the config of a run that goes on."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=Train.output)
    known = parser.parse_known_args(options)[0]
    name = known.preset or DEFAULT_PRESET
    file = known.output / "config.json"
    if command is Train and known.resume and known.preset is None and file.is_file():
        from crystalframer.training.folder import RunFolder

        return command(preset=name, config=RunFolder(known.output).read_config())
    return command(preset=name, config=preset(name).config)


def _config_error(error: BaseException) -> ConfigError | None:
    """The refusal of a config behind an error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__context__
    return cause


def _in_options(message: str) -> str:
    """A message with `TrainingConfig.n_epochs`, or `training.n_epochs`, as `--training.n-epochs`."""
    for prefix, section in _sections(Config):
        options = {field.name: f"--{prefix}.{field.name}".replace("_", "-") for field in dataclasses.fields(section)}
        for name, option in options.items():
            message = re.sub(rf"(?<![\w./-]){re.escape(prefix)}\.{name}\b", option, message)
            if message.startswith(f"{section.__name__}.{name} "):  # it may name other fields of the section too
                for other in options:
                    message = re.sub(rf"(?<=[. ]){other}(?= = )", options[other], message)
                message = message.removeprefix(f"{section.__name__}.")
    return message


def _sections(config: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """`("training", TrainingConfig)` and so on, to any depth."""
    for name, kind in get_type_hints(config).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield f"{prefix}{name}", kind
            yield from _sections(kind, f"{prefix}{name}.")


def _advice(verb: str, error: Exception) -> str:
    """What to do about an error, where only the command line knows."""
    from crystalframer.errors import UnknownTarget

    if isinstance(error, UnknownTarget) and verb in ("train", "ablate", "sweep"):
        return "; choose what to predict with --model.targets NAME:UNIT"
    return ""


def _registry() -> ConstructorRegistry:
    """Teaches tyro the short form of a target, `band_gap:eV`, and to suggest the nearest of several choices."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def choice_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str] | None:
        choices = get_args(info.type)
        if get_origin(info.type) is not Literal or not all(isinstance(choice, str) for choice in choices):
            return None

        def chosen(words: list[str]) -> str:
            if words[0] not in choices:
                raise ValueError(f"{words[0]!r} is unknown{suggestion(words[0], choices)}")
            return words[0]

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(choices) + "}",
            instance_from_str=chosen,
            is_instance=lambda value: value in choices,
            str_from_instance=lambda value: [value],
        )

    @registry.primitive_rule
    def target_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Target] | None:
        if info.type is not Target:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="NAME:UNIT",
            instance_from_str=lambda words: Target(*words[0].split(":", 1)),
            is_instance=lambda value: isinstance(value, Target),
            str_from_instance=lambda target: [f"{target.name}:{target.unit}" if target.unit else target.name],
        )

    return registry


def _is_for_the_user(error: Exception) -> bool:
    """An error of this package, or of the disk, or of a missing library: its message says what to do."""
    return isinstance(error, (CrystalFramerError, OSError, ImportError))


def _draw(builder: str, path: Path, *tables: pandas.DataFrame) -> None:
    """A figure of `viz`, if there is plotly. By name: the package does not need its pictures."""
    if importlib.util.find_spec("plotly") is not None:
        figure = getattr(importlib.import_module("viz"), builder)(*tables)
        figure.write_html(path, include_plotlyjs=True)
        print(f"picture                     {path}")


def _readable(frame: pandas.DataFrame) -> str:
    """The predictions for the screen, with units in the header; errors are too long for a column."""
    labels = {name: Target(name, unit).label for name, unit in frame.attrs["units"].items()}
    shown = frame.drop(columns="error").rename(columns=labels)
    lines = []
    if "outside_training" in shown:
        flagged = frame.loc[frame["outside_training"].notna()]
        lines = [f"outside the training data: {row.id}: {row.outside_training}" for row in flagged.itertuples()]
        shown["outside_training"] = ["yes" if flag else "" for flag in frame["outside_training"].notna()]
    return "\n".join([shown.to_string(index=False, na_rep="none", float_format="{:.6g}".format), *lines])


def _labels(frame: pandas.DataFrame) -> str:
    return ", ".join(Target(name, unit).label for name, unit in frame.attrs["units"].items())


def _report_missing_labels(data: CrystalDataset, where: str) -> None:
    if not data.targets:
        print(
            f"warning: no labels; a model cannot be trained on them (no column of numbers in {where})", file=sys.stderr
        )
    for name, labels in data.targets.items():
        if not (labels == labels).any():  # all NaN
            print(f"warning: {name} has no label at all: its column is empty", file=sys.stderr)


def _report_failures(errors: Sequence[str], n_structures: int, shown: int = SHOWN_ERRORS) -> None:
    if not errors:
        return
    print(f"{len(errors):,} of {n_structures:,} structures could not be predicted:", file=sys.stderr)
    for error in errors[:shown]:
        print(f"  {error}", file=sys.stderr)
    if len(errors) > shown:
        print(f"  ... and {len(errors) - shown:,} more, in the table", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
