"""The command line: every verb gets its options (`options`), calls a function of the library and prints the result."""

from __future__ import annotations

import importlib.util
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crystalframer as cf
from crystalframer.config import Target
from crystalframer.errors import (
    ConfigError,
    CrystalFramerError,
    CrystalWarning,
    ScreeningError,
    Setting,
    UnknownTarget,
    listed,
    suggestion,
)
from crystalframer.options import DEFAULT_PRESET, Verb, completion
from crystalframer.presets import PRESETS

if TYPE_CHECKING:
    import pandas

    from crystalframer.outcomes import Table

SHOWN_ERRORS = 5
"""Failed structures that are printed if a table lists all of them."""
MOST_ERRORS = 20
"""Failed structures that are printed in a terminal, if no table lists them."""
SHOWN_SHELLS = 8
"""Shells of neighbours that `explain` prints."""
CLOSED_PIPE = 141
"""Exit code when nobody reads the output any more, as shells have it (128 + SIGPIPE)."""

VERBS: dict[str, Verb] = {}


def verb(name: str, *functions: str, **renamed: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make an action a command (see `Verb`)."""

    def register(action: Callable[..., int]) -> Callable[..., int]:
        VERBS[name] = Verb(name, action, functions, renamed)
        return action

    return register


@verb("train", "training.run.fit", data="")
def _train(config: Any, output: Path, resume: bool, preset: str = DEFAULT_PRESET) -> int:
    """Starts from a preset (`crystalframer presets` lists them); an option changes a single setting. The run folder
    holds the model, the errors of every epoch and the final scores. Ctrl-C keeps the last complete epoch; --resume
    continues from there with the settings of the run. --devices and --nodes are short for --training.n-devices and
    --training.n-nodes.

    Examples:
    $ crystalframer train
    $ crystalframer train --data.source my.parquet --model.targets band_gap:eV --output runs/gap
    $ crystalframer train --data.source cifs/ --data.split random --training.n-epochs 200
    $ crystalframer train --preset lightweight --training.batch-size 64 --training.max-atoms 2000
    $ crystalframer train --resume --output runs/gap
    $ crystalframer train --preset default --data.source jarvis --devices 4
    $ torchrun --nproc-per-node 4 -m crystalframer train --preset default --data.source jarvis
    """
    from crystalframer.datasets.sources import dataset_of
    from crystalframer.training.folder import RunFolder
    from crystalframer.training.launch import launched

    data = None
    if launched() is None:  # the ranks of a training find out together
        folder = RunFolder(output)
        folder.check_resumable(config) if resume else folder.check_new()
        # Here rather than in `fit`, whose libraries take seconds to load.
        data = dataset_of(config)
    result = cf.fit(config, data, output, resume)
    if _speaks():
        print(f"\n{result.summary()}\n")
        print(f"run folder   {output}")
        print(f"model        {result.checkpoint}")
        print(f"to use it    crystalframer predict YOUR.cif --model {output}")
    return 0


@verb("ablate", "studies.ablation.ablate", data="")
def _ablate(config: Any, output: Path, preset: str = DEFAULT_PRESET, **options: Any) -> int:
    """Takes the settings of `train`, except for --model.frame.method, which --frame-methods sets. Prints mean ±
    standard deviation over the seeds; `table.csv` in the output folder has a row per run, and `ablation.html` shows
    them. The same command continues what was stopped: it reads complete runs and repeats failed ones. The exit code is
    1 if a run has no result.

    Examples:
    $ crystalframer ablate --frame-methods max weighted-pca none --seeds 0 1 2
    $ crystalframer ablate --preset lightweight --data.source my.parquet --model.targets band_gap:eV --n-workers 4
    """
    from crystalframer.datasets.sources import check_source

    check_source(config.data.source)
    result = cf.ablate(config, output=output, **options)
    print(f"\n{result.summary()}\n")
    print(f"run folders and table.csv   {output}")
    if len(result.failures) < len(result.table):
        _draw("ablation_figure", output / "ablation.html", result.table, result.histories)
    return 1 if len(result.failures) else 0


@verb("sweep", "studies.search.sweep", data="", space="search", seed="search_seed")
def _sweep(search: Any, config: Any, output: Path, preset: str = DEFAULT_PRESET, **options: Any) -> int:
    """Uses Optuna. Takes the settings of `train`; --search says which of them vary, each over a range of numbers
    (FIELD=LOW:HIGH, with :log or :STEP after it) or a choice (FIELD=VALUE,VALUE,...). Prints the best trials;
    `table.csv` in the output folder has a row per trial, `sweep.html` shows them, and every trial has a folder for
    `predict --model`. The same command continues what was stopped; a larger --n-trials adds trials. The exit code is 1
    if no trial is complete.

    Examples:
    $ crystalframer sweep --search training.learning-rate=1e-4:2e-3:log model.n-layers=2,3,4 --n-trials 20
    $ crystalframer sweep --preset laptop --data.source my.parquet --n-workers 4 --output runs/search \\
          --search training.batch-size=16,32,64 model.frame.method=max,none model.distance.width=0.5:2
    """
    from crystalframer.datasets.sources import check_source
    from crystalframer.studies import space_from_words

    space = space_from_words(search)
    check_source(config.data.source)
    result = cf.sweep(config, space, output=output, **options)
    print(f"\n{result.summary()}\n")
    print(f"run folders and table.csv   {output}")
    if "complete" not in result.table["state"].tolist():
        return 1
    _draw("sweep_figure", output / "sweep.html", result.table)
    print(f"best model                  {result.best_folder}")
    return 0


@verb("predict", "prediction.predict", "prediction.load")
def _predict(
    structures: Any, model: Any, device: Any, as_trained: bool, output: Any = None, wide: bool = False, **sizes: Any
) -> int:
    """Prints the table, or writes it to --output. In a terminal the table fits the window: numbers have as many digits
    as their intervals have meaning for, and a long table shows its head and tail. --wide prints all rows and columns.
    What goes into a file or another program (`> FILE`, `|`) is CSV, as --output writes it. Takes structure files (CIF,
    POSCAR, extended XYZ, JSON, ...; they may be compressed), folders of them, patterns in quotes, and tables (CSV, JSON
    lines, parquet) with a structure in each row. Errors are also counted on standard error. Up to 50 structures are
    predicted on the CPU without torch, which starts sooner, unless --device is given. The exit code is 0 if at least
    one structure could be predicted, and 1 if none could.

    Examples:
    $ crystalframer predict NaCl.cif
    $ crystalframer predict structures/ POSCAR "more/*.cif" --output predictions.csv
    $ crystalframer predict structures/ --wide | less -S
    $ crystalframer predict candidates.parquet --model runs/gap --output gaps.parquet
    """
    from crystalframer.outcomes import FLAGS, check_sizes

    if not structures:
        raise ConfigError("no structures to predict; name files, folders or patterns")
    check_sizes(**sizes)
    # Whether other devices are there, which is to be said before files are read, only torch knows.
    table, coverage = _unread(structures, model) if device in (None, "cpu") else None, None
    if table is None:
        from crystalframer import batched

        loaded = batched.without_torch(structures, model, device, as_trained)
        loaded = loaded or cf.load(model, device, as_trained=as_trained)
        table = batched.predicted(list(structures), loaded, **sizes, progress=True)
        coverage = loaded.uncertainty and loaded.uncertainty.coverage
    errors = [error for error in table["error"] if error is not None]
    if output is None:
        is_fitted = _print_table(table, wide, coverage)
        _report_failures(errors, len(table), shown=MOST_ERRORS if is_fitted else SHOWN_ERRORS)
    else:
        _save(table.frame(), output, f"{len(table) - len(errors):,} predictions of {_labels(table)}")
        flags = [table[name] for name in FLAGS if name in table]
        n_flagged = sum(any(reasons) for reasons in zip(*flags, strict=True))
        if n_flagged:
            print(f"{n_flagged:,} have a flag ({' or '.join(FLAGS)} says why): their predictions may be far off")
        _report_failures(errors, len(table))
    return 1 if len(errors) == len(table) else 0


@verb("explore")
def _explore(thing: str, model: Any = None, device: Any = None, output: Any = None) -> int:
    """Look at a structure, a data set or a screening in the browser.

    One structure is shown in 3D with its attention, frames and explanation. A folder, table or data set becomes a map
    of predictions, against labels if there are any, whose points open their crystals. The folder of a screening is
    shown as it was predicted; traces and explanations (.safetensors) need no model. --output writes the page instead of
    opening it. A page needs neither Python nor a network.

    Examples:
    $ crystalframer explore NaCl.cif
    $ crystalframer explore structures/ --model runs/gap
    $ crystalframer explore demo --output demo.html
    $ crystalframer explore screened
    """
    from crystalframer import pages

    pages.check_page(output)
    page = pages.explored(thing, model, device)
    if output is not None:
        pages.write(page, output)
        print(f"page in {output}")
        return 0
    path, is_open = pages.show(page, thing)
    print(f"page in {path}" + ("" if is_open else "; no browser was found here, open it in yours"))
    return 0


@verb("embed", "embedding.embed", "prediction.load")
def _embed(structures: Any, output: Path, model: Any, device: Any, as_trained: bool, **options: Any) -> int:
    """Takes what `predict` takes. The table has a row for each structure: mean, standard deviation and third cumulant
    of each feature over the atoms; with --per-atom a row for each atom. Errors are also counted on standard error. The
    exit code is 0 if at least one structure could be embedded, and 1 if none could.

    Examples:
    $ crystalframer embed structures/ --output embeddings.parquet
    $ crystalframer embed candidates.parquet --model runs/gap --layer 1 --output embeddings.csv
    $ crystalframer embed NaCl.cif --per-atom --output atoms.parquet
    """
    from crystalframer.checkpoint import read_config
    from crystalframer.outcomes import check_sizes
    from crystalframer.reading.inputs import none_readable
    from crystalframer.result_tables import check_table_path

    if not structures:
        raise ConfigError("no structures to embed; name files, folders or patterns")
    check_sizes(batch_size=options["batch_size"], max_atoms=options["max_atoms"])
    check_table_path(output)
    read_config(model).check_layer(options["layer"])
    unread = none_readable(structures) if device in (None, "cpu") else None
    if unread is not None and not any(record.of_machine for record in unread):
        _report_failures([str(record.error) for record in unread], len(unread), done="embedded")
        print("no table is written", file=sys.stderr)
        return 1
    frame = cf.embed(list(structures), cf.load(model, device, as_trained=as_trained), **options)
    n_structures, errors = len(set(frame["id"].tolist())), frame["error"].dropna().tolist()
    rows = "atoms" if options["per_atom"] else "structures"
    _save(frame, output, f"embeddings of {len(frame) - len(errors):,} {rows}")
    _report_failures(errors, n_structures, done="embedded")
    return 1 if len(errors) == n_structures else 0


@verb("screen", "screening.screening.screen", "screening.screening.read_screen")
def _screen(
    structures: Any,
    output: Path,
    where: Any,
    top: Any,
    by: Any,
    lowest: Any,
    hull: Any,
    selection: Any = None,
    report: bool = False,
    **options: Any,
) -> int:
    """Takes what `predict` takes, and databases of ASE (.db) and LMDB with JSON values (.lmdb, .aselmdb; pickled values
    are refused). Writes parquet tables `part-00000.parquet`, ... into a folder; `pandas.read_parquet("FOLDER")` reads
    them all. Every table is either complete or absent, and the same command continues what was stopped. --where, --top
    and --by choose rows to show at the end, and --hull adds how far they are above the hull of competing phases.
    --report adds a page, `_report.html` in the folder: histograms, the lowest and highest values, and what failed.
    `crystalframer explore FOLDER` shows the rows as a map. The exit code is 1 if nothing could be predicted.

    Examples:
    $ crystalframer screen candidates.parquet --output screened
    $ crystalframer screen cifs/ "more/*.extxyz" oqmd.db --output screened --model runs/gap --n-workers 8
    $ crystalframer screen candidates.parquet --output screened --report
    $ crystalframer screen candidates.parquet --output screened --where "band_gap > 3" --selection insulators.csv
    $ crystalframer screen candidates.parquet --output screened --top 20 --by formation_energy_per_atom --lowest
    $ crystalframer screen candidates.parquet --output screened --hull phases.csv --top 20 --by above_hull --lowest
    """
    if not structures:
        raise ConfigError("no structures to screen; name files, folders, patterns or databases")
    from crystalframer import checkpoint
    from crystalframer.outcomes import check_sizes
    from crystalframer.reading.inputs import check_exist, none_readable
    from crystalframer.result_tables import check_table_path
    from crystalframer.selection import Choice

    check_sizes(**{name: options[name] for name in ("shard_size", "n_workers", "max_atoms")})
    check_exist(structures)
    if output.is_file():
        raise ScreeningError("is a file, and the tables need a folder; name another one", path=output)
    if selection is not None:
        if selection.absolute().parent == output.absolute() and selection.name.startswith("part-"):
            raise ScreeningError("is a table of the screening itself; give the selection another name", path=selection)
        check_table_path(selection)
    # What is asked for at the end is checked at the beginning: between the two may be hours.
    is_chosen = any(choice is not None for choice in (where, top, by, hull))
    choice = Choice.of(where, top, by, lowest, hull) if is_chosen else None
    if choice is not None:
        choice.check(checkpoint.columns(options["model"]))
    unread = none_readable(structures)
    if unread is not None and not any(record.of_machine for record in unread):
        _report_failures([str(record.error) for record in unread], len(unread))
        print("no table is written", file=sys.stderr)
        return 1
    result = cf.screen(list(structures), output, **options)
    print(result.summary())
    if report:
        from crystalframer.screening import report as reports

        page = result.folder / reports.REPORT
        reports.screening_report(result.folder, page)
        print(f"report in {page}")
    if choice is not None or selection is not None:
        from crystalframer.outcomes import Table

        chosen = cf.read_screen(output, where, top, by, lowest, None if choice is None else choice.phases)
        if selection is None:
            # Below the summary, so never as CSV.
            _print_table(Table.of(chosen), wide=not sys.stdout.isatty(), rest="--selection TABLE writes them")
        else:
            _save(chosen, selection, f"{len(chosen):,} rows")
    return 1 if result.n_failed == result.n_structures else 0


@verb("evaluate", "evaluation.evaluate", "prediction.load", part="split")
def _evaluate(
    data: Any, model: Any, device: Any, as_trained: bool, split: Any = None, output: Any = None, **sizes: Any
) -> int:
    """Prints mean absolute error (MAE), root mean square error (RMSE) and R² of each target, and for comparison the MAE
    of always predicting the mean of the model's training labels. A run knows its crystals, whatever their order in the
    table: training, validation and test crystals have a row each, and the one of the test crystals shows the error that
    `train` printed. The data set needs every target of the model, under the same name and in the same unit; missing
    labels are left out. --output writes labels and predictions as a table, or a page (.html): predictions against
    labels, where each point opens its crystal.

    Examples:
    $ crystalframer evaluate demo --model runs/train
    $ crystalframer evaluate demo --model runs/train --output demo.html
    $ crystalframer evaluate measured.csv --model runs/gap --split all --output comparison.csv
    """
    from crystalframer import checkpoint, pages
    from crystalframer.datasets.scored import labelled_targets, part_of
    from crystalframer.result_tables import check_table_path

    page = output if output is not None and output.suffix == pages.PAGE else None
    if output is not None and page is None:
        check_table_path(output)
    # What does not fit is said before torch is loaded.
    used = checkpoint.used_by(model)
    labelled = labelled_targets(data, checkpoint.read_config(model).targets)
    if split is None and used is None and labelled.parts is not None:
        split = "test"
    part = None if split == "all" else split
    if part is not None:
        part_of(labelled, part, used)
    loaded = cf.load(model, device, as_trained=as_trained)
    result = cf.evaluate(labelled, loaded, part=part, **sizes)
    print(f"{data}, {'all crystals' if part is None else f'{part} part'}: {result.summary()}")
    if page is not None:
        pages.write(pages.evaluation_page(result, labelled, loaded), page)
        print(f"page in {page}")
    elif output is not None:
        _save(result.crystals, output, "labels and predictions")
    _report_failures(result.crystals.drop_duplicates("id")["error"].dropna().tolist(), result.n_crystals)
    return 1 if result.n_failed == result.n_crystals else 0


@verb("calibrate", "evaluation.calibrate", part="split")
def _calibrate(data: Any, model: Path, device: Any, coverage: float, away: Any, split: Any = None) -> int:
    """Writes the intervals into the checkpoint; `predict` then gives a lowest and a highest value beside each
    prediction. Crystals that the run was trained on are left out; if they are in the data set, they are indexed, and
    intervals follow the distance from them. The intervals are valid for crystals like those of the data set.

    Examples:
    $ crystalframer calibrate my.parquet --model runs/gap --split validation
    $ crystalframer calibrate measured.csv --model models/jarvis --coverage 0.95
    """
    from crystalframer.checkpoint import add_intervals, find, read_config

    folder = find(model)
    labelled = cf.dataset(data, targets=read_config(folder).targets)
    loaded = cf.load(folder, device)
    if split is None and _has_validation(labelled, loaded):
        split = "validation"
    part = None if split == "all" else split
    if loaded.index is None and loaded.used is not None:
        training = labelled.select(loaded.used.find(labelled).of("train"))
        loaded.index = cf.index_training_crystals(training, loaded) if len(training) else None
    uncertainty = cf.calibrate(labelled, loaded, part=part, coverage=coverage, away=away)
    add_intervals(folder, uncertainty, loaded.index)
    counts = zip(uncertainty.target_names, uncertainty.n_crystals, strict=True)
    learned = ", ".join(f"{name} of {n:,} crystals" for name, n in counts)
    print(f"{folder}: intervals of {coverage:.0%}, from the errors in {learned}")
    return 0


@verb("submit", "submission.submit")
def _submit(task: str, runs: Any, output: Path, **options: Any) -> int:
    """Runs of all five folds are needed. The weights that they started from are named in the file; those that have
    seen labels of the task are refused, such as --training.initial-weights package for log-kvrh.

    Examples:
    $ crystalframer submit matbench-phonons runs/fold-* --output results.json.gz
    $ crystalframer submit matbench-jdft2d runs/fold-* --output results.json --algorithm "CrystalFramer, 5 seeds"
    """
    scores = cf.submit(task, runs, output, **options)
    listed = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    print(f"{output}: means of the five folds: {listed}")
    return 0


@verb("trace", "prediction.trace")
def _trace(structure: Any, output: Any = None, **options: Any) -> int:
    """The file holds all that the figures of the package `viz` need; they do not need the model. --output page.html
    writes a page instead: the crystal in 3D, with its attention and frames.

    Examples:
    $ crystalframer trace NaCl.cif
    $ crystalframer trace NaCl.cif --output NaCl.html
    $ crystalframer trace NaCl.cif --model runs/train --output traces/NaCl.safetensors
    $ crystalframer trace defect.cif --sites 512 --within 4
    """
    if options["within"] and not options["sites"]:
        raise ConfigError("needs ", Setting("sites"), ", the atoms around which to record others", field="within")
    from crystalframer import pages

    pages.check_page(output, ".safetensors")
    crystal = cf.read(structure)
    if options["sites"] is not None:
        crystal.check_sites(options["sites"])
    record = cf.trace(crystal, **options)
    path = output or Path(f"{record.id}.safetensors")
    if path.suffix == pages.PAGE:
        pages.write(pages.trace_page(record), path)
    else:
        record.save(path)
    for name, value in record.prediction.items():
        print(f"{record.id}: {name} = {value:.6g} {record.units[name]}")
    print(
        f"trace of {record.n_layers} layers with {record.n_heads} heads, {record.n_queries:,} atoms and "
        f"{record.n_edges:,} neighbour pairs in {path}"
    )
    return 0


@verb("explain", "explaining.attribution.explain", references="")
def _explain(structure: Any, output: Any = None, **options: Any) -> int:
    """Prints the contributions of equivalent atoms, which add up to the prediction, and the shells of neighbours that
    matter most. --output writes a page for the browser (.html) or a record for Python (.safetensors).

    Examples:
    $ crystalframer explain NaCl.cif
    $ crystalframer explain NaCl.cif --target formation_energy_per_atom --output NaCl.html
    $ crystalframer explain defect.cif --sites 512 --output defect.safetensors
    """
    import numpy as np

    from crystalframer import pages
    from crystalframer.checkpoint import read_config

    # What is wrong is said before torch is loaded.
    pages.check_page(output, ".safetensors")
    config = read_config(options["model"])
    config.check_output(options["target"] or config.target_names[0])
    crystal = cf.read(structure)
    if options["sites"] is not None:
        crystal.check_sites(options["sites"])
    found = cf.explain(crystal, **options)
    print("\n".join(filter(None, (repr(found), found.about_scale))) + "\n")
    unit = f" ({found.shown_unit})" if found.shown_unit else ""
    print(f"contributions of equivalent atoms{unit}, which add up to the prediction minus the base")
    groups = found.by_site_group()
    groups["sites"] = [listed([str(site) for site in sites], 6) for sites in groups["sites"]]
    print(groups.to_string(index=False, float_format="{:.4f}".format))
    shells = found.by_shell().query("shell > 0")
    largest = np.argsort(-np.abs(shells["relevance"].to_numpy()), kind="stable")[:SHOWN_SHELLS]
    shells = shells.iloc[largest]
    print(f"\nshells of neighbours, by their relevance{unit}")
    print(shells.to_string(index=False, float_format="{:.4f}".format))
    print(f"\n{found.about_order}")
    if output is not None and output.suffix == ".html":
        importlib.import_module("viz").explanation_html(found, output)  # by name, as in `_draw`
    elif output is not None:
        found.save(output)
    if output is not None:
        print(f"\nexplanation in {output}")
    return 0


@verb("check", "analysis.check.check", "prediction.load")
def _check(model: Any, as_trained: bool, structures: Any = (), output: Any = None, **options: Any) -> int:
    """Prints the largest change of every kind, and its structure. What the settings of the model do not promise is
    shown as `not promised`. The exit code is 1 if a change is larger than rounding, or a promise fails.

    Examples:
    $ crystalframer check
    $ crystalframer check structures/ --model runs/gap --n-draws 20 --output check.csv
    $ crystalframer check --model runs/gap --as-trained
    """
    from crystalframer.reading.inputs import readable

    crystals = readable(list(structures)) if structures else None
    report = cf.check(crystals, cf.load(model, as_trained=as_trained), **options)
    print(report.summary())
    if output is not None:
        _save(report.table, output, "table")
    return 0 if report.passed else 1


@verb("data get", "datasets.sources.get")
def _data_get(name: Any = None) -> int:
    """Without a name, lists the data sets. A downloaded data set can be named wherever a data set is asked for, without
    network. A download that was interrupted continues where it stopped. $CRYSTALFRAMER_CACHE is the folder of the files
    (default: ~/.cache/crystalframer).

    Examples:
    $ crystalframer data get
    $ crystalframer data get jarvis
    $ crystalframer data get "optimade:https://optimade.materialsproject.org?elements HAS ALL \\"Li\\",\\"O\\""
    $ crystalframer train --data.source jarvis --model.targets mbj_bandgap:eV --output runs/mbj
    """
    from crystalframer.datasets.sources import catalogue, get

    print(catalogue() if name is None else get(name))
    return 0


@verb("data show")
def _data_show(source: str) -> int:
    """Show what a data set holds: crystals, labels with units, split, origin and licence.

    Examples:
    $ crystalframer data show demo
    $ crystalframer data show my.parquet
    """
    print(cf.dataset(source).summary())
    return 0


@verb("data pack")
def _data_pack(source: str, output: Path, labels: Any = None, targets: Any = ()) -> int:
    """Pack structures and labels into one file that loads in seconds.

    Takes a table with a structure in each row, or a folder of structure files with a table of labels whose column `id`
    or `file` names the file. A column `split` (train, validation, test) is kept. The packed file states the units of
    the labels.

    Examples:
    $ crystalframer data pack cifs/ --output my.parquet --targets band_gap:eV bulk_modulus:GPa
    $ crystalframer data pack cifs/ --output my.parquet --labels measured.csv --targets band_gap:eV
    """
    data = cf.dataset(source, labels, targets or None)
    data.save(output)
    print(f"{output}: {data.summary()}")
    _report_missing_labels(data, "--labels" if Path(source).is_dir() else "the table")
    return 0


@verb("data pack-authors")
def _data_pack_authors(train: Path, validation: Path, test: Path, output: Path, targets: Any = ()) -> int:
    """Pack pickled lists of crystals, the format of the CrystalFramer authors.

    No code in the pickles is run: a pickle of more than plain data and structures is refused.

    Examples:
    $ crystalframer data pack-authors train.pkl val.pkl test.pkl --output my.parquet --targets energy:eV/atom
    """
    from crystalframer.datasets.authors_pickle import convert_authors_pickle

    data = convert_authors_pickle({"train": train, "validation": validation, "test": test}, targets or None)
    data.save(output)
    print(f"{output}: {data.summary()}")
    return 0


@verb("presets")
def _presets() -> int:
    """List the ready-made settings, with the errors that the paper reports.

    Examples:
    $ crystalframer presets
    """
    for name, found in PRESETS.items():
        print(f"{name:<16} {found.description}")
        for property, error in found.published_mae.items():
            print(f"{'':<16}   published test MAE {error:<8g} {property}")
    return 0


@verb("completion")
def _completion(shell: Any) -> int:
    """Print a script by which the shell completes commands and options.

    Write it to the file that the shell reads, and open a new terminal.

    Examples:
    $ crystalframer completion bash > ~/.local/share/bash-completion/completions/crystalframer
    $ crystalframer completion zsh > ~/.zfunc/_crystalframer
    $ crystalframer completion fish > ~/.config/fish/completions/crystalframer.fish
    """
    print(completion(VERBS, shell), end="")
    return 0


@verb("convert")
def _convert(checkpoint: Path, output: Path) -> int:
    """Convert a checkpoint of the CrystalFramer authors (.ckpt) for the other commands.

    No code in the file is run.

    Examples:
    $ crystalframer convert best.ckpt --output models/jarvis
    $ crystalframer predict NaCl.cif --model models/jarvis
    """
    model = cf.load_authors_checkpoint(checkpoint)
    cf.save(model, output)
    print(f"{output}: predicts {', '.join(target.label for target in model.config.targets)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done; 1: nothing could be predicted, or a check failed; 2: an error; 130: Ctrl-C; 141: nobody reads the output.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _notes_on_one_line():
            code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        if _speaks():
            print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return CLOSED_PIPE
        if debug or not isinstance(error, (CrystalFramerError, OSError, ImportError)):
            raise
        if _speaks(error):
            print(f"error: {_said(error, VERBS.get(_verb_in(words)))}", file=sys.stderr)
        return 2


@contextmanager
def _notes_on_one_line() -> Iterator[None]:
    """Show what readers of structures say without the line of code that says it."""
    usual = warnings.formatwarning

    def shown(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> str:
        is_note = issubclass(category, CrystalWarning)
        return f"note: {message}\n" if is_note else usual(message, category, *rest, **options)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _run(words: Sequence[str]) -> int:
    if list(words) in (["--version"], ["-V"]):
        print(f"crystalframer {cf.__version__}")
    elif list(words) in ([], ["--help"], ["-h"]):
        print(_overview("Predict properties of crystals with a transformer, and see what it attends to."))
        return 0 if words else 2
    elif list(words) in (["data"], ["data", "--help"], ["data", "-h"]):
        print(_overview("Data sets: published ones, and files made of your structures and labels.", "data "))
    else:
        name = _verb_in(words)
        if name not in VERBS:
            raise ConfigError(f"command {name!r} is unknown{suggestion(name, VERBS)}")
        try:
            return VERBS[name].run(words[len(name.split()) :])
        except SystemExit as end:  # tyro has printed the help, or what is wrong with an option
            return int(end.code or 0)
    return 0


def _verb_in(words: Sequence[str]) -> str:
    return " ".join(words[: 2 if words[:1] == ["data"] else 1])


def _speaks(error: BaseException | None = None) -> bool:
    """Whether this process reports the result: of several processes of a training, only one does."""
    from crystalframer.training.launch import launched

    place = launched()
    if place is None or place.rank == 0:
        return True
    if error is None:
        return False
    from crystalframer.training.ranks import is_said_elsewhere

    return not is_said_elsewhere(error)


def _is_unread() -> bool:
    """Whether nobody reads the output any more (`crystalframer ... | head`). The rest of it then goes nowhere."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)
    closed = poll.poll(0)
    for descriptor, _ in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return bool(closed)


def _said(error: Exception, verb: Verb | None) -> str:
    """The message of an error, with settings as options."""
    if verb is None or not isinstance(error, CrystalFramerError):
        return str(error)
    advice = "; choose what to predict with --model.targets NAME:UNIT (or NAME:class)"
    is_choice = isinstance(error, UnknownTarget) and "config" in verb.options
    return error.text(verb.spell) + (advice if is_choice else "")


def _overview(purpose: str, group: str = "") -> str:
    """The commands whose names begin with `group`, one per line."""
    lines = [f"usage: crystalframer {group}COMMAND ...", "", purpose, ""]
    lines += [f"  {name:<18} {verb.summary}" for name, verb in VERBS.items() if name.startswith(group)]
    lines += ["", f"crystalframer {group}COMMAND --help  options and examples of a command"]
    lines += ["crystalframer --version       version", "--debug with any command      show where an error arose"]
    return "\n".join(lines)


def _unread(structures: Sequence[str], model: Path | None) -> Table | None:
    """The table of structures of which none can be read, without torch, whose import takes seconds; None if one can."""
    from crystalframer.checkpoint import columns
    from crystalframer.outcomes import table, unread
    from crystalframer.reading.inputs import none_readable, unique_ids

    records = none_readable(structures)
    if records is None:
        return None
    found = columns(model)
    return table([unread(record, found.n_outputs) for record in records], found).called(
        unique_ids([record.id for record in records])
    )


def _has_validation(data: cf.CrystalDataset, model: cf.CrystalFramer) -> bool:
    """Whether the data set has a split of its own, or crystals of the validation part of the run."""
    if data.parts is None and model.used is not None:
        return "validation" in model.used.find(data).role
    return data.parts is not None


def _draw(builder: str, path: Path, *tables: pandas.DataFrame) -> None:
    """Write a figure of `viz`, if plotly is installed. By name: the package does not need its pictures."""
    if importlib.util.find_spec("plotly") is not None:
        figure = getattr(importlib.import_module("viz"), builder)(*tables)
        figure.write_html(path, include_plotlyjs=True)
        print(f"picture                     {path}")


def _save(frame: pandas.DataFrame, path: Path, what: str) -> None:
    from crystalframer.result_tables import save_table

    save_table(frame, path)
    print(f"{what} in {path}")


def _print_table(
    table: Table,
    wide: bool = False,
    coverage: float | None = None,
    rest: str = "--wide prints them, --output TABLE writes them",
) -> bool:
    """Print predictions. In a terminal they fit the window, and the answer is true; programs and files get CSV."""
    from crystalframer.reading.tables import csv_text
    from crystalframer.terminal import plain_table

    if wide:
        print(plain_table(table.columns))
    elif not sys.stdout.isatty():
        print(csv_text(table.columns), end="")
    else:
        from rich.console import Console

        from crystalframer.terminal import print_predictions

        print_predictions(table, Console(highlight=False), coverage, rest)
        return True
    return False


def _labels(table: Table) -> str:
    return ", ".join(Target(name, unit).label for name, unit in table.units.items())


def _report_missing_labels(data: cf.CrystalDataset, where: str) -> None:
    if not data.targets:
        message = f"no labels, so no model can be trained on this data set (no column of numbers in {where})"
        print(f"warning: {message}", file=sys.stderr)
    for name, labels in data.targets.items():
        if not (labels == labels).any():  # all NaN
            print(f"warning: {name} has no labels: its column is empty", file=sys.stderr)


def _report_failures(
    errors: Sequence[str], n_structures: int, shown: int = SHOWN_ERRORS, done: str = "predicted"
) -> None:
    if not errors:
        return
    print(f"{len(errors):,} of {n_structures:,} structures could not be {done}:", file=sys.stderr)
    for error in errors[:shown]:
        print(f"  {error}", file=sys.stderr)
    if len(errors) > shown:
        print(f"  ... and {len(errors) - shown:,} more, in the table", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
