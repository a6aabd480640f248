"""Which slots of arrays of fixed length hold a particle: only these are kept.

Slots that hold none may hold anything, zeros or what was in memory before; nothing of it reaches an input or a
reduction.

Shapes: J jets, N slots of all jets.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.names import matching
from jettagger.data.units import no_match
from jettagger.errors import JettaggerError
from jettagger.expressions import Expression, Jagged, Namespace, parse, required_branches


class Rule(NamedTuple):
    """One entry of `data.slots`."""

    glob: str
    expression: Expression
    """A condition for each slot, or the number of filled slots."""

    @property
    def key(self) -> str:
        return f"data.slots.{self.glob}"


class SlotRules:
    """The section `data.slots`, parsed."""

    def __init__(self, slots: Mapping[str, str | int | float]) -> None:
        self._rules = tuple(
            Rule(glob, parse(text, where=f"data.slots.{glob}")) for glob, text in slots.items()
        )

    def __bool__(self) -> bool:
        return bool(self._rules)

    def of(self, names: tuple[str, ...], *, where: str, whole: bool = True) -> dict[str, Rule]:
        """Name -> the rule that says which of its slots are filled; `whole`: these are all names of the file."""
        found: dict[str, Rule] = {}
        for rule in self._rules:
            matches = matching(rule.glob, names)
            if whole and not matches:
                raise no_match(rule.glob, names, where=where, key="data.slots")
            for name in matches:
                other = found.setdefault(name, rule)
                if other is not rule:
                    raise JettaggerError(
                        f"{where}: data.slots: '{name}' is matched by both '{other.glob}' and '{rule.glob}'"
                    )
        return found

    def needed(self, wanted: Collection[str], names: tuple[str, ...], *, where: str) -> frozenset[str]:
        """What the rules for the `wanted` names look at."""
        rules = self.of(names, where=where)
        expressions = {rules[name].expression for name in wanted if name in rules}
        return required_branches(expressions, {}, names, where=where)


class _Kept(NamedTuple):
    """What is kept of arrays whose slots lie as `before` says."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    slots_N: NDArray[np.int64]


class Filled:
    """The filled slots of one chunk."""

    def __init__(self, raw: Mapping[str, Any], jets: int, counts: dict[str, int], *, where: str) -> None:
        """`raw`: the branches with all their slots. `counts` is told of jets that have more than there are slots."""
        self._namespace = Namespace(raw, where=where, length=jets)
        self._where, self._counts = where, counts
        self._values: dict[str, Any] = {}
        self._kept: dict[str, list[_Kept]] = {}

    def __call__(self, name: str, value: Jagged, rule: Rule) -> Jagged:
        """The filled slots of a branch. Branches of one rule and number of slots share their offsets."""
        kept = self._kept.setdefault(rule.glob, [])
        for one in kept:
            if one.before is value.offsets or np.array_equal(one.before, value.offsets):
                return Jagged(value.values[one.slots_N], one.after)
        kept.append(self._new(name, value.offsets, rule))
        return Jagged(value.values[kept[-1].slots_N], kept[-1].after)

    def numbered(
        self, family: str, slots: Jagged, rule: Rule, slot: int, values_J: NDArray[Any]
    ) -> NDArray[Any]:
        """One of the numbered branches of a family: NaN where its slot holds no particle."""
        self(family, slots, rule)
        kept = next(one for one in self._kept[rule.glob] if np.array_equal(one.before, slots.offsets))
        filled_N = np.zeros(len(slots.values), bool)
        filled_N[kept.slots_N] = True
        filled_J = filled_N[slots.offsets[:-1] + slot]
        return values_J if filled_J.all() else np.where(filled_J, values_J, values_J.dtype.type(0) * np.nan)

    def _new(self, name: str, before: NDArray[np.int64], rule: Rule) -> _Kept:
        if rule.glob not in self._values:
            self._values[rule.glob] = self._namespace.evaluate(rule.expression, where=rule.key)
        found = self._values[rule.glob]
        keep_N = (
            self._told(name, before, rule, found)
            if isinstance(found, Jagged)
            else self._counted(before, rule, found)
        )
        after = np.concatenate([[0], np.cumsum(keep_N)])[before]
        for other in (one for several in self._kept.values() for one in several):
            if np.array_equal(other.after, after):
                after = other.after
        return _Kept(before, after, np.flatnonzero(keep_N))

    def _told(self, name: str, before: NDArray[np.int64], rule: Rule, found: Jagged) -> NDArray[np.bool_]:
        if found.values.dtype != bool:
            raise JettaggerError(
                f"{self._where}: {rule.key}: a condition for each slot is expected, '{rule.expression.text}' has "
                f"values of type {found.values.dtype} (write for example {rule.expression.text} > 0)"
            )
        if not np.array_equal(found.offsets, before):
            jet = int(np.flatnonzero(np.diff(found.offsets) != np.diff(before))[0])
            raise JettaggerError(
                f"{self._where}: {rule.key}: '{name}' has {np.diff(before)[jet]} slots in jet {jet} of this chunk, "
                f"'{rule.expression.text}' has {np.diff(found.offsets)[jet]}"
            )
        return found.values

    def _counted(self, before: NDArray[np.int64], rule: Rule, found: NDArray[Any]) -> NDArray[np.bool_]:
        if found.dtype == bool:
            raise JettaggerError(
                f"{self._where}: {rule.key}: '{rule.expression.text}' is a condition for the whole jet: one for each "
                "slot is expected, or the number of filled slots"
            )
        if (wrong := np.flatnonzero(~((found >= 0) & (found == np.floor(found))))).size:
            raise JettaggerError(
                f"{self._where}: {rule.key}: '{rule.expression.text}' is {found[wrong[0]]} for jet {wrong[0]} of this "
                "chunk, which is no number of filled slots"
            )
        slots_J = np.diff(before)
        if overfull := int((found > slots_J).sum()):
            key = f"overfull {rule.glob}"
            self._counts[key] = max(overfull, self._counts.get(key, 0))
        slot_N = np.arange(before[-1]) - np.repeat(before[:-1], slots_J)
        return np.asarray(slot_N < np.repeat(found, slots_J))
