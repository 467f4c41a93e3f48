"""Structures as databases give them through the OPTIMADE interface (specification 1.2, "Structures Entries")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crystalframer.elements import atomic_number
from crystalframer.errors import CrystalError

_OCCUPANCY_TOLERANCE = 1e-3
_NOT_LISTED = ("implicit_atoms", "site_attachments", "assemblies")
"""Features of a structure whose atoms are not all listed, or listed several times."""


def plain_row(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a structure as a row with `atomic_numbers`, `positions` and `lattice`.

    Raises:
        CrystalError: they describe no crystal of whole atoms; the message names the species or field.
    """
    for name in ("lattice_vectors", "cartesian_site_positions", "species_at_sites", "species"):
        if not attributes.get(name):
            raise CrystalError(f"the OPTIMADE structure has no {name}; ask the database for this field", field=name)
    _check_periodic(attributes)
    features = [*(attributes.get("structure_features") or ())]
    features += ["assemblies"] * bool(attributes.get("assemblies"))
    for name in _NOT_LISTED:
        if name in features:
            raise CrystalError(f"has {name}: its atoms are not listed one by one; it cannot be read", field=name)
    elements = {str(species.get("name")): species for species in attributes["species"]}
    sites = attributes["species_at_sites"]
    positions = attributes["cartesian_site_positions"]
    if not len(sites) == len(positions) == attributes.get("nsites", len(sites)):
        counts = f"{len(sites)} species_at_sites and {len(positions)} positions"
        raise CrystalError(f"has {counts}, nsites is {attributes.get('nsites')}; get it again", field="nsites")
    numbers = [_element(str(name), elements, site) for site, name in enumerate(sites)]
    if "disorder" in features:
        raise CrystalError("has disorder, but each species is one whole atom; get it again", field="structure_features")
    return {"atomic_numbers": numbers, "positions": positions, "lattice": attributes["lattice_vectors"]}


def _check_periodic(attributes: Mapping[str, Any]) -> None:
    dimensions = list(attributes.get("dimension_types") or (1, 1, 1))
    count = attributes.get("nperiodic_dimensions")
    n_periodic = sum(dimensions) if count is None or dimensions != [1, 1, 1] else count
    n_periodic = min(n_periodic, sum(None not in vector for vector in attributes["lattice_vectors"]))
    if n_periodic != 3:
        problem = f"is periodic in {n_periodic} of 3 dimensions, but the model needs all"
        raise CrystalError(problem, field="dimension_types", value=dimensions)


def _element(name: str, elements: Mapping[str, Mapping[str, Any]], site: int) -> int:
    """Z of a species that is one whole atom."""
    species = elements.get(name)
    where = f"site {site} ({name[:40]})"
    if species is None:
        raise CrystalError(f"{where} names a species that is not among `species`; correct it", site=site, value=name)
    symbols = list(species.get("chemical_symbols") or ())
    shares = species.get("concentration") or [1.0]
    numbers = [atomic_number(str(symbol)) for symbol in symbols]
    if len(numbers) != 1 or len(shares) != 1 or not abs(shares[0] - 1) <= _OCCUPANCY_TOLERANCE:
        listed = ", ".join(f"{symbol} {share}" for symbol, share in zip(symbols, shares, strict=False))
        advice = "the model needs whole atoms: make an ordered structure first"
        raise CrystalError(f"{where} is partly occupied ({listed[:200]}); {advice}", site=site, value=name)
    if species.get("attached"):
        raise CrystalError(
            f"{where} has atoms attached that have no positions; it cannot be read", site=site, value=name
        )
    if numbers[0] is None:
        raise CrystalError(f"{where}: {symbols[0]!r} is no element; replace or remove the site", site=site, value=name)
    return numbers[0]
