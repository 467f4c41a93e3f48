"""Build the wheel and the source distribution, and prove that they work: `make dist`.

    python scripts/prove_dist.py --output dist --python python3.13

The wheel is installed into a new environment in a temporary folder, with the versions of constraints.txt: first alone,
then with the extra `notebooks`. Each time a structure is predicted and an attention page exported, away from the source
tree; with the extra, the cells of a notebook run too. Exit code 1 and the output of the failed command otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CIF = ROOT / "notebooks" / "structures" / "TiO2.cif"
LARGEST = {".whl": 6.0, ".gz": 12.0}
"""MB that each distribution may take."""
LARGEST_FILE = 1.0
"""MB that a file in the wheel may take, the shipped weights aside."""
WEIGHTS = "crystalframer/pretrained/model.safetensors"

BARE = """
import crystalframer as cf, viz
page = viz.explorer_html(viz.scene_from_trace(cf.trace("TiO2.cif")))
open("bare.html", "w", encoding="utf-8").write(page)
for name in ("AttentionExplorer", "FrameComparison"):  # (pymatgen brings plotly)
    try:
        getattr(viz, name)
    except ImportError as error:
        assert "crystalframer[notebooks]" in str(error), error
    else:
        raise SystemExit(f"viz.{name} works without the libraries of the extra `notebooks`")
"""
CELLS = (
    "import crystalframer as cf, viz",
    "trace = cf.trace('TiO2.cif')\nexplorer = viz.AttentionExplorer(viz.scene_from_trace(trace))\nexplorer",
    "viz.attended_distance_figure(trace)",
    "explorer.to_html('notebook.html');",
)
NOTEBOOK = f"""
import nbclient, nbformat
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in {CELLS!r}])
nbclient.NotebookClient(notebook, kernel_name="python3").execute()
shown = [set(output.data) for cell in notebook.cells for output in cell.outputs if output.output_type != "stream"]
assert any("application/vnd.jupyter.widget-view+json" in kinds for kinds in shown), shown
assert any("application/vnd.plotly.v1+json" in kinds for kinds in shown), shown
"""


class ProofError(Exception):
    """A distribution is not what it must be."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the distributions, replaced")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the new environment")
    options = parser.parse_args()
    try:
        wheel, sdist = build(options.output)
        with tempfile.TemporaryDirectory() as folder:
            check_contents(wheel, sdist, Path(folder))
            check_installed(wheel, options.python, Path(folder))
    except ProofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"The distributions in {options.output} work.")
    return 0


def build(output: Path) -> tuple[Path, Path]:
    """Wheel and source distribution."""
    say("building the wheel and the source distribution")
    shutil.rmtree(output, ignore_errors=True)
    run(sys.executable, "-m", "hatchling", "build", "--directory", output.resolve(), folder=ROOT)
    (wheel,), (sdist,) = output.resolve().glob("*.whl"), output.resolve().glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path, folder: Path) -> None:
    """Sizes; the same wheel comes from the source distribution."""
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: info.file_size / 1e6 for info in archive.infolist()}
    for path in (wheel, sdist):
        megabytes = path.stat().st_size / 1e6
        print(f"    {path.name}: {megabytes:.1f} MB")
        if megabytes > LARGEST[path.suffix]:
            raise ProofError(f"{path.name} takes {megabytes:.1f} MB; at most {LARGEST[path.suffix]} MB are allowed")
    for name in sorted(files, key=lambda name: -files[name])[:3]:
        print(f"        {files[name]:.2f} MB  {name}")
    large = [name for name in files if files[name] > LARGEST_FILE and name != WEIGHTS]
    if large:
        raise ProofError(f"files of more than {LARGEST_FILE} MB in the wheel: {', '.join(large)}")

    say("building a wheel from the source distribution")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=source)
    with zipfile.ZipFile(folder / wheel.name) as archive:
        differing = set(files).symmetric_difference(archive.namelist())
    if differing:
        raise ProofError(f"not in both wheels, from the tree and from {sdist.name}: {', '.join(sorted(differing))}")


def check_installed(wheel: Path, python: str, folder: Path) -> None:
    """A prediction, a page and a notebook from the installed wheel, away from the source tree."""
    run(python, "-m", "venv", folder / "environment", folder=folder)
    bin_folder = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    new_python, command = bin_folder / "python", bin_folder / "crystalframer"
    install = (new_python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    shutil.copy(CIF, folder)

    say(f"installing the wheel alone, with {run(python, '--version', folder=folder).strip()}")
    run(*install, wheel, folder=folder)
    version = run(command, "--version", folder=folder).split()[-1]
    if version != wheel.name.split("-")[1]:
        raise ProofError(f"the installed package says it is version {version}; the wheel is {wheel.name}")
    say("predicting a CIF file, exporting a page")
    check_prediction(run(command, "predict", CIF.name, folder=folder))
    run(new_python, "-c", BARE, folder=folder)
    check_page(folder / "bare.html")

    say("installing the extra `notebooks`, running a notebook")
    run(*install, f"{wheel}[notebooks]", folder=folder)
    run(new_python, "-m", "pip", "check", folder=folder)
    run(new_python, "-c", NOTEBOOK, folder=folder)
    check_page(folder / "notebook.html")


def check_prediction(table: str) -> None:
    if "TiO2" not in table or "eV/atom" not in table:
        raise ProofError(f"`crystalframer predict` shows no prediction of TiO2:\n{table}")


def check_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if len(text) < 100_000 or "</html>" not in text or "TiO2" not in text:
        raise ProofError(f"{path.name} is not a page of TiO2 ({len(text):,} characters)")


def run(*command: object, folder: Path) -> str:
    """What a command prints, without this tree on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise ProofError(f"{' '.join(words)[:300]} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def say(text: str) -> None:
    print(f"--- {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
