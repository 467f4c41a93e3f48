"""Every knob of an experiment, as frozen data that travels as JSON.

Defaults are the paper's (CrystalFramer, arXiv 2503.02209 and Crystalformer, arXiv 2403.11686), except where a
docstring says otherwise. Checks run on construction and name the field and the value.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from crystalframer.errors import ConfigError, suggestion
from crystalframer.frame_methods import ANCHORED, FRAME_METHODS, PROMISES, FrameMethod, FramePromises

Precision = Literal["32", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Schedule = Literal["inverse-sqrt", "warmup-stable-decay"]

RESERVED_NAMES = ("id", "formula", "error")
"""Columns of tables of predictions; no target may be called so."""


def _check(condition: bool, owner: object, name: str, requirement: str) -> None:
    if not condition:
        value = getattr(owner, name)
        raise ConfigError(f"{type(owner).__name__}.{name} = {value!r}: {requirement}", field=name, value=value)


def _check_positive(owner: object, *names: str) -> None:
    for name in names:
        _check(getattr(owner, name) > 0, owner, name, "must be above 0")


def _check_choice(owner: object, name: str, known: Iterable[str]) -> None:
    value = getattr(owner, name)
    if value not in known:
        problem = f"{type(owner).__name__}.{name} = {value!r} is unknown{suggestion(str(value), known)}"
        raise ConfigError(problem, field=name, value=value)


@dataclass(frozen=True)
class Target:
    """A property to predict: the name of its label column and its physical unit."""

    name: str
    unit: str = ""

    def __post_init__(self) -> None:
        _check(bool(self.name), self, "name", "must not be empty")
        _check(self.name not in RESERVED_NAMES, self, "name", "is a column of every table of results; rename the label")

    @property
    def label(self) -> str:
        """`formation_energy_per_atom (eV/atom)`: for axes, columns of reports and messages."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class DecayConfig:
    """The distance decay of attention, exp(-r²/2σᵢ²), whose length σᵢ each query atom and head sets itself.

    σᵢ = reference_length / √ρ with ρ = (1-floor)·ELU(slope·s/(1-floor)) + 1 (Crystalformer).
    """

    reference_length: float = 1.4
    """r₀ in Å: the decay length of a neutral query."""
    floor: float = 0.5
    """Lower bound of ρ; the longest decay length is reference_length / √floor."""
    slope: float = 0.1
    """dρ/ds at s = 0."""

    def __post_init__(self) -> None:
        _check_positive(self, "reference_length", "slope")
        _check(0 < self.floor < 1, self, "floor", "must lie between 0 and 1")


@dataclass(frozen=True)
class DistanceBasis:
    """Gaussians of the distance at m·max_distance/n_centers, m = 1..n_centers (no centre at 0)."""

    n_centers: int = 64
    max_distance: float = 14.0
    """Position of the last centre, Å (10 r₀ in the paper)."""
    width: float = 1.0
    """Standard deviation in spacings of the centres."""
    coefficient: float = 1.0
    """Factor on the projected distance term."""

    def __post_init__(self) -> None:
        _check_positive(self, "n_centers", "max_distance", "width")


@dataclass(frozen=True)
class CosineBasis:
    """Gaussians of the axis cosine at n_centers equal steps from -1 to 1."""

    n_centers: int = 64
    width: float = 4.0
    """Standard deviation in spacings of the centres."""
    coefficient: float = 1.0
    """Factor on the projected angle term."""

    def __post_init__(self) -> None:
        _check(self.n_centers >= 2, self, "n_centers", "needs at least 2 (frame method 'none' switches angles off)")
        _check_positive(self, "width")


@dataclass(frozen=True)
class FrameConfig:
    """How each atom and head builds its local frame."""

    method: FrameMethod = "max"
    """Rule for the axes; `crystalframer.frame_methods` says what each method promises. `none` has no frames."""
    tie_margin: float = 1e-4
    """Edges whose score is closer than this to the best score tie in evaluation. Moments of the attention, which rotate
    with the crystal, choose among them. 0 takes the first of equal edges, as the authors' kernels do without noise."""
    average_margin: float = 0.0
    """Above 0, evaluation averages over the frames of all edges that score closer than this to the best, instead of
    choosing one by `tie_margin` (`crystalframer.load(average_ties=True)`). For the methods `max` and `static-max`."""
    noise: float = 5e-6
    """Half-width of the uniform noise that chooses among ties in training. Evaluation has no noise."""

    def __post_init__(self) -> None:
        _check_choice(self, "method", FRAME_METHODS)
        _check(self.tie_margin >= 0, self, "tie_margin", "must not be negative")
        _check(self.average_margin >= 0, self, "average_margin", "must not be negative")
        if self.average_margin > 0:
            choices = " or ".join(ANCHORED)
            _check(self.promises.averages_ties, self, "method", f"cannot average over ties; choose {choices}")
        _check(self.noise >= 0, self, "noise", "must not be negative")

    @property
    def promises(self) -> FramePromises:
        """What the method promises."""
        return PROMISES[self.method]


