"""Whether the explanations of the shipped model are faithful: deletion and insertion of edges in their order.

    python -m benchmarks.faithfulness [--data FILE] [--crystals 200] [--half choice|report] [--keep]

Half of the crystals chose the default relevance, the other half tests it. Both halves are reported. See
`crystalframer.faithfulness` for the tests. With `--keep`, the shipped weights keep the result of the second half, and
explanations say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.inputs import add_options, source
from benchmarks.report import Bar, Row
from crystalframer.checkpoint import PRETRAINED, add_order_tests
from crystalframer.explaining.faithfulness import order_test
from crystalframer.order_tests import OrderTest, OrderTests

SMALLEST, LARGEST = 3, 10
"""Atoms of a cell: larger ones take most of the time and show the same."""
HALVES = ("choice", "report")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("faithfulness", "Test whether the explanations of the shipped model are faithful.")
    add_options(options, n_crystals=200)
    options.add_argument("--half", choices=HALVES, help="only one half (default: both)")
    options.add_argument(
        "--targets", nargs="+", metavar="NAME", help="targets that are explained (default: all of the shipped model)"
    )
    options.add_argument("--keep", action="store_true", help="keep the tests of `report` with the shipped weights")
    options.set_defaults(threads=1, largest_cell=LARGEST)
    chosen = parse(options, arguments)
    model = cf.load()
    names = chosen.targets or model.config.target_names
    if unknown := set(names) - {*model.config.target_names}:
        raise SystemExit(f"--targets: the model has no {', '.join(sorted(unknown))}")
    targets = [target for target in model.config.targets if target.name in names]
    data = source(chosen)
    crystals = drawn(data, 2 if chosen.quick else chosen.crystals, chosen.largest_cell)
    tests: dict[str, list[OrderTest]] = {half: [] for half in HALVES}
    with session(chosen) as report:
        report.data["name"] = f"{Path(data).name}, cells of {SMALLEST} to {chosen.largest_cell} atoms"
        for half, some in zip(HALVES, crystals, strict=True):
            if chosen.half not in (None, half):
                continue
            for target in targets:
                table = cf.faithfulness(model, some, target.name, progress=False)
                test = order_test(table, target)
                tests[half].append(test)
                report.rows += [_row(row, half, test) for row in table.to_dict("records")]
                report.data[f"curves, {half}, {target.name}"] = table.attrs["curves"]
                name = f"{half}, {target.name}: area of deletion beyond nearest first, low end of its interval"
                report.bars.append(Bar(name, test.low, 0.0, test.unit, at_most=False))
        if chosen.keep and not chosen.quick:
            words = f"{chosen.crystals} crystals of {Path(data).stem}"
            add_order_tests(PRETRAINED, OrderTests(words, tuple(tests["report"])))


def drawn(data: str, n: int, largest: int = LARGEST) -> tuple[list[cf.Crystal], list[cf.Crystal]]:
    """Two samples of n small crystals each."""
    small = [crystal for crystal in cf.dataset(data) if SMALLEST <= len(crystal) <= largest]
    order = np.random.default_rng(0).permutation(len(small))
    return [small[k] for k in order[:n]], [small[k] for k in order[n : 2 * n]]


def _row(row: dict[str, object], half: str, test: OrderTest) -> Row:
    is_correlation = str(row["test"]).startswith("agreement")
    details = {name: float(row[name]) for name in ("low", "high", "n_crystals")}  # type: ignore[arg-type]
    return Row(
        work=f"{half}, {test.target}: {row['test']}",
        candidate=str(row["order"]),
        version="",
        unit="" if is_correlation else test.unit,
        value=float(row["value"]),  # type: ignore[arg-type]
        details=details,
    )


if __name__ == "__main__":
    main()
