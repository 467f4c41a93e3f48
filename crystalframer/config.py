"""All settings of an experiment, as frozen dataclasses that are saved as JSON.

Defaults are the paper's (CrystalFramer, arXiv 2503.02209 and Crystalformer, arXiv 2403.11686), except where a
docstring says otherwise. Values are checked on construction; an error names the setting and its value.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from crystalframer.elements import HIGHEST_ATOMIC_NUMBER, SYMBOLS
from crystalframer.errors import ConfigError, Setting, suggestion
from crystalframer.frame_methods import ANCHORED, FRAME_METHODS as FRAME_METHODS, PROMISES, FrameMethod, FramePromises

Precision = Literal["32", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["inverse-sqrt", "warmup-stable-decay"]
SplitKind = Literal[
    "given", "random", "group", "chemical-system", "prototype", "space-group", "element", "property-tail"
]
SecondAxis = Literal["off-line", "sine"]
DecayShape = Literal["elu", "smooth"]
TargetKind = Literal["scalar", "class"]
ClassWeights = Literal["equal", "balanced"]
Activation = Literal["relu", "swish"]
OptimizerName = Literal["adamw", "muon"]

RESERVED_NAMES = ("id", "formula", "error")
"""Columns of tables of predictions; no target may be called so."""


def _setting(owner: object, name: str) -> Setting:
    """A field under the name that it has in a `Config`: `training.n_epochs`."""
    section = sections().get(type(owner))
    return Setting(f"{section}.{name}" if section else name, getattr(owner, name))


def _check(condition: bool, owner: object, name: str, *requirement: str | Setting) -> None:
    if not condition:
        setting = _setting(owner, name)
        raise ConfigError(*requirement, field=setting.name, value=setting.value)


@dataclass(frozen=True)
class Rule:
    """A condition on the values of a field, which its type names: `Annotated[int, POSITIVE]`."""

    requirement: str
    holds: Callable[[Any], bool]


POSITIVE = Rule("must be above 0", lambda value: value > 0)
NOT_NEGATIVE = Rule("must not be negative", lambda value: value >= 0)
AT_LEAST_2 = Rule("must be at least 2 (frame method 'none' switches angles off)", lambda value: value >= 2)
PositiveInt = Annotated[int, POSITIVE]
PositiveFloat = Annotated[float, POSITIVE]
Count = Annotated[int, NOT_NEGATIVE]
Amount = Annotated[float, NOT_NEGATIVE]
ProperFraction = Annotated[float, Rule("must lie between 0 and 1", lambda value: 0 < value < 1)]
Fraction = Annotated[float, Rule("must lie in [0, 1)", lambda value: 0 <= value < 1)]
Share = Annotated[float, Rule("must lie in [0, 1]", lambda value: 0 <= value <= 1)]

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _check_type(hint: Any, value: Any, name: str) -> None:
    """Refuse a value that is not of this type. Whole numbers pass for numbers, and lists for tuples."""
    origin = get_origin(hint)
    if origin is Annotated:
        kind, rule = get_args(hint)
        _check_type(kind, value, name)
        if not rule.holds(value):
            raise ConfigError(rule.requirement, field=name, value=value)
    elif origin in (Union, types.UnionType):
        if value is not None:
            _check_type(_without_none(hint), value, name)
    elif origin is tuple:
        for item in _items(hint, value, name):
            _check_type(*item)
    else:
        kind = str if origin is Literal else hint
        fits = isinstance(value, (int, float) if kind is float else kind)
        is_flag = isinstance(value, bool) and kind is not bool
        _check_kind(fits and not is_flag, KINDS.get(kind, f"a {kind.__name__}"), name, value)
        _check_kind(kind is not float or abs(value) <= sys.float_info.max, "a finite number", name, value)
        if origin is Literal and value not in get_args(hint):
            raise ConfigError(f"unknown value{suggestion(str(value), get_args(hint))}", field=name, value=value)


def _without_none(hint: Any) -> Any:
    """The type that may be None, without it."""
    (inner,) = (kind for kind in get_args(hint) if kind is not type(None))
    return inner


def _items(hint: Any, value: Any, name: str) -> list[tuple[Any, Any, str]]:
    """Type, value and name of each item of a tuple."""
    kinds = get_args(hint)
    _check_kind(isinstance(value, (list, tuple)), "a list", name, value)
    kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    _check_kind(len(kinds) == len(value), f"a list of {len(kinds)} values", name, value)
    return [(kind, item, f"{name}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))]


def _check_kind(condition: bool, kind: str, name: str, value: Any) -> None:
    if not condition:
        raise ConfigError(f"must be {kind}{', not null' if value is None else ''}", field=name, value=value)


LARGEST_RADIUS = 100.0
"""Å: of neighbours. A larger one is a slip of the pen, and would end for lack of memory."""
SMALLEST_MARGIN = 1e-5
"""Of weighted sets of frames. Scores in float32 are uncertain by 10⁻⁶."""

_hints = cache(partial(get_type_hints, include_extras=True))


class _Checked:
    """Base of all configs: on construction, each value must be of the type of its field, and obey the rule in it."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            try:
                _check_type(hint, getattr(self, name), name)
            except ConfigError as error:
                section = sections().get(type(self))
                error.field = f"{section}.{error.field}" if section else error.field
                raise

    def __repr__(self) -> str:
        """The settings that differ from the defaults, as Python makes them."""
        stated = []
        for each in dataclasses.fields(self):  # type: ignore[arg-type]  # each subclass is a dataclass
            value = getattr(self, each.name)
            made = each.default_factory() if each.default_factory is not dataclasses.MISSING else each.default
            if value != made:
                stated.append(f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(stated)})"


