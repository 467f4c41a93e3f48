"""The public data sets that have a name: where they are, what is in them, and how the literature splits them.

Numbers of crystals are those of the publications; a file that holds another number is refused. Splits: `splits.py`.
Target names are the project's own where the sets agree on a quantity and its functional (formation energy and gap of
PBE), and those of JARVIS for JARVIS, whose functionals are others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.datasets.dataset import Provenance
from crystalframer.datasets.download import RemoteFile
from crystalframer.datasets.splits import (
    N_FOLDS,
    VALIDATION_SHARE,
    Parts,
    alignn_parts,
    fold_parts,
    matbench_class_folds,
    matbench_folds,
)
from crystalframer.datasets.upstream import Entry, jarvis_entries, matbench_entries, modulus_entries
from crystalframer.errors import DataError, suggestion


@dataclass(frozen=True)
class Split:
    """One division of the crystals that have a certain label."""

    name: str
    label: str
    """The target whose labels decide which crystals there are to divide."""
    targets: tuple[str, ...]
    """Targets whose published results use this split; none for a fold, which is asked for by name."""
    n_labelled: int
    """Crystals of the publication that have the label, those in no part included."""
    sizes: tuple[int, int, int]
    """Of training, validation and test part."""
    parts: Callable[[Float[np.ndarray, " n"]], Parts] | None
    """Labels of the labelled crystals, in the order of publication → their parts. None: the files are the parts."""
    test_fingerprint: str = ""
    """`splits.fingerprint` of the published ids of the test part, where a list of them is public."""
    tolerance: int = 0
    """How far numbers may be from the published ones, where publications differ."""


@dataclass(frozen=True)
class Source:
    """A public data set."""

    name: str
    description: str
    files: tuple[RemoteFile, ...]
    n_crystals: int
    targets: tuple[Target, ...]
    splits: tuple[Split, ...]
    """The first is that of all targets together, unless it is a fold."""
    provenance: Provenance
    entries: Callable[[Sequence[Path]], Iterator[Entry]]
    """Reads the files."""

    def split_of(self, targets: Sequence[str] | None) -> Split | None:
        """The split that published results for these targets use; the first, if they use several; None: folds only."""
        candidates = [split for split in self.splits if split.targets]
        fitting = [split for split in candidates if targets and set(targets) <= set(split.targets)]
        return next(iter(fitting or candidates), None)

    def split_named(self, name: str) -> Split:
        """A split by its name.

        Raises:
            DataError: there is none; the nearest is named.
        """
        names = {split.name: split for split in self.splits}
        if name not in names:
            raise DataError(f"{self.name} has no split {name!r}{suggestion(name, names)}")
        return names[name]


def _alignn_split(
    targets: tuple[str, ...], n_labelled: int, sizes: tuple[int, int, int], test_fingerprint: str = ""
) -> Split:
    """Named after the first target, which decides."""
    return Split(
        targets[0],
        targets[0],
        targets,
        n_labelled,
        sizes,
        lambda labels: alignn_parts(len(labels), sizes),
        test_fingerprint,
    )


_JARVIS_TARGETS = (
    Target("formation_energy_peratom", "eV/atom"),
    Target("optb88vdw_total_energy", "eV/atom"),
    Target("optb88vdw_bandgap", "eV"),
    Target("mbj_bandgap", "eV"),
    Target("ehull", "eV/atom"),
)

JARVIS = Source(
    name="jarvis",
    description="JARVIS-DFT 3D of August 2021: energies (OptB88vdW) and gaps (OptB88vdW, TBmBJ)",
    files=(
        RemoteFile(
            "jdft_3d-8-18-2021.json.zip",
            "https://figshare.com/ndownloader/files/29204826",
            page="https://doi.org/10.6084/m9.figshare.6815699 (or https://figshare.com/ndownloader/files/29204826)",
        ),
    ),
    n_crystals=55_723,
    targets=_JARVIS_TARGETS,
    splits=(
        _alignn_split(
            ("formation_energy_peratom", "optb88vdw_total_energy", "optb88vdw_bandgap"),
            55_723,
            (44_578, 5_572, 5_572),
            "88d567ba978c1dee752bf5d5d519e4c3889f69705838213f1c34eac2ae29d5d5",
        ),
        _alignn_split(
            ("mbj_bandgap",),
            18_172,
            (14_537, 1_817, 1_817),
            "9f5ce1ff31c8844a6e92d66270a828fda7bad5b7a2d23002d24b140da76dfdb3",
        ),
        _alignn_split(
            ("ehull",),
            55_371,
            (44_296, 5_537, 5_537),
            "4ae1a2ca8e18a49cc0535705af88ec87e3253f1ba4984f44ef5bafb1b459eecc",
        ),
    ),
    provenance=Provenance(
        source="JARVIS-DFT dft_3d, version of 2021-08-18, doi:10.6084/m9.figshare.6815699; split of ALIGNN",
        licence="NIST; terms at doi:10.6084/m9.figshare.6815699 and https://www.nist.gov/open/license",
        citation="K. Choudhary et al., npj Computational Materials 6, 173 (2020), doi:10.1038/s41524-020-00440-1",
    ),
    entries=partial(
        jarvis_entries,
        member="jdft_3d-8-18-2021.json",
        id_key="jid",
        labels={target.name: target.name for target in _JARVIS_TARGETS},
    ),
)

_MATERIALS_PROJECT = "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323"
_MEGNET_PAPER = "C. Chen et al., Chemistry of Materials 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294"
_FORMATION_ENERGY = Target("formation_energy_per_atom", "eV/atom")
_BAND_GAP = Target("band_gap", "eV")

MEGNET = Source(
    name="megnet",
    description="Materials Project of June 2018, the crystals of MEGNet: formation energy and gap (PBE)",
    files=(
        # The copy that the literature splits: the order of the original, mp.2018.6.1.json, need not be the same.
        RemoteFile(
            "megnet.json.zip",
            "https://figshare.com/ndownloader/files/26724977",
            page="https://figshare.com/ndownloader/files/26724977",
        ),
    ),
    n_crystals=69_239,
    targets=(_FORMATION_ENERGY, _BAND_GAP),
    splits=(
        _alignn_split(
            (_FORMATION_ENERGY.name, _BAND_GAP.name),
            69_239,
            (60_000, 5_000, 4_239),
            "f7d1f716f23d6ee72addac9c750cd311281ef061a66afd5f3b22ebf28a61e71d",
        ),
    ),
    provenance=Provenance(
        source="Materials Project 2018.6.1 as in MEGNet, copy of JARVIS (megnet.json); split of ALIGNN",
        licence="CC BY 4.0 (Materials Project)",
        citation=f"{_MATERIALS_PROJECT}; {_MEGNET_PAPER}",
    ),
    entries=partial(
        jarvis_entries,
        member="megnet.json",
        id_key="id",
        labels={_FORMATION_ENERGY.name: "e_form", _BAND_GAP.name: "gap pbe"},
    ),
)


def _megnet_modulus(kind: str, tolerance: int = 0) -> Source:
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
            licence="CC BY 4.0 (Materials Project)",
            citation=f"{_MATERIALS_PROJECT}; {_MEGNET_PAPER}; K. Yan et al., NeurIPS 2022 (arXiv 2209.11807)",
        ),
        entries=partial(modulus_entries, ours=target.name, theirs=f"{kind} modulus"),
    )


OQMD = Source(
    name="oqmd",
    description="OQMD, the 817,636 crystals of JARVIS' copy: formation energy, gap, distance to the hull (PBE)",
    files=(
        RemoteFile(
            "all_oqmd.json.zip",
            "https://figshare.com/ndownloader/files/26790182",
            page="https://doi.org/10.6084/m9.figshare.14206169 (or https://figshare.com/ndownloader/files/26790182)",
        ),
    ),
    n_crystals=817_636,
    targets=(_FORMATION_ENERGY, _BAND_GAP, Target("stability", "eV/atom")),
    splits=(_alignn_split((_FORMATION_ENERGY.name, _BAND_GAP.name, "stability"), 817_636, (654_108, 81_763, 81_763)),),
    provenance=Provenance(
        source="OQMD, copy of JARVIS (oqmd_3d_no_cfid), doi:10.6084/m9.figshare.14206169; split by the rule of ALIGNN",
        licence="CC BY 4.0 (OQMD, https://oqmd.org)",
        citation="J. E. Saal et al., JOM 65, 1501 (2013), doi:10.1007/s11837-013-0755-4; S. Kirklin et al., npj "
        "Computational Materials 1, 15010 (2015), doi:10.1038/npjcompumats.2015.10",
    ),
    entries=partial(
        jarvis_entries,
        member="all_oqmd.json",
        id_key="_oqmd_entry_id",
        labels={
            _FORMATION_ENERGY.name: "_oqmd_delta_e",
            _BAND_GAP.name: "_oqmd_band_gap",
            "stability": "_oqmd_stability",
        },
    ),
)


def _matbench(
    task: str,
    n_crystals: int,
    target: Target,
    column: str,
    sha256: str,
    description: str,
    origin: str,
    licence: str = "CC BY 4.0 (Materials Project)",
    class_fingerprints: Sequence[str] = (),
) -> Source:
    """A task of Matbench v0.1 (checksums: matminer's dataset_metadata.json).

    Args:
        class_fingerprints: of the published test parts of a classification task, whose folds depend on the labels.
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
        entries=partial(matbench_entries, task=task, n_crystals=n_crystals, labels={target.name: column}),
    )


