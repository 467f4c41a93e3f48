"""Crystals from live databases: those that a query to an OPTIMADE provider or to the Materials Project finds.

`optimade:BASE_URL?FILTER` asks a provider (base addresses: https://providers.optimade.org) with a filter of OPTIMADE's
language; `mp-api:CRITERIA` asks the summaries of the Materials Project (`elements=Li,O&num_elements=2&band_gap=1,3`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tqdm.auto import tqdm

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets import download
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.datasets.upstream import Entry
from crystalframer.elements import ATOMIC_NUMBERS
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading.rows import to_label

KEY_VARIABLE = "MP_API_KEY"
PAGE_SIZE = 100
"""Structures per answer of an OPTIMADE provider."""
_STRUCTURE_FIELDS = ("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites")
_MP_TARGETS = (Target("formation_energy_per_atom", "eV/atom"), Target("band_gap", "eV"))
_SHOWN = 5


def query(kind: str, text: str, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
    """What a query finds, asked once and then kept (delete the file that the data set names to ask again).

    Args:
        kind: `optimade` or `mp-api`.
        text: `BASE_URL?FILTER` or criteria, as above.
        targets: properties of the database to read as labels. Default: none of OPTIMADE, formation energy and gap of
            the Materials Project.

    Raises:
        DataError: no network, an answer that is an error, no key for the Materials Project, or nothing found.
    """
    wanted = [Target(target) if isinstance(target, str) else target for target in targets or ()]
    if kind == "mp-api" and targets is None:
        wanted = list(_MP_TARGETS)
    key = json.dumps([text, [dataclasses.astuple(target) for target in wanted]])
    path = download.cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"
    if not path.exists():
        names = [target.name for target in wanted]
        entries = _optimade(text, names) if kind == "optimade" else _materials_project(text, names)
        crystals = _crystals(f"{kind}:{text}", entries, names)
        CrystalDataset.from_crystals(crystals, wanted, None, _provenance(kind, text, path)).save(path)
    return CrystalDataset.load(path)


def _provenance(kind: str, text: str, path: Path) -> Provenance:
    source = f"{kind}:{text}, asked on {date.today().isoformat()}, kept as {path}"
    if kind == "mp-api":
        citation = "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323"
        return Provenance(source, "CC BY 4.0 (Materials Project)", citation)
    citation = (
        "C. W. Andersen et al., Scientific Data 8, 217 (2021), doi:10.1038/s41597-021-00974-z; and the provider's"
    )
    return Provenance(source, "as the provider states", citation)


def _crystals(name: str, entries: Iterator[Entry], labels: Sequence[str]) -> list[Crystal]:
    from crystalframer.reading.structures import to_crystal

    crystals, failed = [], []
    for entry in entries:
        values = {label: to_label(entry.labels.get(label), f"{name}, {entry.id}: {label}") for label in labels}
        try:
            crystals.append(to_crystal(entry.structure, entry.id).with_targets(values))
        except CrystalError as error:
            failed.append(str(error))
    if failed:
        shown = "\n  ".join(failed[:_SHOWN])
        message = f"{name}: {len(failed)} of {len(failed) + len(crystals)} structures cannot be used and are left out:"
        warnings.warn(f"{message}\n  {shown}", stacklevel=2)
    if not crystals:
        raise DataError(f"{name}: nothing found that can be used; widen the query")
    return crystals


# OPTIMADE


def _optimade(text: str, labels: Sequence[str]) -> Iterator[Entry]:
    base, _, condition = text.partition("?")
    base = base.rstrip("/")
    if not base.rpartition("/")[2].startswith("v1"):
        base += "/v1"
    fields = ",".join((*_STRUCTURE_FIELDS, *labels))
    parameters = {"response_fields": fields, "page_limit": str(PAGE_SIZE)}
    if condition:
        parameters["filter"] = condition
    url = f"{base}/structures?{urlencode(parameters)}"
    seen = set()
    with tqdm(desc=f"asking {base}", unit=" structures", delay=2) as bar:
        while url and url not in seen:
            seen.add(url)
            page = _page(url)
            bar.total = page.get("meta", {}).get("data_returned", bar.total)
            for found in page["data"]:
                attributes = found.get("attributes") or {}
                yield Entry(str(found.get("id", "")), _optimade_structure(attributes), attributes)
                bar.update()
            link = (page.get("links") or {}).get("next")
            url = link.get("href") if isinstance(link, Mapping) else link


def _page(url: str) -> dict[str, Any]:
    page = _answer(url)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise DataError(f"{url}: the answer is not that of an OPTIMADE provider; check the base address")
    return page


def _answer(url: str, attempt: int = 1) -> Any:
    """JSON from the web; asked for again if the server is busy."""
    try:
        with download.open_url(url, {"Accept": "application/vnd.api+json, application/json"}) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException) as error:
        if download.is_passing(error) and attempt < download.ATTEMPTS:
            time.sleep(download.PAUSE * 2 ** (attempt - 1))
            return _answer(url, attempt + 1)
        raise DataError(
            f"{url}: {download.reason(error)}{_details(error)}; check the base address and the filter, or try later"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{url}: the answer is no JSON; check the base address of the provider") from error


def _details(error: Exception) -> str:
    """What a provider says about a request that it refuses."""
    try:
        errors = json.loads(error.read())["errors"]  # type: ignore[attr-defined]
        return f" ({errors[0].get('detail') or errors[0].get('title')})"
    except (AttributeError, ValueError, LookupError, TypeError, OSError):
        return ""


def _optimade_structure(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row for `to_crystal`; what cannot be one stays empty there, so that it is refused by name."""
    numbers = {}
    for species in attributes.get("species") or ():
        symbols, shares = species.get("chemical_symbols") or [], species.get("concentration") or [1.0]
        whole = len(symbols) == 1 and abs(shares[0] - 1) < 1e-3
        numbers[species.get("name")] = ATOMIC_NUMBERS.get(symbols[0], 0) if whole else 0  # 0 is no element
    row = {
        "atomic_numbers": [numbers.get(name, 0) for name in attributes.get("species_at_sites") or ()],
        "positions": attributes.get("cartesian_site_positions"),
        "lattice": attributes.get("lattice_vectors"),
    }
    return {name: value for name, value in row.items() if value is not None}