LOGARITHM = "log10_"
"""Before the name of a quantity: another quantity, not the same misspelt."""


@dataclass(frozen=True, repr=False)
class Target(_Checked):
    """A property to predict: the name of its label column, its physical unit, and what kind of label it is.

    >>> from crystalframer.config import Target
    >>> Target("band_gap", "eV").label
    'band_gap (eV)'
    >>> Target("is_metal", kind="class", classes=("non-metal", "metal")).n_outputs
    1
    """

    name: str
    unit: str = ""
    kind: TargetKind = "scalar"
    """`scalar`: a number. `class`: one of several classes, of which the model predicts the probabilities."""
    classes: tuple[str, ...] = ()
    """Names of the classes. Of two, the second is the positive one, whose probability is the prediction. Empty: those
    of the data, in the order of numbers or of the alphabet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(bool(self.name), self, "name", "the name of a target must not be empty")
        reserved = "is a column of every table of results, so no target can have this name; rename the label"
        _check(self.name not in RESERVED_NAMES, self, "name", reserved)
        if self.kind != "class":
            _check(not self.classes, self, "classes", "are those of a target of the kind `class`; set its kind")
            return
        _check(not self.unit, self, "unit", "has no meaning for classes; leave it out")
        _check(len(set(self.classes)) == len(self.classes), self, "classes", "names a class twice")
        _check(all(self.classes), self, "classes", "names a class by an empty text")

    @property
    def is_class(self) -> bool:
        return self.kind == "class"

    @property
    def is_logarithm(self) -> bool:
        """Whether it is the logarithm (base 10) of a quantity, as its name or its unit says."""
        return not self.is_class and (self.name.startswith(LOGARITHM) or self.unit.startswith(LOGARITHM[:-1]))

    @property
    def n_outputs(self) -> int:
        """How many numbers the network computes: of two classes, the logit of the second; of more, one logit each."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of these numbers: that of the target, or `NAME_CLASS` for each class."""
        return tuple(f"{self.name}_{each}" for each in self.classes) if self.n_outputs > 1 else (self.name,)

    @property
    def metric(self) -> str:
        """The score of this kind of target: `mae` or `accuracy`."""
        return "accuracy" if self.is_class else "mae"

    @property
    def label(self) -> str:
        """`formation_energy_per_atom (eV/atom)`: for axes, columns of reports and messages."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, repr=False)
class DecayConfig(_Checked):
    """The distance decay of attention, exp(-r²/2σᵢ²). Each query atom and head computes its own length σᵢ.

    σᵢ = reference_length / √ρ with ρ = (1-floor)·ELU(slope·s/(1-floor)) + 1 (Crystalformer).
    """

    reference_length: PositiveFloat = 1.4
    """r₀ in Å: the decay length at s = 0."""
    floor: ProperFraction = 0.5
    """Lower bound of ρ; the longest decay length is reference_length / √floor."""
    slope: PositiveFloat = 0.1
    """dρ/ds at s = 0."""
    shape: DecayShape = "elu"
    """`elu`: the ρ of the paper, whose second derivative jumps at s = 0. `smooth`: a softplus in place of ELU, with the
    same value and slope at s = 0 and the same lower bound."""
    reach: PositiveFloat | None = None
    """k: each head attends as far as k·σᵢ, where a smooth envelope ends. The neighbour radius is k times the longest
    decay length, the same for all atoms. None: a radius by `ModelConfig.weight_tolerance`, and a larger one for atoms
    with few neighbours (the paper)."""

    @property
    def longest(self) -> float:
        """The longest decay length, Å."""
        return self.reference_length / math.sqrt(self.floor)


@dataclass(frozen=True, repr=False)
class DistanceBasis(_Checked):
    """Gaussians of the distance at m·max_distance/n_centers, m = 1..n_centers (no centre at 0)."""

    n_centers: PositiveInt = 64
    """Number of Gaussians."""
    max_distance: PositiveFloat = 14.0
    """Position of the last centre, Å (10 r₀ in the paper)."""
    width: PositiveFloat = 1.0
    """Standard deviation, in spacings of the centres."""
    coefficient: float = 1.0
    """Factor on the projected distance term."""


@dataclass(frozen=True, repr=False)
class CosineBasis(_Checked):
    """Gaussians of the axis cosine, at n_centers equally spaced positions from -1 to 1."""

    n_centers: Annotated[int, AT_LEAST_2] = 64
    """Number of Gaussians."""
    width: PositiveFloat = 4.0
    """Standard deviation, in spacings of the centres."""
    coefficient: float = 1.0
    """Factor on the projected angle term."""


@dataclass(frozen=True, repr=False)
class FrameConfig(_Checked):
    """How each atom and head builds its local frame."""

    method: FrameMethod = "max"
    """Rule for the axes; `crystalframer.frame_methods` says what each method promises. `none` has no frames."""
    tie_margin: Amount = 1e-4
    """Edges whose score is closer than this to the best score tie in evaluation. Moments of the attention, which rotate
    with the crystal, choose among them. 0 takes the first of equal edges, as the authors' kernels do without noise."""
    weighted_margin: Amount = 0.0
    """δ: above 0, a frame is a weighted set of all frames whose edges score closer than this to the best. Evaluation
    sums over the set, and training draws from it by the weights. 0: one frame, chosen by `tie_margin`. For the methods
    `max` and `static-max`."""
    second_axis: SecondAxis = "off-line"
    """What lowers the scores for e₂ near the line of e₁. `off-line`, one minus the size of the cosine to e₁ (the
    paper), has a kink at 90°. `sine`, one minus its square, is smooth. For the methods `max` and
    `static-max`."""
    both_hands: bool = False
    """Predictions are the same for mirror images: the axis whose sign only the hand of the frame fixes enters by the
    even part of its cosine weights. Not for the method `lattice`."""
    noise: Amount = 5e-6
    """Half-width of the uniform noise that chooses among ties in training, where frames are not weighted sets.
    Evaluation has no noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighted_margin > 0:
            least = f"must be at least {SMALLEST_MARGIN:g}, since rounding moves scores by nearly as much; 0: one frame"
            _check(self.weighted_margin >= SMALLEST_MARGIN, self, "weighted_margin", least)
            choices = " or ".join(ANCHORED)
            _check(self.promises.has_weighted_sets, self, "method", f"has no weighted sets of frames; choose {choices}")
        if self.second_axis != "off-line":
            choices = " or ".join(ANCHORED)
            _check(self.promises.has_weighted_sets, self, "method", f"has no use of `second_axis`; choose {choices}")
        if self.both_hands:
            follows = "follows the hand of the cell, so it cannot promise `both_hands`"
            alike = "has no frames: mirror images are alike without `both_hands`; leave it out"
            requirement = alike if self.promises.axes is None else follows
            _check(self.promises.hand_axis is not None, self, "method", requirement)

    @property
    def promises(self) -> FramePromises:
        """What the method promises."""
        return PROMISES[self.method]

    @property
    def chooses(self) -> bool:
        """Each atom and head has one frame that a rule chooses: neither a weighted set nor no frame at all."""
        return self.promises.axes is not None and self.weighted_margin == 0


@dataclass(frozen=True)
class ModelPromises:
    """What the predictions of a model promise, for every crystal and whatever the weights. Rounding is left aside.

    >>> from crystalframer.config import FrameConfig, ModelConfig
    >>> ModelConfig().promises.mirror
    False
    >>> print(ModelConfig(frame=FrameConfig("none")).promises)
    a small move of the atoms can make a step in the prediction
    """

    rotation: bool
    """A rotated crystal has the same prediction, also where symmetry makes several frames equally good."""
    cell: bool
    """So has the same crystal in another cell."""
    mirror: bool
    """So has its mirror image."""
    continuous: bool
    """A small move of the atoms changes the prediction a little: neighbours and frames come and go with weight 0."""
    smooth: bool
    """It changes the derivative of the prediction a little, too. Models of properties do without: ReLU has kinks."""

    @property
    def broken(self) -> tuple[str, ...]:
        """What is not promised, in words."""
        return tuple(words for name, words in NOT_PROMISED.items() if not getattr(self, name))

    def __str__(self) -> str:
        """What holds if all is promised; else what is not, in words."""
        return "; ".join(self.broken) or ALL_PROMISED


NOT_PROMISED = {
    "rotation": "the prediction of a symmetric crystal can change when it is rotated",
    "cell": "the prediction can change with the choice of the cell",
    "mirror": "a mirror image can have another prediction",
    "continuous": "a small move of the atoms can make a step in the prediction",
}
"""Field of `ModelPromises` → what happens without it."""
ALL_PROMISED = (
    "rotated crystals, other cells and mirror images have the same prediction; small moves of the atoms make no steps"
)


@dataclass(frozen=True, repr=False)
class ModelConfig(_Checked):
    """The network: all that is needed to build it, except its weights."""

    targets: tuple[Target, ...] = (Target("formation_energy_per_atom", "eV/atom"),)
    """Properties to predict, one or several at once."""
    n_layers: PositiveInt = 4
    """Number of blocks, each with attention and a perceptron."""
    n_heads: PositiveInt = 8
    """Attention heads in each block; each head has its own frames."""
    d_model: PositiveInt = 128
    """Features per atom; a multiple of the number of heads."""
    d_feedforward: PositiveInt = 512
    """Hidden features in the perceptron of each block."""
    d_readout: PositiveInt = 128
    """Hidden features in the perceptron that computes the prediction."""
    activation: Activation = "relu"
    """Nonlinear function of the perceptrons. `relu` (the paper) has a kink at 0. `swish`, x·sigmoid(βx), is smooth: for
    models whose predictions are differentiated. β follows from the first batches of a training, layer by layer."""
    frame: FrameConfig = field(default_factory=FrameConfig)
    decay: DecayConfig = field(default_factory=DecayConfig)
    distance: DistanceBasis = field(default_factory=DistanceBasis)
    cosine: CosineBasis = field(default_factory=CosineBasis)
    largest_content: PositiveFloat | None = None
    """Bound on the size of the content logits q·k/√d, by softly bounded lengths of queries and keys. With it, distance
    decides in the end: a far neighbour cannot outweigh near ones, whatever its element. None: no bound (the paper)."""
    weight_tolerance: ProperFraction = 1e-6
    """Neighbours whose distance weight exp(-r²/2r₀²) is below this are left out; this sets the neighbour radius, unless
    `decay.reach` does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(len(self.targets) > 0, self, "targets", "needs at least one target")
        names = [target.name for target in self.targets]
        _check(len(set(names)) == len(names), self, "targets", "names a target twice")
        _check(self.d_model % self.n_heads == 0, self, "d_model", "must be a multiple of ", _setting(self, "n_heads"))
        far = f"makes the neighbour radius {self.radius:.3g} Å; at most {LARGEST_RADIUS:g} Å, for lack of memory"
        name = "reference_length" if self.decay.reach is None else "reach"
        _check(self.radius <= LARGEST_RADIUS, self.decay, name, far)

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def radius(self) -> float:
        """Neighbour radius in Å: `decay.reach` times the longest decay length; without it, where the weight of the
        reference decay length falls to `weight_tolerance`."""
        if self.decay.reach is not None:
            return self.decay.reach * self.decay.longest
        return self.decay.reference_length * math.sqrt(-2.0 * math.log(self.weight_tolerance))

    @property
    def enlarges_radius(self) -> bool:
        """An atom with few neighbours, or coplanar ones, gets a larger radius."""
        return self.decay.reach is None

    def check_layer(self, layer: int) -> None:
        """Check that there is a layer of this number, from 0 on, or from -1 backwards.

        Raises:
            ConfigError: there is none.
        """
        if not -self.n_layers <= layer < self.n_layers:
            choices = f"choose from 0 to {self.n_layers - 1}, or -1 for the last"
            message = f"is none of the {self.n_layers} layers of the model; {choices}"
            raise ConfigError(message, field="layer", value=layer)

    def check_output(self, name: str) -> None:
        """Check that a name is that of a target, or of one class of a target.

        Raises:
            ConfigError: it is neither (the nearest name is given).
        """
        classes = (name for each in self.targets if each.n_outputs > 1 for name in each.output_names)
        known = [*self.target_names, *classes]
        if name not in known:
            raise ConfigError(f"the model does not predict it{suggestion(name, known)}", field="target", value=name)

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    @property
    def scalar_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets if not target.is_class)

    @property
    def outputs(self) -> tuple[Target, ...]:
        """What each output of the network is: a scalar target itself, and of a target of classes, logits: that of the
        second of two classes, `NAME`, or those of all, `NAME_CLASS`.
        """
        return tuple(Target(name, target.unit) for target in self.targets for name in target.output_names)

    @property
    def scalar_columns(self) -> list[int]:
        """The outputs that are scalars."""
        return [
            columns.start for target, columns in zip(self.targets, self.columns, strict=True) if not target.is_class
        ]

    @property
    def columns(self) -> tuple[slice, ...]:
        """The outputs of the network that belong to each target."""
        ends = itertools.accumulate(target.n_outputs for target in self.targets)
        return tuple(slice(end - target.n_outputs, end) for end, target in zip(ends, self.targets, strict=True))

    @property
    def promises(self) -> ModelPromises:
        """What changes no prediction, whatever the weights."""
        frame = self.frame.promises
        smooth_axes = frame.axes is None or self.frame.second_axis == "sine"
        continuous = not self.frame.chooses and smooth_axes and self.decay.reach is not None
        return ModelPromises(
            rotation=not self.frame.chooses or frame.axes == "oblique",
            cell=not self.frame.chooses,
            mirror=frame.axes is None or self.frame.both_hands,
            continuous=continuous,
            smooth=continuous and self.activation != "relu",
        )


