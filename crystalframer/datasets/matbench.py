"""Matbench v0.1 (Dunn et al. 2020): the nine regression and classification tasks with structures, in five folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.datasets.dataset import Provenance
from crystalframer.datasets.download import RemoteFile
from crystalframer.datasets.json_stream import iter_json, open_gzip
from crystalframer.datasets.published import (
    BAND_GAP,
    FORMATION_ENERGY,
    MATERIALS_PROJECT,
    MATERIALS_PROJECT_LICENCE,
    Source,
    SourceRow,
    Split,
)
from crystalframer.datasets.splits import (
    N_FOLDS,
    VALIDATION_SHARE,
    Parts,
    fold_parts,
    matbench_class_folds,
    matbench_folds,
)
from crystalframer.errors import DataError


def _task(
    task: str,
    n_crystals: int,
    target: Target,
    column: str,
    sha256: str,
    description: str,
    origin: str,
    licence: str = MATERIALS_PROJECT_LICENCE,
    class_fingerprints: Sequence[str] = (),
) -> Source:
    """A task of Matbench v0.1 (checksums: matminer's dataset_metadata.json).

    Args:
        column: name of the label in the file.
        class_fingerprints: fingerprints of the published test parts of a classification task, whose folds depend on
            the labels.
    """
    name = f"matbench_{task}"
    url = f"https://ml.materialsproject.org/projects/{name}.json.gz"
    return Source(
        name=name.replace("_", "-"),
        description=f"Matbench v0.1: {description}; five folds",
        files=(RemoteFile(f"{name}.json.gz", url, sha256=sha256),),
        n_crystals=n_crystals,
        targets=(target,),
        splits=tuple(_fold(fold, n_crystals, target.name, class_fingerprints) for fold in range(N_FOLDS)),
        provenance=Provenance(
            source=f"Matbench v0.1, {name}",
            licence=licence,
            citation="A. Dunn et al., npj Computational Materials 6, 138 (2020), doi:10.1038/s41524-020-00406-3; "
            f"{origin}",
        ),
        rows=partial(_rows, task=task, n_crystals=n_crystals, name=target.name, column=column),
    )


def _fold(fold: int, n_crystals: int, label: str, class_fingerprints: Sequence[str]) -> Split:
    n_test = n_crystals // N_FOLDS + (fold < n_crystals % N_FOLDS)
    n_validation = round(VALIDATION_SHARE * (n_crystals - n_test))

    def parts(labels: Float[np.ndarray, " n"]) -> Parts:
        return fold_parts(matbench_class_folds(labels) if class_fingerprints else matbench_folds(len(labels)), fold)

    sizes = (n_crystals - n_test - n_validation, n_validation, n_test)
    known = class_fingerprints[fold] if class_fingerprints else ""
    return Split(f"fold-{fold}", label, (), n_crystals, sizes, parts, known)


def _rows(files: Sequence[Path], task: str, n_crystals: int, name: str, column: str) -> Iterator[SourceRow]:
    """Rows of a table in the `split` layout of pandas: `columns`, `index`, and `data` row by row. Structures are
    dictionaries of pymatgen. Ids are those of Matbench: `mb-phonons-0001`.
    """
    with open_gzip(files[0]) as text:
        columns = list(iter_json(text, "columns"))
    for wanted in ("structure", column):
        if wanted not in columns:
            raise DataError(
                f"has no column {wanted!r}; it has {', '.join(map(str, columns))}. Delete it, and the next call "
                "downloads it again",
                path=files[0],
                field=wanted,
            )
    width = len(str(n_crystals))
    with open_gzip(files[0]) as text:
        for row, cells in enumerate(iter_json(text, "data"), start=1):
            value = cells[columns.index(column)]
            value = float(value) if isinstance(value, bool) else value
            id = f"mb-{task.replace('_', '-')}-{row:0{width}d}"
            yield SourceRow(id, cells[columns.index("structure")], {name: value})


_ELASTIC = "M. de Jong et al., Scientific Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"
MATBENCH = (
    _task(
        "jdft2d",
        636,
        Target("exfoliation_energy", "meV/atom"),
        "exfoliation_en",
        "26057dc4524e193e32abffb296ce819b58b6e11d1278cae329a2f97817a4eddf",
        "exfoliation energy of layered crystals (OptB88vdW)",
        "K. Choudhary et al., Scientific Reports 7, 5179 (2017), doi:10.1038/s41598-017-05402-0",
        licence="NIST (JARVIS); see the citations",
    ),
    _task(
        "phonons",
        1_265,
        Target("last_phdos_peak", "1/cm"),
        "last phdos peak",
        "4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3",
        "frequency of the last peak in the phonon density of states",
        "G. Petretto et al., Scientific Data 5, 180065 (2018), doi:10.1038/sdata.2018.65",
    ),
    _task(
        "dielectric",
        4_764,
        Target("refractive_index"),
        "n",
        "83befa09bc2ec2f4b6143afc413157827a90e5e2e42c1eb507ccfa01bf26a1d6",
        "refractive index",
        "I. Petousis et al., Scientific Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
    ),
    _task(
        "log_gvrh",
        10_987,
        Target("log10_shear_modulus", "log10(GPa)"),
        "log10(G_VRH)",
        "098af941f4c663270f1fe21abf20ffad6fb85ecbfcba5786ceac03983ac29da7",
        "shear modulus (Voigt-Reuss-Hill)",
        _ELASTIC,
    ),
    _task(
        "log_kvrh",
        10_987,
        Target("log10_bulk_modulus", "log10(GPa)"),
        "log10(K_VRH)",
        "44b113ddb7e23aa18731a62c74afa7e5aa654199e0db5f951c8248a00955c9cd",
        "bulk modulus (Voigt-Reuss-Hill)",
        _ELASTIC,
    ),
    _task(
        "perovskites",
        18_928,
        Target("formation_energy", "eV/cell"),
        "e_form",
        "4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
        "heat of formation of 5-atom perovskite cells (RPBE)",
        "I. E. Castelli et al., Energy & Environmental Science 5, 9034 (2012), doi:10.1039/C2EE22341D",
        licence="see the citations",
    ),
    _task(
        "mp_gap",
        106_113,
        BAND_GAP,
        "gap pbe",
        "58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
        "gap (PBE), Materials Project of April 2019",
        MATERIALS_PROJECT,
    ),
    _task(
        "mp_is_metal",
        106_113,
        Target("is_metal", kind="class", classes=("non-metal", "metal")),
        "is_metal",
        "9a028ed5750a4c76ca36e9f3c8d48fe0bf3fb21b76ec2289e58ae7048d527919",
        "1 for metals, 0 else, Materials Project of April 2019",
        MATERIALS_PROJECT,
        class_fingerprints=(
            "a065eb55720d29ecb0e634bf08c0baec60e156b7ae07987b05806e9b4efa9f5b",
            "954476ca26f81ce21b491fea72fe405dbbb402c451e2c590e52ddf53ba88845b",
            "10c126bc485bb9cf2cd581dba2637ee60e59dca463665cfc49c32ee849515875",
            "9e82d3042f5f3ff83ff1ce378de167750618780e8a1ba8203ac2a1f8ba3cf91b",
            "2c34073116b4c12ab39ed8f3feda8130270d4f535e2b7644508e5799fc771109",
        ),
    ),
    _task(
        "mp_e_form",
        132_752,
        FORMATION_ENERGY,
        "e_form",
        "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        "formation energy (PBE), Materials Project of April 2019",
        MATERIALS_PROJECT,
    ),
)
