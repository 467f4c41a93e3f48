"""The space of a search: what may be tried for each field of a config. Needs no torch: the command line reads it."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import math
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from crystalframer.config import Config, decode, from_tree
from crystalframer.errors import ConfigError, suggestion

NOT_SEARCHED = {
    "data": "all trials need the same data, or their losses could not be compared",
    "model.targets": "all trials need the same targets, or their losses could not be compared",
    **dict.fromkeys(
        (f"training.{name}" for name in ("accelerator", "n_pieces", "n_workers", "n_threads", "n_devices", "n_nodes")),
        "it says where a trial computes, not what",
    ),
}
"""Fields, or sections, that are the same for all trials, and the reason."""
MOST_TRIED = 2_000
"""Combinations of other fields with which a value is tried. If there are more, the trials show whether it works."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers for a field that takes whole numbers.

    It stands for Optuna's `FloatDistribution` or `IntDistribution`, which decide whether its numbers can be used.

    >>> import crystalframer as cf
    >>> cf.Range(1e-4, 2e-3, log=True)
    Range(low=0.0001, high=0.002, log=True, step=None)
    """

    low: int | float
    high: int | float
    log: bool = False
    """Whether to draw from a logarithmic scale: for learning rates and other numbers over several decades."""
    step: int | float | None = None
    """Draw only `low`, `low + step`, ..., `high`."""


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values without an order. It stands for Optuna's `CategoricalDistribution`.

    >>> import crystalframer as cf
    >>> cf.Choice(["max", "none"])
    Choice(values=('max', 'none'))
    """

    values: tuple[Any, ...]

    def __init__(self, values: Iterable[Any]) -> None:
        """Raises: ConfigError: fewer than two values, or one twice."""
        object.__setattr__(self, "values", (values,) if isinstance(values, str) else tuple(values))
        if len(self.values) < 2 or len(self.labels) < len(self.values):
            raise ConfigError("name at least two in a list, and none twice", field="Choice.values", value=values)

    @property
    def labels(self) -> dict[str, Any]:
        """A text for each value. The journal keeps texts, because it cannot hold lists."""
        return {_label(value): value for value in self.values}


Space = Mapping[str, Any]
"""Dotted names of fields of a config (`training.learning_rate`), and a `Range`, a `Choice` or one of Optuna's
distributions for each."""


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some fields.

    Raises:
        ConfigError: the config refuses them.
    """
    tree = dataclasses.asdict(config)
    for name, value in values.items():
        *sections, field = name.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[field] = value
    return from_tree(Config, tree)


def checked_space(config: Config, space: Space) -> dict[str, Range | Choice]:
    """The space in the words of this package. The config takes each of its values, alone or with others of the space.

    Raises:
        ConfigError: it does not, or a field is unknown or the same for all trials.
        ImportError: Optuna is missing.
    """
    if not space:
        raise ConfigError('the space of the search is empty; name at least one field: {"training.learning_rate": ...}')
    offered = {name: _offered(name, given) for name, given in space.items()}
    for name in offered:
        _check_name(name)
        for fixed, why in NOT_SEARCHED.items():
            if f"{name}.".startswith(f"{fixed}."):
                raise ConfigError(f"cannot be searched: {why}", field=name)
        distribution(name, offered[name])
    for name in offered:
        _check_values(config, offered, name)
    return offered


def distribution(name: str, offered: Range | Choice) -> Any:
    """Optuna's distribution for a field.

    Raises:
        ConfigError: Optuna or the field refuses the numbers of a range.
        ImportError: Optuna is missing.
    """
    kinds = import_optuna().distributions
    if isinstance(offered, Choice):
        return kinds.CategoricalDistribution(list(offered.labels))
    kind = _kind(name)
    if kind not in (int, float):
        raise ConfigError("takes no range of numbers; use a choice", field=name)
    try:
        low, high, step = (_number(kind, number, name) for number in (offered.low, offered.high, offered.step))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of steps that do not lead to `high`
            if kind is int:
                return kinds.IntDistribution(low, high, offered.log, 1 if step is None else step)
            return kinds.FloatDistribution(low, high, offered.log, step)
    except (ValueError, UserWarning) as error:
        raise ConfigError(f"cannot be used ({error})", field=name, value=offered) from error


def tree_of(space: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """The space for a JSON file."""
    return {name: json.loads(json.dumps(dataclasses.asdict(offered))) for name, offered in space.items()}


def space_from_words(words: Sequence[str]) -> dict[str, Range | Choice]:
    """Read a space from the command line: `training.learning-rate=1e-4:2e-3:log`, `model.n-layers=2,3,4`.

    `low:high` is a range of numbers, with an optional `:log` or `:STEP`. Values between commas are a choice.

    Raises:
        ConfigError: a word cannot be understood.
    """
    space: dict[str, Range | Choice] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not text:
            raise ConfigError(f"{word!r}: expected FIELD=LOW:HIGH, FIELD=LOW:HIGH:log or FIELD=VALUE,VALUE,...")
        _check_name(name)
        if name in space:
            raise ConfigError("is named twice", field=name)
        if ":" in text and _kind(name) in (int, float):
            numbers = text.removesuffix(":log")
            low, high, *step = (_value(name, number) for number in numbers.split(":"))
            if len(step) > 1:
                raise ConfigError("expected LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP", field=name, value=text)
            space[name] = Range(low, high, numbers != text, *step)
        else:
            space[name] = Choice(_value(name, value) for value in text.split(","))
    return space


def import_optuna() -> Any:
    """Raises: ImportError: Optuna is missing."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ImportError(
            'searching hyperparameters needs Optuna: pip install "crystalframer[optuna]"', name="optuna"
        ) from error
    return optuna


