"""Crystals from live databases: the answers of an OPTIMADE provider or of the Materials Project to a query.

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
from crystalframer.datasets.published import (
    BAND_GAP,
    FORMATION_ENERGY,
    MATERIALS_PROJECT,
    MATERIALS_PROJECT_LICENCE,
    SourceRow,
    warn_of_left_out,
)
from crystalframer.elements import ATOMIC_NUMBERS
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading.columns import to_label
from crystalframer.reading.formats import PARQUET_SUFFIX

KEY_VARIABLE = "MP_API_KEY"
PAGE_SIZE = 100
"""Structures per answer of an OPTIMADE provider."""
_STRUCTURE_FIELDS = ("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites")


def query(kind: str, text: str, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
    """Load the crystals that a query finds. The answer is kept: to ask again, delete the file that its source names.

    Args:
        kind: `optimade` or `mp-api`.
        text: `BASE_URL?FILTER` or criteria, as above.
        targets: properties of the database to read as labels. Default: none of OPTIMADE, formation energy and gap of
            the Materials Project.

    Raises:
        DataError: no network, an answer that is an error, no key for the Materials Project, or nothing found.
    """
    if targets is None:
        targets = (FORMATION_ENERGY, BAND_GAP) if kind == "mp-api" else ()
    wanted = [Target(target) if isinstance(target, str) else target for target in targets]
    key = json.dumps([text, [dataclasses.astuple(target) for target in wanted]])
    path = download.cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{PARQUET_SUFFIX}"
    if not path.exists():
        names = [target.name for target in wanted]
        rows = _optimade(text, names) if kind == "optimade" else _materials_project(text, names)
        crystals = _crystals(f"{kind}:{text}", rows, names)
        CrystalDataset.from_crystals(crystals, wanted, None, _provenance(kind, text, path)).save(path)
    return CrystalDataset.load(path)


def _provenance(kind: str, text: str, path: Path) -> Provenance:
    source = f"{kind}:{text}, asked on {date.today().isoformat()}, kept as {path}"
    if kind == "mp-api":
        return Provenance(source, MATERIALS_PROJECT_LICENCE, MATERIALS_PROJECT)
    citation = (
        "C. W. Andersen et al., Scientific Data 8, 217 (2021), doi:10.1038/s41597-021-00974-z; and the provider's"
    )
    return Provenance(source, "as the provider states", citation)


def _crystals(name: str, rows: Iterator[SourceRow], labels: Sequence[str]) -> list[Crystal]:
    from crystalframer.reading.objects import to_crystal

    crystals, problems = [], []
    for row, cells in enumerate(rows, start=1):
        values = {label: to_label(cells.labels.get(label), label, path=name, row=row) for label in labels}
        try:
            crystals.append(to_crystal(cells.structure, cells.id).with_targets(values))
        except CrystalError as error:
            problems.append(str(error))
    warn_of_left_out(name, problems, len(problems) + len(crystals))
    if not crystals:
        raise DataError("nothing found that can be used; widen the query", path=name)
    return crystals


# OPTIMADE


def _optimade(text: str, labels: Sequence[str]) -> Iterator[SourceRow]:
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
                yield SourceRow(str(found.get("id", "")), _optimade_structure(attributes), attributes)
                bar.update()
            link = (page.get("links") or {}).get("next")
            url = link.get("href") if isinstance(link, Mapping) else link


def _page(url: str) -> dict[str, Any]:
    page = _answer(url)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise DataError("the answer is not that of an OPTIMADE provider; check the base address", path=url)
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
        message = f"{download.reason(error)}{_details(error)}; check the base address and the filter, or try later"
        raise DataError(message, path=url) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("the answer is no JSON; check the base address of the provider", path=url) from error


def _details(error: Exception) -> str:
    """The reason that a provider gives for refusing a request."""
    try:
        with error:  # type: ignore[attr-defined]
            errors = json.loads(error.read())["errors"]  # type: ignore[attr-defined]
        return f" ({errors[0].get('detail') or errors[0].get('title')})"
    except (AttributeError, ValueError, LookupError, TypeError, OSError):
        return ""


def _optimade_structure(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row for `to_crystal`. Items that are missing stay out of it, so that the error names them."""
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


def _materials_project(text: str, labels: Sequence[str]) -> Iterator[SourceRow]:
    wanted = criteria(text)
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise DataError(
            "asking the Materials Project needs a key: get one at https://materialsproject.org/api and set "
            f"{KEY_VARIABLE}",
            field=KEY_VARIABLE,
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
        raise DataError(f"{said}; check the criteria, the key and the network", path=f"mp-api:{text}") from None
    for document in found:
        cells = document
        if not isinstance(document, Mapping):
            cells = {name: getattr(document, name, None) for name in _fields(labels)}
        yield SourceRow(str(cells["material_id"]), cells["structure"], {label: cells.get(label) for label in labels})


def _fields(labels: Sequence[str]) -> tuple[str, ...]:
    return ("material_id", "structure", *labels)


def criteria(text: str) -> dict[str, Any]:
    """Read criteria for the client of the Materials Project from text. Two numbers are a range.

        >>> criteria("elements=Li,O&band_gap=1,3&is_stable=true")
        {'elements': ['Li', 'O'], 'band_gap': (1, 3), 'is_stable': True}

    Raises:
        DataError: text that is no list of `name=value` joined by `&`, or that holds a key.
    """
    try:
        pairs = parse_qsl(text, strict_parsing=True)
    except ValueError as error:
        raise DataError(f"criteria are name=value, joined by & ({error})", path=f"mp-api:{text}") from error
    found = {}
    for name, value in pairs:
        if "key" in name.lower():
            raise DataError(
                f"mp-api: {name} is no criterion; a key would stand in configs, messages and logs: set it in "
                f"${KEY_VARIABLE} instead",
                field=name,
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
