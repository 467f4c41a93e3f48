"""What a widget leaves in a saved notebook, for readers without a kernel: its page, and a still picture.

A notebook shows the widget and, as a second output, its copy. The style of the widget hides the copy while the widget
is there. Without a kernel the widget is missing: then the copy shows the page where scripts may run, else the picture.
"""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import anywidget

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STILL_DPI = 90
MOST_SAVED = 3_000_000
"""Characters. A larger page is not kept in a notebook."""
MARK = '<div class="cf-saved"'
"""How the HTML of a copy begins."""
HIDES_COPY = """
.jp-OutputArea:has(.cf-explorer) .cf-saved, .output:has(.cf-explorer) .cf-saved { display: none; }
"""
"""A part of the style of each widget."""
_STYLE = """<style>
.cf-saved iframe { width: 100%; height: 860px; border: 0; }
.cf-saved iframe + img { display: none; }
@media print { .cf-saved iframe { display: none; } .cf-saved iframe + img { display: block; } }
.jp-OutputArea:has(.cf-saved) [data-mime-type*="widget-view"]:not(:has(*)) { display: none; }
</style>"""
"""Paper has the picture. The last rule hides the message that a widget without a kernel leaves."""


class Saved:
    """What is shown in a notebook, with a copy for the saved notebook."""

    title: str
    """What it is, in words: for screen readers, and where only text is shown."""

    def __repr__(self) -> str:
        return self.title

    def _live(self, **options: Any) -> Any:
        """The widget by its types, with metadata; None where there is no notebook."""
        raise NotImplementedError

    def to_html(self) -> str:
        """The widget as it is now, as a page."""
        raise NotImplementedError

    def _page(self) -> str:
        """The page of the copy; empty for none."""
        return self.to_html()

    def _still(self) -> str:
        """The widget as it is now, as a picture: PNG in base64; empty for none."""
        raise NotImplementedError

    def _copy(self) -> dict[str, str]:
        """The copy, by its types."""
        page, picture = self._page(), self._still()
        title = html.escape(self.title)
        parts = (
            [f'<iframe srcdoc="{html.escape(page)}" title="{title}"></iframe>'] if 0 < len(page) <= MOST_SAVED else []
        )
        parts += [f'<img src="data:image/png;base64,{picture}" alt="{title}">'] if picture else []
        copy = {"text/html": f"{MARK}>{_STYLE}{''.join(parts)}</div>"} if parts else {}
        return copy | ({"image/png": picture} if picture else {})

    def _ipython_display_(self) -> None:
        """Called by IPython: the widget, and its copy as an output of its own."""
        from IPython.display import publish_display_data

        found = self._live()
        if found is not None:
            publish_display_data(*found)
        copy = self._copy()
        if copy:
            publish_display_data(copy)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """For programs that show one output: the widget and the copy in one."""
        found = self._live(**options)
        if found is None:
            return None
        data, metadata = found
        return {**data, **self._copy()}, metadata


class SavedWidget(Saved, anywidget.AnyWidget):
    """A widget with a copy in saved notebooks."""

    def _live(self, **options: Any) -> Any:
        return anywidget.AnyWidget._repr_mimebundle_(self, **options)


def png_in_base64(figure: Figure) -> str:
    """A figure as a still picture of a notebook."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=STILL_DPI)
    return base64.b64encode(target.getvalue()).decode("ascii")
