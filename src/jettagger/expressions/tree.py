"""The nodes of a parsed expression, and the error that points at one of them."""

from dataclasses import dataclass, field

from jettagger.errors import JettaggerError

Span = tuple[int, int]
"""Where a node stands in the text: first character, and the one behind the last."""


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: bool | int | float
    span: Span


@dataclass(frozen=True)
class Name:
    """A branch or a definition."""

    name: str
    span: Span


@dataclass(frozen=True)
class Apply:
    """An operator, or a function of `functions.FUNCTIONS`."""

    function: str
    arguments: tuple["Node", ...]
    span: Span


@dataclass(frozen=True)
class Compare:
    """A comparison, chained where it has more than one operator."""

    operators: tuple[str, ...]
    operands: tuple["Node", ...]
    span: Span


@dataclass(frozen=True)
class Reduce:
    """A reduction over particles of `reductions.REDUCTIONS`."""

    function: str
    argument: "Node"
    n: int
    missing: bool | int | float
    span: Span


@dataclass(frozen=True)
class Pick:
    """Elements of a collection by their numbers: see `picking`."""

    values: "Node"
    index: "Node"
    missing: bool | int | float
    span: Span


Node = Number | Name | Apply | Compare | Reduce | Pick


@dataclass(frozen=True)
class Expression:
    """A parsed expression. It can be compared, hashed and sent to another process."""

    text: str
    names: frozenset[str]
    """Branches and definitions that it refers to."""
    tree: Node = field(repr=False, compare=False)
    where: str = field(default="", repr=False, compare=False)
    """File, line and key, for messages."""


def fault(text: str, span: Span, message: str, where: str = "") -> JettaggerError:
    """The error `message`, with the text and carets under the part that is at fault."""
    place = f"{where}: " if where else ""
    if not text:
        return JettaggerError(f"{place}{message}")
    first = max(0, span[0] - 50)
    shown = text[first : first + 100]
    left, right = "…" if first else "", "…" if first + 100 < len(text) else ""
    width = max(1, min(span[1], first + len(shown)) - span[0])
    carets = " " * (len(left) + span[0] - first) + "^" * width
    return JettaggerError(f"{place}{message}\n    {left}{shown}{right}\n    {carets}")
