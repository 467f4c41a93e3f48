from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import FileServer
from published_formats import jarvis_atoms, jarvis_list, matbench, use, zipped
from refusals import refused

from crystalframer.cli import main
from crystalframer.config import DataConfig
from crystalframer.datasets import download
from crystalframer.datasets.published import Source
from crystalframer.datasets.sources import JARVIS, MEGNET, OQMD, SOURCES, dataset
from crystalframer.datasets.splits import alignn_parts, fingerprint, matbench_class_folds, matbench_folds
from crystalframer.errors import DataError
from crystalframer.testing import random_crystal

N = 40


def small(source: Source, server: FileServer, sizes: tuple[int, int, int], **n_labelled: int) -> Source:
    """A source whose first file lies on the server, with other numbers of crystals."""
    file = replace(source.files[0], url=server.url(source.files[0].name))
    splits = []
    for split in source.splits:
        n = n_labelled.get(split.name, N)
        of = sizes if n == N else (n - 4, 2, 2)
        splits.append(
            replace(split, n_labelled=n, sizes=of, test_fingerprint="", parts=lambda x, of=of: alignn_parts(len(x), of))
        )
    return replace(source, files=(file, *source.files[1:]), n_crystals=N, splits=tuple(splits))


def jarvis_document() -> list[dict[str, Any]]:
    energies = [row / 7 - 3 for row in range(N)]
    labels = {
        "formation_energy_peratom": energies,
        "optb88vdw_total_energy": [energy - 5 for energy in energies],
        "optb88vdw_bandgap": [0.0] * N,
        "mbj_bandgap": [float(row) if row % 2 else "na" for row in range(N)],
        "ehull": [None if row < 3 else 0.01 * row for row in range(N)],
    }
    ids = [f"JVASP-{row}" for row in range(N)]
    ids[9] = ids[4]  # as some are given twice there
    return jarvis_list(N, "jid", ids, labels)


@pytest.fixture
def jarvis(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Source:
    server.files[JARVIS.files[0].name] = zipped("folder/jdft_3d-8-18-2021.json", jarvis_document())
    source = small(JARVIS, server, (31, 4, 4), mbj_bandgap=20, ehull=37)
    use(monkeypatch, source)
    return source


def test_jarvis(jarvis: Source) -> None:
    data = dataset("jarvis")
    assert len(data) == 39  # 31 + 4 + 4: one of 40 is in no part
    assert {name: int(np.isfinite(labels).sum()) for name, labels in data.targets.items()}["mbj_bandgap"] in (19, 20)
    assert data.units["optb88vdw_total_energy"] == "eV/atom" and data.units["mbj_bandgap"] == "eV"
    assert "JARVIS" in data.provenance.source and "npj" in data.provenance.citation
    parts = data.split(DataConfig(), seed=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (31, 4, 4)
    for crystal in data:
        row = int(crystal.id.split("-")[1]) if crystal.id != "JVASP-4-2" else 9
        expected = random_crystal(row, 1 + row % 5)
        assert crystal.targets["formation_energy_peratom"] == pytest.approx(row / 7 - 3)
        assert crystal.atomic_numbers.tolist() == expected.atomic_numbers.tolist()
        difference = crystal.frac_coords - expected.frac_coords
        np.testing.assert_allclose(difference - np.round(difference), 0, atol=1e-9)


def test_jarvis_targets_decide_the_split(jarvis: Source) -> None:
    gap = dataset("jarvis", targets=["mbj_bandgap"])
    assert gap.parts is not None and len(gap) == 20
    assert (gap.parts == "train").sum() == 16
    assert all(int(id.split("-")[1]) % 2 for id in gap.ids if id != "JVASP-4-2")
    assert np.isfinite(gap.targets["mbj_bandgap"]).all()
    hull = dataset("jarvis", targets=["ehull"])
    assert len(hull) == 37 and np.isfinite(hull.targets["ehull"]).all()
    both = dataset("jarvis", targets=["ehull", "formation_energy_peratom"])
    assert len(both) == 39


def test_a_named_set_is_used_offline_after_the_first_time(jarvis: Source, server: FileServer) -> None:
    first = dataset("jarvis")
    server.status = [500] * 100
    assert dataset("jarvis").ids.tolist() == first.ids.tolist()
    assert len(server.requests) == 1


def test_without_network_the_message_says_what_to_do(jarvis: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, replace(jarvis, files=(replace(JARVIS.files[0], url="http://127.0.0.1:1/x"),)))
    with refused(DataError, "no connection", "download https://doi.org/10.6084/m9.figshare.6815699", "jarvis"):
        dataset("jarvis")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"n_crystals": 41}, "crystals", [40, 41]),
        ({"mbj_bandgap": 21}, "labels of mbj_bandgap", [20, 21]),
        ({"fingerprint": "00"}, "formation_energy_peratom", ["published 00"]),
    ],
)
def test_other_numbers_than_published(
    jarvis: Source, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], field: str, words: list[Any]
) -> None:
    splits = list(jarvis.splits)
    if "fingerprint" in change:
        splits[0] = replace(splits[0], test_fingerprint=change["fingerprint"])
    if "mbj_bandgap" in change:
        splits[1] = replace(splits[1], n_labelled=change["mbj_bandgap"])
    use(monkeypatch, replace(jarvis, splits=tuple(splits), n_crystals=change.get("n_crystals", N)))
    with refused(DataError, *words, path=download.cache_folder() / "jarvis", field=field):
        dataset("jarvis")
    assert [path.name for path in (download.cache_folder() / "jarvis").glob("*.parquet")] == []