@dataclass(frozen=True, repr=False)
class DataConfig(_Checked):
    """Which crystals to train on, and how to split them."""

    source: str = "demo"
    """`demo`, a public data set (`crystalframer data get` lists them), or a path: a packed data set, a table (CSV,
    JSON, parquet) or a folder of structure files."""
    labels: str | None = None
    """Table of labels for a folder of structure files (default: `labels.csv`, `.json` or `.parquet` in it)."""
    split: SplitKind = "given"
    """`given`: by the data set's column `split`. All others draw by fractions. `random`: each crystal by chance.
    `group`, `chemical-system`, `prototype`, `space-group`: all crystals of one formula (set of elements, structure
    type, space group) in one part. `element`: some elements are in no training crystal. `property-tail`: the test
    crystals have the highest labels of one target."""
    validation_fraction: Fraction = 0.1
    """Share of the crystals used to choose the best epoch (not for the split `given`)."""
    test_fraction: Fraction = 0.1
    """Share of the crystals used for the final score (not for the split `given`)."""
    test_elements: tuple[str, ...] = ()
    """Elements of the split `element`: all crystals that contain one are the test part, whatever `test_fraction` is.
    None named: elements are drawn, as long as their crystals fit into `test_fraction`."""
    tail_target: str | None = None
    """Target whose highest labels the split `property-tail` tests. None: the first target."""
    max_atoms_per_crystal: PositiveInt | None = None
    """Leave larger cells out of training and validation. The test part always keeps all its crystals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        share = self.validation_fraction + self.test_fraction
        _check(share < 1, self, "test_fraction", "leaves no crystals to train on")
        for symbol in self.test_elements:
            known = SYMBOLS[:HIGHEST_ATOMIC_NUMBER]
            _check(symbol in known, self, "test_elements", f"{symbol!r} is no element{suggestion(symbol, known)}")
        for name, split in (("test_elements", "element"), ("tail_target", "property-tail")):
            is_used = self.split == split or not getattr(self, name)
            _check(is_used, self, name, f"belongs to the split {split!r}, but ", _setting(self, "split"))
        no_tail = self.split == "property-tail" and self.test_fraction == 0
        _check(not no_tail, self, "test_fraction", "must be above 0 for the split 'property-tail'")


@dataclass(frozen=True, repr=False)
class TrainingConfig(_Checked):
    """Optimiser, schedule and run. Defaults: the paper's JARVIS protocol; departures are named."""

    n_epochs: PositiveInt = 2000
    """Number of passes over the training crystals."""
    batch_size: PositiveInt = 256
    """Largest number of crystals per step."""
    max_atoms: PositiveInt | None = None
    """Largest number of atoms per step; a batch ends early if the next crystal would exceed it."""
    max_edges: PositiveInt | None = 1_000_000
    """Largest number of neighbour pairs per step; time and memory are proportional to it. Batches of the paper's data
    sets stay below the default (about 270,000 on JARVIS)."""
    accumulate: PositiveInt = 1
    """Number of batches whose gradients are added before each optimiser step."""
    n_pieces: PositiveInt = 1
    """Number of pieces in which each batch is computed, one after another, to need less memory. What is learned stays
    the same, unlike with `accumulate`. A training that runs out of GPU memory doubles it."""
    initial_weights: str | None = None
    """Trained model to start from, for fine-tuning on other crystals or other targets: a checkpoint or run folder, or
    `package` for the weights that come with the package. The readout of a target that the trained model has not starts
    from random weights."""
    learning_rate: PositiveFloat = 5e-4
    """Highest learning rate; the schedule changes it from step to step."""
    schedule: Schedule = "inverse-sqrt"
    """`inverse-sqrt`: learning_rate·√(decay_steps/(decay_steps + t)) after t steps (the paper).
    `warmup-stable-decay`: rises linearly over `warmup_steps`, stays constant, and falls linearly to 0 at the end."""
    decay_steps: PositiveInt = 4000
    """Steps after which `inverse-sqrt` has lowered the rate by √2."""
    warmup_steps: Count = 0
    """Steps over which `warmup-stable-decay` raises the rate."""
    decay_fraction: Share = 1.0
    """Share of the run, at its end, over which `warmup-stable-decay` lowers the rate; 0 keeps it constant."""
    optimizer: OptimizerName = "adamw"
    """`adamw` (the paper). `muon`: the matrices of the blocks take steps of equal size in all directions, and the other
    parameters those of AdamW; it learns more in an epoch, at the same rate (`crystalframer.training.muon`)."""
    momentum: Fraction = 0.95
    """Share of the average of gradients that Muon keeps from step to step."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW decay rates of the averages of gradients and of squared gradients."""
    eps: PositiveFloat = 1e-8
    """AdamW epsilon."""
    weight_decay: Amount = 1e-5
    """AdamW weight decay; biases are excluded."""
    bias_weight_decay: Amount = 0.0
    """AdamW weight decay of biases. The authors' code has 0.01 by accident (quirk Q3); the paper's presets keep it."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient of all parameters; longer gradients are scaled down to it."""
    class_weights: ClassWeights = "equal"
    """How labels of classes count in the loss. `equal`: all alike. `balanced`: all classes alike, however rare; the
    probabilities are then those of classes that are equally common."""
    target_weights: tuple[PositiveFloat, ...] = ()
    """Factor on the loss of each target, in the order of `model.targets`. Empty: all count alike."""
    swa_epochs: Count = 50
    """Number of last epochs over which weights are averaged, at constant learning rate; 0 switches averaging off."""
    calibration_batches: PositiveInt = 1
    """Number of batches that set the scale and shift of the decay logits (the authors use 1, quirk Q11)."""
    drop_last: bool = True
    """Leave out the last batch of an epoch if it is incomplete."""
    intervals: bool = True
    """End with 90 % prediction intervals from the validation crystals (20 or more with a label), and an index of the
    training crystals, from which the intervals follow (see `calibrate`). It takes as long as a third of an epoch."""
    seed: int = 123
    """Random seed of initial weights, batches, training noise and random splits."""
    precision: Precision = "32"
    """`bf16-mixed` computes dense layers in bfloat16; logits, softmax, frames and bases stay in float32."""
    accelerator: Accelerator = "auto"
    """Where to train; `auto` takes a GPU if there is one."""
    n_workers: Count = 0
    """Number of processes that build batches. With 0, the training process builds them, or the GPU if all crystals fit
    into its memory. This is usually fastest: passing a batch between processes takes five times as long as building
    it (0.02 ms per crystal)."""
    n_threads: PositiveInt | None = None
    """Torch threads per process. None: torch's default, divided among the processes of `n_devices`."""
    n_devices: PositiveInt | None = None
    """Number of GPUs per machine, or of processes on the CPU. `batch_size`, `max_atoms` and `max_edges` are totals over
    all of them, so the number does not change the training. None: the number of processes that torchrun or SLURM
    started, else one."""
    n_nodes: PositiveInt | None = None
    """Number of machines. Several are started by torchrun or SLURM; this number, if set, must agree with theirs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        too_many = "exceeds ", _setting(self, "n_epochs"), "; lower it too"
        _check(self.swa_epochs <= self.n_epochs, self, "swa_epochs", *too_many)


@dataclass(frozen=True, repr=False)
class Config(_Checked):
    """One experiment: model, data and training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights, targets = self.training.target_weights, self.model.targets
        one_each = f"needs a factor for each of the {len(targets)} targets, or none"
        _check(len(weights) in (0, len(targets)), self.training, "target_weights", one_each)

    def _repr_html_(self) -> str:
        # By name: the card compares with the presets, which are made of configs.
        return import_module("crystalframer.object_cards").config_card(self)


