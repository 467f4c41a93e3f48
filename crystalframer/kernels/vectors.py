"""Sixteen float32 numbers as one value in kernels, so that loops are vector instructions by construction.

A compiler makes vector instructions of simple loops. It does not keep many sums in registers, and it must reload what
it cannot prove to stay the same. With values of this type a kernel says what is in a register:

    total = splat(np.float32(0.0))
    for n in range(np.uint64(0), size, np.uint64(LANES)):
        total = total + load(weights, n) * load(values, n)

A processor with shorter registers takes several for one value. Places in arrays are unsigned; an array with several
axes is read as if it had one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.typing import templates
from numba.extending import lower_builtin

LANES = 16
"""Numbers in a vector."""
FLAGS = ("contract", "reassoc", "nsz", "arcp")
"""As `kernels.MATHS`."""
SMALLEST_EXPONENT = -100.0
"""Smallest exponent of 2: products of weights stay above denormal numbers, which are a hundred times slower."""
EXP2 = tuple(math.log(2) ** n / math.factorial(n) for n in range(8))
"""Taylor series of 2^f on [-0.5, 0.5]: relative error 5e-9, below rounding."""


intrinsic: Any = extending.intrinsic  # Numba's annotations of these are missing or wrong
infer_global: Any = templates.infer_global


class VectorType(types.Type):
    """The type of a vector of `LANES` float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


VECTOR = VectorType()
_Single, _Whole, _Long = ir.FloatType(), ir.IntType(32), types.uint64
_Vector = ir.VectorType(_Single, LANES)


class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, type: VectorType) -> None:
        super().__init__(manager, type, _Vector)


register_default(VectorType)(_VectorModel)


