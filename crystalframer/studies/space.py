"""What a search may try: ranges and choices of fields of a config. Without torch: the command line reads it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from crystalframer.config import Config, from_tree
from crystalframer.errors import ConfigError, suggestion

NOT_SEARCHED = {
    "data": "all trials have the same data, or their losses could not be compared",
    "model.targets": "all trials predict the same, or their losses could not be compared",
    **dict.fromkeys(
        (f"training.{name}" for name in ("accelerator", "n_workers", "n_threads", "n_devices", "n_nodes")),
        "it says where a trial computes, not what",
    ),
}
"""Fields, or sections, that are the same for all trials, and why."""
MOST_TRIED = 2_000
"""Combinations of other fields with which a value is tried; of more, it is left to the trials to find out."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones for a field that takes whole numbers.

    >>> import crystalframer as cf
    >>> cf.Range(1e-4, 2e-3, log=True)
    Range(low=0.0001, high=0.002, log=True, step=None)
    """

    low: int | float
    high: int | float
    log: bool = False
    """Whether a factor counts as a distance: for rates and other numbers over decades."""
    step: int | float | None = None
    """Only `low`, `low + step`, ..., `high`."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"Range.low = {self.low!r}: must be below high = {self.high!r}, and both finite")
        if self.log and self.low <= 0:
            raise ConfigError(f"Range.low = {self.low!r}: must be above 0 for a logarithmic range")
        if self.step is None:
            return
        if self.log:
            raise ConfigError(f"Range.step = {self.step!r}: a logarithmic range has no steps; use Choice")
        n_steps = (self.high - self.low) / self.step if self.step > 0 else 0.5
        if abs(n_steps - round(n_steps)) > 1e-6 or n_steps < 1:
            raise ConfigError(
                f"Range.step = {self.step!r}: must lead in whole steps from low = {self.low!r} to high = {self.high!r}"
            )


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values, without an order among them.

    >>> import crystalframer as cf
    >>> cf.Choice(["max", "none"])
    Choice(values=('max', 'none'))
    """

    values: tuple[Any, ...]

    def __init__(self, values: Iterable[Any]) -> None:
        if isinstance(values, str):
            raise ConfigError(f"Choice.values = {values!r}: give a list of values, such as [{values!r}]")
        object.__setattr__(self, "values", tuple(values))
        if len(self.values) < 2 or len({_label(value) for value in self.values}) < len(self.values):
            raise ConfigError(f"Choice.values = {list(self.values)}: name at least two, and none twice")

    @property
    def labels(self) -> dict[str, Any]:
        """Text that stands for each value in the journal, which holds no lists."""
        return {_label(value): value for value in self.values}


Space = Mapping[str, Range | Choice]
"""Dotted names of fields of a config (`training.learning_rate`), and what may be tried of each."""


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of some fields.

    Raises:
        ConfigError: it refuses them.
    """
    tree = dataclasses.asdict(config)
    for name, value in values.items():
        *sections, field = name.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[field] = value
    return from_tree(Config, tree)


def check_space(config: Config, space: Space) -> None:
    """That every value of the space is one that the config takes, alone or with some others of the space.

    Raises:
        ConfigError: not so, or a field is unknown or the same for all trials.
    """
    if not space:
        raise ConfigError('the space of the search is empty; name at least one field: {"training.learning_rate": ...}')
    for name, offered in space.items():
        _check_name(name)
        for fixed, why in NOT_SEARCHED.items():
            if f"{name}.".startswith(f"{fixed}."):
                raise ConfigError(f"{name} cannot be searched: {why}")
        if isinstance(offered, Range):
            _check_numbers(name, offered)
    for name in space:
        _check_values(config, space, name)


def is_whole(name: str) -> bool:
    """Whether a field takes whole numbers."""
    return _kind(name) is int


