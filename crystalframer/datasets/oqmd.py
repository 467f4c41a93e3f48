"""OQMD, in the copy of JARVIS."""

from __future__ import annotations

from crystalframer.config import Target
from crystalframer.datasets.dataset import Provenance
from crystalframer.datasets.jarvis import alignn_split, jarvis_source
from crystalframer.datasets.published import BAND_GAP, FORMATION_ENERGY

OQMD = jarvis_source(
    "oqmd",
    "OQMD, the 817,636 crystals of JARVIS' copy: formation energy, gap, distance to the hull (PBE)",
    file="all_oqmd.json.zip",
    number=26790182,
    doi="10.6084/m9.figshare.14206169",
    n_crystals=817_636,
    id_key="_oqmd_entry_id",
    columns={
        FORMATION_ENERGY: "_oqmd_delta_e",
        BAND_GAP: "_oqmd_band_gap",
        Target("stability", "eV/atom"): "_oqmd_stability",
    },
    splits=(alignn_split((FORMATION_ENERGY.name, BAND_GAP.name, "stability"), 817_636, (654_108, 81_763, 81_763)),),
    provenance=Provenance(
        source="OQMD, copy of JARVIS (oqmd_3d_no_cfid), doi:10.6084/m9.figshare.14206169; split by the rule of ALIGNN",
        licence="CC BY 4.0 (OQMD, https://oqmd.org)",
        citation="J. E. Saal et al., JOM 65, 1501 (2013), doi:10.1007/s11837-013-0755-4; S. Kirklin et al., npj "
        "Computational Materials 1, 15010 (2015), doi:10.1038/npjcompumats.2015.10",
    ),
)
