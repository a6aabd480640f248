"""Branches and definitions of one chunk of jets: each is computed when it is first asked for, and once."""

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError, unknown_name
from jettagger.expressions.functions import FUNCTIONS, OPERATORS, ArgumentFault, compare
from jettagger.expressions.jagged import Jagged, from_branch, spread
from jettagger.expressions.picking import NAME, SIGNATURE, pick
from jettagger.expressions.reductions import REDUCTIONS
from jettagger.expressions.syntax import CONSTANTS
from jettagger.expressions.tree import (
    Apply,
    Compare,
    Expression,
    Name,
    Node,
    Number,
    Pick,
    Reduce,
    Span,
    fault,
)

Scalar = bool | int | float
Value = Scalar | NDArray[Any] | Jagged


def required_branches(
    expressions: Iterable[Expression],
    definitions: Mapping[str, Expression],
    available: Collection[str] | None = None,
    *,
    where: str = "",
) -> frozenset[str]:
    """Branches that `expressions` need, themselves or through `definitions`.

    Raises JettaggerError for definitions that use each other in a circle and, where it is known which
    branches are `available`, for names that are neither and for definitions that hide a branch.
    """
    _refuse_cycles(definitions, where)
    _refuse_hidden(definitions, available or (), where)
    branches: set[str] = set()
    seen: set[str] = set()
    waiting = [(expression, expression.where or where) for expression in expressions]
    while waiting:
        expression, place = waiting.pop()
        for name in sorted(expression.names - seen):
            seen.add(name)
            if name in definitions:
                waiting.append((definitions[name], _place(name, definitions, where)))
            elif available is None or name in available:
                branches.add(name)
            else:
                inside = place if place.startswith(where) else f"{_prefix(where)}{place}"
                raise _unknown(name, expression, [*available, *definitions], inside)
    return frozenset(branches)


def shape_of(
    expression: Expression, branches: Mapping[str, Any], definitions: Mapping[str, Expression] | None = None
) -> Literal["jet", "collection"]:
    """Whether `expression` has one value a jet or one a particle; only the types of `branches` matter."""
    used = required_branches([expression], definitions or {}, branches)
    empty = {name: _without_jets(name, branches[name]) for name in used}
    value = Namespace(empty, definitions or {}, length=0).evaluate(expression)
    return "collection" if isinstance(value, Jagged) else "jet"


class Namespace:
    """Computes expressions over the `branches` of one chunk; definitions are computed when needed, and once.

    Branches are NumPy arrays, awkward arrays or `Jagged` of one length, converted when first used. Division
    by zero and logarithms of what is not positive give inf and nan, without a warning.
    """

    def __init__(
        self,
        branches: Mapping[str, Any],
        definitions: Mapping[str, Expression] | None = None,
        *,
        where: str = "",
        length: int | None = None,
    ) -> None:
        """`length` (the number of jets) is needed only where there may be no branches."""
        self._branches, self._definitions, self._where = branches, definitions or {}, where
        self._length = length
        self._values: dict[str, Value] = {}
        self._offsets: list[NDArray[np.int64]] = []
        _refuse_hidden(self._definitions, branches, where)
        _refuse_cycles(self._definitions, where)

    def __len__(self) -> int:
        """Number of jets."""
        if self._length is None:
            name = next(iter(self._branches), None)
            if name is None:
                raise JettaggerError(f"{_prefix(self._where)}there are no branches to compute expressions of")
            self._length = _length(self._branches[name])
        return self._length

    def evaluate(self, expression: Expression, *, where: str = "") -> NDArray[Any] | Jagged:
        """One entry a jet (an array) or one a particle (`Jagged`). It may share memory with the branches."""
        place = where or expression.where or self._where
        value = self._computed(expression, place)
        if isinstance(value, Jagged | np.ndarray):
            return value
        return np.full(len(self), value)

    def _computed(self, expression: Expression, place: str) -> Value:
        with np.errstate(all="ignore"):
            for name in _in_order(expression, self._definitions):
                if name not in self._values:
                    definition = self._definitions[name]
                    at = definition.where or f"{_prefix(place)}define.{name}"
                    self._values[name] = _Evaluation(self, definition, at).value(definition.tree)
            return _Evaluation(self, expression, place).value(expression.tree)

    def named(self, name: str, span: Span, expression: Expression, place: str) -> Value:
        """The value of a definition that was computed before, or of a branch."""
        if name not in self._values:
            if name not in self._branches:
                raise _unknown(name, expression, [*self._branches, *self._definitions], place, span)
            self._branch(name)
        return self._values[name]

    def _branch(self, name: str) -> None:
        """Converts a branch. Equal offsets become one object: collections are compared by identity."""
        value = from_branch(name, self._branches[name])
        length = _length(value)
        if self._length is None:
            self._length = length
        if length != self._length:
            place = _prefix(self._where)
            raise JettaggerError(f"{place}branch '{name}' has {length} jets where others have {self._length}")
        if isinstance(value, Jagged):
            for offsets in self._offsets:
                if np.array_equal(offsets, value.offsets):
                    value = value._replace(offsets=offsets)
                    break
            else:
                self._offsets.append(value.offsets)
        self._values[name] = value


