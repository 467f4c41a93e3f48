"""The public data sets that have a name: where they are, what is in them, and how the literature splits them.

Numbers of crystals are those of the publications; a file that holds another number is refused. Splits: `splits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.data.dataset import DataError, Provenance
from crystalframer.data.download import RemoteFile
from crystalframer.data.splits import Parts, alignn_parts
from crystalframer.data.upstream import Entry, iter_json, open_member


@dataclass(frozen=True)
class Split:
    """One division of the crystals that have a label of the first of `targets`."""

    name: str
    targets: tuple[str, ...]
    """Targets whose published results use this split."""
    n_labelled: int
    """Crystals of the publication that have the label, those in no part included."""
    sizes: tuple[int, int, int]
    """Of training, validation and test part."""
    parts: Callable[[Float[np.ndarray, " n"]], Parts]
    """Labels of the labelled crystals, in the order of publication → their parts."""
    test_fingerprint: str = ""
    """`splits.fingerprint` of the published ids of the test part, where a list of them is public."""


@dataclass(frozen=True)
class Source:
    """A public data set."""

    name: str
    description: str
    files: tuple[RemoteFile, ...]
    n_crystals: int
    targets: tuple[Target, ...]
    splits: tuple[Split, ...]
    """The first is that of all targets together."""
    provenance: Provenance
    entries: Callable[[Sequence[Path]], Iterator[Entry]]
    """Reads the files."""

    def split_of(self, targets: Sequence[str] | None) -> Split:
        """The split that published results for these targets use; the first, if they use several."""
        fitting = [split for split in self.splits if targets and set(targets) <= set(split.targets)]
        return (fitting or self.splits)[0]


def _alignn_split(
    name: str, targets: tuple[str, ...], n_labelled: int, sizes: tuple[int, int, int], test_fingerprint: str = ""
) -> Split:
    return Split(name, targets, n_labelled, sizes, lambda labels: alignn_parts(len(labels), sizes), test_fingerprint)


def jarvis_entries(files: Sequence[Path], member: str, id_key: str, labels: Mapping[str, str]) -> Iterator[Entry]:
    """A zip archive with one JSON list of objects, as JARVIS publishes its own and other data: labels beside `atoms`.

    Args:
        labels: our name → theirs.
    """
    with open_member(files[0], member) as text:
        for row, cells in enumerate(iter_json(text), start=1):
            if not isinstance(cells, Mapping) or id_key not in cells or "atoms" not in cells:
                raise DataError(
                    f"{files[0]}, entry {row}: has no {id_key!r} or no 'atoms'; this is not the file expected"
                )
            yield Entry(
                str(cells[id_key]), cells["atoms"], {ours: cells.get(theirs) for ours, theirs in labels.items()}
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
            "formation_energy_peratom",
            ("formation_energy_peratom", "optb88vdw_total_energy", "optb88vdw_bandgap"),
            55_723,
            (44_578, 5_572, 5_572),
            "88d567ba978c1dee752bf5d5d519e4c3889f69705838213f1c34eac2ae29d5d5",
        ),
        _alignn_split(
            "mbj_bandgap",
            ("mbj_bandgap",),
            18_172,
            (14_537, 1_817, 1_817),
            "9f5ce1ff31c8844a6e92d66270a828fda7bad5b7a2d23002d24b140da76dfdb3",
        ),
        _alignn_split(
            "ehull",
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

SOURCES: Mapping[str, Source] = {source.name: source for source in (JARVIS,)}
