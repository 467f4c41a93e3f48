"""The command line, from help to a whole round: pack, train, predict, evaluate, trace."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
import torch
from authors_format import authors_checkpoint
from pymatgen.core import Lattice, Structure

import crystalframer as cf
from crystalframer import _old_words, cli, training
from crystalframer.cli import VERBS, main
from crystalframer.config import Config, to_json
from crystalframer.errors import DataError
from crystalframer.result_tables import save_table
from crystalframer.signatures import signature
from crystalframer.testing import random_crystal

ALKALI = ("Li", "Na", "K", "Rb", "Cs")
HALOGENS = ("F", "Cl", "Br")
TINY_RUN = ["--preset", "tiny", "--model.targets", "gap:eV", "--training.accelerator", "cpu", "--data.split", "random"]
COLUMNS = ["id", "formula", "gap", "outside_training", "nearest_training", "nearest_distance", "error"]
"""Of predictions by a small run, which has too few validation crystals for intervals."""


@pytest.fixture(scope="module")
def salts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of CIF files with a table of labels."""
    folder = tmp_path_factory.mktemp("salts")
    rows = []
    for i, cation in enumerate(ALKALI):
        for j, anion in enumerate(HALOGENS):
            structure = Structure(Lattice.cubic(3.0 + 0.3 * i + 0.3 * j), [cation, anion], [[0, 0, 0], [0.5] * 3])
            structure.to(filename=str(folder / f"{cation}{anion}.cif"))
            rows.append({"id": f"{cation}{anion}", "gap": 10.0 - i - j, "hardness": i})
    pandas.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run_folder(salts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained by the command line."""
    output = tmp_path_factory.mktemp("runs") / "salts"
    assert main(["train", "--data.source", str(salts), *TINY_RUN, "--output", str(output)]) == 0
    return output


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line, which must end with this exit code. Gives what it said: `out` and `err`."""

    def run(code: int, *words: str | Path) -> Any:
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        return capsys.readouterr()

    return run


# Help


def test_the_overview_names_every_command(run: Run) -> None:
    text = run(0, "--help").out
    for name, verb in VERBS.items():
        assert f"  {name} " in text and verb.summary in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(verb: str, run: Run) -> None:
    text = run(0, *verb.split(), "--help").out
    assert text.startswith(f"usage: crystalframer {verb} ")
    assert f"$ crystalframer {verb}" in text[text.index("Examples:") :]
    assert all(f"--{name.replace('_', '-')}" in text for name in VERBS[verb].settings - {"config"} if "." not in name)


@pytest.mark.parametrize("function", sorted({f for verb in VERBS.values() for f in verb.functions}))
def test_signatures_are_read_as_python_sees_them(function: str) -> None:
    module, _, name = function.rpartition(".")
    seen = inspect.signature(getattr(import_module(f"crystalframer.{module}"), name)).parameters
    assert {n: p.default for n, p in signature(function).parameters.items()} == {n: p.default for n, p in seen.items()}


def test_every_option_is_described() -> None:
    """In the docstring of its function, or in `options`."""
    for verb in VERBS.values():
        for name, (kind, _) in verb.options.items():
            assert name == "config" or any(getattr(about, "help", None) for about in get_args(kind)), (verb.name, name)


@pytest.mark.parametrize("verb", ["train", "ablate", "sweep"])
def test_every_setting_is_an_option(verb: str, run: Run) -> None:
    text = run(0, verb, "--help").out

    def check(config: dict, prefix: str) -> None:
        for name, value in config.items():
            option = f"{prefix}.{name.replace('_', '-')}".removeprefix(".")
            if isinstance(value, dict):
                check(value, option)
            else:
                assert f"--{option} " in text or f"--{option}," in text

    check(json.loads(to_json(Config())), "")


def test_the_overview_of_data_names_its_commands_alone(run: Run) -> None:
    said = [line.split() for line in run(0, "data", "--help").out.splitlines() if line.startswith("  ")]
    assert [" ".join(words[:2]) for words in said] == [verb for verb in VERBS if verb.startswith("data ")]


def test_what_readers_say_is_one_line_of_text(salts: Path, tmp_path: Path) -> None:
    """In a process of its own: pytest keeps warnings to itself."""
    ions = Structure.from_file(str(next(salts.glob("*.cif"))))
    ions.add_oxidation_state_by_guess()
    ions.to(str(tmp_path / "ions.cif"))
    words = [sys.executable, "-m", "crystalframer", "predict", str(tmp_path / "ions.cif"), "--device", "cpu"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stderr.splitlines()
    assert [line for line in said if "oxidation" in line or ".py" in line] == [
        "note: oxidation states are left out: the model sees elements and positions only"
    ]


def test_the_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "crystalframer", "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"crystalframer {cf.__version__}\n")


# Options become a config


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., Config]:
    """The config that a command line asks `fit` for."""

    def config_of(*options: str) -> Config:
        fit = Mock(side_effect=DataError("enough"))
        monkeypatch.setitem(vars(cf), "fit", fit)
        monkeypatch.setattr("crystalframer.datasets.sources.dataset_of", Mock())
        run(2, "train", *options)
        return fit.call_args.args[0]

    return config_of


@pytest.mark.parametrize("name", cf.PRESETS)
def test_a_preset_is_taken_as_it_is(name: str, config_of: Callable[..., Config]) -> None:
    assert config_of("--preset", name) == config_of(f"--preset={name}") == cf.preset(name).config


def test_the_default_preset_is_the_demo(config_of: Callable[..., Config]) -> None:
    assert config_of() == cf.preset("demo").config


def test_devices_and_nodes_by_their_short_names(config_of: Callable[..., Config], run: Run) -> None:
    both, one = config_of("--devices", "4", "--nodes=2").training, config_of("--training.n-devices=4").training
    assert (both.n_devices, both.n_nodes) == (4, 2) and (one.n_devices, one.n_nodes) == (4, None)
    assert "--training" not in run(2, "predict", "--devices", "4").err


def test_options_change_the_preset_and_nothing_else(config_of: Callable[..., Config]) -> None:
    options = "--preset lightweight --training.n-epochs 70 --model.frame.method weighted-pca --data.source my.parquet"
    options += " --training.max-atoms 500 --training.no-drop-last --model.targets gap:eV hull:eV/atom count"
    base = cf.preset("lightweight").config
    targets = (cf.Target("gap", "eV"), cf.Target("hull", "eV/atom"), cf.Target("count"))
    frame = replace(base.model.frame, method="weighted-pca")
    assert config_of(*options.split()) == Config(
        replace(base.model, targets=targets, frame=frame),
        replace(base.data, source="my.parquet"),
        replace(base.training, n_epochs=70, max_atoms=500, drop_last=False),
    )


# The order of words of release 0.1


@pytest.mark.parametrize(
    ("verb", "old", "new"),
    [
        ("evaluate", "run data.csv --split all --as-trained", "data.csv --split all --as-trained --model run"),
        ("evaluate", "data.csv --model run", None),
        ("calibrate", "run --data data.csv --coverage 0.8", "data.csv --coverage 0.8 --model run"),
        ("calibrate", "run --data=data.csv", "data.csv --model run"),
        ("check", "run --structures a.cif b.cif --n-draws 2", "a.cif b.cif --n-draws 2 --model run"),
        ("check", "--structures a.cif", "a.cif"),
        ("check", "run --n_draws=2", "--n-draws 2 --model run"),
        ("check", "a.cif", None),
        ("screen", "a.cif b/ out --top 3 --by gap --lowest", "a.cif b/ --top 3 --by gap --lowest --output out"),
        ("screen", "a.cif b/ --output out", None),
        ("screen", "a.cif b/ -o out", None),
        ("screen", "a.cif b/ out --report", "a.cif b/ --report --output out"),
        ("convert", "best.ckpt -o model", None),
        ("data pack", "in out.parquet --targets gap:eV n", "in --targets gap:eV n --output out.parquet"),
        ("data pack-authors", "a b c out.parquet", "a b c --output out.parquet"),
        ("convert", "best.ckpt model", "best.ckpt --output model"),
        ("predict", "a.cif b.cif", None),
    ],
)
def test_old_words_become_new_ones_with_a_note(
    verb: str, old: str, new: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_old_words, "_is_checkpoint", lambda word: word == "run")
    assert _old_words.renewed(verb, old.split()) == (new or old).split()
    assert capsys.readouterr().err.count(f"crystalframer {verb} {new}") == (new is not None)


@pytest.mark.parametrize(("old", "new"), [("a.cif --average-ties", "a.cif"), ("--no-average-ties", "--as-trained")])
def test_an_option_that_ended_is_replaced_with_a_note(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _old_words.renewed("predict", old.split()) == new.split()
    assert "ends with the next release" in capsys.readouterr().err


# Mistakes


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("predct x.cif", "did you mean 'predict'?"),
        ("data shw demo", "did you mean 'data show'?"),
        ("train --preset lightwieght", "did you mean 'lightweight'?"),
        ("train --model.frame.method weighted-pcx", "did you mean 'weighted-pca'?"),
        ("train --training.n-epohcs 3", "--training.n-epochs"),
        ("ablate --frame-methods max weighted-pcx", "{max,weighted-pca,static-max,pca,lattice,none}"),
        ("ablate --seeds 0 0", "none twice"),
        ("sweep --search model.n-layers=0:2", "n_layers = 0"),
        ("sweep --n-trials 3", "--search"),
        ("train --model.n-heads 7", "error: --model.d-model 128: must be a multiple of --model.n-heads 7"),
        ("train --training.n-epochs 2", "error: --training.swa-epochs 8: exceeds --training.n-epochs 2; lower it too"),
        ("train --model.frame.noise -1", "error: --model.frame.noise -1.0: must not be negative"),
        ("train --model.targets nothing:eV", "choose what to predict with --model.targets NAME:UNIT"),
        ("data get matbench-fonons:fold-0", "did you mean 'matbench-phonons'?"),
        ("data get matbench-foo:fold-0", "each with :fold-0 to :fold-4"),
        ("train --data.source dmo", "did you mean 'demo'?"),
        ("train --model.targets band_gp:eV", "did you mean 'band_gap'?"),
        ("data show dmo", "did you mean 'demo'?"),
        ("predict", "no structures to predict"),
        ("predict x.cif --model nowhere", "nowhere"),
        ("predict x.cif --model nothere", "error: nothere: there is no checkpoint here. This folder does not exist"),
        ("predict x.cif --output x.xlsx", ".csv, .tsv, .jsonl, .parquet"),
        ("predict x.cif --batch-size 0", "error: --batch-size 0: must be at least 1"),
        ("predict x.cif --device gpu7", "error: --device gpu7: cannot be used here"),
        ("evaluate demo --model nowhere", "nowhere"),
        ("evaluate nowhere demo", "nowhere"),
        ("evaluate demo --split tset", "did you mean 'test'?"),
        ("calibrate demo", "--model"),
        ("trace x.cif --within 3", "error: --within: needs --sites"),
        ("convert nowhere.ckpt --output out", "nowhere.ckpt: no such file"),
        ("screen x.cif", "--output"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(
    words: str, reason: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = run(2, *words.split()).err
    assert reason in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error


def test_debug_shows_where_an_error_arose(run: Run) -> None:
    with pytest.raises(DataError, match="dmo"):
        run(2, "data", "show", "dmo", "--debug")


def test_an_error_of_the_program_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run", Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run(2, "presets")


def test_a_closed_pipe_ends_quietly() -> None:
    """`crystalframer ... | head`: of more text than a pipe holds, nobody reads more than the beginning."""
    code = """
import sys
from crystalframer import cli
cli._run = lambda words: [print("x" * 80) for _ in range(10_000)] and 0
sys.exit(cli.main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == cli.CLOSED_PIPE


def test_a_pipe_of_a_worker_that_breaks_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_run", Mock(side_effect=BrokenPipeError("a worker has died")))
    assert main(["presets"]) == 2
    assert "a worker has died" in capfd.readouterr().err


def test_stopping_by_keyboard_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run", stopped)
    assert run(130, "train").err == "\nstopped after epoch 3\n"


def stopped(*_: object) -> None:
    raise training.Interrupted("stopped after epoch 3")


# The whole round


def test_training_leaves_a_run_and_says_what_it_came_to(salts: Path, tmp_path: Path, run: Run) -> None:
    words = ["train", "--data.source", salts, *TINY_RUN, "--output", tmp_path / "run"]
    text = run(0, *words).out
    assert "test MAE" in text and "of predicting the training mean" in text and str(tmp_path / "run") in text
    assert cf.load(tmp_path / "run").config.targets == (cf.Target("gap", "eV"),)
    assert "holds a complete run" in run(2, *words).err
    assert "the run is complete" in run(2, *words, "--resume").err


def test_a_run_is_resumed_by_its_folder_alone(
    salts: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--data.source", salts, *TINY_RUN, "--training.seed", "5", "--output", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr("crystalframer.training.run._train", stopped)
        run(130, *words)
    again = ["train", "--resume", "--output", tmp_path / "run"]
    assert "--training.seed was 5, is 6" in run(2, *again, "--training.seed", "6").err
    run(0, *again)
    assert cf.load(tmp_path / "run").config.targets == (cf.Target("gap", "eV"),)


def test_crystals_that_are_left_out_for_their_size_are_counted(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crystalframer.training.run._train", stopped)
    words = ["train", "--preset", "tiny", "--data.max-atoms-per-crystal", "3", "--training.accelerator", "cpu"]
    n = int((cf.dataset("demo").split(Config().data, 0).train.n_atoms <= 3).sum())
    said = run(130, *words, "--output", tmp_path / "run").err
    assert f"{n} of 398 training crystals have at most 3 atoms" in said


def test_comparing_frame_methods(salts: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ablate", "--frame-methods", "none", "pca", "--seeds", "4", "--data.source", salts, *TINY_RUN]
    words += ["--output", tmp_path / "runs", "--n-workers", "1"]
    text = run(0, *words).out
    assert "plotly" in (tmp_path / "runs" / "ablation.html").read_text(encoding="utf-8") and "ablation.html" in text
    assert "test MAE (eV)" in text and re.search(r"none +1 ", text) and re.search(r"pca +1 ", text)
    assert pandas.read_csv(tmp_path / "runs" / "table.csv")["frame_method"].tolist() == ["none", "pca"]
    assert run(0, *words).out == text  # reads what is there

    monkeypatch.setattr("crystalframer.studies.study.fit", Mock(side_effect=DataError("no such data")))
    text = run(1, *words, "--seeds", "4", "5").out
    assert "pca" in text and "5" in text and "no result: no such data" in text


def test_predictions_are_written_with_the_bad_rows(salts: Path, run_folder: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "bad.cif").write_text("")
    table = tmp_path / "table.csv"
    words = ["predict", salts / "NaCl.cif", tmp_path / "bad.cif", salts / "Cs*.cif", "--model", run_folder]
    said = run(0, *words, "--output", table)
    assert said.out.splitlines()[0] == f"4 predictions of gap (eV) in {table}"
    assert "1 of 5 structures could not be predicted" in said.err and "bad.cif: the file is empty" in said.err
    read = pandas.read_csv(table)
    assert list(read.columns) == COLUMNS
    assert read["id"].tolist() == ["NaCl", "bad", "CsBr", "CsCl", "CsF"]
    assert read["gap"].isna().tolist() == read["error"].notna().tolist() == [False, True, False, False, False]
    direct = cf.predict(salts / "NaCl.cif", run_folder)["gap"][0]
    assert read["gap"].tolist()[0] == pytest.approx(direct, abs=1e-5)


def test_predictions_go_to_a_program_as_the_table_that_output_writes(
    salts: Path, run_folder: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "bad.cif").write_text("")
    words = ["predict", salts, tmp_path / "bad.cif", "--model", run_folder]
    said = run(0, *words)
    run(0, *words, "--output", tmp_path / "table.csv")
    assert said.out == (tmp_path / "table.csv").read_text()
    read = pandas.read_csv(io.StringIO(said.out))
    assert list(read.columns) == COLUMNS
    assert len(read) == len(ALKALI) * len(HALOGENS) + 1
    assert read["error"].notna().tolist() == [False] * (len(read) - 1) + [True]
    assert "1 of" in said.err


def test_only_the_first_failures_are_listed_beside_a_table(run_folder: Path, tmp_path: Path, run: Run) -> None:
    missing = [tmp_path / f"missing-{n}.cif" for n in range(8)]
    words = ["predict", *missing, "--model", run_folder]
    assert "8 of 8 structures could not be predicted" in run(1, *words).err
    error = run(1, *words, "--output", tmp_path / "table.csv").err
    assert "missing-4.cif" in error and "missing-5.cif" not in error and "... and 3 more" in error


def test_files_that_cannot_be_read_have_the_rows_of_predict(run_folder: Path, tmp_path: Path, run: Run) -> None:
    """They are answered without the model."""
    (tmp_path / "bad").mkdir()
    for name in ("a.cif", "b.cif"):
        (tmp_path / "bad" / name).write_text("data_bad")
    inputs = [str(tmp_path / "bad"), str(tmp_path / "missing.cif")]
    run(1, "predict", *inputs, "--model", run_folder, "--output", tmp_path / "quick.csv")
    save_table(cf.predict(inputs, run_folder, device="cpu"), tmp_path / "slow.csv")
    assert (tmp_path / "quick.csv").read_text() == (tmp_path / "slow.csv").read_text()


def test_packing_and_showing_a_data_set(salts: Path, tmp_path: Path, run: Run) -> None:
    packed = tmp_path / "salts.parquet"
    run(0, "data", "pack", salts, "--output", packed, "--targets", "gap:eV")
    text = run(0, "data", "show", packed).out
    assert "15 crystals" in text and "gap (eV): 15 labels, 4 to 10" in text and "hardness" not in text
    assert cf.dataset(packed).target("gap") == cf.Target("gap", "eV")


def test_packing_without_labels_is_said(salts: Path, tmp_path: Path, run: Run) -> None:
    labels = pandas.read_csv(salts / "labels.csv")
    labels[["id"]].to_csv(tmp_path / "none.csv", index=False)
    words = ["data", "pack", salts, "--output", tmp_path / "a.parquet", "--labels"]
    assert "warning: no labels" in run(0, *words, tmp_path / "none.csv").err
    labels.assign(gap=np.nan).to_csv(tmp_path / "empty.csv", index=False)
    assert "warning: gap has no labels" in run(0, *words, tmp_path / "empty.csv", "--targets", "gap:eV").err


def test_evaluating_all_or_a_part(salts: Path, run_folder: Path, tmp_path: Path, run: Run) -> None:
    text = run(0, "evaluate", salts, "--model", run_folder, "--output", tmp_path / "each.csv").out
    assert "all crystals: 15 crystals" in text and "gap (eV)" in text and "RMSE" in text
    each = pandas.read_csv(tmp_path / "each.csv")
    score = cf.evaluate(salts, run_folder).scores["gap"]
    is_test = (each["part"] == "test").to_numpy()
    assert np.abs(each["deviation"].to_numpy()[is_test]).mean() == pytest.approx(score.mae, rel=1e-4)
    assert "test part: 2 crystals" in run(0, "evaluate", salts, "--model", run_folder, "--split", "test").out


def test_the_order_of_words_of_release_0_1(run_folder: Path, tmp_path: Path, run: Run) -> None:
    data = tmp_path / "data.parquet"
    crystals = [random_crystal(seed, n_atoms=2).with_targets({"gap": float(seed)}) for seed in range(3)]
    cf.CrystalDataset.from_crystals(crystals, [cf.Target("gap", "eV")]).save(data)
    said = run(0, "evaluate", run_folder, data).err
    assert f"crystalframer evaluate {data} --model {run_folder}" in said


def test_evaluating_takes_the_test_part_of_a_given_split(
    salts: Path, run_folder: Path, tmp_path: Path, run: Run
) -> None:
    """By itself only for a model that does not know which crystals trained it."""
    data = cf.dataset(salts)
    parts = ["test" if row % 5 == 0 else "train" for row in range(len(data))]
    split = cf.CrystalDataset.from_crystals(data, [data.target("gap")], parts)
    split.save(tmp_path / "split.parquet")
    words = ["evaluate", tmp_path / "split.parquet", "--model"]
    assert "all crystals: 15 crystals" in run(0, *words, run_folder).out
    assert "test part: 3 crystals" in run(0, *words, run_folder, "--split", "test").out
    alone = shutil.copytree(run_folder / "checkpoints" / "best", tmp_path / "alone")
    assert "test part: 3 crystals" in run(0, *words, alone).out
    assert "all crystals: 15 crystals" in run(0, *words, alone, "--split", "all").out


def test_tracing_writes_a_file_that_loads(
    salts: Path, run_folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "NaCl: gap = " in run(0, "trace", salts / "NaCl.cif", "--model", run_folder).out
    record = cf.CrystalTrace.load(tmp_path / "NaCl.safetensors")
    assert record.id == "NaCl" and record.n_layers == 2 and record.units == {"gap": "eV"}
    words = "--sites 1 --within 3.6 --output region.safetensors"
    said = run(0, "trace", salts / "NaCl.cif", "--model", run_folder, *words.split()).out
    region = cf.CrystalTrace.load(tmp_path / "region.safetensors")
    assert region.sites is not None and region.sites[0] == 1 and region.n_queries > 1
    assert f"{region.n_queries} atoms and" in said


def test_explaining_prints_what_adds_up_and_writes_a_page_or_a_record(
    salts: Path, run_folder: Path, tmp_path: Path, run: Run
) -> None:
    words = ["explain", salts / "NaCl.cif", "--model", run_folder]
    said = run(0, *words, "--target", "gap", "-o", tmp_path / "page.html").out
    assert "gap = " in said and "Na" in said and str(tmp_path / "page.html") in said
    assert "gap of NaCl" in (tmp_path / "page.html").read_text(encoding="utf-8")
    run(0, *words, "--output", tmp_path / "record.safetensors")
    record = cf.Explanation.load(tmp_path / "record.safetensors")
    assert record.target == "gap" and record.n_atoms == 2
    assert "contributions of equivalent atoms (eV)" in said and record.about_order in said
    assert f"{record.site_contributions[0]:.4f}" in said
    assert "did you mean 'gap'" in run(2, *words, "--target", "gpa").err
    assert "--output" in run(2, *words, "--output", "page.pdf").err


def test_presets_are_listed_with_the_published_errors(run: Run) -> None:
    text = run(0, "presets").out
    for name, found in cf.PRESETS.items():
        assert f"{name} " in text and found.description in text
        for property, error in found.published_mae.items():
            assert f"{error:<8g} {property}" in text


def test_every_output_has_a_short_name() -> None:
    for verb in VERBS.values():
        if "output" in verb.options:
            assert "-o" in get_args(verb.options["output"][0])[-1].aliases, verb.name


def test_flags_of_verbs_with_an_old_order_are_known_to_take_no_value() -> None:
    """Else the word after a new flag would be taken for its value, and another word for the output."""
    for name in (*_old_words.N_INPUTS, *_old_words.MODEL_FIRST):
        for option, (kind, _) in VERBS[name].options.items():
            if get_args(kind)[0] is bool:
                assert f"--{option.replace('_', '-')}" in _old_words.FLAGS, (name, option)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_script_for_completion_names_commands_and_options(shell: str, run: Run) -> None:
    script = run(0, "completion", shell).out
    assert not re.search(r"\\ |\\n", re.findall(r"COMPLETION_SPEC = (.*)", script)[0])
    for word in ("explore", "--training.n-epochs", "pack-authors", "weighted-pca"):
        assert word in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(run: Run, tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(run(0, "completion", "bash").out)
    script = f"""source {tmp_path / "completion"}
    complete_words() {{
        COMP_WORDS=(crystalframer "$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
        _tyro_crystalframer
        echo "${{COMPREPLY[*]}}"
    }}
    complete_words expl
    complete_words data sh
    complete_words predict --wi
    complete_words train --training.sched
    complete_words train --model.frame.method weig
    """
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [set(line.split()) for line in said] == [
        {"explain", "explore"} & {word for word in VERBS if word.startswith("expl")},
        {"show"},
        {"--wide"},
        {"--training.schedule"},
        {"weighted-pca"},
    ]


def test_wide_prints_every_column_and_row(salts: Path, run_folder: Path, run: Run) -> None:
    lines = run(0, "predict", salts, "--model", run_folder, "--wide").out.splitlines()
    assert lines[0].split() == COLUMNS
    assert len(lines) == 1 + len(ALKALI) * len(HALOGENS)


def test_converting_a_checkpoint_of_the_authors(tmp_path: Path, run: Run) -> None:
    torch.save(authors_checkpoint("max"), tmp_path / "best.ckpt")
    said = run(0, "convert", tmp_path / "best.ckpt", "--output", tmp_path / "model").out
    assert "formation_energy_peratom (eV/atom)" in said
    original = cf.load_authors_checkpoint(tmp_path / "best.ckpt").state_dict()
    converted = cf.load(tmp_path / "model").state_dict()
    assert all(torch.equal(converted[name].cpu(), tensor) for name, tensor in original.items())


def test_packing_the_authors_pickles(tmp_path: Path, run: Run) -> None:
    atoms = {"lattice_mat": [[3, 0, 0], [0, 3, 0], [0, 0, 3]], "coords": [[0, 0, 0]], "elements": ["Na"]}
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.pkl").write_bytes(pickle.dumps([{"jid": part, "atoms": atoms, "energy": 1.5}]))
    files, packed = [tmp_path / f"{part}.pkl" for part in ("train", "val", "test")], tmp_path / "all.parquet"
    run(0, "data", "pack-authors", *files, "--output", packed, "--targets", "energy:eV")
    data = cf.dataset(packed)
    assert data.parts is not None and data.parts.tolist() == ["train", "validation", "test"]
    assert data.target("energy") == cf.Target("energy", "eV")


def test_calibrating_a_run_gives_its_predictions_intervals(
    run_folder: Path, salts: Path, tmp_path: Path, run: Run
) -> None:
    """On a copy: other tests read the run as it was."""
    copied = tmp_path / "run"
    shutil.copytree(run_folder, copied)
    crystals = [random_crystal(seed, n_atoms=2).with_targets({"gap": float(seed)}) for seed in range(20)]
    new = cf.CrystalDataset.from_crystals([*crystals, *cf.dataset(salts)], [cf.Target("gap", "eV")])
    new.save(tmp_path / "new.parquet")
    words = ["calibrate", tmp_path / "new.parquet", "--model", copied, "--split", "all", "--coverage"]
    assert "intervals of 80%, from the errors in gap of 24 crystals" in run(0, *words, "0.8").out
    run(0, "predict", salts, "--model", copied, "--output", tmp_path / "table.csv")
    frame = pandas.read_csv(tmp_path / "table.csv")
    columns = [
        "id",
        "formula",
        "gap",
        "gap_low",
        "gap_high",
        "outside_training",
        "nearest_training",
        "nearest_distance",
    ]
    assert list(frame.columns) == [*columns, "error"]
    assert (frame["gap_low"] < frame["gap"]).all() and (frame["gap"] < frame["gap_high"]).all()  # type: ignore[reportGeneralTypeIssues]
    assert "error: --coverage 90.0 must lie" in run(2, *words, "90").err
