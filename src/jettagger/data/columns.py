"""From branches to columns: selection, classes, weights, inputs, spectators.

`Columns.inputs` is the one place where arrays become model inputs: the prepared dataset and the `Tagger` both
call it. All that is done here acts on each jet alone, so the result does not depend on how files are cut.

Shapes: J jets, N particles of all jets, F features, K coordinates (eta, phi, pT).
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.batch import InputSpec
from jettagger.data.collection import CollectionColumns
from jettagger.data.expression_text import ExpressionText
from jettagger.data.input_schema import JetSection
from jettagger.data.layout import Branches, Jets, Layout
from jettagger.data.rows import RawInputs
from jettagger.data.schema import ClassSection, DataConfig
from jettagger.data.values import (
    as_feature,
    condition,
    describe,
    float32,
    jet_level,
    missing,
    number,
    numbers,
    one_hot,
    parse_features,
    parse_optional,
    side_by_side,
    taken,
)
from jettagger.errors import JettaggerError, unknown_name
from jettagger.expressions import Expression, Jagged, Namespace, parse, required_branches
from jettagger.expressions.jagged import from_branch


class Table(NamedTuple):
    """The selected jets of a chunk."""

    entry_J: NDArray[np.int64]
    """Entry number in the file."""
    index_J: NDArray[np.int64]
    """Number of the jet in its entry."""
    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    """Event weights."""
    group_J: NDArray[np.int64]
    """Jets of one group never lie on two sides of a split."""
    inputs: RawInputs
    targets: dict[str, NDArray[np.float32]]
    """What is regressed; NaN where it is unknown."""
    spectators: dict[str, NDArray[np.float64]]
    extras: dict[str, NDArray[np.float64]]
    """What the baselines look at."""
    counts: dict[str, int]
    """What was cut, truncated, missing: see `Columns.table`."""


class _Membership(NamedTuple):
    """Which jets a class takes: those of a sample, or those that an expression tells."""

    sample: str | None = None
    expression: Expression | None = None
    one_hot: bool = False
    """The expression is 1 or 0, not a condition."""


def _membership(given: ExpressionText | ClassSection, where: str) -> _Membership:
    if not isinstance(given, ClassSection):
        return _Membership(expression=parse(given, where=where))
    if given.one_hot is not None:
        return _Membership(expression=parse(given.one_hot, where=where), one_hot=True)
    return _Membership(sample=given.sample)


BLOCK = 100
"""Neighbouring entries that stay together where nothing tells which jets share an event."""


class Columns:
    """The config's expressions, parsed once, applied to any number of chunks."""

    def __init__(self, config: DataConfig, extras: Mapping[str, str | int | float] | None = None) -> None:
        self.config = config
        self.layout = Layout(config)
        self._define = {name: parse(text, where=f"define.{name}") for name, text in config.define.items()}
        self._selection = parse_optional(config.data.selection, "data.selection")
        self._classes = {
            name: _membership(membership, f"classes.{name}") for name, membership in config.classes.items()
        }
        self._weight = parse(config.weights.event, where="weights.event")
        self._jet: dict[str, Expression] = {}
        self._collections: dict[str, CollectionColumns] = {}
        for name, section in config.inputs.items():
            if isinstance(section, JetSection):
                self._jet = parse_features(section.features, f"inputs.{name}.features")
            else:
                self._collections[name] = CollectionColumns(name, section)
        self._targets = {
            name: parse(section.value, where=f"targets.{name}.value")
            for name, section in config.targets.items()
        }
        self._spectators = {name: parse(name, where="spectators") for name in config.spectators}
        self._extras = {name: parse(text, where=name) for name, text in (extras or {}).items()}

    @cached_property
    def spec(self) -> InputSpec:
        """What a model is told of its inputs."""
        jet = self.config.inputs.get("jet")
        return InputSpec(
            jet=describe(jet) if isinstance(jet, JetSection) else (),
            collections=tuple(collection.spec for collection in self._collections.values()),
        )

    def input_branches(
        self, available: Collection[str], *, where: str, spectators: bool = True
    ) -> frozenset[str]:
        """What a prediction reads of the branches that are `available`: inputs, selection and, if asked for,
        spectators; no labels."""
        names = self._input_names(self.layout.names(available), where, spectators)
        return self.layout.stored(names, available, where=where)

    def extra_branches(self, available: Collection[str], *, where: str) -> frozenset[str]:
        """What `extras` reads of the branches that are `available`."""
        names = self.layout.names(available)
        needed = required_branches([*self._extras.values()], self._define, names, where=where)
        return self.layout.stored(needed, available, where=where)

    def _input_names(self, names: tuple[str, ...], where: str, spectators: bool = True) -> frozenset[str]:
        expressions = [*self._jet.values(), *(self._spectators.values() if spectators else ())]
        expressions += [self._selection] if self._selection else []
        for collection in self._collections.values():
            expressions += collection.expressions
        needed = required_branches(expressions, self._define, names, where=where)
        return needed.union(*(c.anchors(names, needed, where) for c in self._collections.values()))

    def branches(
        self, available: Collection[str], *, where: str, sample_weight: str | float
    ) -> frozenset[str]:
        """All that `table` needs of the branches that are `available`. Raises JettaggerError for a name that is not."""
        names = self.layout.names(available)
        expressions = [self._weight, parse(sample_weight, where="data: weight"), *self._extras.values()]
        expressions += self._targets.values()
        expressions += [c.expression for c in self._classes.values() if c.expression is not None]
        needed = required_branches(expressions, self._define, names, where=where)
        group = self._group_branch(names, where)
        needed |= self._input_names(names, where) | ({group} if group else set())
        return self.layout.stored(needed, available, where=where)

    def namespace(self, branches: Mapping[str, Any], *, where: str, jets: int | None = None) -> Namespace:
        """The branches of a chunk with the config's definitions."""
        return Namespace(branches, self._define, where=where, length=jets)

    def selected(self, namespace: Namespace, jets: int) -> NDArray[np.bool_]:
        """Which jets pass the selection, (J,)."""
        if self._selection is None:
            return np.ones(jets, bool)
        return condition(namespace, self._selection, "data.selection", jets)

    def inputs(
        self, namespace: Namespace, jets: int, selected_J: NDArray[np.bool_] | None = None
    ) -> tuple[RawInputs, dict[str, int]]:
        """Model inputs of all jets of the chunk, and counts of missing, truncated and empty.

        Where some jets are not `selected_J` (default: all are), coordinates of theirs that are not finite become 0:
        no network was ever trained on such a jet, but it is scored like the others.
        """
        counts: dict[str, int] = {}
        jet = self.config.inputs.get("jet")
        jet_JF = None
        if isinstance(jet, JetSection):
            features = []
            for name, expression in self._jet.items():
                where = f"inputs.jet.features.{name}"
                values = jet_level(namespace.evaluate(expression, where=where), where, jets)
                features.append(as_feature(values, jet.features[name]))
            jet_JF = side_by_side(features, jets)
            counts |= missing("jet", self._jet, jet_JF)
        collections = {
            name: collection.evaluate(namespace, jets, counts, selected_J)
            for name, collection in self._collections.items()
        }
        return RawInputs(jet_JF, collections), counts

    def spectators(self, namespace: Namespace, jets: int) -> dict[str, NDArray[np.float64]]:
        """The spectators of all jets of the chunk."""
        return numbers(namespace, self._spectators, "spectators", jets)

    def targets(self, namespace: Namespace, jets: int) -> dict[str, NDArray[np.float32]]:
        """The targets of all jets of the chunk; NaN for what is not finite."""
        found = {}
        for name, values_J in numbers(namespace, self._targets, "targets", jets).items():
            floats_J = float32(values_J)
            found[name] = np.where(np.isfinite(floats_J), floats_J, np.float32(np.nan))
        return found

    def extras(self, namespace: Namespace, jets: int) -> dict[str, NDArray[np.float64]]:
        """What was asked for beside inputs and spectators, for all jets of the chunk."""
        return numbers(namespace, self._extras, "baselines", jets)

    def table(
        self,
        branches: Mapping[str, Any],
        *,
        start: int,
        sample: str,
        sample_weight: str | float,
        where: str,
        file_key: int = 0,
    ) -> Table:
        """The selected jets of a chunk, as it was read, that begins at entry `start` of the file `where`.

        `file_key` (below 2**62) tells files apart where no branch tells which jets share an event.

        Counts: `read`, `selected`, `class <name>`, `missing <input>.<feature>` and `missing targets.<name>` (values
        that are NaN, ±inf or sentinels), `truncated <collection>` and `empty <collection>` (jets), and those of `Jets`.
        """
        found = self.layout.jets(branches, where=where, first=start)
        namespace = self.namespace(found.branches, where=where, jets=len(found))
        kept_J = np.flatnonzero(self.selected(namespace, len(found)))
        if len(kept_J) < len(found):
            kept = Branches(found.branches, lambda name: taken(found.branches[name], kept_J))
            namespace = self.namespace(kept, where=where, jets=len(kept_J))
        selected, entry_J = len(kept_J), found.entry_J[kept_J]
        labels_J = self._labels(namespace, sample, selected, entry_J + start, where)
        weights_J = number(namespace, self._weight, "weights.event", selected) * number(
            namespace, parse(sample_weight), f"data: weight of {sample}", selected
        )
        if not np.isfinite(weights_J).all():
            first = start + int(entry_J[np.flatnonzero(~np.isfinite(weights_J))[0]])
            raise JettaggerError(f"{where}: weights.event is not finite for entry {first}")
        inputs, counts = self.inputs(namespace, selected)
        per_class = {
            f"class {name}": int((labels_J == index).sum())
            for index, name in enumerate(self.config.class_names)
        }
        targets = self.targets(namespace, selected)
        counts |= {f"missing targets.{name}": int(np.isnan(x_J).sum()) for name, x_J in targets.items()}
        return Table(
            entry_J=entry_J + start,
            index_J=found.index_J[kept_J],
            labels_J=labels_J,
            weights_J=weights_J,
            group_J=self._groups(found, kept_J, start, file_key, where),
            inputs=inputs,
            targets=targets,
            spectators=self.spectators(namespace, selected),
            extras=self.extras(namespace, selected),
            counts={"read": len(found), "selected": selected, **per_class, **counts, **found.counts},
        )

    def _labels(
        self, namespace: Namespace, sample: str, jets: int, entry_J: NDArray[np.int64], where: str
    ) -> NDArray[np.int64]:
        """Index of the one class of each jet; none or two are an error that names the jet. 0 without classes."""
        if not self._classes:
            return np.zeros(jets, np.int64)
        belongs_JC = np.empty((jets, len(self._classes)), bool)
        for column, (name, membership) in enumerate(self._classes.items()):
            if membership.sample is not None:
                belongs_JC[:, column] = membership.sample == sample
            elif membership.expression is not None:
                of_class = one_hot if membership.one_hot else condition
                belongs_JC[:, column] = of_class(namespace, membership.expression, f"classes.{name}", jets)
        number_J = belongs_JC.sum(1)
        if (bad := np.flatnonzero(number_J != 1)).size:
            first = bad[0]
            names = [name for name, yes in zip(self._classes, belongs_JC[first], strict=True) if yes]
            fault = f"in {len(names)} classes ({', '.join(names)})" if names else "in no class"
            raise JettaggerError(
                f"{where}: {len(bad)} of {jets} selected jets do not belong to exactly one class: the jet of "
                f"entry {entry_J[first]} is {fault}. Change `classes`, or leave such jets out by data.selection"
            )
        labels_J: NDArray[np.int64] = belongs_JC.argmax(1).astype(np.int64)
        return labels_J

    def _group_branch(self, available: Collection[str], where: str) -> str | None:
        name = self.config.data.group_by
        if name is None:
            return "event_number" if "event_number" in available else None
        if name not in available:
            raise unknown_name("branch", name, available, where=f"{where}: data.group_by")
        return name

    def _groups(
        self, jets: Jets, kept_J: NDArray[np.int64], start: int, file_key: int, where: str
    ) -> NDArray[np.int64]:
        name = self._group_branch(jets.branches.keys(), where)
        if name is None:
            entry_J = jets.entry_J[kept_J] + start
            if jets.counts_E is not None:
                return file_key + entry_J
            blocks_J: NDArray[np.int64] = file_key + entry_J // BLOCK
            return blocks_J
        values = from_branch(name, jets.branches[name])
        if isinstance(values, Jagged):
            raise JettaggerError(f"{where}: data.group_by: '{name}' has one value a particle, not one a jet")
        if values.dtype.kind not in "iub":
            raise JettaggerError(f"{where}: data.group_by: '{name}' holds {values.dtype}, not whole numbers")
        return values[kept_J].astype(np.int64)
