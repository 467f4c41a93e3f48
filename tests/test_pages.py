"""Pages that commands write and open."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from refusals import refused
from synthetic_explanations import synthetic_explanation

import crystalframer as cf
from crystalframer import pages
from crystalframer.cli import main
from crystalframer.errors import ConfigError
from crystalframer.screening import screening_report

STRUCTURES = Path(__file__).parents[1] / "notebooks" / "structures"
SRTIO3 = STRUCTURES / "SrTiO3.cif"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command line, which must end with this exit code. Gives what it said: `out` and `err`."""

    def run(code: int, *words: str | Path) -> Any:
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        return capsys.readouterr()

    return run


def content(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!") and text.rstrip().endswith("</html>")
    return text


def test_one_structure_becomes_its_picture_with_attention(tmp_path: Path, run: Callable[..., Any]) -> None:
    said = run(0, "explore", SRTIO3, "-o", tmp_path / "page.html").out
    assert said == f"page in {tmp_path / 'page.html'}\n"
    run(0, "trace", SRTIO3, "--output", tmp_path / "trace.html")
    for name in ("page", "trace"):
        assert "SrTiO3" in content(tmp_path / f"{name}.html")


def test_one_structure_is_explained_unless_it_is_large(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(pages, "trace_page", lambda trace, explanation: given.append(explanation) or "<!doctype html>")
    run(0, "explore", SRTIO3, "-o", tmp_path / "page.html")
    monkeypatch.setattr(pages, "MOST_EXPLAINED", 4)
    run(0, "explore", SRTIO3, "-o", tmp_path / "page.html")
    assert given[0].target == "formation_energy_per_atom" and given[0].id == "SrTiO3" and given[1] is None


def test_records_are_shown_without_a_model(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(0, "trace", SRTIO3, "-o", tmp_path / "trace.safetensors")
    synthetic_explanation().save(tmp_path / "explanation.safetensors")
    monkeypatch.setattr("crystalframer.prediction.load", lambda *_: pytest.fail("a model was loaded"))
    run(0, "explore", tmp_path / "trace.safetensors", "-o", tmp_path / "trace.html")
    assert "SrTiO3" in content(tmp_path / "trace.html")
    run(0, "explore", tmp_path / "explanation.safetensors", "-o", tmp_path / "explanation.html")
    assert synthetic_explanation().target.replace("_", " ") in content(tmp_path / "explanation.html")
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    assert "not a readable trace" in run(2, "explore", tmp_path / "other.safetensors").err


def test_a_folder_becomes_a_map_and_failures_are_points_of_it(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(STRUCTURES, tmp_path / "structures")
    (folder / "broken.cif").write_text("")
    tables = _watched(monkeypatch)
    run(0, "explore", folder, "-o", tmp_path / "page.html")
    ((table, structures),) = tables
    assert sorted(table["id"]) == ["SrTiO3", "TiO2", "broken"] and sorted(structures) == ["SrTiO3", "TiO2"]
    assert "2 crystals" in content(tmp_path / "page.html") or "3 crystals" in content(tmp_path / "page.html")


def test_a_data_set_with_labels_is_evaluated(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cf.dataset("demo").select(range(3))
    data.save(tmp_path / "data.parquet")
    tables = _watched(monkeypatch)
    run(0, "explore", tmp_path / "data.parquet", "-o", tmp_path / "explored.html")
    said = run(0, "evaluate", tmp_path / "data.parquet", "-o", tmp_path / "evaluated.html").out
    assert "MAE" in said and "page in" in said
    assert content(tmp_path / "explored.html") == content(tmp_path / "evaluated.html")
    below = content(tmp_path / "evaluated.html").partition('<div class="figures">')[2]
    assert "<svg" in below and "predicted band gap" in below and "RMSE" in below
    for evaluation, structures in tables:
        assert set(evaluation.scores) == {"formation_energy_per_atom", "band_gap"}
        assert list(structures) == data.ids.tolist()


def test_a_screening_is_shown_with_the_structures_that_are_still_there(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = shutil.copytree(STRUCTURES, tmp_path / "structures")
    said = run(0, "screen", inputs, "-o", tmp_path / "screened", "--report").out
    assert f"report in {tmp_path / 'screened' / '_report.html'}" in said
    tables = _watched(monkeypatch)
    run(0, "explore", tmp_path / "screened", "-o", tmp_path / "page.html")
    (inputs / "TiO2.cif").write_text((inputs / "SrTiO3.cif").read_text())
    said = run(0, "explore", tmp_path / "screened", "-o", tmp_path / "changed.html").err
    assert "have changed since" in said
    shutil.rmtree(inputs)
    assert "are not here" in run(0, "explore", tmp_path / "screened", "-o", tmp_path / "without.html").err
    assert sorted(tables[0][1]) == ["SrTiO3", "TiO2"] and tables[1][1] is None and tables[2][1] is None


def test_structures_of_one_name_are_told_apart(
    tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        shutil.copytree(STRUCTURES, tmp_path / name)
    run(0, "screen", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "screened", "--report")
    assert len(pandas.read_parquet(tmp_path / "screened")) == 4  # the report beside the tables is none of them
    tables = _watched(monkeypatch)
    run(0, "explore", tmp_path / "screened", "-o", tmp_path / "page.html")
    assert sorted(tables[0][1]) == ["SrTiO3", "SrTiO3-2", "TiO2", "TiO2-2"]
    assert tables[0][0]["id"].tolist() == list(tables[0][1])


def test_what_cannot_be_read_is_an_error_and_no_page(tmp_path: Path, run: Callable[..., Any]) -> None:
    (tmp_path / "broken.cif").write_text("")
    assert "the file is empty" in run(2, "explore", tmp_path / "broken.cif", "-o", tmp_path / "page.html").err
    assert not (tmp_path / "page.html").exists()
    assert "missing" in run(2, "explore", tmp_path / "missing.cif").err
    assert "--output" in run(2, "explore", SRTIO3, "-o", tmp_path / "page.pdf").err
    assert "--output" in run(2, "trace", SRTIO3, "-o", tmp_path / "trace.pdf").err


@pytest.mark.parametrize("has_browser", [True, False])
def test_without_output_the_page_is_opened(
    has_browser: bool, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or has_browser)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = run(0, "explore", SRTIO3).out
    (page,) = tmp_path.glob("crystalframer-*/SrTiO3.cif.html")
    assert opened == [page.as_uri()] and str(page) in said
    assert ("open it in yours" in said) == (not has_browser)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viz", _Without("anywidget"))
    with refused(ConfigError, "anywidget", "crystalframer[viz]"):
        pages.picture("DatasetExplorer")


class _Without:
    """A `viz` whose library is not installed."""

    def __init__(self, library: str) -> None:
        self.library = library

    def __getattr__(self, name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {self.library!r}", name=self.library)


def test_a_report_tells_numbers_extremes_and_failures(tmp_path: Path) -> None:
    crystals = list(cf.dataset("demo").select(range(6)))
    bad = "not a structure <b>"
    cf.screen([*crystals, bad], tmp_path / "screened", shard_size=3, progress=False)
    page = screening_report(tmp_path / "screened", tmp_path / "report.html")
    assert page == content(tmp_path / "report.html")
    table = cf.read_screen(tmp_path / "screened")
    n_targets = len(table.attrs["units"])
    assert "7 structures" in page and '<b>"' not in page and page.count("<svg") == n_targets
    assert page.count(">lowest; rows with a flag") == page.count(">highest; rows with a flag") == n_targets
    lowest = table.sort_values("band_gap")["id"].tolist()[0]
    assert lowest in page
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Tables and structures that are given to the explorer of data sets."""
    import viz

    given: list[tuple[Any, Any]] = []
    explorer = viz.DatasetExplorer

    def watched(table: Any, structures: Any, **options: Any) -> Any:
        given.append((table, structures))
        return explorer(table, structures, **options)

    monkeypatch.setattr("viz.DatasetExplorer", watched)
    return given
