"""Objects show themselves: short texts, and cards for notebooks that are light, safe and legible everywhere."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_explanations import synthetic_explanation
from synthetic_traces import perovskite, synthetic_trace

import crystalframer as cf
from crystalframer import cards
from crystalframer.config import DistanceBasis
from crystalframer.presets import nearest
from crystalframer.training.result import FitResult, Score

HOSTILE = "</td></div></script><script>alert(1)</script><img src=x onerror=alert(2)> \"' & <b>name</b>"
LIGHT = 30_000
"""Letters of a card at most."""
SHORT = 420
"""Letters of a `repr` at most."""
DATA = cf.dataset("demo")
MODEL = cf.load(device="cpu")


@pytest.fixture(scope="module")
def evaluation() -> Any:
    return cf.evaluate(DATA.select(range(8)), MODEL)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return cf.fit(cf.preset("tiny").config, DATA, tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def objects(evaluation: Any, result: FitResult) -> dict[str, Any]:
    """An object of each kind that shows itself."""
    preset = cf.preset("demo").config
    return {
        "crystal": DATA[0],
        "data set": DATA,
        "empty data set": DATA.select([]),
        "model": MODEL,
        "model of a run": cf.load(result.output, "cpu"),
        "result": result,
        "evaluation": evaluation,
        "evaluation by part": cf.evaluate(DATA.select(range(40)), result.model),
        "trace": synthetic_trace(perovskite()),
        "explanation": synthetic_explanation(),
        "config": replace(preset, training=replace(preset.training, n_epochs=5, swa_epochs=1)),
        "preset": preset,
    }


class _Tags(HTMLParser):
    """Collects names of elements and attributes, and checks that each element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_card_is_light_and_needs_no_script_style_sheet_or_file(objects: dict[str, Any]) -> None:
    for name, shown in objects.items():
        page = shown._repr_html_()
        tags = _Tags(page)
        assert len(page) < LIGHT, name
        assert not tags.names & {"script", "style", "link", "img", "iframe", "object"}, name
        assert not {attribute for attribute in tags.attributes if attribute.startswith("on")} | (
            tags.attributes & {"src", "href", "class", "id"}
        ), name


def test_text_takes_the_colour_of_the_page(objects: dict[str, Any]) -> None:
    """So that it is legible on light and on dark pages: no card sets a colour of text or a background."""
    for name, shown in objects.items():
        assert not re.search(r"(?<!-)color:|background", shown._repr_html_()), name


def test_tables_hold_the_numbers_without_the_pictures(objects: dict[str, Any], evaluation: Any) -> None:
    """As on GitHub, which removes styles and inline pictures."""
    page = _Tags(re.sub("<svg.*?</svg>", "", objects["evaluation"]._repr_html_())).text
    assert f"{evaluation.scores['band_gap'].mae:.4g}" in page
    assert "svg" not in re.sub("<svg.*?</svg>", "", objects["data set"]._repr_html_())


def test_every_text_of_an_object_is_short(objects: dict[str, Any]) -> None:
    for name, shown in objects.items():
        assert len(repr(shown)) < SHORT, (name, repr(shown))


def test_a_data_set_tells_size_split_elements_and_labels() -> None:
    assert repr(DATA).startswith("CrystalDataset of 502 crystals, 68 elements; labels: formation_energy_per_atom")
    page = _Tags(DATA._repr_html_()).text
    for part in ("502", "train 398", "O 266", "band_gap (eV), 502 labels", "JARVIS"):
        assert part in page
    assert DATA._repr_html_().count("<svg") == len(DATA.targets)


def test_a_model_tells_what_it_learned_from_and_where_it_errs() -> None:
    page = _Tags(MODEL._repr_html_()).text
    assert "39,308 crystals" in page and "formation_energy_per_atom (eV/atom)" in page and "11–20 atoms" in page
    assert MODEL.errors is not None
    (everywhere,) = MODEL.errors.of("band_gap", "all")
    assert f"{everywhere.error:.3g}" in page
    assert str(MODEL.promises) in repr(MODEL) and "Linear" not in repr(MODEL)


