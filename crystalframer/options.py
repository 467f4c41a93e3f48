"""Options of the command line, made from the signatures and docstrings of the library functions (`signatures`)."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from tyro.conf import DisallowNone, Positional, arg, subcommand
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from crystalframer._old_words import renewed
from crystalframer.config import Config, Target, sections
from crystalframer.devices import check_name, check_present
from crystalframer.errors import ConfigError, Setting, suggestion
from crystalframer.presets import preset
from crystalframer.signatures import REQUIRED, Parameter, signature

HIDDEN = ("progress", "callbacks")
"""Parameters of library functions that are no options."""
SHORT = {"--devices": "--training.n-devices", "--nodes": "--training.n-nodes"}
"""Names that other programs have for these options."""
DEFAULT_PRESET = "demo"
Shell = Literal["bash", "zsh", "fish"]


def _own(kind: Any, metavar: str | None, help: str, default: str | None = None, short: str | None = None) -> Any:
    hint, aliases = f"(default: {default})" if default else default, (short,) if short else None
    return Annotated[kind, arg(metavar=metavar, help=help, help_behavior_hint=hint, aliases=aliases)]


SOURCE = _own(Positional[str], "DATA", "`demo`, or a table, packed data set or folder of structures.")
TABLE = _own(Path | None, "TABLE", "Table to write: .csv, .jsonl or .parquet.", "", "-o")
SELECTION = _own(Path | None, "TABLE", "Table to write: .csv, .jsonl or .parquet.", "")
PART = Literal["train", "validation", "test", "all"] | None
FILES = Positional[tuple[str, ...]], "FILE ...", "Structure files, folders, patterns or tables."
PICKLE = _own(Positional[Path], None, "Pickle of this part.")
OWN = {
    "config": Annotated[Config, arg(name="")],
    "preset": _own(str, "NAME", "Settings to start from."),
    "search": _own(tuple[str, ...], "FIELD=VALUES ...", "Settings to search."),
    "structures": _own(*FILES, ""),
    "check structures": _own(*FILES, "12 prototypes, 24 crystals of the shipped data set and 8 random ones"),
    "structure": _own(Positional[Path], "FILE", "File with one structure."),
    "model": _own(Path | None, "FOLDER", "Run folder or checkpoint.", "the weights that come with the package"),
    "calibrate model": _own(Path, "FOLDER", "Run folder or checkpoint."),
    "device": _own(str | None, "cpu|cuda|...", "Where to compute.", "a CUDA GPU if there is one, else the CPU"),
    "data": SOURCE,
    "source": SOURCE,
    "evaluate split": _own(PART, None, "Part of the data set.", "all, in a row each; for other models than runs: test"),
    "calibrate split": _own(PART, None, "Part of the data set, or of the run.", "validation if there is one, else all"),
    "task": _own(Positional[str], "TASK", "matbench-phonons, matbench-jdft2d, ..."),
    "runs": _own(Positional[tuple[Path, ...]], "RUN ...", "Run folders of the five folds."),
    "submit output": _own(Path, "FILE", "File to write, .json or .json.gz.", short="-o"),
    "labels": _own(Path | None, "TABLE", "Labels of a folder.", "labels.csv, .json, .jsonl or .parquet in the folder"),
    "away": _own(
        Path | None, "DATA", "Labelled crystals of other kinds; all together count a quarter as much.", "none"
    ),
    "hull": _own(
        str | None, "DATA", "Competing phases: a table of formulas and energies, or a labelled data set.", "none"
    ),
    "targets": _own(tuple[Target, ...], None, "Labels to keep, with units.", "every column of numbers, without units"),
    "name": _own(Positional[str | None], "[NAME]", "Data set.", ""),
    "train": PICKLE,
    "validation": PICKLE,
    "test": PICKLE,
    "checkpoint": _own(Positional[Path], "CKPT", "Checkpoint of the authors' code."),
    "output": TABLE,
    "wide": _own(bool, None, "Print all rows and columns, however wide they are.", ""),
    "selection": SELECTION,
    "embed output": _own(Path, "TABLE", "Table to write: .csv, .jsonl or .parquet.", short="-o"),
    "shell": Annotated[Positional[Shell], arg(help="The shell.")],
    "thing": _own(Positional[str], "FILE|FOLDER|TABLE|DATA", "Structures, data set, screening or record to look at."),
    "explore output": _own(Path | None, "PAGE", "Page to write (.html).", "opened in the browser", "-o"),
    "evaluate output": _own(Path | None, "FILE", "Table (.csv, .jsonl, .parquet) or page (.html) to write.", "", "-o"),
    "report": _own(bool, None, "Write _report.html into the folder.", ""),
    "trace output": _own(
        Path | None, "FILE", "Record (.safetensors) or page (.html) to write.", "STRUCTURE.safetensors, here", "-o"
    ),
    "explain output": _own(Path | None, "FILE", "Page (.html) or record (.safetensors) to write.", "", "-o"),
    "convert output": _own(Path, "FOLDER", "Checkpoint to write.", short="-o"),
    "data pack output": _own(Path, "FILE.parquet", "Packed file to write.", short="-o"),
    "data pack-authors output": _own(Path, "FILE.parquet", "Packed file to write.", short="-o"),
    **{
        f"{verb} output": _own(Path, "FOLDER", "Folder to write.", short="-o")
        for verb in ("train", "ablate", "sweep", "screen")
    },
}
"""Options that the functions do not have, or that stand for Python objects, by their name or by verb and name."""


@dataclass(frozen=True)
class Verb:
    """A command: the action that runs it, and the library functions that its options come from."""

    name: str
    action: Callable[..., int]
    functions: tuple[str, ...]
    renamed: Mapping[str, str]
    """Parameter of a function → its option, if that has another name; empty if it has none."""

    @property
    def summary(self) -> str:
        """What the command does, in one line: the first of the first function, or of the action if there is none."""
        text = inspect.cleandoc(self.action.__doc__ or "")
        return signature(self.functions[0]).summary if self.functions else text.partition("\n")[0]

    @property
    def description(self) -> str:
        """The help before the options."""
        text = inspect.cleandoc(self.action.__doc__ or "")
        return f"{self.summary}\n\n{text}" if self.functions else text

    @property
    def options(self) -> dict[str, tuple[Any, Any]]:
        """Name → type and default.

        They are the parameters of the action. Its `**` stands for the other parameters of the first function.
        """
        known = {name: found for f in reversed(self.functions) for name, found in signature(f).parameters.items()}
        own = inspect.signature(self.action).parameters
        options = {}
        for name, parameter in own.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = {other: self.renamed.get(other, other) for other in signature(self.functions[0]).parameters}
                kept = {o: option for o, option in rest.items() if option and option not in own and o not in HIDDEN}
                options |= {option: self._option(option, known[other]) for other, option in kept.items()}
            else:
                kind, default = self._option(name, known.get(name))
                options[name] = kind, default if parameter.default is REQUIRED else parameter.default
        return options

    def run(self, words: Sequence[str]) -> int:
        """Parse the words and act; returns the exit code."""
        own = inspect.signature(self.action).parameters
        parameter_of = {option: name for name, option in self.renamed.items() if option not in own}
        return self.action(**{parameter_of.get(name, name): value for name, value in self._parsed(words).items()})

    def spell(self, setting: Setting) -> str:
        """A setting as an option: `training.n_epochs = 0` is `--training.n-epochs 0`."""
        name, value = self.renamed.get(setting.name, setting.name), setting.value
        if name not in self.settings:
            return str(setting)
        section, dot, option = name.replace("_", "-").rpartition(".")
        if value is False:
            return f"--{section}{dot}no-{option}"
        values = value if isinstance(value, (tuple, list)) else [value]
        return " ".join([f"--{section}{dot}{option}", *(_word(v) for v in values if v is not ... and v is not True)])

    @property
    def settings(self) -> set[str]:
        """Names in Python of all that is an option, with the fields of the config."""
        marker = get_args(Positional[str])[1]
        names = {name for name, (kind, _) in self.options.items() if marker not in get_args(kind)}
        if "config" in names:
            names |= {f"{section}.{field.name}" for kind, section in sections().items() for field in fields(kind)}
        return names

    def _option(self, name: str, parameter: Parameter | None) -> tuple[Any, Any]:
        default = REQUIRED if parameter is None else parameter.default
        kind = OWN.get(f"{self.name} {name}", OWN.get(name))
        if kind is None and parameter is not None:
            text = parameter.default_text or ("" if default in (None, False) else None)
            kind = _own(parameter.kind, None, parameter.description, text)
        if get_args(kind)[0] is Path:  # and not `Path | None`
            default = Path(default) if isinstance(default, str) else REQUIRED
        return kind, default

    def _parsed(self, words: Sequence[str]) -> dict[str, Any]:
        options, has_config = self.options, "config" in self.options
        if has_config:
            words = [_long(word) for word in words]
            options["config"] = options["config"][0], _start(options, words)
        words = renewed(self.name, words)
        made = [_field(name, *option) for name, option in options.items()]
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed = tyro.cli(
                    make_dataclass("Options", made, kw_only=True),
                    prog=f"crystalframer {self.name}",
                    description=self.description,
                    args=words,
                    registry=_registry(),
                    config=() if has_config else (DisallowNone,),
                )
        except SystemExit as end:
            refused = _config_error(end)
            if refused is not None:  # tyro would show it in the words of the config, not of the options
                raise refused from None
            sys.stderr.write(complaint.getvalue())
            raise
        if "device" in options:
            check_name(parsed.device)
            check_present(parsed.device)
        if has_config:
            check_present(parsed.config.training.accelerator, "training.accelerator")
        if "model" in options:
            from crystalframer.checkpoint import read_config

            read_config(parsed.model)
        for name, (kind, _) in options.items():
            if kind in (TABLE, SELECTION) and getattr(parsed, name) is not None:
                from crystalframer.result_tables import check_table_path

                check_table_path(getattr(parsed, name))
        return {name: getattr(parsed, name) for name in options}


def completion(verbs: Mapping[str, Verb], shell: Shell) -> str:
    """A script by which the shell completes commands, options and their choices. tyro writes it."""
    kinds = {}
    for name, verb in verbs.items():
        options = verb.options
        if "config" in options:
            options["config"] = options["config"][0], _start(options, ())
        kinds[name] = make_dataclass(
            "Options", [_field(option, *rest) for option, rest in options.items()], kw_only=True
        )
    groups: dict[str, list[Any]] = {}
    for name, kind in kinds.items():
        group, _, word = name.rpartition(" ")
        groups.setdefault(group, []).append(Annotated[kind, subcommand(word, description=verbs[name].summary)])
    for group in [group for group in groups if group]:
        command = Annotated[Union[tuple(groups.pop(group))], arg(name="")]  # noqa: UP007
        groups[""].append(Annotated[make_dataclass("Group", [("command", command)]), subcommand(group)])
    whole: Any = Union[tuple(groups[""])]  # noqa: UP007
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(
            whole,
            prog="crystalframer",
            args=["--tyro-print-completion", shell],
            registry=_registry(states_choices=True),
        )
    # A description on several lines would be taken for several suggestions. For fish, the backslash is doubled.
    lines = script.getvalue().splitlines(keepends=True)
    is_table = [line.startswith("COMPLETION_SPEC = ") for line in lines]
    return "".join(
        re.sub(r"\\{1,2}n", " ", line) if known else line for line, known in zip(lines, is_table, strict=True)
    )


def _field(name: str, kind: Any, default: Any) -> tuple[str, Any, Any]:
    return name, kind, field() if default is REQUIRED else field(default=default)


def _start(options: Mapping[str, tuple[Any, Any]], words: Sequence[str]) -> Config:
    """The settings that options change, which must be known first: a preset, or the config of a resumed run."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", "-o", type=Path, default=options["output"][1])
    asked = parser.parse_known_args(words)[0]
    if "resume" in options and asked.resume and asked.preset is None and (asked.output / "config.json").is_file():
        from crystalframer.training.folder import RunFolder

        return RunFolder(asked.output).read_config()
    return preset(asked.preset or DEFAULT_PRESET).config


