"""One site in several models side by side, as a widget for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from viz.side_by_side import SideBySide
from viz.structure_figures import check_same_crystal, frame_comparison_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FrameComparison(SideBySide):
    """Compare the frames of one site in several models: `SideBySide` of one crystal, which also makes a still picture.

    Write the comparison on the last line of a cell to show it. Its attributes `layer`, `head` and `atom` can be set and
    observed; they are counted from 0. Heads with the same number in different models are not related. `figure()` makes
    a still picture of what is chosen.

    Example:
        >>> comparison = viz.FrameComparison({"max": trace, "again": trace}, atom=1)
        >>> comparison.layer, comparison.head = 2, 3
        >>> [panel.get_title() for panel in comparison.figure().axes]
        ['max, layer 2, head 3', 'max, layer 2, head 3']
    """

    title = "Frames of one site"

    def __init__(self, traces: Mapping[str, Any] | Iterable[Any], **options: Any) -> None:
        """Make the comparison.

        Args:
            traces: name of each model, such as its frame method → trace of the same structure.
            options: `layer`, `head`, `atom` and `n_lines` of `SideBySide`.

        Raises:
            SceneError: there is no trace, or the traces are of different crystals.
            ChoiceError: there is no such layer, head or atom. It is a SceneError and a TraitError.
        """
        super().__init__(traces, **options)
        check_same_crystal(self.scenes)

    def figure(self, **options: Any) -> Figure:
        """A still picture of what is chosen. `options` are those of `frame_comparison_figure`, such as `width`."""
        return frame_comparison_figure(
            self.scenes, self.atom, layers=(self.layer,), head=self.head, n_lines=self.n_lines, **options
        )
