"""Code of the pages that people read: its blocks, made small enough for a test, and the files that they speak of."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

import crystalframer as cf
from crystalframer.testing import prototypes, supercell

ROOT = Path(__file__).parents[2]
FOLDERS = ("*.md", "benchmarks/*.md", "docs/*.md", "docs/*/*.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for pattern in FOLDERS for path in ROOT.glob(pattern))
SMALLER_PYTHON = (
    (r'preset\("[\w-]+"\)', 'preset("tiny")'),
    (r"n_epochs=\d+", "n_epochs=1"),
    (r"n_trials=\d+", "n_trials=1"),
    (r"n_workers=\d+", "n_workers=1"),
)
SMALLER_COMMANDS = (
    (r"--preset (?!\S+ --training\.initial-weights package)\S+", "--preset tiny"),
    (r"--training\.n-epochs \d+", "--training.n-epochs 1"),
    (r"--data\.source (jarvis|oqmd\.parquet)", "--data.source demo"),
    (r"--seeds [\d ]+", "--seeds 0 "),
    (r"--n-trials \d+", "--n-trials 1"),
    (r"--(n-workers|devices) \d+", ""),
    (r"--(training\.accelerator|ray) \S+", ""),
    (r"--frame-methods max weighted-pca none", "--frame-methods max none"),
    (r"/shared/", ""),
    (r"\$SLURM_ARRAY_TASK_ID", "1"),
    (r"\$RESUME", ""),
    (r"^srun ", ""),
    (r"^(crystalframer check.*)", r"\1 NaCl.cif --n-draws 1"),
)
TRAINS = ("train", "ablate", "sweep")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def python_of(page: str) -> str:
    """All Python of a page as one program, small."""
    code = "\n".join(blocks(page, "python"))
    for pattern, replacement in SMALLER_PYTHON:
        code = re.sub(pattern, replacement, code)
    return code


def shell_lines(page: str) -> list[str]:
    """Every line of the shell, with its continuations."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def commands_of(page: str) -> list[str]:
    """Every `crystalframer` command of a page, small, without the name of the program."""
    found = []
    for line in shell_lines(page):
        for pattern, replacement in SMALLER_COMMANDS:
            line = re.sub(pattern, replacement, line)
        if line.startswith("crystalframer "):
            line = line.removeprefix("crystalframer ")
            verb = line.split()[0]
            found.append(f"{line.partition('#')[0]} --preset tiny" if _lacks_preset(verb, line) else line)
    return found


def words_of(command: str) -> list[str]:
    """The words that a shell would hand over: quotes removed, patterns expanded."""
    words = []
    for word in shlex.split(command, comments=True):
        is_pattern = "*" in word and f'"{word}"' not in command
        words += sorted(map(str, Path().glob(word))) if is_pattern else [word]
    return words


def make_workshop(folder: Path) -> None:
    """Make the files that the pages speak of: `my_cifs/`, `my_data.parquet`, `runs/mine`, `candidates.parquet`, ..."""
    gap = cf.Target("band_gap", "eV")
    demo = cf.dataset("demo")
    small = demo.select(np.flatnonzero(demo.n_atoms <= 6)[:60])
    cifs = folder / "my_cifs"
    cifs.mkdir()
    for crystal in small:
        crystal.write(cifs / f"{crystal.id}.cif")
    small.to_frame()[["id", "band_gap"]].to_csv(cifs / "labels.csv", index=False)
    data = cf.dataset(cifs, targets=[gap])
    data.save(folder / "my_data.parquet")
    for name in ("candidates.parquet", "oqmd.parquet", "part-1.parquet"):
        data.select(range(8)).save(folder / name)
    others = demo.select(np.flatnonzero((demo.n_atoms >= 7) & (demo.n_atoms <= 8))[:10])
    others.with_targets([gap]).save(folder / "other_crystals.parquet")
    phase = cf.Target("phase", kind="class", classes=("cubic", "tetragonal", "other"))
    phases = [crystal.with_targets({"phase": float(row % 3)}) for row, crystal in enumerate(small)]
    cf.CrystalDataset.from_crystals(phases, [phase]).save(folder / "phases.parquet")
    config = cf.preset("tiny").config
    model, split = replace(config.model, targets=(gap,)), replace(config.data, split="random", validation_fraction=0.5)
    cf.fit(replace(config, model=model, data=split), data, output=folder / "runs/mine")
    (rock_salt,) = (crystal for crystal in prototypes() if crystal.formula == "NaCl")
    rock_salt.write(folder / "NaCl.cif")
    supercell(rock_salt, (2, 2, 2)).write(folder / "defect.cif")
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    (folder / "structures").symlink_to(ROOT / "notebooks/structures")


def copy_workshop(workshop: Path, folder: Path) -> None:
    """A workshop of one page."""
    shutil.copytree(workshop, folder, symlinks=True, dirs_exist_ok=True)


def _lacks_preset(verb: str, command: str) -> bool:
    return verb in TRAINS and "--preset" not in command and "--resume" not in command