def _offered(name: str, given: Any) -> Range | Choice:
    """A range, a choice, or a distribution of Optuna in their words."""
    if isinstance(given, (Range, Choice)):
        return given
    if hasattr(given, "choices"):
        return Choice(given.choices)
    if not all(hasattr(given, part) for part in ("low", "high", "log", "step")):
        expected = "expected cf.Range(low, high), cf.Choice([...]) or a distribution of Optuna"
        raise ConfigError(expected, field=name, value=given)
    is_default = isinstance(given.step, int) and given.step == 1
    return Range(given.low, given.high, given.log, None if is_default else given.step)


def _number(kind: type, number: int | float | None, name: str) -> Any:
    """A number of a range as the field takes it."""
    if number is None:
        return None
    if not math.isfinite(number):
        raise ConfigError("must be finite", field=name, value=number)
    return decode(kind, int(number) if kind is int and float(number).is_integer() else number, name)


def _label(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        expected = "must be a number, text, truth value, None or list of these"
        raise ConfigError(expected, field="Choice.values", value=value) from error


def _types(section: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every field that is not a section."""
    for name, hint in get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from _types(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _kind(name: str) -> Any:
    """The type of a field, without None."""
    hint = dict(_types())[name]
    return get_args(hint)[0] if get_origin(hint) in (Union, types.UnionType) else hint


def _check_name(name: str) -> None:
    known = list(dict(_types()))
    if name not in known:
        # Among the fields of its section, if it names one, or of its name in another.
        section, _, field = name.rpartition(".")
        beside = [other for other in known if other.rpartition(".")[0] == section]
        near = suggestion(name, beside or [other for other in known if other.endswith(f".{field}")] or known)
        raise ConfigError(f"there is no such setting{near}", field=name)


def _check_values(config: Config, space: Mapping[str, Range | Choice], name: str) -> None:
    """A value that the config refuses may fit other values of its section in the space."""
    section = name.rpartition(".")[0]
    others = [other for other in space if other != name and other.rpartition(".")[0] == section]
    for value in _values(name, space[name], ends_only=True):
        refusal = _refusal(config, {name: value})
        if refusal is None:
            continue
        combinations = [
            dict(zip(others, values, strict=True))
            for values in itertools.islice(itertools.product(*(_values(o, space[o]) for o in others)), MOST_TRIED)
        ]
        if len(combinations) < MOST_TRIED and all(_refusal(config, {name: value, **c}) for c in combinations):
            raise ConfigError(f"is in the space, but no trial can have it: {refusal}", field=name, value=value)


def _values(name: str, offered: Range | Choice, ends_only: bool = False) -> list[Any]:
    """All values, or the ends of a range that has too many."""
    if isinstance(offered, Choice):
        return list(offered.values)
    if _kind(name) is not int:
        return [offered.low, offered.high]
    low, high, step = int(offered.low), int(offered.high), int(offered.step or 1)
    return [low, high] if ends_only or (high - low) // step > 64 else list(range(low, high + 1, step))


def _refusal(config: Config, values: Mapping[str, Any]) -> ConfigError | None:
    try:
        with_values(config, values)
    except ConfigError as error:
        return error
    return None


def _value(name: str, word: str) -> Any:
    """A word of the command line as a value of a field.

    Raises:
        ConfigError: the field takes no such value.
    """
    if _kind(name) is str or get_origin(_kind(name)) is Literal:
        return word
    known = {"none": None, "true": True, "false": False}
    try:
        value = known[word.lower()] if word.lower() in known else ast.literal_eval(word)
    except (ValueError, SyntaxError):
        value = word
    return decode(dict(_types())[name], value, name)
