"""scikit-learn estimators, for `cross_val_score`, grid searches, pipelines and matbench."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.exceptions import NotFittedError

from crystalframer.class_scores import probabilities
from crystalframer.config import Accelerator, Config, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.embedding import embed, feature_names
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import predict, ready
from crystalframer.presets import preset
from crystalframer.reading.inputs import read
from crystalframer.training import fit

if TYPE_CHECKING:
    import pandas


class _Estimator(BaseEstimator):
    """What regressor and classifier share: their options, training, and a table of predictions."""

    def __init__(
        self,
        preset: str = "default",
        n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation_fraction: float = 0.1,
        initial_weights: str | None = None,
        config: Config | None = None,
        random_state: int = 0,
        accelerator: Accelerator = "auto",
        output: str | Path | None = None,
    ) -> None:
        """Args:
        preset: name of the settings to start from (a key of `PRESETS`).
        n_epochs, batch_size, learning_rate, initial_weights: as in `TrainingConfig`. Default: those of the preset.
        validation_fraction: share of the structures used to choose the best epoch.
        config: all settings, instead of a preset; its targets name the columns of `y`, with their units or classes.
        random_state: random seed of the validation part, initial weights, batches and noise.
        accelerator: `auto` takes a GPU if there is one.
        output: folder for the run; it must not hold another run. Default: the run is not kept.
        """
        self.preset = preset
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.initial_weights = initial_weights
        self.config = config
        self.random_state = random_state
        self.accelerator = accelerator
        self.output = output

    def _train(
        self, X: Sequence[Any], columns: Float[np.ndarray, "n_labels n_targets"], targets: tuple[Target, ...]
    ) -> None:
        """Train with labels of these targets. Sets `model_`, `history_` and `targets_`."""
        if len(X) != len(columns):
            problem = f"X has {len(X)} structures, but y has {len(columns)} labels; give one per structure"
            raise ConfigError(problem, field="y")
        config = self._config(targets)
        crystals = [
            replace(crystal, targets=dict(zip(config.model.target_names, row.tolist(), strict=True)))
            for crystal, row in zip(_crystals(X), columns, strict=True)
        ]
        splits = self._split(CrystalDataset.from_crystals(crystals, config.model.targets))
        with tempfile.TemporaryDirectory() as scratch:
            result = fit(config, splits, self.output or Path(scratch) / "run")
        self.model_, self.history_ = result.model, result.history
        self.targets_ = config.model.targets

    def _table(self, X: Sequence[Any]) -> pandas.DataFrame:
        """The table of predictions.

        Raises:
            NotFittedError: `fit` was not called.
            CrystalError: structures that cannot be predicted (their indices in `X` are named).
        """
        if not hasattr(self, "model_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit(X, y) first")
        table = predict(_crystals(X), self.model_, progress=False)
        _check_all_there(table, "predicted")
        return table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # structures, not rows of numbers
        return tags

    def _config(self, targets: tuple[Target, ...]) -> Config:
        """The settings for these targets."""
        config = self.config or preset(self.preset).config
        config = replace(config, model=replace(config.model, targets=targets))
        names = ("n_epochs", "batch_size", "learning_rate", "initial_weights")
        changes = {name: value for name in names if (value := getattr(self, name)) is not None}
        training = config.training
        if self.n_epochs is not None:  # weights are averaged over the same share of a shorter run
            changes["swa_epochs"] = training.swa_epochs * self.n_epochs // training.n_epochs
        training = replace(training, seed=self.random_state, accelerator=self.accelerator, **changes)
        return replace(config, training=training)

    def _split(self, data: CrystalDataset) -> Splits:
        order = np.random.default_rng(self.random_state).permutation(len(data))
        n_validation = max(1, round(self.validation_fraction * len(data)))
        where: dict[str, Any] = {"field": "validation_fraction", "value": self.validation_fraction}
        if n_validation >= len(data):
            raise ConfigError(f"leaves none of {len(data)} structures to train on; give more structures", **where)
        # Structures that are the same stay together, as in a random split: the first of them decides.
        n_members, n_free = np.bincount(data.duplicates), n_validation
        chosen = []
        for group in dict.fromkeys(data.duplicates[order].tolist()):
            if n_members[group] <= n_free:
                chosen.append(group)
                n_free -= n_members[group]
        if not chosen:
            raise ConfigError("leaves no structure that is not among those to train on; give more structures", **where)
        is_validation = np.isin(data.duplicates, chosen)
        return Splits(data.select(~is_validation), data.select(is_validation), data.select([]))


class CrystalFramerRegressor(RegressorMixin, _Estimator):
    """scikit-learn regressor with `fit`, `predict`, `score` (R²), `get_params` and `clone`.

    `X` is a list (or array of objects) of structures: pymatgen, ASE, `Crystal`, or paths of files. `y` holds their
    labels, one column per target, NaN where missing. A part of the structures is used to choose the best epoch.

    >>> from sklearn.model_selection import cross_val_score
    >>> import crystalframer as cf
    >>> from crystalframer.testing import random_crystal
    >>> X = [random_crystal(seed, n_atoms=2) for seed in range(16)]
    >>> y = [float(crystal.atomic_numbers.mean()) for crystal in X]
    >>> model = cf.CrystalFramerRegressor(preset="tiny", n_epochs=1)
    >>> cross_val_score(model, X, y, cv=2, scoring="neg_mean_absolute_error").shape
    (2,)
    """

    def fit(self, X: Sequence[Any], y: Sequence[Any] | np.ndarray) -> CrystalFramerRegressor:
        """Train. Sets `model_` (with the best weights), `history_` (a table of the epochs) and `targets_`.

        Raises:
            CrystalError: a structure that cannot be used (its index in `X` is named).
            ConfigError: settings that do not fit the data, or fewer than two structures.
        """
        labels = np.asarray(y, dtype=np.float64)
        columns = labels.reshape(len(labels), -1)
        n_targets = columns.shape[1]
        targets = (Target("y"),) if n_targets == 1 else tuple(Target(f"y{n}") for n in range(n_targets))
        if self.config is not None:
            targets = self.config.model.targets
            if len(targets) != n_targets:
                problem = f"names {len(targets)} targets, but y has {n_targets} columns"
                raise ConfigError(problem, field="model.targets")
            if any(target.is_class for target in targets):
                raise ConfigError("names a target of classes; use CrystalFramerClassifier", field="model.targets")
        self._train(X, columns, targets)
        self._is_single = labels.ndim == 1
        return self

    def predict(self, X: Sequence[Any]) -> Float[np.ndarray, " n"] | Float[np.ndarray, "n n_targets"]:
        """Predictions in the units of the labels, in the shape of `y`.

        Raises:
            NotFittedError: `fit` was not called.
            CrystalError: structures that cannot be predicted (their indices in `X` are named).
        """
        values = self._table(X)[[target.name for target in self.targets_]].to_numpy()
        return values[:, 0] if self._is_single else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class CrystalFramerClassifier(ClassifierMixin, _Estimator):
    """scikit-learn classifier with `fit`, `predict`, `predict_proba`, `score` (accuracy), `get_params` and `clone`.

    `X` is a list (or array of objects) of structures: pymatgen, ASE, `Crystal`, or paths of files. `y` holds the class
    of each: text, numbers or truth values. A part of the structures is used to choose the best epoch.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import random_crystal
    >>> X = [random_crystal(seed, n_atoms=2) for seed in range(16)]
    >>> y = ["heavy" if crystal.atomic_numbers.mean() > 50 else "light" for crystal in X]
    >>> model = cf.CrystalFramerClassifier(preset="tiny", n_epochs=1).fit(X, y)
    >>> model.classes_.tolist(), model.predict_proba(X).shape
    (['heavy', 'light'], (16, 2))
    """

    def fit(self, X: Sequence[Any], y: Sequence[Any] | np.ndarray) -> CrystalFramerClassifier:
        """Train. Sets `model_` (with the best weights), `history_` (a table of the epochs), `targets_` and `classes_`
        (the different labels, sorted).

        Raises:
            CrystalError: a structure that cannot be used (its index in `X` is named).
            ConfigError: settings that do not fit the data, labels that are missing or of one class only, or fewer than
                two structures.
        """
        labels = np.asarray(y)
        if labels.ndim != 1:
            raise ConfigError(f"has the shape {labels.shape}; give one class for each structure", field="y")
        missing = [index for index, label in enumerate(labels.tolist()) if label is None or label != label]
        if missing:
            raise ConfigError(f"has no label of X[{missing[0]}]; leave the structure out", field="y")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        given = [] if self.config is None else self.config.model.targets
        name = given[0].name if len(given) == 1 else "y"
        target = Target(name, kind="class", classes=tuple(map(str, self.classes_.tolist())))
        self._train(X, codes.reshape(-1, 1).astype(np.float64), (target,))
        return self

    def predict_proba(self, X: Sequence[Any]) -> Float[np.ndarray, "n n_classes"]:
        """The probability of each class, in the order of `classes_`.

        Raises:
            NotFittedError: `fit` was not called.
            CrystalError: structures that cannot be predicted (their indices in `X` are named).
        """
        table = self._table(X)
        (target,) = self.targets_
        return probabilities(table[list(target.output_names)].to_numpy())

    def predict(self, X: Sequence[Any]) -> np.ndarray:
        """The likeliest class of each structure.

        Raises:
            NotFittedError: `fit` was not called.
            CrystalError: structures that cannot be predicted (their indices in `X` are named).
        """
        found = self.predict_proba(X)  # before the classes, which only a fitted one has
        return self.classes_[found.argmax(axis=1)]


class CrystalFramerEmbedding(TransformerMixin, BaseEstimator):
    """scikit-learn transformer: structures to their embeddings (see `embed`), for pipelines with other methods.

    `X` is as for `CrystalFramerRegressor`. The weights are those of a trained model; `fit` trains nothing.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> X, y = prototypes(), [float(crystal.atomic_numbers.mean()) for crystal in prototypes()]
    >>> model = make_pipeline(cf.CrystalFramerEmbedding(), StandardScaler(), Ridge())
    >>> model.fit(X, y).predict(X[:3]).shape
    (3,)
    """

    def __init__(
        self, model: CrystalFramer | str | Path | None = None, layer: int = -1, device: str | None = None
    ) -> None:
        """Args:
        model: a model, or the path of one. Default: the weights that come with the package.
        layer: block whose output the features are, as in `embed`.
        device: where to compute, as in `predict`.
        """
        self.model = model
        self.layer = layer
        self.device = device

    def fit(self, X: Sequence[Any], y: Any = None) -> CrystalFramerEmbedding:
        """Load the model. `X` and `y` are not used.

        Raises:
            CheckpointError: the model cannot be loaded.
            ConfigError: the device cannot be used.
        """
        self.model_ = ready(self.model, self.device)
        return self

    def transform(self, X: Sequence[Any]) -> Float32[np.ndarray, "n n_features"]:
        """Embeddings, a row for each structure; `get_feature_names_out` names the columns.

        Raises:
            NotFittedError: `fit` was not called.
            CrystalError: structures that cannot be embedded (their indices in `X` are named).
            ConfigError: the model has no such layer.
        """
        self._check_fitted()
        table = embed(_crystals(X), self.model_, layer=self.layer, progress=False)
        _check_all_there(table, "embedded")
        return table[feature_names(self.model_.config.d_model)].to_numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns: `mean_0`, ..., `std_0`, ..., `third_0`, ... `input_features` is not used.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._check_fitted()
        return np.array(feature_names(self.model_.config.d_model), dtype=object)

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise NotFittedError("this CrystalFramerEmbedding is not fitted; call fit(X) first")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # structures, not rows of numbers
        return tags


def _check_all_there(table: pandas.DataFrame, done: str) -> None:
    """Raise an error that names the first structures without a result."""
    failed = table["error"].dropna()
    if len(failed):
        reasons = "; ".join(f"X[{index}]: {error}" for index, error in failed.iloc[:3].items())
        raise CrystalError(f"{len(failed)} of {len(table)} structures cannot be {done}: {reasons}")


def _crystals(structures: Sequence[Any]) -> list[Crystal]:
    crystals = []
    for index, structure in enumerate(structures):
        try:
            crystals.append(replace(read(structure), id=f"X[{index}]"))
        except CrystalError as error:
            raise CrystalError(f"X[{index}]: {error}") from error
    return crystals