def _fold(fold: int, n_crystals: int, label: str, class_fingerprints: Sequence[str]) -> Split:
    n_test = n_crystals // N_FOLDS + (fold < n_crystals % N_FOLDS)
    n_validation = round(VALIDATION_SHARE * (n_crystals - n_test))

    def parts(labels: Float[np.ndarray, " n"]) -> Parts:
        return fold_parts(matbench_class_folds(labels) if class_fingerprints else matbench_folds(len(labels)), fold)

    sizes = (n_crystals - n_test - n_validation, n_validation, n_test)
    known = class_fingerprints[fold] if class_fingerprints else ""
    return Split(f"fold-{fold}", label, (), n_crystals, sizes, parts, known)


_ELASTIC = "M. de Jong et al., Scientific Data 2, 150009 (2015), doi:10.1038/sdata.2015.9"
_MATBENCH = (
    _matbench(
        "jdft2d",
        636,
        Target("exfoliation_energy", "meV/atom"),
        "exfoliation_en",
        "26057dc4524e193e32abffb296ce819b58b6e11d1278cae329a2f97817a4eddf",
        "exfoliation energy of layered crystals (OptB88vdW)",
        "K. Choudhary et al., Scientific Reports 7, 5179 (2017), doi:10.1038/s41598-017-05402-0",
        licence="NIST (JARVIS); see the citations",
    ),
    _matbench(
        "phonons",
        1_265,
        Target("last_phdos_peak", "1/cm"),
        "last phdos peak",
        "4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3",
        "frequency of the last peak in the phonon density of states",
        "G. Petretto et al., Scientific Data 5, 180065 (2018), doi:10.1038/sdata.2018.65",
    ),
    _matbench(
        "dielectric",
        4_764,
        Target("refractive_index"),
        "n",
        "83befa09bc2ec2f4b6143afc413157827a90e5e2e42c1eb507ccfa01bf26a1d6",
        "refractive index",
        "I. Petousis et al., Scientific Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
    ),
    _matbench(
        "log_gvrh",
        10_987,
        Target("log10_shear_modulus", "log10(GPa)"),
        "log10(G_VRH)",
        "098af941f4c663270f1fe21abf20ffad6fb85ecbfcba5786ceac03983ac29da7",
        "shear modulus (Voigt-Reuss-Hill)",
        _ELASTIC,
    ),
    _matbench(
        "log_kvrh",
        10_987,
        Target("log10_bulk_modulus", "log10(GPa)"),
        "log10(K_VRH)",
        "44b113ddb7e23aa18731a62c74afa7e5aa654199e0db5f951c8248a00955c9cd",
        "bulk modulus (Voigt-Reuss-Hill)",
        _ELASTIC,
    ),
    _matbench(
        "perovskites",
        18_928,
        Target("formation_energy", "eV/cell"),
        "e_form",
        "4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
        "heat of formation of 5-atom perovskite cells (RPBE)",
        "I. E. Castelli et al., Energy & Environmental Science 5, 9034 (2012), doi:10.1039/C2EE22341D",
        licence="see the citations",
    ),
    _matbench(
        "mp_gap",
        106_113,
        _BAND_GAP,
        "gap pbe",
        "58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
        "gap (PBE), Materials Project of April 2019",
        _MATERIALS_PROJECT,
    ),
    _matbench(
        "mp_is_metal",
        106_113,
        Target("is_metal"),
        "is_metal",
        "9a028ed5750a4c76ca36e9f3c8d48fe0bf3fb21b76ec2289e58ae7048d527919",
        "1 for metals, 0 else, Materials Project of April 2019",
        _MATERIALS_PROJECT,
        class_fingerprints=(
            "a065eb55720d29ecb0e634bf08c0baec60e156b7ae07987b05806e9b4efa9f5b",
            "954476ca26f81ce21b491fea72fe405dbbb402c451e2c590e52ddf53ba88845b",
            "10c126bc485bb9cf2cd581dba2637ee60e59dca463665cfc49c32ee849515875",
            "9e82d3042f5f3ff83ff1ce378de167750618780e8a1ba8203ac2a1f8ba3cf91b",
            "2c34073116b4c12ab39ed8f3feda8130270d4f535e2b7644508e5799fc771109",
        ),
    ),
    _matbench(
        "mp_e_form",
        132_752,
        _FORMATION_ENERGY,
        "e_form",
        "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        "formation energy (PBE), Materials Project of April 2019",
        _MATERIALS_PROJECT,
    ),
)

SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        JARVIS,
        MEGNET,
        _megnet_modulus("bulk"),
        _megnet_modulus("shear", tolerance=1),  # 393 or 392 crystals for validation, as publications have it
        OQMD,
        *_MATBENCH,
    )
}
"""By name, in the order in which they are listed."""
