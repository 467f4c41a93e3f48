"""Compute the motifs of prototype structures with ChemEnv, as a reference for tests/analysis/test_motifs.py.

    python scripts/build_motif_oracle.py

The structures are the AFLOW prototypes of pymatgen. Each distinct site gets its CrystalNN shell, found by pymatgen
alone, and the measure of ChemEnv for that shell (its default `csm_wcs_ctwcc`) for all polyhedra of ChemEnv. Of sites
with the same shape of shell, only the first is kept.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

OUTPUT = Path(__file__).parents[1] / "tests" / "analysis" / "motif_oracle.json"
PROTOTYPES = (
    *("AB_cF8_225_a_b", "AB_cP2_221_b_a", "AB_cF8_216_c_a", "AB_hP4_186_b_b", "AB2_cF12_225_a_c", "A2B_tP6_136_f_a"),
    *("A2B_tI12_141_e_a", "A2B_oP24_61_2c_c", "AB3C_cP5_221_a_c_b", "AB3C_oP20_62_c_cd_a", "AB3C_hR10_148_c_f_c"),
    *("A2B3_hR10_167_c_e", "A2BC4_cF56_227_d_a_e", "A3B4_tI28_141_ad_h", "ABC3_hR10_167_a_b_e", "A2B_hP9_152_c_a"),
    *("A2B_tP12_92_b_a", "A2B_cP6_224_b_a", "AB_tP4_129_a_c", "A3B_cP4_221_d_a", "AB2_hP6_194_c_f", "AB_hP4_194_c_a"),
    *("AB_hP2_187_d_a", "A3B_cI32_204_g_c", "AB2_cP12_205_a_c", "AB2_oP6_58_a_g", "A4BC_tI24_141_h_b_a"),
    *("A2B_mP12_14_2e_e", "AB3C6_cI80_206_a_d_e", "A2B_oP12_62_2c_c", "A3B2_oP20_62_3c_2c", "A_cF4_225_a"),
    *("A_hP2_194_c", "A_cF8_227_a", "AB_mC8_15_c_e", "ABC2_tI16_122_a_b_d", "A2B_cF24_227_d_a", "A3B_cP8_223_c_a"),
    *("ABC_tP6_129_c_a_c", "AB_hR6_160_b_b"),
)
"""AFLOW names; of several prototypes of one name the first."""


def main() -> None:
    records = [record for name, structure in tqdm(list(prototypes())) for record in sites(name, structure)]
    lines = ",\n".join(json.dumps(record) for record in records)
    OUTPUT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    labels = sorted({min(record["csm"], key=record["csm"].get) for record in records})
    print(f"{OUTPUT.name}: {len(records)} sites of {len(PROTOTYPES)} prototypes; motifs {', '.join(labels)}")


def prototypes() -> Iterator[tuple[str, Any]]:
    """(AFLOW name, structure without oxidation states)."""
    import pymatgen.analysis.prototypes
    from pymatgen.core import Structure

    path = Path(pymatgen.analysis.prototypes.__path__[0]) / "aflow_prototypes.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes()))
    for name in PROTOTYPES:
        entry = next(entry for entry in entries if entry["tags"]["aflow"] == name)
        structure = Structure.from_dict(entry["snl"])
        structure.remove_oxidation_states()
        yield name, structure


def sites(name: str, structure: Any) -> Iterator[dict[str, Any]]:
    from pymatgen.analysis.chemenv.coordination_environments.coordination_geometry_finder import LocalGeometryFinder
    from pymatgen.analysis.local_env import CrystalNN

    finder, oracle, seen = CrystalNN(), LocalGeometryFinder(), []
    oracle.setup_structure(structure)
    for site in range(len(structure)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            neighbors = [entry["site"].coords for entry in finder.get_nn_info(structure, site)]
        vectors = np.array(neighbors).reshape(-1, 3) - structure.cart_coords[site]
        # The same motif has the same lengths and the same distances between neighbours.
        distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
        shape = np.sort(np.concatenate([distances.ravel(), np.linalg.norm(vectors, axis=1)]))
        if any(len(other) == len(shape) and np.allclose(other, shape, atol=1e-3) for other in seen):
            continue
        seen.append(shape)
        oracle.setup_local_geometry(site, coords=neighbors)
        measures = oracle.get_coordination_symmetry_measures(optimization=None)
        yield {
            "prototype": name,
            "formula": structure.composition.reduced_formula,
            "site": site,
            "vectors": np.round(vectors, 6).tolist(),
            "csm": {symbol: round(float(found["csm_wcs_ctwcc"]), 4) for symbol, found in measures.items()},
        }


if __name__ == "__main__":
    main()
