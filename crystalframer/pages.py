"""Pages for the browser that commands write: they bring predictions together with the pictures of `viz`.

`viz` is named as text: the package works without it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalframer import files
from crystalframer.errors import ConfigError, CrystalError, CrystalFramerError, DataError, TraceError, listed
from crystalframer.explanations import Explanation
from crystalframer.traces import CrystalTrace

if TYPE_CHECKING:
    import pandas

    from crystalframer.crystals.crystal import Crystal
    from crystalframer.datasets.dataset import CrystalDataset
    from crystalframer.evaluation import Evaluation
    from crystalframer.model.network import CrystalFramer
    from crystalframer.reading.entry import StructureRecord

PAGE = ".html"
MOST_STRUCTURES = 20_000
"""Structures that are read for a page; of more, the page has the numbers only."""
MOST_EXPLAINED = 100
"""Atoms of a structure that is explained without being asked: it takes a second or so."""
MOST_TRACED = 1_000
"""Atoms of a structure that is shown whole with its attention."""
AROUND = 5.0
"""Å around the atom in the middle of a larger one that are shown."""
N_TRACES = 40
"""Crystals of a data set whose attention is in the page."""


def check_page(path: Path | None, *others: str) -> None:
    """Check that the suffix of a file to write is that of a page, or one of the others.

    Raises:
        ConfigError: it is not.
    """
    if path is not None and path.suffix not in (PAGE, *others):
        kinds = " or ".join(f"({suffix})" for suffix in (PAGE, *others))
        raise ConfigError(
            f"has none of the suffixes that can be written here: {kinds}", field="output", value=str(path)
        )


def picture(name: str) -> Any:
    """A function or class of `viz`.

    Raises:
        ConfigError: a library that it needs is not installed.
    """
    try:
        return getattr(import_module("viz"), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"pictures need {error.name}: pip install 'crystalframer[viz]'") from error


def shown_trace(structure: Any, model: CrystalFramer | None = None) -> CrystalTrace:
    """The trace of a structure; of a large one, that of the surroundings of the atom in the middle, with a warning.

    Args:
        structure: a structure, or the path of a file with one (see `crystalframer.read`).
        model: default: the weights that come with the package.

    Raises:
        CrystalError: a structure that cannot be read, or that the model cannot take.
    """
    from crystalframer import prediction
    from crystalframer.reading.inputs import read

    crystal = read(structure)
    if len(crystal) <= MOST_TRACED:
        return prediction.trace(crystal, model)
    middle = (crystal.positions.min(axis=0) + crystal.positions.max(axis=0)) / 2
    site = int(((crystal.positions - middle) ** 2).sum(axis=1).argmin())
    warnings.warn(
        f"{crystal.name} has {len(crystal):,} atoms, too many for one picture: it shows those within {AROUND:g} Å of "
        f"atom {site:,}; for others: crystalframer.trace(structure, sites=[...], within={AROUND:g})",
        stacklevel=2,
    )
    return prediction.trace(crystal, model, sites=[site], within=AROUND)


def trace_page(trace: CrystalTrace, explanation: Explanation | None = None) -> str:
    """The crystal in 3D with its attention and frames; with an explanation, also with relevance and contributions."""
    return picture("explorer_html")(picture("scene_from_trace")(trace), explanation=explanation)


def evaluation_page(evaluation: Evaluation, data: CrystalDataset, model: CrystalFramer) -> str:
    """Predictions against labels; each point opens its crystal. Below, all targets in one figure for papers."""
    structures = dict(zip(data.ids.tolist(), data, strict=True))
    has_scores = any(s.n_crystals for s in (*evaluation.scores.values(), *evaluation.class_scores.values()))
    figures = [picture("evaluation_figure")(evaluation)] if has_scores else []
    return _explorer_page(evaluation, structures, model, figures)


def explored(source: str, model: str | Path | None, device: Any) -> str:
    """The page about whatever this is: a record, a screening, one structure, or many.

    Args:
        source: a trace or an explanation (.safetensors), the folder of a screening, or anything that `predict` takes;
            also the name of a data set.
        model: path of the model. Records and screenings need none.

    Raises:
        CrystalFramerError: nothing could be read, or it does not fit the model.
    """
    path = Path(source).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        return _record_page(path)
    if path.is_dir() and (path / _manifest()).is_file():
        return _screening_page(path)
    from crystalframer.checkpoint import read_config
    from crystalframer.reading.inputs import none_readable

    labelled = _labelled(source, read_config(model).target_names)
    unread = none_readable([source]) if labelled is None else None
    if unread is not None:  # said before torch is loaded
        raise CrystalError(unread[0].error or "" if unread else "there are no structures; name another folder")
    from crystalframer import prediction
    from crystalframer.explaining.attribution import explain

    loaded = prediction.load(model, device)
    if labelled is not None:
        from crystalframer.evaluation import evaluate

        return evaluation_page(evaluate(labelled, loaded), labelled, loaded)
    ids, crystals, table = _predicted(source, loaded)
    if len(table) == 1:
        trace = shown_trace(crystals[0], loaded)
        return trace_page(trace, explain(crystals[0], loaded) if len(crystals[0]) <= MOST_EXPLAINED else None)
    return _explorer_page(table, dict(zip(ids, crystals, strict=True)), loaded)


def show(page: str, name: str) -> tuple[Path, bool]:
    """Write a page to a folder for temporary files, and open it; returns its path, and whether a browser took it."""
    path = Path(tempfile.mkdtemp(prefix="crystalframer-")) / f"{Path(name).name or 'page'}{PAGE}"
    path.write_text(page, encoding="utf-8")
    return path, webbrowser.open(path.as_uri())


def write(page: str, path: Path) -> None:
    """Write a page.

    Raises:
        DataError: it cannot be written.
    """
    with files.writing(path, DataError):
        files.write(path, page)


def _manifest() -> str:
    return import_module("crystalframer.screening.manifest").MANIFEST


def _record_page(path: Path) -> str:
    """The page of a trace or an explanation, which need no model."""
    try:
        return trace_page(CrystalTrace.load(path))
    except TraceError as error:
        try:
            return picture("explanation_html")(Explanation.load(path))
        except TraceError:
            raise error from None


def _screening_page(folder: Path) -> str:
    """The tables of a screening, with the structures that its inputs still hold."""
    from crystalframer.reading.inputs import unique_ids
    from crystalframer.screening import read_screen

    table = read_screen(folder)
    structures: dict[str, Crystal] = {}
    if len(table) <= MOST_STRUCTURES:
        inputs = json.loads((folder / _manifest()).read_text(encoding="utf-8"))["screening"]["inputs"]
        records = _still_there(inputs)
        numbers, ids = table["index"].tolist(), table["id"].tolist()
        table["id"] = unique_ids(ids)  # files of two folders may have one name
        for number, id, unique in zip(numbers, ids, table["id"], strict=True):
            record = records[number] if number < len(records) else None
            if record is not None and record.id == id and record.crystal is not None:
                structures[unique] = record.crystal
    return _explorer_page(table, structures, None)


def _still_there(inputs: Sequence[Mapping[str, Any]]) -> list[StructureRecord]:
    """The structures of a screening in their order; none if its files have gone or changed, which is said."""
    from crystalframer.reading.inputs import files_of, iter_structures

    plan = import_module("crystalframer.screening.plan")
    given = [entry["given"] for entry in inputs]
    try:
        if all(asdict(plan.input_of(text, files_of(text))) == entry for text, entry in zip(given, inputs, strict=True)):
            return list(iter_structures(given))
        why = "have changed since, or other files have their names here"
    except (CrystalFramerError, OSError):
        why = "are not here"
    print(f"no structures are shown: the inputs of the screening ({listed(given, 3)}) {why}", file=sys.stderr)
    return []


def _labelled(source: str, target_names: Sequence[str]) -> CrystalDataset | None:
    """The data set of this name or path if it has labels of these targets, else None."""
    from crystalframer.datasets.sources import dataset

    try:
        data = dataset(source)
    except (DataError, CrystalError):
        return None
    return data if len(data) and set(data.targets) & set(target_names) else None


def _predicted(source: str, model: CrystalFramer) -> tuple[list[str], list[Crystal], pandas.DataFrame]:
    """Ids and crystals of the structures that can be read, and the table of predictions of all."""
    from crystalframer.prediction import predict
    from crystalframer.reading.inputs import iter_structures

    records = list(iter_structures([source]))
    crystals = [record.crystal for record in records if record.crystal is not None]
    table = predict([source], model)
    ids = [id for id, record in zip(table["id"], records, strict=True) if record.crystal is not None]
    return ids, crystals, table


def _explorer_page(
    table: Any, structures: dict[str, Crystal], model: CrystalFramer | None, figures: Sequence[Any] = ()
) -> str:
    """A map of all rows, of which the first ones open their crystal, with attention if a model is there."""
    from crystalframer import prediction

    traces = None if model is None else partial(prediction.trace, model=model)
    few = len(structures) <= MOST_STRUCTURES
    explorer = picture("DatasetExplorer")(table, structures if structures and few else None, traces=traces)
    return explorer.to_html(n_traces=N_TRACES, figures=figures)
