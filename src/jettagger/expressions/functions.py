"""Operators and functions of values that stand beside each other: jet by jet, or particle by particle.

Types follow NumPy (float32 stays float32) but for what would surprise: conditions count as 0 and 1 in
arithmetic, integers are computed in int64 (unsigned 64-bit ones in float64, so that nothing wraps at 0),
quotients, powers and logarithms of integers in float64.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from jettagger import kinematics

# A NumPy array, or a Python number: that leaves a float32 array float32.
Flat = Any


class ArgumentFault(Exception):  # noqa: N818  (never seen: the namespace adds the text that is at fault)
    """Argument `index` does not fit, and why."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class Elementwise(NamedTuple):
    """A function of equally long arrays; `signature` is what a user may write."""

    compute: Callable[..., Flat]
    signature: str

    @property
    def arity(self) -> int:
        """Number of arguments."""
        return self.signature.count(",") + 1


def kind_of(argument: Flat) -> str:
    """'b' condition, 'i' integer, 'f' floating point."""
    if isinstance(argument, np.ndarray):
        return "i" if argument.dtype.kind == "u" else argument.dtype.kind
    return {bool: "b", int: "i", float: "f"}[type(argument)]


def widened(argument: Flat) -> Flat:
    """Integers and conditions as int64, unsigned 64-bit integers as float64; the rest as it is."""
    if not isinstance(argument, np.ndarray):
        return int(argument) if isinstance(argument, bool) else argument
    if argument.dtype.kind == "f":
        return argument
    return argument.astype(np.float64 if argument.dtype == np.uint64 else np.int64, copy=False)


def _prepared(arguments: tuple[Flat, ...]) -> tuple[Flat, ...]:
    """Beside a floating-point array NumPy's promotion is right: float32 * int8 is float32."""
    if any(isinstance(argument, np.ndarray) and argument.dtype.kind == "f" for argument in arguments):
        return arguments
    return tuple(widened(argument) for argument in arguments)


def _arithmetic(function: Callable[..., Flat]) -> Callable[..., Flat]:
    return lambda *arguments: function(*_prepared(arguments))


def _real(function: Callable[..., Flat]) -> Callable[..., Flat]:
    """`function` computed in floating point: of integers alone in float64."""

    def compute(*arguments: Flat) -> Flat:
        arguments = _prepared(arguments)
        if all(kind_of(argument) == "i" for argument in arguments):
            arguments = tuple(np.asarray(argument, dtype=np.float64) for argument in arguments)
        return function(*arguments)

    return compute


def _division(function: Callable[..., Flat]) -> Callable[..., Flat]:
    """`//` and `%`: exact for integers by a positive number, else in floating point (where x // 0 is inf)."""
    real = _real(function)

    def compute(dividend: Flat, divisor: Flat) -> Flat:
        if kind_of(dividend) != "i" or type(divisor) is not int or divisor <= 0:
            return real(dividend, divisor)
        if dividend.dtype == np.uint64:
            return function(dividend, np.uint64(divisor))
        return function(widened(dividend), divisor)

    return compute


def _conditions(name: str, function: Callable[..., Flat], *, bits: bool = False) -> Callable[..., Flat]:
    """A logical operator: of conditions, and where `bits` also of integers, bit by bit."""

    def compute(*arguments: Flat) -> Flat:
        kinds = [kind_of(argument) for argument in arguments]
        if bits and set(kinds) == {"i"}:
            return function(*(np.asarray(argument).astype(np.int64) for argument in arguments))
        for index, kind in enumerate(kinds):
            if kind != "b":
                asked = "conditions (or integers on both sides)" if bits else "conditions"
                raise ArgumentFault(index, f"'{name}' takes {asked}, and this is a number: write '… != 0'")
        return reduce(function, arguments) if len(arguments) > 1 else function(*arguments)

    return compute


def _where(condition: Flat, chosen: Flat, otherwise: Flat) -> Flat:
    if kind_of(condition) != "b":
        raise ArgumentFault(0, "'where' takes a condition first, and this is a number: write '… != 0'")
    if kind_of(chosen) == kind_of(otherwise) == "b":
        return np.where(condition, chosen, otherwise)
    return np.where(condition, *_prepared((chosen, otherwise)))


def compare(operators: tuple[str, ...], operands: list[Flat]) -> Flat:
    """a < b, and a < b <= c for (a < b) and (b <= c)."""
    pairs = zip(operators, operands[:-1], operands[1:], strict=True)
    return reduce(np.logical_and, [COMPARISONS[sign](left, right) for sign, left, right in pairs])


COMPARISONS: dict[str, Callable[..., Flat]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}

OPERATORS: dict[str, Callable[..., Flat]] = {
    "+": _arithmetic(np.add),
    "-": _arithmetic(np.subtract),
    "*": _arithmetic(np.multiply),
    "/": _real(np.true_divide),
    "//": _division(np.floor_divide),
    "%": _division(np.remainder),
    "**": _real(operator.pow),
    "negative": _arithmetic(np.negative),
    "positive": _arithmetic(np.positive),
    "&": _conditions("&", np.bitwise_and, bits=True),
    "|": _conditions("|", np.bitwise_or, bits=True),
    "~": _conditions("~", np.logical_not),
    "and": _conditions("and", np.logical_and),
    "or": _conditions("or", np.logical_or),
    "not": _conditions("not", np.logical_not),
}

_OF_ONE: dict[str, Callable[..., Flat]] = {
    "log": np.log,
    "log1p": np.log1p,
    "log10": np.log10,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsinh": np.arcsinh,
    "asinh": np.arcsinh,
    "floor": np.floor,
}

FUNCTIONS: dict[str, Elementwise] = {
    **{name: Elementwise(_real(function), f"{name}(x)") for name, function in _OF_ONE.items()},
    "abs": Elementwise(_arithmetic(np.abs), "abs(x)"),
    "sign": Elementwise(_arithmetic(np.sign), "sign(x)"),
    "isfinite": Elementwise(_arithmetic(np.isfinite), "isfinite(x)"),
    "arctan2": Elementwise(_real(np.arctan2), "arctan2(y, x)"),
    "hypot": Elementwise(_real(np.hypot), "hypot(x, y)"),
    "minimum": Elementwise(_arithmetic(np.minimum), "minimum(x, y)"),
    "maximum": Elementwise(_arithmetic(np.maximum), "maximum(x, y)"),
    "clip": Elementwise(_arithmetic(np.clip), "clip(x, low, high)"),
    "where": Elementwise(_where, "where(condition, x, y)"),
    "delta_phi": Elementwise(_real(kinematics.delta_phi), "delta_phi(phi_1, phi_2)"),
    "delta_r": Elementwise(_real(kinematics.delta_r), "delta_r(eta_1, phi_1, eta_2, phi_2)"),
}