class _Evaluation:
    """Walks the tree of one expression; its text and place are what an error shows."""

    def __init__(self, namespace: Namespace, expression: Expression, place: str) -> None:
        self._namespace, self._expression, self._place = namespace, expression, place

    def value(self, node: Node) -> Value:
        match node:
            case Number():
                return node.value
            case Name():
                return self._namespace.named(node.name, node.span, self._expression, self._place)
            case Apply():
                table = (
                    OPERATORS[node.function]
                    if node.function in OPERATORS
                    else FUNCTIONS[node.function].compute
                )
                return self._elementwise(table, node.arguments)
            case Compare():
                return self._elementwise(lambda *flat: compare(node.operators, flat), node.operands)
            case Reduce():
                return self._reduce(node)
            case Pick():
                return self._pick(node)

    def _elementwise(self, function: Any, nodes: tuple[Node, ...]) -> Value:
        """`function` of equally long arrays; a jet-level value is repeated for each particle if need be."""
        values = [self.value(node) for node in nodes]
        offsets = self._common_offsets(nodes, values)
        flat: list[Any] = []
        for value in values:
            if isinstance(value, Jagged):
                flat.append(value.values)
            elif isinstance(value, np.ndarray) and offsets is not None:
                flat.append(spread(value, offsets))
            else:
                flat.append(value)
        constant = not any(isinstance(value, np.ndarray) for value in flat)
        if constant:
            flat = [np.asarray([value]) for value in flat]
        try:
            result = function(*flat)
        except ArgumentFault as error:
            raise self._fault(nodes[error.index], str(error)) from None
        if constant:
            number: Scalar = result[0].item()
            return number
        return result if offsets is None else Jagged(result, offsets)

    def _common_offsets(self, nodes: tuple[Node, ...], values: list[Value]) -> NDArray[np.int64] | None:
        found: tuple[Node, Jagged] | None = None
        for node, value in zip(nodes, values, strict=True):
            if not isinstance(value, Jagged):
                continue
            if found is None:
                found = node, value
            elif value.offsets is not found[1].offsets:
                raise self._fault(node, self._mismatch(*found, node, value))
        return found[1].offsets if found else None

    def _mismatch(self, first: Node, one: Jagged, second: Node, other: Jagged) -> str:
        jet = int(np.flatnonzero(one.counts != other.counts)[0])
        return (
            f"'{self._text(first)}' and '{self._text(second)}' belong to different collections: "
            f"{one.counts[jet]} and {other.counts[jet]} particles in jet {jet} of this chunk "
            f"({len(one.values)} and {len(other.values)} in all)"
        )

    def _reduce(self, node: Reduce) -> NDArray[Any]:
        value = self.value(node.argument)
        if not isinstance(value, Jagged):
            has = "has one value a jet" if isinstance(value, np.ndarray) else "is a constant"
            text = self._text(node.argument)
            raise self._fault(
                node, f"'{node.function}' reduces over the particles of a collection, and '{text}' {has}"
            )
        reduction = REDUCTIONS[node.function]
        options: dict[str, Any] = {"n": node.n} if reduction.indexed else {}
        if reduction.may_miss:
            options["missing"] = node.missing
        try:
            return reduction.compute(value, **options)
        except ArgumentFault as error:
            raise self._fault(node.argument, str(error)) from None

    def _pick(self, node: Pick) -> NDArray[Any] | Jagged:
        values, index = self.value(node.values), self.value(node.index)
        if not isinstance(values, Jagged):
            has = "has one value a jet" if isinstance(values, np.ndarray) else "is a constant"
            text = self._text(node.values)
            raise self._fault(node.values, f"'{NAME}' picks from a collection, and '{text}' {has}")
        if not isinstance(index, Jagged | np.ndarray):
            index = np.full(len(values.offsets) - 1, index)
        try:
            return pick(values, index, node.missing)
        except ArgumentFault as error:
            raise self._fault((node.values, node.index)[error.index], str(error)) from None

    def _text(self, node: Node) -> str:
        return self._expression.text[node.span[0] : node.span[1]]

    def _fault(self, node: Node, message: str) -> JettaggerError:
        return fault(self._expression.text, node.span, message, self._place)


