"""JARVIS-DFT, and the form in which JARVIS publishes its own and other data sets: a zip archive with one JSON list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from crystalframer.config import Target
from crystalframer.datasets.dataset import Provenance
from crystalframer.datasets.download import RemoteFile
from crystalframer.datasets.json_stream import iter_json, open_member
from crystalframer.datasets.published import Source, SourceRow, Split
from crystalframer.datasets.splits import alignn_parts
from crystalframer.errors import DataError


def jarvis_source(
    name: str,
    description: str,
    *,
    file: str,
    number: int,
    doi: str = "",
    n_crystals: int,
    id_key: str,
    columns: Mapping[Target, str],
    splits: tuple[Split, ...],
    provenance: Provenance,
) -> Source:
    """A data set in an archive of JARVIS on figshare.

    Args:
        file: name of the archive; the list in it has the same name without `.zip`.
        number: number of the file at figshare.
        doi: DOI of the page where a person finds the archive.
        id_key: key of the id in an entry of the list.
        columns: target → key of its label in an entry.
    """
    url = f"https://figshare.com/ndownloader/files/{number}"
    labels = {target.name: key for target, key in columns.items()}
    return Source(
        name=name,
        description=description,
        files=(RemoteFile(file, url, page=f"https://doi.org/{doi} (or {url})" if doi else url),),
        n_crystals=n_crystals,
        targets=tuple(columns),
        splits=splits,
        provenance=provenance,
        rows=partial(_rows, id_key=id_key, labels=labels),
    )


def alignn_split(
    targets: tuple[str, ...], n_labelled: int, sizes: tuple[int, int, int], test_fingerprint: str = ""
) -> Split:
    """A split by the rule of ALIGNN, of the crystals that have the first target and named after it."""
    name, parts = targets[0], lambda labels: alignn_parts(len(labels), sizes)
    return Split(name, name, targets, n_labelled, sizes, parts, test_fingerprint)


def _rows(files: Sequence[Path], id_key: str, labels: Mapping[str, str]) -> Iterator[SourceRow]:
    with open_member(files[0], files[0].stem) as text:
        for row, cells in enumerate(iter_json(text), start=1):
            if not isinstance(cells, Mapping) or id_key not in cells or "atoms" not in cells:
                message = f"has no {id_key!r} or no 'atoms'; it is not the file expected"
                raise DataError(message, path=files[0], row=row)
            yield SourceRow(str(cells[id_key]), cells["atoms"], {name: cells.get(key) for name, key in labels.items()})


_TARGETS = (
    Target("formation_energy_peratom", "eV/atom"),
    Target("optb88vdw_total_energy", "eV/atom"),
    Target("optb88vdw_bandgap", "eV"),
    Target("mbj_bandgap", "eV"),
    Target("ehull", "eV/atom"),
)

JARVIS = jarvis_source(
    "jarvis",
    "JARVIS-DFT 3D of August 2021: energies (OptB88vdW) and gaps (OptB88vdW, TBmBJ)",
    file="jdft_3d-8-18-2021.json.zip",
    number=29204826,
    doi="10.6084/m9.figshare.6815699",
    n_crystals=55_723,
    id_key="jid",
    columns={target: target.name for target in _TARGETS},
    splits=(
        alignn_split(
            ("formation_energy_peratom", "optb88vdw_total_energy", "optb88vdw_bandgap"),
            55_723,
            (44_578, 5_572, 5_572),
            "88d567ba978c1dee752bf5d5d519e4c3889f69705838213f1c34eac2ae29d5d5",
        ),
        alignn_split(
            ("mbj_bandgap",),
            18_172,
            (14_537, 1_817, 1_817),
            "9f5ce1ff31c8844a6e92d66270a828fda7bad5b7a2d23002d24b140da76dfdb3",
        ),
        alignn_split(
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
)
