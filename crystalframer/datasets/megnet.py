"""The crystals of MEGNet (Materials Project of June 2018): energies and gaps, and their bulk and shear moduli."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from crystalframer.config import Target
from crystalframer.datasets.authors_pickle import unpickle
from crystalframer.datasets.dataset import PARTS, Provenance
from crystalframer.datasets.download import RemoteFile
from crystalframer.datasets.jarvis import alignn_split, jarvis_source
from crystalframer.datasets.published import (
    BAND_GAP,
    FORMATION_ENERGY,
    MATERIALS_PROJECT,
    MATERIALS_PROJECT_LICENCE,
    Source,
    SourceRow,
    Split,
)
from crystalframer.errors import DataError
from crystalframer.reading.columns import row_id, to_label

LARGEST_LOG = 4.0
"""No modulus has a log10(GPa) above this."""
_PAPER = "C. Chen et al., Chemistry of Materials 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294"

# The copy that the literature splits: the order of the original, mp.2018.6.1.json, need not be the same.
MEGNET = jarvis_source(
    "megnet",
    "Materials Project of June 2018, the crystals of MEGNet: formation energy and gap (PBE)",
    file="megnet.json.zip",
    number=26724977,
    n_crystals=69_239,
    id_key="id",
    columns={FORMATION_ENERGY: "e_form", BAND_GAP: "gap pbe"},
    splits=(
        alignn_split(
            (FORMATION_ENERGY.name, BAND_GAP.name),
            69_239,
            (60_000, 5_000, 4_239),
            "f7d1f716f23d6ee72addac9c750cd311281ef061a66afd5f3b22ebf28a61e71d",
        ),
    ),
    provenance=Provenance(
        source="Materials Project 2018.6.1 as in MEGNet, copy of JARVIS (megnet.json); split of ALIGNN",
        licence=MATERIALS_PROJECT_LICENCE,
        citation=f"{MATERIALS_PROJECT}; {_PAPER}",
    ),
)


def _moduli(kind: str, tolerance: int = 0) -> Source:
    """Bulk or shear moduli: published as pickled lists, one for each part, on a page without stable file addresses."""
    target = Target(f"log10_{kind}_modulus", "log10(GPa)")
    page = "https://figshare.com/projects/Bulk_and_shear_datasets/165430"
    sizes = (4_664, 393, 393)
    return Source(
        name=f"megnet-{kind}",
        description=f"{kind} moduli of MEGNet's crystals (log10 GPa), files to be downloaded by hand",
        files=tuple(RemoteFile(f"{kind}_megnet_{part}.pkl", "", page) for part in ("train", "val", "test")),
        n_crystals=sum(sizes),
        targets=(target,),
        splits=(Split(target.name, target.name, (target.name,), sum(sizes), sizes, None, "", tolerance),),
        provenance=Provenance(
            source=f"Materials Project 2018.6.1, {kind} moduli with the split of GATGNN and Matformer ({page})",
            licence=MATERIALS_PROJECT_LICENCE,
            citation=f"{MATERIALS_PROJECT}; {_PAPER}; K. Yan et al., NeurIPS 2022 (arXiv 2209.11807)",
        ),
        rows=partial(_rows, name=target.name, key=f"{kind} modulus"),
    )


def _rows(files: Sequence[Path], name: str, key: str) -> Iterator[SourceRow]:
    """The crystals with log10 of their modulus in GPa; no code in the pickles is run.

    Args:
        name: our name of the label.
        key: their name. Values above `LARGEST_LOG` show that it is in GPa; then one that is not above 0 is missing.
    """
    lists = [unpickle(file) for file in files]
    values = [
        [to_label(cells.get(key), key, path=file, row=row) for row, cells in enumerate(rows, start=1)]
        for file, rows in zip(files, lists, strict=True)
    ]
    in_gpa = max((value for column in values for value in column if not math.isnan(value)), default=0.0) > LARGEST_LOG
    for part, file, rows, column in zip(PARTS, files, lists, values, strict=True):
        for row, (cells, value) in enumerate(zip(rows, column, strict=True), start=1):
            structure = cells.get("atoms", cells.get("structure"))
            if structure is None or not row_id(cells):
                raise DataError("has no id, or neither 'atoms' nor 'structure'", path=file, row=row)
            if in_gpa:
                value = math.log10(value) if value > 0 else math.nan
            yield SourceRow(row_id(cells), structure, {name: value}, part)


MEGNET_BULK = _moduli("bulk")
MEGNET_SHEAR = _moduli("shear", tolerance=1)  # 393 or 392 crystals for validation, as publications have it