def _define(operation: Any, name: str) -> None:
    """Let an operator of Python act on two vectors, as LLVM's instruction of this name."""

    @infer_global(operation)
    class _Typing(templates.ConcreteTemplate):
        cases = (templates.signature(VECTOR, VECTOR, VECTOR),)

    @lower_builtin(operation, VECTOR, VECTOR)
    def _lower(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return getattr(builder, name)(*values, flags=FLAGS)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")


# --- memory -----------------------------------------------------------------------------------------------------------


@intrinsic
def load(typing: Any, array: Any, place: Any) -> Any:
    """The numbers of an array from a place on."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], values, LANES), align=4)

    return VECTOR(array, _Long), code


@intrinsic
def store(typing: Any, array: Any, place: Any, vector: Any) -> Any:
    """Write a vector to an array, from a place on."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        *where, vector = values
        builder.store(vector, _pointer(context, builder, signature.args[0], where, LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, _Long, VECTOR), code


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """A vector of one number."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        return _splat(builder, values[0])

    return VECTOR(types.float32), code


# --- functions of each number -----------------------------------------------------------------------------------------


@intrinsic
def clamp(typing: Any, vector: Any, low: Any, high: Any) -> Any:
    """Each number, or the bound that it exceeds, all of them vectors. NaN stays NaN."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        vector, low, high = values
        return _limited(builder, _limited(builder, vector, "<", low), ">", high)

    return VECTOR(VECTOR, VECTOR, VECTOR), code


@intrinsic
def power_of_two(typing: Any, vector: Any) -> Any:
    """2^x, and 2^`SMALLEST_EXPONENT` below it. NaN stays NaN."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        x = _limited(builder, values[0], "<", _constant(SMALLEST_EXPONENT))
        kind, name = ir.FunctionType(_Vector, [_Vector]), f"llvm.roundeven.v{LANES}f32"
        whole = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x])
        f = builder.fsub(x, whole)
        power = _constant(EXP2[7])
        for factor in reversed(EXP2[:7]):
            power = builder.fadd(builder.fmul(f, power, flags=FLAGS), _constant(factor), flags=FLAGS)
        integers = ir.VectorType(_Whole, LANES)
        biased = builder.add(builder.fptosi(whole, integers), ir.Constant(integers, [127] * LANES))
        exponent = builder.shl(biased, ir.Constant(integers, [23] * LANES))
        return builder.fmul(power, builder.bitcast(exponent, _Vector), flags=FLAGS)

    return VECTOR(VECTOR), code


@intrinsic
def any_at_least(typing: Any, vector: Any, bound: Any) -> Any:
    """Whether a number is at least a bound; NaN is not."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        vector, bound = values
        bits = builder.bitcast(builder.fcmp_ordered(">=", vector, _splat(builder, bound)), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.IntType(LANES)(0))

    return types.boolean(VECTOR, types.float32), code


# --- sums -------------------------------------------------------------------------------------------------------------


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum of the numbers."""

    def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        vector, size = values[0], LANES
        while size > 1:
            size //= 2
            vector = _halves_added(builder, vector, size)
        return builder.extract_element(vector, _Whole(0))

    return types.float32(VECTOR), code


def _storing(is_added: bool) -> Callable[..., Any]:
    def typed(typing: Any, array: Any, place: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
            pointer = _pointer(context, builder, signature.args[0], values[:2], 4)
            sums = _four_sums(builder, values[2:])
            if is_added:
                sums = builder.fadd(builder.load(pointer, align=4), sums, flags=FLAGS)
            builder.store(sums, pointer, align=4)
            return context.get_dummy_value()

        return types.void(array, _Long, VECTOR, VECTOR, VECTOR, VECTOR), code

    return typed


store_totals = intrinsic(_storing(is_added=False))
"""store_totals(array, place, a, b, c, d) writes the sums of four vectors to an array, from a place on."""
add_totals = intrinsic(_storing(is_added=True))
"""The same, and adds them to what is there."""


def _four_sums(builder: Any, vectors: Sequence[Any]) -> Any:
    """The sums of four vectors, as four numbers: each step adds what belongs to two or four of them at once."""
    a, b, c, d = (_halves_added(builder, vector, 8) for vector in vectors)
    ab, cd = _neighbors_added(builder, a, b), _neighbors_added(builder, c, d)
    return _halves_added(builder, _neighbors_added(builder, ab, cd), 4)


def _halves_added(builder: Any, vector: Any, size: int) -> Any:
    """Sum of both halves of a vector, each of this size."""
    halves = (_chosen(builder, vector, vector, range(first, first + size)) for first in (0, size))
    return builder.fadd(*halves, flags=FLAGS)


def _neighbors_added(builder: Any, one: Any, other: Any) -> Any:
    """Sums of neighbours in two vectors of eight, within each half: of one, then of the other."""
    even, odd = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]
    return builder.fadd(_chosen(builder, one, other, even), _chosen(builder, one, other, odd), flags=FLAGS)


# --- parts of the code ------------------------------------------------------------------------------------------------


def _pointer(context: Any, builder: Any, type: Any, where: Sequence[Any], size: int) -> Any:
    """To this many numbers of an array of this type, from a place on."""
    from numba.np.arrayobj import make_array  # compiled kernels do without

    array, place = where
    first = builder.gep(make_array(type)(context, builder, array).data, [place])
    return builder.bitcast(first, ir.PointerType(ir.VectorType(_Single, size)))


def _splat(builder: Any, number: Any) -> Any:
    first = builder.insert_element(ir.Constant(_Vector, ir.Undefined), number, _Whole(0))
    return _chosen(builder, first, first, [0] * LANES)


def _chosen(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    """These numbers of two vectors, one after the other."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_Whole, len(lanes)), list(lanes)))


def _constant(number: float) -> Any:
    return ir.Constant(_Vector, [number] * LANES)


def _limited(builder: Any, vector: Any, exceeds: str, bounds: Any) -> Any:
    return builder.select(builder.fcmp_ordered(exceeds, vector, bounds), bounds, vector)