def test_a_changed_model_does_not_show_the_errors_of_the_other() -> None:
    assert MODEL.without_heads([(0, 0)]).errors is None
    assert MODEL.with_frames(cf.ModelConfig().frame).errors is None


def test_a_config_shows_what_differs_from_its_preset() -> None:
    demo = cf.preset("demo").config
    changed = replace(demo, model=replace(demo.model, n_layers=3))
    assert nearest(changed) == ("demo", {"model.n_layers": (4, 3)})
    assert nearest(demo) == ("demo", {})
    text = _Tags(changed._repr_html_()).text
    assert "preset 'demo' with 1 change" in text and "model.n_layers" in text and "n_heads" not in text


def test_the_text_of_a_config_names_changed_settings_and_makes_it_again() -> None:
    for known in cf.PRESETS.values():
        names = {
            kind.__name__: kind for kind in (cf.Config, cf.ModelConfig, cf.DataConfig, cf.TrainingConfig, cf.Target)
        }
        from crystalframer import config

        assert eval(repr(known.config), {**vars(config), **names}) == known.config
    assert repr(DistanceBasis(coefficient=1.5)) == "DistanceBasis(coefficient=1.5)"
    assert repr(cf.Target("gap", "eV")) == "Target(name='gap', unit='eV')"


def test_names_from_files_stay_text() -> None:
    crystal = cf.Crystal(np.array([11, 17]), np.array([[0.0] * 3, [2.8] * 3]), 2.8 * (1 - np.eye(3)), HOSTILE)
    target = cf.Target(HOSTILE, HOSTILE)
    crystals = [crystal.called(f"{HOSTILE}{n}").with_targets({HOSTILE: float(n)}) for n in range(3)]
    provenance = replace(DATA.provenance, source=HOSTILE)
    data = cf.CrystalDataset.from_crystals(crystals, [target], provenance=provenance)
    trace = replace(synthetic_trace(perovskite()), id=HOSTILE, prediction={HOSTILE: 1.0}, units={HOSTILE: HOSTILE})
    explanation = replace(synthetic_explanation(), id=HOSTILE, target=HOSTILE, unit=HOSTILE)
    config = replace(cf.preset("tiny").config, data=cf.DataConfig(source=HOSTILE))
    for shown in (crystals[0], data, trace, explanation, config):
        page = shown._repr_html_()
        assert not _Tags(page).names & {"script", "img", "td ", "b "}
        assert "<b>name" not in page and "<script" not in page


def test_a_result_tells_scores_and_course(result: FitResult) -> None:
    page = _Tags(result._repr_html_()).text
    test = result.scores[result.chosen].test_mae["formation_energy_per_atom"]
    assert f"{test:.4g}" in page and f"{result.chosen} (chosen)" in page and str(result.output) in page
    assert f"test MAE {test:.4g} eV/atom" in repr(result)


def test_a_result_of_classes_tells_accuracies() -> None:
    import pandas

    classes = cf.Target("phase", kind="class", classes=("cubic", "other"))
    model = cf.CrystalFramer(cf.ModelConfig(targets=(classes,), n_layers=1, d_model=8, n_heads=1))
    history = pandas.DataFrame({"epoch": [1, 2], "validation_loss": [0.7, 0.6]})
    score = Score(0.6, {}, {}, {"phase": 0.75}, {"phase": 0.7})
    shown = FitResult(Path("run"), model, "best", {"best": score}, {}, history, {"phase": 0.5})
    assert "70.0%" in shown._repr_html_() and "phase test accuracy 0.7" in repr(shown)


def test_a_histogram_leaves_out_what_is_no_number() -> None:
    assert "no values" in cards.histogram(np.array([np.nan]), "gap")
    one = cards.histogram(np.array([2.0, np.inf, np.nan]), "gap")
    assert "gap: 2, median 2" in one and one.count("<rect") == 1


def test_bars_below_zero_lie_left_of_the_middle() -> None:
    drawn = cards.bars(["up", "down"], [1.0, -0.5], ["+1", "−0.5"])
    first, second = (float(x) for x in re.findall(r'<rect x="([\d.]+)"', drawn))
    assert second < first == 60