@dataclass(frozen=True)
class ModelConfig:
    """The network: everything needed to rebuild it beside its weights."""

    targets: tuple[Target, ...] = (Target("formation_energy_per_atom", "eV/atom"),)
    """What to predict, several at once if you like."""
    n_layers: int = 4
    """Blocks of attention and perceptron."""
    n_heads: int = 8
    """Attention heads of each block, each with frames of its own."""
    d_model: int = 128
    """Features of an atom; a multiple of n_heads."""
    d_feedforward: int = 512
    """Hidden features of the perceptron of each block."""
    d_readout: int = 128
    """Hidden features of the perceptron that reads a crystal out."""
    frame: FrameConfig = field(default_factory=FrameConfig)
    decay: DecayConfig = field(default_factory=DecayConfig)
    distance: DistanceBasis = field(default_factory=DistanceBasis)
    cosine: CosineBasis = field(default_factory=CosineBasis)
    weight_tolerance: float = 1e-6
    """Edges whose distance weight exp(-r²/2r₀²) is below this are left out; sets `radius`."""

    def __post_init__(self) -> None:
        _check(len(self.targets) > 0, self, "targets", "needs at least one target")
        names = [target.name for target in self.targets]
        _check(len(set(names)) == len(names), self, "targets", "names a target twice")
        _check_positive(self, "n_layers", "n_heads", "d_model", "d_feedforward", "d_readout")
        _check(self.d_model % self.n_heads == 0, self, "d_model", f"must be a multiple of n_heads = {self.n_heads}")
        _check(0 < self.weight_tolerance < 1, self, "weight_tolerance", "must lie between 0 and 1")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def radius(self) -> float:
        """Neighbour radius in Å: where the weight of the reference decay length falls to `weight_tolerance`."""
        return self.decay.reference_length * math.sqrt(-2.0 * math.log(self.weight_tolerance))

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)