# Materials Project


def _materials_project(text: str, labels: Sequence[str]) -> Iterator[Entry]:
    wanted = criteria(text)
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise DataError(
            "asking the Materials Project needs a key: get one at https://materialsproject.org/api and set "
            f"{KEY_VARIABLE}"
        )
    try:
        client = import_module("mp_api.client")
    except ModuleNotFoundError as error:
        raise DataError("asking the Materials Project needs mp-api: pip install 'crystalframer[data]'") from error
    try:
        with client.MPRester(key) as rester:
            found = rester.materials.summary.search(**wanted, fields=list(_fields(labels)), all_fields=False)
    except Exception as error:  # the client raises what it likes
        said = f"{type(error).__name__}: {error}".replace(key, f"${KEY_VARIABLE}")
        raise DataError(f"mp-api:{text}: {said}; check the criteria, the key and the network") from None
    for document in found:
        cells = document
        if not isinstance(document, Mapping):
            cells = {name: getattr(document, name, None) for name in _fields(labels)}
        yield Entry(str(cells["material_id"]), cells["structure"], {label: cells.get(label) for label in labels})


def _fields(labels: Sequence[str]) -> tuple[str, ...]:
    return ("material_id", "structure", *labels)


def criteria(text: str) -> dict[str, Any]:
    """Criteria of the Materials Project's client: `elements=Li,O&band_gap=1,3&is_stable=true`. Two numbers are a range.

    Raises:
        DataError: text that is no list of `name=value` joined by `&`, or that holds a key.
    """
    try:
        pairs = parse_qsl(text, strict_parsing=True)
    except ValueError as error:
        raise DataError(f"mp-api:{text}: criteria are name=value, joined by & ({error})") from error
    found = {}
    for name, value in pairs:
        if "key" in name.lower():
            raise DataError(
                f"mp-api: {name} is no criterion; a key would stand in configs, messages and logs: set it in "
                f"${KEY_VARIABLE} instead"
            )
        values = [_typed(word.strip()) for word in value.split(",")]
        is_range = len(values) == 2 and all(isinstance(each, (int, float)) for each in values)
        single = len(values) == 1 and name not in ("elements", "exclude_elements")
        found[name] = values[0] if single else tuple(values) if is_range else values
    return found


def _typed(word: str) -> bool | int | float | str:
    if word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
