"""Whether a model's relevance orders neighbours better than distance does, as it was tested. Needs no torch.

A checkpoint keeps the results (`order_tests.json`), so that explanations can say them.
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalframer.errors import ConfigError

UNTESTED = (
    "Whether this order of neighbours is better than nearest first has not been tested for this model "
    "(crystalframer.faithfulness)."
)


@dataclass(frozen=True)
class OrderTest:
    """Deletion by relevance beside deletion of the nearest first, for one target (`crystalframer.faithfulness`).

    >>> str(OrderTest("band_gap", "eV", 0.05, 0.03, 0.07, 200)).partition(": ")[2]
    'this order of neighbours is better than nearest first, by 0.05 eV (95 % interval 0.03 to 0.07).'
    """

    target: str
    unit: str
    beyond: float
    """How much farther the prediction moves than if the nearest are hidden first: mean over crystals of the difference
    of the areas, in the unit."""
    low: float
    high: float
    """Ends of its 95 % interval."""
    n_crystals: int

    def __post_init__(self) -> None:
        if self.n_crystals < 1 or not self.low <= self.beyond <= self.high:
            raise ConfigError("must be a mean within its interval", field="beyond", value=self.beyond)

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0.0

    def __str__(self) -> str:
        low, high = (f"{end:.3g}".replace("-", "−") for end in (self.low, self.high))
        size = f"{self.beyond:.3g} {self.unit}".rstrip().replace("-", "−", 1)
        tested = f"Tested on {self.n_crystals:,} crystals: this order of neighbours is"
        if self.is_better:
            return f"{tested} better than nearest first, by {size} (95 % interval {low} to {high})."
        return (
            f"{tested} not shown to be better than nearest first ({size}, 95 % interval {low} to {high}). Quote no "
            "ranking of neighbours; crystalframer.intervene gives the effect of a neighbour itself."
        )


@dataclass(frozen=True)
class OrderTests:
    """The tests of a model, by target."""

    crystals: str
    """The crystals in words."""
    rows: tuple[OrderTest, ...]

    def of(self, target: str) -> OrderTest | None:
        """The test of a target, or of one of its classes; None if it was not tested."""
        return next((row for row in self.rows if row.target == target), None)
