"""Operators of torch, and marks for torch.compile, without importing its compiler.

`torch.library.custom_op`, `torch.compiler.disable` and `torch.compiler.assume_constant_result` import `torch._dynamo`,
which takes longer than to import torch. What is here does the same, and leaves the compiler to those who compile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def operator(name: str, device_types: str, schema: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function the operator `crystalframer::name` of torch, which neither changes its arguments nor returns
    them.

    `torch.library.register_fake` and `torch.library.register_autograd` (or `has_no_gradient`) take it.

    Args:
        device_types: of the tensors that it takes: `cpu`, `cuda`, or `default` for all.
        schema: arguments and outputs, as in `(Tensor query, float steepness) -> Tensor`.
    """

    def register(function: Callable[..., Any]) -> Any:
        qualified = f"crystalframer::{name}"
        torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(qualified, device_types, function)
        return getattr(torch.ops.crystalframer, name).default

    return register


def has_no_gradient(registered: Any) -> None:
    """Let an operator refuse to be differentiated, where torch would only warn."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(f"{registered} has no gradient; ops.use('reference') computes it in plain torch")

    torch.library.register_autograd(registered, refuse)


def constant(function: _Function) -> _Function:
    """Let a model that torch compiles keep what a function returned then, as `torch.compiler.assume_constant_result`
    does."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # all that torch does
    return function


def uncompiled(function: _Function) -> _Function:
    """Keep a function out of the graphs of torch.compile, as `torch.compiler.disable` does."""
    kept_out: list[Callable[..., Any]] = []

    @wraps(function)
    def called(*arguments: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if not kept_out:
            kept_out.append(torch.compiler.disable(function))
        return kept_out[0](*arguments)

    return cast(_Function, called)
