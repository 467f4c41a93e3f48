from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock
from urllib.parse import urlencode

import numpy as np
import pytest
from file_server import FileServer
from pymatgen.core import Lattice, Structure
from refusals import refused

from crystalframer import cli
from crystalframer.config import Target
from crystalframer.datasets.queries import criteria
from crystalframer.datasets.sources import dataset, get
from crystalframer.errors import DataError

FILTER = 'elements HAS "Na"'
FIELDS = "lattice_vectors,cartesian_site_positions,species,species_at_sites"


def salt(id: str, size: float, **changes: Any) -> dict[str, Any]:
    attributes = {
        "lattice_vectors": [[size, 0, 0], [0, size, 0], [0, 0, size]],
        "cartesian_site_positions": [[0, 0, 0], [size / 2, size / 2, size / 2]],
        "species": [
            {"name": "Na1", "chemical_symbols": ["Na"], "concentration": [1.0]},
            {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1]},
        ],
        "species_at_sites": ["Na1", "Cl"],
        "_x_gap": size,
    }
    return {"id": id, "type": "structures", "attributes": attributes | changes}


def first_page(extra: str = "") -> str:
    return f"v1/structures?{urlencode({'response_fields': FIELDS + extra, 'page_limit': '100', 'filter': FILTER})}"


def serve(server: FileServer, path: str, data: list[dict[str, Any]], next: Any = None) -> None:
    page = {"data": data, "links": {"next": next}, "meta": {"data_returned": 3}}
    server.files[path] = json.dumps(page).encode()


def test_optimade_over_several_pages(server: FileServer) -> None:
    serve(server, first_page(), [salt("a", 4.0), salt("b", 5.0)], {"href": server.url("v1/structures?page=2")})
    serve(server, "v1/structures?page=2", [salt("c", 6.0)], server.url("v1/structures?page=3"))
    serve(server, "v1/structures?page=3", [])
    source = f"optimade:{server.address}?{FILTER}"
    data = dataset(source)
    assert data.ids.tolist() == ["a", "b", "c"]
    assert data[1].atomic_numbers.tolist() == [11, 17]
    np.testing.assert_allclose(data[2].positions, [[0, 0, 0], [3, 3, 3]])
    assert FILTER in data.provenance.source
    server.files.clear()
    assert dataset(source).ids.tolist() == ["a", "b", "c"]  # kept
    assert "3 crystals" in get(source)
    assert len(server.requests) == 3


def test_optimade_labels(server: FileServer) -> None:
    serve(server, first_page(",_x_gap"), [salt("a", 4.0), salt("b", 5.0, _x_gap=None)])
    data = dataset(f"optimade:{server.address}/v1/?{FILTER}", targets=[Target("_x_gap", "eV")])
    np.testing.assert_array_equal(data.targets["_x_gap"], [4.0, np.nan])
    assert data.units == {"_x_gap": "eV"}