def _long(word: str) -> str:
    """An option as the config names it: `--devices=4` is `--training.n-devices=4`."""
    option, is_given, value = word.partition("=")
    return f"{SHORT.get(option, option)}{is_given}{value}"


def _word(value: Any) -> str:
    """A value as it is written on a command line."""
    if not isinstance(value, Target):
        return str(value)
    return f"{value.name}:{'class' if value.is_class else value.unit}".rstrip(":")


def _target(word: str) -> Target:
    name, _, unit = word.partition(":")
    return Target(name, kind="class") if unit == "class" else Target(name, unit)


def _config_error(error: BaseException) -> ConfigError | None:
    """The refusal of a config behind an error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__context__
    return cause


def _registry(states_choices: bool = False) -> ConstructorRegistry:
    """Teaches tyro the short forms of a target, `band_gap:eV` and `is_metal:class`, and to suggest the nearest of
    several choices.

    Args:
        states_choices: tell tyro the choices, so that it can complete them; it then words errors itself.
    """
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        choices = get_args(info.type)
        if info.type is Target:
            metavar, read = "NAME:UNIT|NAME:class", lambda words: _target(words[0])
        elif get_origin(info.type) is Literal and all(isinstance(choice, str) for choice in choices):
            metavar, read = "{" + ",".join(choices) + "}", lambda words: _chosen(words[0], choices)
        else:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, Target) or value in choices,
            str_from_instance=lambda value: [_word(value)],
            choices=tuple(choices) if states_choices and info.type is not Target else None,
        )

    return registry


def _chosen(word: str, choices: Sequence[str]) -> str:
    if word not in choices:
        raise ValueError(f"{word!r} is unknown{suggestion(word, choices)}")
    return word