T = TypeVar("T")


@cache
def sections(root: type = Config, prefix: str = "") -> dict[type, str]:
    """Class of each section of a `Config` → its dotted name, such as `model.frame`."""
    found = {root: prefix}
    for name, hint in get_type_hints(root).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= sections(hint, f"{prefix}.{name}" if prefix else name)
    return found


def to_json(config: Any) -> str:
    """A config dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(kind: type[T], text: str) -> T:
    """The inverse of `to_json`.

    Raises:
        ConfigError: the text is not JSON, or a field is unknown, of the wrong type or out of range (named).
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON ({error})") from error
    return from_tree(kind, tree)


def from_tree(kind: type[T], tree: Any, name: str | None = None) -> T:
    """A config dataclass from nested dictionaries and lists.

    Args:
        kind: class of the result.
        tree: its fields.
        name: dotted name of this part of the config, for errors. Default: the one that it has in a `Config`.

    Raises:
        ConfigError: a field is unknown, of the wrong type or out of range (named).
    """
    name = sections().get(kind, "") if name is None else name
    _check_kind(isinstance(tree, Mapping), "an object with fields", name or kind.__name__, tree)
    hints = get_type_hints(kind)
    values = {}
    for field_name, value in tree.items():
        full_name = f"{name}.{field_name}" if name else field_name
        if field_name not in hints:
            raise ConfigError(f"there is no such setting{suggestion(field_name, hints)}", field=full_name)
        values[field_name] = decode(hints[field_name], value, full_name)
    return kind(**values)


def decode(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON as a field of this type takes it; `name` is that of the field, for errors.

    Raises:
        ConfigError: the value is of another type.
    """
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_tree(hint, value, name)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return None if value is None else decode(_without_none(hint), value, name)
    if origin is tuple:
        return tuple(decode(*item) for item in _items(hint, value, name))
    _check_type(hint, value, name)
    return float(value) if hint is float else value
