"""The scikit-learn estimators: their conventions, and that they compute what `fit` and `embed` do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

import crystalframer as cf
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.testing import random_crystal

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks

X = [random_crystal(seed, n_atoms=2 + seed % 2) for seed in range(20)]
Y = np.array([float(crystal.atomic_numbers.mean()) for crystal in X])


SMALL: dict[str, Any] = {"preset": "tiny", "n_epochs": 2, "batch_size": 4, "accelerator": "cpu"}


def small(**changes) -> cf.CrystalFramerRegressor:
    return cf.CrystalFramerRegressor(**{**SMALL, **changes})


def small_classifier(**changes) -> cf.CrystalFramerClassifier:
    return cf.CrystalFramerClassifier(**{**SMALL, **changes})


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("kind", [small, small_classifier, cf.CrystalFramerEmbedding], ids=lambda kind: kind.__name__)
def test_scikit_learn_s_checks_that_need_no_rows_of_numbers(check, kind: Callable[[], Any]) -> None:
    estimator = kind()
    check(type(estimator).__name__, estimator)


def test_it_trains_what_fit_trains(tmp_path: Path) -> None:
    model = small(output=tmp_path / "run", random_state=3).fit(X, Y)
    assert len(model.history_) == 2
    again = small(random_state=3).fit(X, Y)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    saved = cf.predict(X, tmp_path / "run")["y"].to_numpy()
    np.testing.assert_array_equal(saved, model.predict(X))
    assert not np.array_equal(small(random_state=4).fit(X, Y).predict(X), saved)


def test_score_is_r2_and_more_training_helps() -> None:
    trained = small(n_epochs=60, learning_rate=5e-3).fit(X, Y)
    residual, total = ((trained.predict(X) - Y) ** 2).sum(), ((Y - Y.mean()) ** 2).sum()
    assert trained.score(X, Y) == pytest.approx(1 - residual / total)
    assert trained.score(X, Y) > 0.5 > small(n_epochs=1).fit(X, Y).score(X, Y)


def test_several_targets_and_missing_labels() -> None:
    labels = np.column_stack([Y, -Y])
    labels[3, 1] = np.nan
    assert small().fit(X, labels).predict(X[:5]).shape == (5, 2)


def test_validation_structures_are_no_training_structures(tmp_path: Path) -> None:
    """The same structure several times is in one part."""
    small(output=tmp_path / "run").fit([*X, *X, *X], np.tile(Y, 3))
    table = cf.load(tmp_path / "run").used.table  # type: ignore[union-attr]
    parts = [set(rows["part"]) for _, rows in table.groupby("structure")]
    assert len(parts) == len(X) and all(len(part) == 1 for part in parts)
    assert set.union(*parts) == {
        "train",
        "validation",
    }


def test_it_drops_into_cross_validation_searches_and_pipelines() -> None:
    assert np.isfinite(cross_val_score(small(), X, Y, cv=2)).all()
    search = GridSearchCV(small(), {"learning_rate": [1e-5, 1e-2]}, cv=2, scoring="neg_mean_absolute_error")
    search.fit(X, Y)
    assert set(search.best_params_) == {"learning_rate"} and search.predict(X).shape == Y.shape
    pipeline = make_pipeline(FunctionTransformer(lambda crystals: list(crystals)), small())
    assert pipeline.fit(X, Y).predict(X).shape == Y.shape


def test_a_fitted_one_can_be_pickled_and_cloned() -> None:
    model = small().fit(X, Y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        clone(model).predict(X)  # type: ignore[union-attr]


def test_what_cannot_be_used_is_named() -> None:
    with refused(CrystalError, "X[1]", "banana"):
        small().fit([X[0], "banana.cif"], [1.0, 2.0])
    with refused(ConfigError, "3 structures", "2 labels", field="y"):
        small().fit(X[:3], Y[:2])
    with refused(ConfigError, "1 structures", field="validation_fraction"):
        small().fit(X[:1], Y[:1])
    with refused(ConfigError, "1 targets", "2 columns", field="model.targets"):
        small(config=cf.PRESETS["tiny"].config).fit(X, np.column_stack([Y, Y]))
    model = small().fit(X, Y)
    close = Crystal(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1e-4]]), 4 * np.eye(3))
    for compute in (model.predict, cf.CrystalFramerEmbedding(model.model_).fit(X).transform):
        with refused(CrystalError, "X[1]", "0.0001 Å"):
            compute([X[0], close])


@pytest.fixture(scope="module")
def network() -> cf.CrystalFramer:
    return cf.CrystalFramer(cf.preset("tiny").config.model)


def test_the_transformer_computes_embeddings(network: cf.CrystalFramer) -> None:
    transformer = cf.CrystalFramerEmbedding(network, layer=0)
    found = transformer.fit(X, Y).transform(X)
    names = transformer.get_feature_names_out().tolist()
    np.testing.assert_array_equal(found, cf.embed(X, network, layer=0)[names].to_numpy())
    np.testing.assert_array_equal(transformer.fit_transform(X), found)
    assert not np.array_equal(cf.CrystalFramerEmbedding(network).fit_transform(X), found)
    table = cf.CrystalFramerEmbedding(network, layer=0).set_output(transform="pandas").fit_transform(X)
    assert table.columns.tolist() == names and len(set(names)) == found.shape[1] == 3 * network.config.d_model


def test_the_transformer_drops_into_pipelines_and_searches(network: cf.CrystalFramer, tmp_path: Path) -> None:
    cf.save(network, tmp_path / "model")
    pipeline = make_pipeline(cf.CrystalFramerEmbedding(tmp_path / "model"), StandardScaler(), Ridge())
    assert pipeline.fit(X, Y).score(X, Y) > 0.5
    search = GridSearchCV(pipeline, {"crystalframerembedding__layer": [0, -1]}, cv=2).fit(X, Y)
    assert search.predict(X).shape == Y.shape
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))


def test_a_transformer_that_is_not_fitted_says_so(network: cf.CrystalFramer) -> None:
    fitted = cf.CrystalFramerEmbedding(network).fit(X)
    transformers: list[Any] = [cf.CrystalFramerEmbedding(network), clone(fitted)]
    for transformer in transformers:
        for call in (lambda t=transformer: t.transform(X), lambda t=transformer: t.get_feature_names_out()):
            with pytest.raises(NotFittedError, match=r"call fit\(X\) first"):
                call()


# --- the classifier ---------------------------------------------------------------------------------------------------

HEAVY = np.where(np.median(Y) < Y, "heavy", "light")


@pytest.mark.parametrize("labels", [HEAVY, HEAVY == "heavy", np.arange(20) % 3 + 5], ids=["text", "truth", "numbers"])
def test_a_classifier_predicts_the_labels_that_it_was_given(labels: np.ndarray) -> None:
    model = small_classifier().fit(X, labels)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    shares = model.predict_proba(X)
    assert shares.shape == (20, len(model.classes_))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-6)
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    np.testing.assert_array_equal(predicted, model.classes_[shares.argmax(axis=1)])
    assert model.score(X, labels) == (predicted == labels).mean()


def test_a_classifier_is_cross_validated_by_class() -> None:
    scores = cross_val_score(small_classifier(n_epochs=1), X, HEAVY, cv=2, scoring="roc_auc")
    assert scores.shape == (2,) and np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["a", "b", None, *["a"] * 17], r"has no label of X\[2\]"),
        ([1.0, float("nan"), *[1.0] * 18], r"has no label of X\[1\]"),
        (["a"] * 20, "training labels are 'a'; there is nothing to learn"),
        (np.zeros((20, 2)), "one class for each structure"),
        (["a", "b"], "X has 20 structures, but y has 2 labels"),
    ],
)
def test_labels_that_no_classifier_can_learn(labels, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        small_classifier().fit(X, labels)


def test_an_unfitted_classifier_says_so() -> None:
    with pytest.raises(NotFittedError, match="CrystalFramerClassifier is not fitted"):
        small_classifier().predict(X)


def test_a_regressor_refuses_classes() -> None:
    config = cf.preset("tiny").config
    config = replace(config, model=replace(config.model, targets=(cf.Target("y", kind="class"),)))
    with refused(ConfigError, "use CrystalFramerClassifier", field="model.targets"):
        small(config=config).fit(X, Y)