@pytest.mark.parametrize(
    "changes",
    [
        {"species": [{"name": "Na1", "chemical_symbols": ["Na", "K"], "concentration": [0.5, 0.5]}]},
        {"species": [{"name": "Na1", "chemical_symbols": ["Na"], "concentration": [0.5]}]},
        {"species": [{"name": "Na1", "chemical_symbols": ["vacancy"]}]},
        {"lattice_vectors": None},
        {"cartesian_site_positions": None},
        {"lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [None, None, None]]},
    ],
)
def test_optimade_structures_that_cannot_be_used(server: FileServer, changes: dict[str, Any]) -> None:
    serve(server, first_page(), [salt("a", 4.0, **changes), salt("b", 5.0)])
    with pytest.warns(UserWarning, match=r"1 of 2 crystals cannot be used and are left out:\n.*'?a'?"):
        data = dataset(f"optimade:{server.address}?{FILTER}")
    assert data.ids.tolist() == ["b"]


def test_optimade_answers_that_are_none(server: FileServer) -> None:
    source = f"optimade:{server.address}?{FILTER}"
    with refused(DataError, "the server answers 404", "the filter"):
        dataset(source)
    server.files[first_page()] = b"<html>"
    with refused(DataError, "JSON"):
        dataset(source)
    server.files[first_page()] = b'{"data": 1}'
    with refused(DataError, "OPTIMADE"):
        dataset(source)
    serve(server, first_page(), [])
    with refused(DataError, "nothing found", path=source):
        dataset(source)
    with refused(DataError, "no connection"):
        dataset("optimade:http://127.0.0.1:1")
    with refused(DataError, "https://"):
        dataset("optimade:file:///etc?x")
    server.status = [503]
    serve(server, first_page(), [salt("a", 4.0)])
    assert len(dataset(source)) == 1


def install(monkeypatch: pytest.MonkeyPatch, **found: Any) -> MagicMock:
    """Stands for `mp_api.client.MPRester`, made with a key; `found` says what its search gives or raises."""
    rester = MagicMock()
    rester.return_value.__enter__.return_value.materials.summary.search.configure_mock(**found)
    monkeypatch.setitem(sys.modules, "mp_api", ModuleType("mp_api"))
    monkeypatch.setitem(sys.modules, "mp_api.client", Mock(MPRester=rester))
    monkeypatch.setenv("MP_API_KEY", "sesame")
    return rester


def document(id: str, gap: float | None) -> SimpleNamespace:
    structure = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return SimpleNamespace(material_id=id, structure=structure, formation_energy_per_atom=-2.0, band_gap=gap)


def test_materials_project(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [document("mp-1", 5.0), vars(document("mp-2", None))]
    rester = install(monkeypatch, return_value=found)
    data = dataset("mp-api:elements=Na&num_elements=2&band_gap=1,8.5")
    assert data.ids.tolist() == ["mp-1", "mp-2"]
    np.testing.assert_array_equal(data.targets["band_gap"], [5.0, np.nan])
    assert data.units == {"formation_energy_per_atom": "eV/atom", "band_gap": "eV"}
    rester.assert_called_once_with("sesame")
    search = rester.return_value.__enter__.return_value.materials.summary.search
    asked = search.call_args.kwargs
    assert asked["elements"] == ["Na"] and asked["num_elements"] == 2 and asked["band_gap"] == (1, 8.5)
    assert asked["fields"] == ["material_id", "structure", "formation_energy_per_atom", "band_gap"]
    assert dataset("mp-api:elements=Na&num_elements=2&band_gap=1,8.5").ids.tolist() == ["mp-1", "mp-2"]
    search.assert_called_once()


def test_the_key_stays_secret(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install(monkeypatch, side_effect=RuntimeError("REST query with X-API-KEY sesame failed"))
    with refused(DataError, "RuntimeError: REST query with X-API-KEY $MP_API_KEY failed") as caught:
        dataset("mp-api:elements=Na")
    assert caught.value.__suppress_context__
    install(monkeypatch, return_value=[document("mp-1", 1.0)])
    dataset("mp-api:elements=Na")
    assert not any(b"sesame" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert "sesame" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("optimade:http://me:sesame@127.0.0.1:1/v1?nelements=2", ["127.0.0.1", "password"]),
        ("mp-api:elements=Na&api_key=sesame", ["api_key", "$MP_API_KEY"]),
    ],
)
def test_a_secret_in_the_name_of_a_source_is_refused_and_not_repeated(
    source: str,
    words: list[str],
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    install(monkeypatch, return_value=[document("mp-1", 1.0)])
    with refused(DataError, *words):
        dataset(source)
    arguments = ["train", "--data.source", source, "--model.targets", "band_gap:eV", "--output", str(tmp_path / "run")]
    assert cli.main(arguments) == 2
    assert not any(tmp_path.rglob("*.json"))  # no config that would keep it
    assert "sesame" not in "".join(capsys.readouterr())


def test_no_key(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with refused(DataError, "https://materialsproject.org/api", field="MP_API_KEY"):
        dataset("mp-api:elements=Na")


def test_no_client(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", "sesame")
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with refused(DataError, "pip install 'crystalframer[data]'"):
        dataset("mp-api:elements=Na")


def test_criteria() -> None:
    assert criteria("elements=Li,O&is_stable=true&num_sites=1,8&chemsys=Li-O,Na-O&formula=LiO") == {
        "elements": ["Li", "O"],
        "is_stable": True,
        "num_sites": (1, 8),
        "chemsys": ["Li-O", "Na-O"],
        "formula": "LiO",
    }
    with refused(DataError, "name=value", path="mp-api:Li"):
        criteria("Li")