def test_the_published_test_part_is_recognised(jarvis: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [entry["jid"] for entry in jarvis_document()]
    test = [ids[row] for row in np.flatnonzero(alignn_parts(N, (31, 4, 4)) == "test")]
    splits = (replace(jarvis.splits[0], test_fingerprint=fingerprint(test[::-1])), *jarvis.splits[1:])
    use(monkeypatch, replace(jarvis, splits=splits))
    assert dataset("jarvis").parts is not None


def test_crystals_that_cannot_be_used_are_named(
    jarvis: Source, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = jarvis_document()
    document[7]["atoms"]["elements"][0] = "Xx"
    server.files[JARVIS.files[0].name] = zipped("jdft_3d-8-18-2021.json", document)
    with pytest.warns(UserWarning, match=r"jarvis: 1 of 40 crystals cannot be used.*\n.*JVASP-7': site 0: 'Xx'"):
        data = dataset("jarvis")
    assert "JVASP-7" not in data.ids and "without 1 unreadable crystals" in data.provenance.source
    # The others stay in the parts that they have with it.
    whole = alignn_parts(N, (31, 4, 4))
    assert data.parts is not None
    assert [data.parts[data.ids.tolist().index(f"JVASP-{row}")] for row in (8, 20)] == [whole[8], whole[20]]


@pytest.mark.parametrize(
    ("content", "row", "words"),
    [
        (b"<html>please wait</html>", None, ["not a zip file"]),
        (zipped("other.json", []), None, ["jdft_3d-8-18-2021.json", "found 0; it holds: other"]),
        (zipped("jdft_3d-8-18-2021.json", {"a": 1}), None, ["expected [ in the JSON text"]),
        (zipped("jdft_3d-8-18-2021.json", [{"jid": "JVASP-1"}]), 1, ["'jid'", "'atoms'"]),
    ],
)
def test_files_that_are_not_the_data(
    jarvis: Source, server: FileServer, content: bytes, row: int | None, words: list[str]
) -> None:
    server.files[JARVIS.files[0].name] = content
    with refused(DataError, *words, path=JARVIS.files[0].name, row=row):
        dataset("jarvis")


def test_getting_data_from_the_shell(jarvis: Source, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in SOURCES)
    assert main(["data", "get", "jarvis"]) == 0
    out = capsys.readouterr().out
    assert "40 crystals" in out and "split mbj_bandgap, of mbj_bandgap: 16 / 2 / 2" in out and "licence: NIST" in out
    assert main(["data", "get", "jarvs"]) == 2
    assert "did you mean 'jarvis'?" in capsys.readouterr().err


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_descriptions_fit_together(source: Source) -> None:
    names = [target.name for target in source.targets]
    assert source.provenance.source and source.provenance.licence and source.provenance.citation
    for split in source.splits:
        assert {split.label, *split.targets} <= set(names)
        assert sum(split.sizes) <= split.n_labelled <= source.n_crystals
    assert set(names) == {name for split in source.splits for name in (split.label, *split.targets)}


def test_megnet(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"e_form": [-0.1 * row for row in range(N)], "gap pbe": [0.5] * N, "bulk modulus": ["na"] * N}
    document = jarvis_list(N, "id", [f"mp-{row}" for row in range(N)], labels)
    server.files[MEGNET.files[0].name] = zipped("megnet.json", document)
    use(monkeypatch, small(MEGNET, server, (30, 6, 4)))
    data = dataset("megnet", targets=["formation_energy_per_atom"])
    parts = data.split(DataConfig(), seed=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (30, 6, 4)
    assert data.ids[3] == "mp-3" and data.targets["formation_energy_per_atom"][3] == pytest.approx(-0.3)
    assert "CC BY 4.0" in data.provenance.licence


COLUMNS = {
    "jarvis": ("jid", {target.name: target.name for target in JARVIS.targets} | {"hse_gap": ""}),
    "megnet": ("id", {"e_form": "formation_energy_per_atom", "gap pbe": "band_gap", "mu_b": "", "bulk modulus": ""}),
    "oqmd": ("_oqmd_entry_id", {"_oqmd_delta_e": "formation_energy_per_atom", "_oqmd_band_gap": "band_gap",
                                "_oqmd_stability": "stability", "_oqmd_volume": ""}),
}  # fmt: skip
"""Key of the id, and columns of a publication, with our name of the label if it is one."""


@pytest.mark.parametrize("name", COLUMNS)
def test_each_label_is_read_from_its_own_column(name: str, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column of the file has other numbers."""
    source, (id_key, columns) = SOURCES[name], COLUMNS[name]
    labels = {column: [number + 0.01 * row for row in range(N)] for number, column in enumerate(columns)}
    document = jarvis_list(N, id_key, [f"x-{row}" for row in range(N)], labels)
    server.files[source.files[0].name] = zipped(Path(source.files[0].name).stem, document)
    use(monkeypatch, small(source, server, (30, 6, 4)))
    data = dataset(name)
    assert set(data.targets) == set(filter(None, columns.values()))
    for column, target in columns.items():
        if target:
            assert sorted(data.targets[target].tolist()) == pytest.approx(labels[column])


def test_oqmd(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"_oqmd_delta_e": [0.1] * N, "_oqmd_band_gap": [0.0] * N, "_oqmd_stability": [None, *[0.2] * (N - 1)]}
    server.files[OQMD.files[0].name] = zipped("all_oqmd.json", jarvis_list(N, "_oqmd_entry_id", range(N), labels))
    use(monkeypatch, small(OQMD, server, (32, 4, 4)))
    data = dataset("oqmd")
    assert data.ids.tolist() == [str(row) for row in range(N)]
    assert {name: int(np.isfinite(values).sum()) for name, values in data.targets.items()} == {
        "formation_energy_per_atom": N,
        "band_gap": N,
        "stability": N - 1,
    }


def moduli(source: Source, sizes: tuple[int, int, int]) -> Source:
    split = replace(source.splits[0], n_labelled=sum(sizes), sizes=sizes)
    return replace(source, n_crystals=sum(sizes), splits=(split,))


def put_moduli(kind: str, values: list[list[Any]]) -> None:
    folder = download.cache_folder() / f"megnet-{kind}"
    folder.mkdir(parents=True)
    start = 0
    for part, column in zip(("train", "val", "test"), values, strict=True):
        rows = range(start, start + len(column))
        start += len(column)
        entries = [
            {"jid": f"mp-{row}", "atoms": jarvis_atoms(random_crystal(row, 2)), f"{kind} modulus": value}
            for row, value in zip(rows, column, strict=True)
        ]
        (folder / f"{kind}_megnet_{part}.pkl").write_bytes(pickle.dumps(entries))


def test_moduli_are_downloaded_by_hand(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, moduli(SOURCES["megnet-bulk"], (4, 2, 1)))
    with refused(DataError, "165430 with a browser", path="bulk_megnet_train.pkl"):
        dataset("megnet-bulk")
    put_moduli("bulk", [[1.5, 2.0, 2.1, 0.3], [1.0, 1.1], [2.5]])
    data = dataset("megnet-bulk")
    assert data.parts is not None and data.parts.tolist() == ["train"] * 4 + ["validation"] * 2 + ["test"]
    assert data.targets["log10_bulk_modulus"].tolist() == [1.5, 2.0, 2.1, 0.3, 1.0, 1.1, 2.5]
    assert data.units == {"log10_bulk_modulus": "log10(GPa)"}


def test_moduli_in_gpa_become_logarithms(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, moduli(SOURCES["megnet-shear"], (3, 2, 1)))
    put_moduli("shear", [[10.0, 100.0, 1.0], [0.0, 1000.0], [0.1]])
    data = dataset("megnet-shear")
    assert len(data) == 5  # the one that is not above 0 has no label, as in the publications that have one less
    np.testing.assert_allclose(data.targets["log10_shear_modulus"], [1, 2, 0, 3, -1], atol=1e-12)


def test_a_modulus_that_is_no_number_names_its_row(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, moduli(SOURCES["megnet-bulk"], (2, 2, 1)))
    put_moduli("bulk", [[1.5, 2.0], [1.0, "large"], [2.5]])
    with refused(DataError, "large", path="bulk_megnet_val.pkl", row=2):
        dataset("megnet-bulk")


def test_pickles_run_nothing(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    use(monkeypatch, moduli(SOURCES["megnet-bulk"], (1, 1, 1)))
    put_moduli("bulk", [[1.0], [1.0], [1.0]])
    (download.cache_folder() / "megnet-bulk" / "bulk_megnet_val.pkl").write_bytes(pickle.dumps([Evil()]))
    with refused(DataError, "could run any code", path="bulk_megnet_val.pkl"):
        dataset("megnet-bulk")
    assert not (tmp_path / "ran").exists()


def test_matbench_regression(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    matbench("matbench-phonons", "last phdos peak", [100.0 + row for row in range(23)], server, monkeypatch)
    whole = dataset("matbench-phonons")
    assert len(whole) == 23 and whole.parts is None
    assert whole.ids[:2].tolist() == ["mb-phonons-0001", "mb-phonons-0002"]
    assert whole.targets["last_phdos_peak"][22] == 122.0 and whole.units["last_phdos_peak"] == "1/cm"
    assert whole[4].atomic_numbers.tolist() == sorted(random_crystal(4, 5).atomic_numbers.tolist())
    tested = []
    for fold in range(5):
        data = dataset(f"matbench-phonons:fold-{fold}")
        assert data.parts is not None
        np.testing.assert_array_equal(data.parts == "test", matbench_folds(23) == fold)
        tested += data.ids[data.parts == "test"].tolist()
    assert sorted(tested) == whole.ids.tolist()
    with refused(DataError, "did you mean 'fold-", field="fold-5"):
        dataset("matbench-phonons:fold-5")


def test_matbench_classification(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [row % 3 == 0 for row in range(30)]
    matbench("matbench-mp-is-metal", "is_metal", values, server, monkeypatch)
    data = dataset("matbench-mp-is-metal:fold-2")
    assert data.targets["is_metal"].tolist() == [float(value) for value in values]
    assert data.parts is not None
    np.testing.assert_array_equal(data.parts == "test", matbench_class_folds(np.array(values, dtype=float)) == 2)
    assert data.targets["is_metal"][data.parts == "test"].sum() == 2


def test_matbench_files_are_checked(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = matbench("matbench-phonons", "another column", [1.0] * 10, server, monkeypatch)
    with refused(DataError, "another column", path=source.files[0].name, field="last phdos peak"):
        dataset("matbench-phonons")
    use(monkeypatch, replace(source, files=(replace(source.files[0], sha256=SOURCES[source.name].files[0].sha256),)))
    with refused(DataError, "published checksum is 4db551f", path=source.files[0].name, field="sha256"):
        dataset("matbench-phonons")
