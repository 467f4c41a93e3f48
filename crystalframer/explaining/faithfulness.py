"""Whether explanations are faithful: edges are hidden in their order, and the prediction must change accordingly.

Deletion and insertion (Petsiuk et al., BMVC 2018) need no truth but the model: the more a prediction changes when the
edges that an explanation names first are hidden, the better the explanation. Plain distance is the order to beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from crystalframer.batched import MAX_EDGES
from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import prepare
from crystalframer.errors import DataError
from crystalframer.explaining.attribution import Explained, Found, backward, explained_output, features_of, relevance
from crystalframer.explaining.removal import predictions_with
from crystalframer.maths.edges import SELF_LENGTH
from crystalframer.model.network import CrystalFramer, initialise
from crystalframer.order_tests import OrderTest
from crystalframer.prediction import ready
from crystalframer.reading.inputs import readable
from crystalframer.surroundings import left_alone, plain

if TYPE_CHECKING:
    import pandas

SHARES = np.array([0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
"""Shares of the edges that are hidden or shown. The area is the mean over these points, equally far apart in the
logarithm of the share: a hundredth of all edges is about one neighbour of each atom."""
ORDERS = ("relevance", "attention × value × gradient", "attention", "nearest first", "random")
BASELINE = "nearest first"
N_RANDOMISED = 10
"""Crystals that are explained again with random weights."""
COVERAGE = 1.96
"""Standard errors on each side of an interval of 95 %."""


@plain()
@left_alone()
def faithfulness(
    model: CrystalFramer | None,
    structures: Any,
    target: str | None = None,
    *,
    other: CrystalFramer | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pandas.DataFrame:
    """Test how faithful the explanations of a model are, on some crystals.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> table = cf.faithfulness(cf.load(), prototypes()[4:6])
    >>> sorted(set(table["test"]))
    ['agreement with random weights', 'deletion', 'deletion, beyond nearest first', 'insertion', ...]

    Args:
        model: a model. None: the weights that come with the package.
        structures: as in `predict`; at least two.
        target: as in `explain`.
        other: a second model with the same targets, such as one of another seed: how far do the explanations of the two
            agree?
        seed: random seed of the random order and of random weights.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        Columns `test`, `order`, `value`, `low`, `high` (ends of the 95 % interval of the mean over crystals),
        `n_crystals`. Tests:

        - `deletion`: mean |change| of the prediction when the first edges of an order are hidden, from 0.25 % to 32 %
          of all edges, in all layers and heads; more is better. In the unit of the prediction, or logits of classes.
        - `insertion`: mean |difference| from the prediction when only these edges are there; less is better.
        - `..., beyond nearest first`: the same minus that of the order by distance, crystal by crystal.
        - `agreement with random weights`: rank correlation of the relevance of edges with that of the same network with
          random weights, within crystals, mean over some of them; about 0 if explanations depend on what was learned.
        - `agreement of two models`: the same with `other`.

        `table.attrs["curves"]` has the means behind the areas, as records: `test`, `order`, `share`, `value`.

    Raises:
        ConfigError: the model has no such target.
        DataError: fewer than two crystals.
        CrystalError: a structure cannot be read, or the model cannot take it.
    """
    import pandas

    model = ready(model, None)
    explained = explained_output(target, model.config)
    crystals = readable(structures)
    if len(crystals) < 2:
        raise DataError(f"intervals need at least two crystals, and there are {len(crystals)}; give more")
    rng = np.random.default_rng(seed)
    curves: list[dict[tuple[str, str], np.ndarray]] = []
    unlearned: list[float] = []
    agreements: list[float] = []
    random_model = _with_random_weights(model, seed)
    bar = tqdm(crystals, "testing", unit=" crystals", delay=2, leave=False, disable=not progress)
    for number, crystal in enumerate(bar):
        found = _found(model, crystal, explained)
        curves.append(_curves(model, crystal, explained, found, rng))
        if number < N_RANDOMISED:
            unlearned.append(_correlation(found, _found(random_model, crystal, explained)))
        if other is not None:
            agreements.append(_correlation(found, _found(other, crystal, explained_output(target, other.config))))
    areas = {key: np.array([np.abs(each[key]).mean() for each in curves]) for key in curves[0]}
    rows = [_row(test, order, area) for (test, order), area in areas.items()]
    rows += [
        _row(f"{test}, beyond {BASELINE}", order, area - areas[test, BASELINE])
        for (test, order), area in areas.items()
        if order != BASELINE
    ]
    rows.append(_row("agreement with random weights", "relevance", np.array(unlearned)))
    if other is not None:
        rows.append(_row("agreement of two models", "relevance", np.array(agreements)))
    table = pandas.DataFrame(rows)
    # Plain records, so that tables can be joined: pandas compares what stands in `attrs`.
    table.attrs["curves"] = [
        {"test": test, "order": order, "share": float(share), "value": float(value)}
        for test, order in curves[0]
        for share, value in zip(SHARES, np.mean([np.abs(each[test, order]) for each in curves], axis=0), strict=True)
    ]
    return table


def order_test(table: pandas.DataFrame, target: Target) -> OrderTest:
    """What a table of `faithfulness` says of the order of neighbours, for a model to keep."""
    row = table[(table["test"] == f"deletion, beyond {BASELINE}") & (table["order"] == "relevance")].iloc[0]
    mean, low, high = (float(row[name]) for name in ("value", "low", "high"))
    unit = "logit" if target.is_class else target.unit
    return OrderTest(target.name, unit, mean, low, high, int(row["n_crystals"]))


def _found(model: CrystalFramer, crystal: Crystal, explained: Explained) -> Found:
    chunked = ChunkedCrystal(
        prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius), 0, MAX_EDGES
    )
    with torch.no_grad():
        layers = features_of(model, chunked)
    return backward(model, explained, chunked, layers, None, progress=False, geometry=False)


def _curves(
    model: CrystalFramer, crystal: Crystal, explained: Explained, found: Found, rng: np.random.Generator
) -> dict[tuple[str, str], Float[np.ndarray, " n_shares"]]:
    """Changes of the prediction, by test and order, for each share of the edges."""
    packed = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    batch = packed.batch([0], model.target_mean.dtype).to(model.target_mean.device)
    lengths = batch.edge_lengths.double().cpu().numpy()
    edges = np.flatnonzero(lengths >= SELF_LENGTH)
    scores = {
        "relevance": np.abs(relevance(found).sum((0, 1))),
        "attention × value × gradient": np.abs(found.products.sum((0, 1))),
        "attention": found.attention.sum((0, 1)),
        "nearest first": -lengths,
        "random": rng.random(len(lengths)),
    }
    whole = torch.ones(len(lengths), dtype=torch.bool, device=batch.edge_index.device)
    none = whole.clone()
    none[edges] = False
    variants = [whole]
    for order in ORDERS:
        ranked = edges[np.argsort(-scores[order][edges], kind="stable")]
        first = [ranked[: _count(share, len(edges))] for share in SHARES]
        variants += [_changed(whole, few, False) for few in first] + [_changed(none, few, True) for few in first]
    values = explained.of(predictions_with(model, batch, variants)).cpu().numpy()
    changes = (values[1:] - values[0]).reshape(len(ORDERS), 2, len(SHARES))
    return {
        (test, order): changes[n, k]
        for k, test in enumerate(("deletion", "insertion"))
        for n, order in enumerate(ORDERS)
    }


def _count(share: float, n_edges: int) -> int:
    return int(np.ceil(share * n_edges))


def _changed(kept: torch.Tensor, edges: Int[np.ndarray, " n_few"], value: bool) -> torch.Tensor:
    changed = kept.clone()
    changed[torch.from_numpy(edges)] = value
    return changed


def _with_random_weights(model: CrystalFramer, seed: int) -> CrystalFramer:
    other = model.with_frames(model.evaluation_config.frame)
    initialise(other, torch.Generator(device=model.target_mean.device).manual_seed(seed))
    return other


def _correlation(one: Found, other: Found) -> float:
    """Rank correlation of the relevance of all edges; those of two models with other radii are not compared."""
    from scipy.stats import rankdata

    if one.index.shape != other.index.shape:
        raise DataError("the models see other neighbours; compare models with the same neighbour radius", field="other")
    ranks = [rankdata(relevance(found).sum((0, 1))) for found in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _row(test: str, order: str, values: Float[np.ndarray, " n_crystals"]) -> dict[str, Any]:
    half = COVERAGE * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    mean = float(values.mean())
    interval = {"value": mean, "low": mean - half, "high": mean + half}
    return {"test": test, "order": order, **interval, "n_crystals": len(values)}
