"""Predictions in the terminal: as wide as the window, digits by the interval, words about single crystals below."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from rich.console import Console

from crystalframer.outcomes import Table
from crystalframer.terminal import MOST_NOTES, print_predictions, printable, quantities, shortened

UNITS = {"formation_energy_per_atom": "eV/atom", "band_gap": "eV"}


def table(n: int, targets: dict[str, str] | None = None, intervals: bool = True) -> pandas.DataFrame:
    """Predictions of `n` crystals."""
    targets = UNITS if targets is None else targets
    numbers = np.random.default_rng(0)
    frame = pandas.DataFrame({"id": [f"crystal-{row:05}" for row in range(n)], "formula": ["SrTiO3"] * n})
    for target in targets:
        values = numbers.normal(-1.0, 1.0, n)
        frame[target] = values
        if intervals:
            frame[f"{target}_low"], frame[f"{target}_high"] = values - 0.031, values + 0.072
    frame["outside_training"] = pandas.Series([None] * n, dtype=object)
    frame["error"] = pandas.Series([None] * n, dtype=object)
    frame.attrs["units"] = targets
    return frame


def printed(frame: pandas.DataFrame, width: int = 80, coverage: float | None = 0.9) -> list[str]:
    out = io.StringIO()
    print_predictions(Table.of(frame), Console(file=out, width=width), coverage)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 80, 120, 200])
def test_no_line_is_wider_than_the_window(width: int) -> None:
    six = {f"a_long_name_of_property_{n}": "eV/atom" for n in range(6)}
    for frame in (table(4), table(4, six), table(200)):
        assert max(map(len, printed(frame, width))) <= width


@pytest.mark.parametrize("width", range(64, 131, 3))
def test_no_number_is_cut(width: int) -> None:
    """Whatever the lengths of ids, titles and numbers."""
    frame = table(3)
    frame["id"] = [f"a-name-of-{n}-letters-{'x' * n}" for n in (3, 17, 60)]
    frame["outside_training"] = ["too dense", None, None]
    text = "\n".join(printed(frame, width))
    for target in UNITS:
        columns = (frame[name].tolist() for name in (target, f"{target}_low", f"{target}_high"))
        for cell in quantities(*columns)[0]:
            assert cell.strip() in text


def test_targets_that_do_not_fit_go_below_with_the_ids_again() -> None:
    six = {f"property_{n}": "GPa" for n in range(6)}
    narrow, wide = printed(table(2, six), 80), printed(table(2, six), 250)
    assert sum(line.startswith("crystal-00000") for line in narrow) > 1
    assert sum(line.startswith("crystal-00000") for line in wide) == 1
    assert all(any(f"property {n}" in line for line in narrow) for n in range(6))


def test_digits_follow_from_the_interval() -> None:
    cells, symmetric = quantities([-1.23412, 12.5], [-1.29, 9.0], [-1.18, 15.0])
    assert cells == ["-1.234 [-1.290, -1.180]", "12.5   [9.0, 15.0]"] and not symmetric
    assert quantities([1234.5], [1100.0], [1400.0])[0] == ["1234 [1100, 1400]"]
    assert quantities([1.0e-9], [0.9e-9], [1.2e-9])[0] == ["1e-09 [9e-10, 1.2e-09]"]
    assert quantities([-0.0004], [-0.05], [0.06])[0] == ["0.000 [-0.050, 0.060]"]


def test_plus_minus_stands_only_where_both_sides_are_equal() -> None:
    both = quantities([1.0, 2.0], [0.95, 1.9], [1.05, 2.1])
    assert both == (["1.000 ± 0.050", "2.00  ± 0.10"], True)
    assert quantities([1.0, 2.0], [0.95, 1.9], [1.05, 2.2])[0][0] == "1.000 [0.950, 1.050]"
    assert "±: 90% prediction interval" in printed(symmetric())
    assert "[lowest, highest]: 90% prediction interval" in printed(table(2))
    assert not any("interval" in line for line in printed(table(2, intervals=False)))


def symmetric() -> pandas.DataFrame:
    frame = table(2, {"gap": "eV"})
    frame["gap_high"] = 2 * frame["gap"] - frame["gap_low"]
    return frame


def test_without_an_interval_four_digits_are_shown() -> None:
    assert quantities([1.234567, float("nan")], None, None) == (["1.235", "–"], False)
    nothing = float("nan")
    assert quantities([1.5, 2.0], [nothing] * 2, [nothing] * 2)[0] == ["1.5", "2"]


def test_an_interval_that_is_not_known_is_marked_where_others_are() -> None:
    nothing = float("nan")
    cells = quantities([1.5, 2.0, nothing], [nothing, 1.9, nothing], [nothing, 2.1, nothing])[0]
    assert cells == ["1.5  [?]", "2.00 ± 0.10", "–"]


def test_long_names_lose_their_middle() -> None:
    frame = table(2)
    frame.loc[0, "id"] = "a" * 60 + "-relaxed"
    (line,) = [line for line in printed(frame) if line.startswith("aaa")]
    assert len(line) <= 80 and "…" in line and "-relaxed" in line
    assert shortened("abcdefgh", 5) == "ab…gh" and shortened("abc", 5) == "abc"


def test_control_characters_do_not_reach_the_terminal() -> None:
    frame = table(1)
    frame["id"] = "\x1b[31mred\x07"
    frame["outside_training"] = "\x1b]0;title\x07"
    assert "\x1b" not in "".join(printed(frame))
    assert printable("a\x1b[2J") == "a�[2J"
    assert "[bold]" in "".join(printed(frame.assign(id="[bold]x[/bold]")))  # no markup of rich


def test_flags_are_marks_with_their_words_below() -> None:
    frame = table(4)
    frame["outside_training"] = ["too dense", None, "too dense", "element Xe"]
    lines = printed(frame)
    marks = [line.split()[2] for line in lines if line.startswith("crystal-")]
    assert marks[0] == marks[2] == "a" and marks[3] == "b"
    assert lines.count("a  outside the training data: too dense") == 1
    many = table(40)
    many["outside_training"] = [f"reason {n}" for n in range(40)]
    notes = [line for line in printed(many, 120) if "outside the training data" in line or "more notes" in line]
    assert len(notes) == MOST_NOTES and "29 more notes" in notes[-1]


def test_a_row_without_a_prediction_is_marked() -> None:
    frame = table(2)
    frame.loc[1, ["formation_energy_per_atom", "band_gap"]] = float("nan")
    frame.loc[1, "error"] = "the file is empty"
    (line,) = [line for line in printed(frame) if line.startswith("crystal-00001")]
    assert line.split()[2:] == ["!", "–", "–"]


def test_a_long_table_shows_head_and_tail_and_says_where_the_rest_is() -> None:
    lines = printed(table(10_000))
    rows = [line.split()[0] for line in lines if line.startswith("crystal-")]
    assert rows[0] == "crystal-00000" and rows[-1] == "crystal-09999" and len(rows) < 50
    assert any("9,970 of 10,000 rows are left out; --output TABLE writes them" in line for line in lines)
    assert not any("left out" in line for line in printed(table(50)))


def test_classes_are_shown_with_their_probability() -> None:
    frame = pandas.DataFrame({"id": ["a", "b"], "formula": ["Si", "Ge"], "phase": ["cubic", None]})
    frame["phase_cubic"], frame["phase_other"], frame["phase_third"] = [0.7, np.nan], [0.2, np.nan], [0.1, np.nan]
    frame["error"] = [None, "is broken"]
    frame.attrs["units"] = {"phase": ""}
    assert any("cubic (70%)" in line for line in printed(frame))


def test_the_ends_of_an_interval_have_no_column_of_their_own() -> None:
    frame = table(2, {"above_hull": "eV/atom"})
    frame.attrs["units"] = dict.fromkeys(("above_hull", "above_hull_low", "above_hull_high"), "eV/atom")
    lines = printed(frame)
    assert "above hull" in lines[0] and "low" not in lines[0]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_terminal_gets_the_fitted_table_and_a_pipe_csv(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from crystalframer.cli import _print_table\nfrom crystalframer.outcomes import Table\n"
        "from test_terminal import table\n"
        "_print_table(Table.of(table(3)), coverage=0.9)"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent)]
    piped = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    read, expected = pandas.read_csv(io.StringIO(piped)), table(3)
    assert read.columns.tolist() == expected.columns.tolist()
    assert read["band_gap_low"].tolist() == expected["band_gap_low"].tolist()
    master, slave = os.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(words, stdout=slave, env=environment) as process:
        os.close(slave)
        text = b""
        try:
            while part := os.read(master, 65536):
                text += part
        except OSError:  # the other end is closed
            pass
    os.close(master)
    assert process.returncode == 0 and "[lowest, highest]: 90% prediction interval" in text.decode()
    assert "formation energy per atom" in text.decode()