def _length(branch: Any) -> int:
    return len(branch.offsets) - 1 if isinstance(branch, Jagged) else len(branch)


def _without_jets(name: str, branch: Any) -> NDArray[Any] | Jagged:
    if isinstance(branch, Jagged):
        return Jagged(branch.values[:0], np.zeros(1, dtype=np.int64))
    return from_branch(name, branch[:0])


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _place(name: str, definitions: Mapping[str, Expression], where: str) -> str:
    return definitions[name].where or f"{_prefix(where)}define.{name}"


def _in_order(expression: Expression, definitions: Mapping[str, Expression]) -> list[str]:
    """The definitions that `expression` needs, each after those that it uses itself."""
    graph: dict[str, set[str]] = {}
    waiting = [name for name in expression.names if name in definitions]
    while waiting:
        name = waiting.pop()
        if name not in graph:
            graph[name] = {used for used in definitions[name].names if used in definitions}
            waiting.extend(graph[name])
    return list(TopologicalSorter(graph).static_order())


def _refuse_cycles(definitions: Mapping[str, Expression], where: str) -> None:
    graph = {
        name: {used for used in definition.names if used in definitions}
        for name, definition in definitions.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        place = _place(circle[0], definitions, where)
        raise JettaggerError(
            f"{place}: definitions use each other in a circle: {' -> '.join(circle)}"
        ) from None


def _refuse_hidden(definitions: Mapping[str, Expression], branches: Collection[str], where: str) -> None:
    for name in definitions:
        if name in branches or name in CONSTANTS:
            kind = "constant" if name in CONSTANTS else "branch"
            message = f"definition '{name}' hides the {kind} '{name}': give it another name"
            raise JettaggerError(f"{_place(name, definitions, where)}: {message}")


def _unknown(
    name: str, expression: Expression, known: Collection[str], place: str, span: Span | None = None
) -> JettaggerError:
    signatures = {NAME: SIGNATURE} | {x: f.signature for x, f in FUNCTIONS.items()}
    signatures |= {x: reduction.signature for x, reduction in REDUCTIONS.items()}
    if signature := signatures.get(name):
        message = f"no branch or definition is called '{name}'; the function is written {signature}"
    else:
        message = str(unknown_name("branch or definition", name, known))
    first = expression.text.find(name)
    return fault(expression.text, span or (first, first + len(name)), message, place)