@dataclass(frozen=True)
class DataConfig:
    """Which crystals to train on, and how they are divided."""

    source: str = "demo"
    """`demo`, a public data set (`crystalframer data get` lists them), or a path: a packed data set, a table (CSV,
    JSON, parquet) or a folder of structure files."""
    labels: str | None = None
    """Table of labels for a folder of structure files (default: `labels.csv`, `.json` or `.parquet` in it)."""
    split: Literal["given", "random", "group"] = "given"
    """`given` by the data set's `split` column; `random` by fraction; `group` keeps a formula in one part."""
    validation_fraction: float = 0.1
    """Share of the crystals that chooses the best epoch (splits `random` and `group`)."""
    test_fraction: float = 0.1
    """Share of the crystals that is kept for the final score (splits `random` and `group`)."""
    max_atoms_per_crystal: int | None = None
    """Leave larger cells out of training and validation; the test part is never thinned."""

    def __post_init__(self) -> None:
        _check_choice(self, "split", ("given", "random", "group"))
        for name in ("validation_fraction", "test_fraction"):
            _check(0 <= getattr(self, name) < 1, self, name, "must lie in [0, 1)")
        _check(self.validation_fraction + self.test_fraction < 1, self, "test_fraction", "leaves nothing to train on")
        if self.max_atoms_per_crystal is not None:
            _check_positive(self, "max_atoms_per_crystal")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, schedule and run. Defaults: the paper's JARVIS protocol; departures are named."""

    n_epochs: int = 2000
    """Passes over the training crystals."""
    batch_size: int = 256
    """Crystals per step at most."""
    max_atoms: int | None = None
    """Atoms per step at most; a batch closes early when the next crystal would exceed it."""
    max_edges: int | None = 1_000_000
    """Neighbours of all atoms per step at most, likewise: what time and memory of a step are proportional to. The
    default bounds memory and leaves batches of the paper's data sets as they are (about 270,000 on JARVIS)."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    initial_weights: str | None = None
    """Start from this trained model (a checkpoint or the folder of a run) instead of random weights: to fine-tune it on
    other crystals, or on other targets, for which the readout starts anew."""
    learning_rate: float = 5e-4
    """The highest; how it changes with the steps is the schedule's."""
    schedule: Schedule = "inverse-sqrt"
    """`inverse-sqrt`: learning_rate·√(decay_steps/(decay_steps + t)) after t steps (the paper).
    `warmup-stable-decay`: up in a line over `warmup_steps`, constant, and down in a line to 0 at the end of the run."""
    decay_steps: int = 4000
    """Of the schedule `inverse-sqrt`."""
    warmup_steps: int = 0
    """Of the schedule `warmup-stable-decay`."""
    decay_fraction: float = 1.0
    """Of the schedule `warmup-stable-decay`: the share of the run, at its end, in which the rate falls.
    0 keeps it constant to the end."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Memory of AdamW for gradients and for their squares."""
    eps: float = 1e-8
    """Of AdamW."""
    weight_decay: float = 1e-5
    """Of everything but biases."""
    bias_weight_decay: float = 0.0
    """The authors' code decays biases with 0.01 by accident (quirk Q3); the paper presets keep that."""
    clip_norm: float = 1.0
    """Gradients are shortened to this joint length."""
    swa_epochs: int = 50
    """Weights are averaged over this many last epochs, at a frozen learning rate; 0 switches it off."""
    calibration_batches: int = 1
    """First batches that set the scale and shift of the decay logits (the authors use 1, quirk Q11)."""
    drop_last: bool = True
    """Leave the incomplete last batch of an epoch out."""
    seed: int = 123
    """Initial weights, batches, training noise and random splits follow from it."""
    precision: Precision = "32"
    """`bf16-mixed` runs the dense layers in bfloat16; logits, softmax, frames and bases stay in float32."""
    accelerator: Accelerator = "auto"
    """`auto` takes a GPU if there is one."""
    n_workers: int = 0
    """Loader processes; 0 builds batches in the training process. Building one takes 0.02 ms a crystal, passing it from
    process to process five times as long, so more than 0 seldom helps. On a GPU 0 leaves batches to the GPU, if the
    crystals have room there; with more than 0 they are built by the host."""
    n_threads: int | None = None
    """Torch threads of a process; None leaves torch's default, shared out among the processes of `n_devices`."""
    n_devices: int | None = None
    """GPUs of each machine to train on at once, or processes on the CPU. `batch_size`, `max_atoms` and `max_edges` are
    those of all together, so that the number does not change what is learnt. None: as many as torchrun or SLURM has
    started processes for, else one."""
    n_nodes: int | None = None
    """Machines. More than one are started by torchrun or SLURM, and have to be as many as this says, if it is set."""

    def __post_init__(self) -> None:
        _check_positive(self, "n_epochs", "batch_size", "accumulate", "learning_rate", "decay_steps", "eps")
        _check_positive(self, "clip_norm", "calibration_batches")
        for name in ("weight_decay", "bias_weight_decay", "swa_epochs", "n_workers", "warmup_steps"):
            _check(getattr(self, name) >= 0, self, name, "must not be negative")
        _check(
            self.swa_epochs <= self.n_epochs, self, "swa_epochs", f"exceeds n_epochs = {self.n_epochs}; lower it too"
        )
        _check(0 <= self.decay_fraction <= 1, self, "decay_fraction", "must lie in [0, 1]")
        _check_choice(self, "schedule", get_args(Schedule))
        _check_choice(self, "precision", get_args(Precision))
        _check_choice(self, "accelerator", get_args(Accelerator))
        for name in ("max_atoms", "max_edges", "n_threads", "n_devices", "n_nodes"):
            if getattr(self, name) is not None:
                _check_positive(self, name)


@dataclass(frozen=True)
class Config:
    """One experiment: model, data and training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


T = TypeVar("T")


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
        raise ConfigError(f"{kind.__name__}: not valid JSON ({error})") from error
    return from_tree(kind, tree)


def from_tree(kind: type[T], tree: Any, where: str = "") -> T:
    """A config dataclass from nested dictionaries and lists; `where` is the path to name in errors."""
    where = where or kind.__name__
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: expected an object with fields, got {tree!r}")
    hints = get_type_hints(kind)
    values = {}
    for name, value in tree.items():
        if name not in hints:
            raise ConfigError(f"{where}.{name} is no field of this version{suggestion(name, hints)}")
        values[name] = _decode(hints[name], value, f"{where}.{name}")
    return kind(**values)


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_tree(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (arg for arg in args if arg is not type(None))
        return _decode(inner, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            raise ConfigError(f"{where}: expected {len(kinds)} values, got {value!r}")
        return tuple(
            _decode(kind, item, f"{where}[{n}]") for n, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is Literal:
        return value  # checked by the dataclass, which names the choices
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
