"""Parameters of functions of this package with types, defaults and descriptions, read from the source.

The command line makes its options of them. It reads the source, because importing a function would import torch, which
takes seconds, and `--help` should take none.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from crystalframer import config

REQUIRED: Any = inspect.Parameter.empty
"""Default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function."""

    kind: Any
    """Its type; `Any` if only an import could tell."""
    default: Any
    description: str
    default_text: str
    """What the description says after `Default:`; empty if it says nothing."""


@dataclass(frozen=True)
class Signature:
    """The first line of a docstring, and the parameters of the function."""

    summary: str
    parameters: dict[str, Parameter]


@cache
def signature(function: str) -> Signature:
    """The signature of a function of this package.

    >>> signature("prediction.predict").parameters["batch_size"].default
    64

    Args:
        function: module and name, such as `prediction.predict`.
    """
    module, _, name = function.rpartition(".")
    (node,) = (node for node in _body(module) if isinstance(node, ast.FunctionDef) and node.name == name)
    docstring = ast.get_docstring(node) or ""
    arguments = docstring.partition("\nArgs:\n")[2]
    descriptions = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", arguments, re.MULTILINE))
    parameters = {}
    positional, defaults = node.args.args, node.args.defaults
    values = [None] * (len(positional) - len(defaults)) + defaults + node.args.kw_defaults
    for argument, default in zip(positional + node.args.kwonlyargs, values, strict=True):
        words = " ".join(descriptions.get(argument.arg, "").split())
        description, _, default_text = (words[:1].upper() + words[1:]).partition(" Default: ")
        value = REQUIRED if default is None else _value(module, default)
        kind = _kind(argument.annotation)
        parameters[argument.arg] = Parameter(kind, value, description, default_text.rstrip("."))
    return Signature(docstring.partition("\n")[0], parameters)


@cache
def _body(module: str) -> list[ast.stmt]:
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body


def _kind(annotation: ast.expr | None) -> Any:
    """The type that an annotation means, with tuples for sequences."""
    names = {**vars(config), "Sequence": _Sequence}
    try:
        return eval(ast.unparse(annotation), names) if annotation else Any
    except (NameError, AttributeError):
        return Any


class _Sequence:
    def __class_getitem__(cls, item: Any) -> Any:
        return tuple[item, ...]


def _value(module: str, node: ast.expr) -> Any:
    """A literal, or the literal behind the name of a constant."""
    if not isinstance(node, ast.Name):
        return ast.literal_eval(node)
    for found in _body(module):
        if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) == node.id:
            return _value(module, found.value)
        if isinstance(found, ast.ImportFrom) and any(alias.name == node.id for alias in found.names):
            home = str(found.module).removeprefix("crystalframer.")
            return getattr(config, node.id) if home == "config" else _value(home, node)
    raise LookupError(f"{module} has no constant {node.id}")
