"""The learning curve: error against the number of crystals to train on."""

from __future__ import annotations

from pathlib import Path

from benchmarks.accuracy.recipes import RECIPES
from benchmarks.accuracy.summary import Found, mean_and_spread


def draw_learning_curve(found: Found, minutes: float, path: Path) -> None:
    """A point for each size and model with the spread over seeds, both axes logarithmic; ours solid, peers dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes: set[int] = set()
    unit = ""
    for model in dict.fromkeys(model for _, model in found):
        points = []
        for runs in (runs for (_, name), runs in found.items() if name == model):
            n_train = len(runs[0][0].problem.parts.train)
            mean, spread = mean_and_spread([(p.problem.name, f.outcome.mae) for p, f in runs])
            points.append((n_train, mean, spread or 0.0))
            unit = runs[0][0].problem.target.label
        points.sort()
        x, y, error = zip(*points, strict=True)
        sizes |= set(x)
        axes.errorbar(x, y, error, marker="o", capsize=3, linestyle="--" if model in RECIPES else "-", label=model)
    axes.set(xscale="log", yscale="log", xlabel="crystals to train on", ylabel=f"MAE of {unit}")
    axes.set_title(f"{minutes:g} minutes for each point", fontsize=10)
    axes.set_xticks(sorted(sizes), [f"{n:,}" for n in sorted(sizes)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    # Round numbers, close enough that a value can be read off.
    steps = (step * 10.0**power for power in range(-6, 7) for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
    ticks = [tick for tick in steps if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
