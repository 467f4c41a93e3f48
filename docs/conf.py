"""Settings of the documentation site: `make docs`. It is built without a network, and its pages need none."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import plotly
from sphinx.application import Sphinx

from crystalframer import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "crystalframer"
author = "crystalframer developers"
copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "command_help",
    "gallery",
    "notebook_outputs",
    "offline",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "notebooks/runs", "notebooks/structures"]
default_role = "py:obj"
language = "en"
nitpicky = False

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3
# Notebooks are executed by `make docs` and by the tests, each once (Makefile); here their outputs are drawn.
nb_execution_mode = "off"
nb_custom_formats = {".ipynb": ["notebook_outputs.read", {}, False]}

autosummary_generate = True
autosummary_ignore_module_all = False
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
autodoc_preserve_defaults = True
autodoc_default_options = {
    # Made by scikit-learn.
    "exclude-members": "set_fit_request, set_predict_request, set_score_request",
}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_title = f"crystalframer {version}"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    # Figures of notebooks need the width. No page may match two patterns.
    "secondary_sidebar_items": {"notebooks/*": [], "*": ["page-toc"]}
    | {f"{folder}/**": ["page-toc"] for folder in ("guide", "how-to", "reference", "development")},
}
html_sidebars = {"index": [], "changelog": []}
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static", str(Path(plotly.__file__).parent / "package_data" / "plotly.min.js")]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """Read docstrings as they are meant, before napoleon does."""
    app.connect("autodoc-process-docstring", _as_meant, priority=400)
    app.connect("autodoc-process-signature", _without_fields)


def _as_meant(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Indented text after a blank line is code; words before a colon are no type; |x| is the size of x."""
    lines[:] = [re.sub(r"\|(\w+)\|", r"\\|\1\\|", line) for line in lines]
    for number in range(len(lines) - 2, 0, -1):
        before, blank, after = lines[number - 1 : number + 2]
        is_text = before and not before.startswith(" ") and not before.endswith("::")
        if is_text and not blank and after.startswith("    "):
            lines[number:number] = ["", "::"]
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def _without_fields(app: Sphinx, what: str, name: str, obj: object, *rest: object) -> tuple[str, None] | None:
    """The fields of a dataclass are listed below its name, each with what it means."""
    return ("", None) if what == "class" and dataclasses.is_dataclass(obj) else None
