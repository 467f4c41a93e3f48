"""All pages are true: their code runs, their commands work, their links lead to files, their promises have tests."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from pages import PAGES, ROOT, commands_of, copy_workshop, make_workshop, python_of, shell_lines, words_of

import crystalframer as cf
import viz
from crystalframer import cli

LIMITS = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
PROMISES = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", LIMITS)))
WITH_PYTHON = [page for page in PAGES if python_of(page) and page not in ("README.md", "CONTRIBUTING.md")]
WITH_COMMANDS = [page for page in PAGES if commands_of(page)]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    make_workshop(folder)
    return folder


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_workshop(workshop, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(page: str, here: Path) -> None:
    exec(compile(python_of(page), page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_work(page: str, here: Path) -> None:
    commands = commands_of(page)
    if any("--output runs/mine" in command for command in commands):
        shutil.rmtree("runs/mine")
    for command in commands:
        code = cli.main(words_of(command))
        assert code == 0, f"{page}: {command}: exit code {code}"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in shell_lines(page):
        for target in re.findall(r"^make (\w+)", line):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert importlib.util.find_spec(module), module
    for script in re.findall(r"\b(scripts/\w+\.py)", text):
        assert (ROOT / script).exists(), script
    if not page.startswith("docs/"):  # Sphinx checks those
        for link in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_there_are_promises() -> None:
    assert len(PROMISES) > 20


@pytest.mark.parametrize("name", PROMISES)
def test_every_promise_has_its_test(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert (function in functions) if function else any(name.startswith("test_") for name in functions)


def test_results_have_the_papers_numbers() -> None:
    results = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    for name, preset in cf.PRESETS.items():
        if preset.published_mae:
            assert f"`{name}`" in results
        for error in preset.published_mae.values():
            assert re.search(rf"\| {error:g}\d* \|", results), (name, error)


@pytest.mark.parametrize(("package", "names"), [("crystalframer", cf.__all__), ("viz", viz.__all__)])
def test_every_public_name_has_an_entry_in_the_reference(package: str, names: list[str]) -> None:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "docs/reference").glob("*.md"))
    entries = set(re.findall(rf"^ +{package}\.(\w+)$|^\.\. py:data:: {package}\.(\w+)$", text, flags=re.MULTILINE))
    named = {first or second for first, second in entries} | ERRORS | {"__version__"}
    assert set(names) - named == set()


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8") + (ROOT / "docs/architecture.svg").read_text("utf-8")
    for path in set(re.findall(r"\b([a-z_]+/[a-z_]+\.py)\b", text)):
        assert (ROOT / path).exists() or (ROOT / "crystalframer" / path).exists(), path
    code = "\n".join(
        path.read_text("utf-8") for folder in ("crystalframer", "viz") for path in (ROOT / folder).rglob("*.py")
    )
    for name in set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", text)):
        assert f"class {name}" in code, name


@pytest.mark.parametrize(
    ("page", "asks"),
    [
        ('<script src="https://example.org/a.js"></script>', True),
        ('<link rel="stylesheet" href="//example.org/a.css">', True),
        ('<iframe class="widget" src="http://example.org"></iframe>', True),
        ("<style>@import url(https://example.org/a.css)</style>", True),
        ('<a href="https://example.org">elsewhere</a> <script src="_static/a.js"></script>', False),
    ],
)
def test_the_build_refuses_a_page_that_asks_the_network(
    page: str, asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs/_ext")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert bool(importlib.import_module("offline").requests(tmp_path)) == asks


def test_a_wide_figure_of_a_notebook_is_not_cut() -> None:
    """It is as narrow as the page, and never wider than it was made."""
    spec = importlib.util.spec_from_file_location("ext_notebook_outputs", ROOT / "docs/_ext/notebook_outputs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figure = {"data": [], "layout": {"width": 1100, "height": 320, "title": {"text": "Wide"}}}
    found = module._plotly(figure)
    assert 'style="height: 320px; max-width: 1100px"' in found
    assert '"width"' not in found and '"title": {"text": "Wide"}' in found
    assert figure["layout"]["width"] == 1100


def test_no_renderer_of_plotly_is_chosen() -> None:
    """Plotly chooses one that the application draws; one for JupyterLab leaves figures out in Colab."""
    sources = [
        *(ROOT / "notebooks").glob("*.ipynb"),
        *(ROOT / "viz").glob("*.py"),
        *(ROOT / "crystalframer").rglob("*.py"),
    ]
    assert len(sources) > 100
    assert [path.name for path in sources if "renderers.default" in path.read_text(encoding="utf-8")] == []


ERRORS = {name for name, value in vars(cf.errors).items() if isinstance(value, type)}
"""Listed by `automodule`."""
