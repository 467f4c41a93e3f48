"""Crystals in the formats in which data sets and tables come."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from file_server import FileServer
from pymatgen.core import Structure

from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets import sources
from crystalframer.datasets.published import Source
from crystalframer.datasets.sources import SOURCES
from crystalframer.elements import SYMBOLS
from crystalframer.testing import random_crystal


def jarvis_atoms(crystal: Crystal) -> dict[str, Any]:
    """The `atoms` dictionary of JARVIS. Some of its data sets have a blank after the symbols."""
    lattice = crystal.to_pymatgen().lattice
    return {
        "lattice_mat": crystal.lattice.tolist(),
        "coords": crystal.frac_coords.tolist(),
        "elements": [f"{SYMBOLS[z - 1]} " for z in crystal.atomic_numbers],
        "abc": list(lattice.abc),
        "angles": list(lattice.angles),
        "cartesian": False,
        "props": [""] * len(crystal),
    }


def row_of(crystal: Crystal) -> dict[str, Any]:
    """A row of a table: what this package itself calls the parts of a crystal."""
    parts = {name: getattr(crystal, name).tolist() for name in ("atomic_numbers", "positions", "lattice")}
    return {"id": crystal.id, **parts}


def jarvis_list(n: int, id_key: str, ids: Sequence[Any], labels: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [
        {
            id_key: ids[row],
            "atoms": jarvis_atoms(random_crystal(row, 1 + row % 5)),
            **{name: column[row] for name, column in labels.items()},
            "other": ["not", {"a": "label"}],
        }
        for row in range(n)
    ]


def matbench_table(column: str, values: Sequence[Any]) -> dict[str, Any]:
    """As pandas' `split` layout with structures encoded by monty."""
    rows = []
    for row, value in enumerate(values):
        crystal = random_crystal(row, 1 + row % 5)
        elements = [SYMBOLS[z - 1] for z in sorted(crystal.atomic_numbers)]
        rows.append([Structure(crystal.lattice, elements, crystal.frac_coords).as_dict(), value])
    return {"columns": ["structure", column], "index": list(range(len(rows))), "data": rows}


def zipped(member: str, document: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, json.dumps(document))
    return buffer.getvalue()


def gzipped(document: Any) -> bytes:
    return gzip.compress(json.dumps(document).encode())


def use(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    """Put a source in the place of the published one."""
    monkeypatch.setattr(sources, "SOURCES", {**SOURCES, source.name: source})


def matbench(name: str, column: str, values: list[Any], server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A task as published, with other numbers of crystals and the checksum of its small file."""
    source, n = SOURCES[name], len(values)
    content = gzipped(matbench_table(column, values))
    server.files[source.files[0].name] = content
    file = replace(source.files[0], url=server.url(source.files[0].name), sha256=hashlib.sha256(content).hexdigest())
    splits = []
    for fold, split in enumerate(source.splits):
        n_test = n // 5 + (fold < n % 5)
        n_validation = round(0.1 * (n - n_test))
        sizes = (n - n_test - n_validation, n_validation, n_test)
        splits.append(replace(split, n_labelled=n, sizes=sizes, test_fingerprint=""))
    source = replace(source, files=(file,), n_crystals=n, splits=tuple(splits))
    use(monkeypatch, source)
    return source