def tree_of(space: Space) -> dict[str, Any]:
    """The space as JSON knows it."""
    return {name: json.loads(json.dumps(dataclasses.asdict(offered))) for name, offered in space.items()}


def space_from_words(words: Sequence[str]) -> dict[str, Range | Choice]:
    """The space that a command line describes: `training.learning-rate=1e-4:2e-3:log`, `model.n-layers=2,3,4`.

    `low:high` is a range of numbers, with `:log` or `:STEP` after it; values between commas are a choice.

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
            raise ConfigError(f"{name} is named twice")
        is_range = ":" in text and _kind(name) in (int, float)
        space[name] = _range(name, text) if is_range else _choice(name, text)
    return space


def _label(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ConfigError(f"Choice: {value!r} is no number, text, truth value, None or list of these") from error


def _hints(section: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every field that is not a section."""
    for name, hint in get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from _hints(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _kind(name: str) -> Any:
    """What a field takes, beside None."""
    hint = dict(_hints())[name]
    return get_args(hint)[0] if _may_be_none(name) else hint


def _may_be_none(name: str) -> bool:
    return get_origin(dict(_hints())[name]) in (Union, types.UnionType)


def _check_name(name: str) -> None:
    known = list(dict(_hints()))
    if name not in known:
        # Among the fields of its section, if it names one, or of its name in another.
        section, _, field = name.rpartition(".")
        beside = [other for other in known if other.rpartition(".")[0] == section]
        near = suggestion(name, beside or [other for other in known if other.endswith(f".{field}")] or known)
        raise ConfigError(f"{name!r} is no field of the config{near}")


def _check_numbers(name: str, offered: Range) -> None:
    if _kind(name) not in (int, float):
        raise ConfigError(f"{name} takes no range of numbers; use Choice")
    for part in ("low", "high", "step"):
        number = getattr(offered, part)
        if is_whole(name) and number is not None and not float(number).is_integer():
            raise ConfigError(f"{name}: Range.{part} = {number!r}: the field takes whole numbers")


def _check_values(config: Config, space: Space, name: str) -> None:
    """A value that is refused as things are may fit other values of its section that are offered as well."""
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
            raise ConfigError(f"the space offers {name} = {value!r}, which no trial could have: {refusal}")


def _values(name: str, offered: Range | Choice, ends_only: bool = False) -> list[Any]:
    """All, or of a range that has too many its ends."""
    if isinstance(offered, Choice):
        return list(offered.values)
    if not is_whole(name):
        return [offered.low, offered.high]
    low, high, step = int(offered.low), int(offered.high), int(offered.step or 1)
    return [low, high] if ends_only or (high - low) // step > 64 else list(range(low, high + 1, step))


def _refusal(config: Config, values: Mapping[str, Any]) -> ConfigError | None:
    try:
        with_values(config, values)
    except ConfigError as error:
        return error
    return None


def _range(name: str, text: str) -> Range:
    kind = _kind(name)
    low, high, *rest = text.split(":")
    log, steps = rest == ["log"], [] if rest == ["log"] else rest
    try:
        if len(steps) > 1:
            raise ValueError
        low, high, *step = (kind(number) for number in (low, high, *steps))
    except ValueError:
        whole = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{name}={text}: expected LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP with {whole}") from None
    try:
        return Range(low, high, log, *step)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _choice(name: str, text: str) -> Choice:
    try:
        return Choice(_read(name, word) for word in text.split(","))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _read(name: str, word: str) -> Any:
    """A value as the field takes it."""
    kind = _kind(name)
    if _may_be_none(name) and word.lower() == "none":
        return None
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise ConfigError(f"{word!r} is neither true nor false")
        return word.lower() == "true"
    if kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            raise ConfigError(f"{word!r} is no {'whole ' if kind is int else ''}number") from None
    if get_origin(kind) is tuple:
        raise ConfigError("its values are lists, which only Python can name: Choice([(0.9, 0.98), (0.9, 0.999)])")
    return word
