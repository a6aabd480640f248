"""From branches to columns: selection, classes, weights, inputs, spectators.

`Columns.inputs` is the one place where arrays become model inputs: the prepared dataset and the `Tagger` both
call it. All that is done here acts on each jet alone, so the result does not depend on how files are cut.

Shapes: J jets, N particles of all jets, F features, K coordinates (eta, phi, pT).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.batch import COORDINATES, CollectionInput, Feature, InputSpec
from jettagger.data.schema import (
    CollectionSection,
    DataConfig,
    FeatureSection,
    JetSection,
    Normalisation,
    SampleClass,
)
from jettagger.errors import JettaggerError, unknown_name
from jettagger.expressions import Expression, Jagged, Namespace, parse, required_branches
from jettagger.expressions.jagged import from_branch

Floats = NDArray[np.float32]


class RawCollection(NamedTuple):
    """The kept particles of J jets, one row each, jet after jet."""

    values_NF: Floats
    lengths_J: NDArray[np.int32]
    coordinates_NK: Floats | None


class RawInputs(NamedTuple):
    """Model inputs before normalisation; NaN where a value is missing."""

    jet_JF: Floats | None
    collections: dict[str, RawCollection]


class Table(NamedTuple):
    """The selected jets of a chunk."""

    entry_J: NDArray[np.int64]
    """Entry number in the file."""
    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    """Event weights."""
    group_J: NDArray[np.int64]
    """Jets of one group never lie on two sides of a split."""
    inputs: RawInputs
    spectators: dict[str, NDArray[np.float64]]
    extras: dict[str, NDArray[np.float64]]
    """What the baselines look at."""
    counts: dict[str, int]
    """What was cut, truncated, missing: see `Columns.table`."""


BLOCK = 100
"""Neighbouring entries that stay together where nothing tells which jets share an event."""
BLOCK_ROWS = 4096
"""Rows of features that are put together at a time."""


class Columns:
    """The config's expressions, parsed once, applied to any number of chunks."""

    def __init__(self, config: DataConfig, extras: Mapping[str, str | int | float] | None = None) -> None:
        self.config = config
        self._define = {name: parse(text, where=f"define.{name}") for name, text in config.define.items()}
        self._selection = _optional(config.data.selection, "data.selection")
        self._classes = {
            name: condition.sample
            if isinstance(condition, SampleClass)
            else parse(condition, where=f"classes.{name}")
            for name, condition in config.classes.items()
        }
        self._weight = parse(config.weights.event, where="weights.event")
        self._jet: dict[str, Expression] = {}
        self._collections: dict[str, _Collection] = {}
        for name, section in config.inputs.items():
            if isinstance(section, JetSection):
                self._jet = _features(section.features, f"inputs.{name}.features")
            else:
                self._collections[name] = _Collection(name, section)
        self._spectators = {name: parse(name, where="spectators") for name in config.spectators}
        self._extras = {name: parse(text, where=name) for name, text in (extras or {}).items()}

    @cached_property
    def spec(self) -> InputSpec:
        """What a model is told of its inputs."""
        jet = self.config.inputs.get("jet")
        return InputSpec(
            jet=_spec(jet) if isinstance(jet, JetSection) else (),
            collections=tuple(collection.spec for collection in self._collections.values()),
        )

    def input_branches(
        self, available: Collection[str], *, where: str, spectators: bool = True
    ) -> frozenset[str]:
        """Branches that a prediction needs: those of inputs, selection and, if asked for, spectators; no labels."""
        expressions = [*self._jet.values(), *(self._spectators.values() if spectators else ())]
        expressions += [self._selection] if self._selection else []
        for collection in self._collections.values():
            expressions += collection.expressions
        needed = required_branches(expressions, self._define, available, where=where)
        return needed.union(*(c.anchors(available, where) for c in self._collections.values()))

    def branches(
        self, available: Collection[str], *, where: str, sample_weight: str | float
    ) -> frozenset[str]:
        """All branches that `table` needs. Raises JettaggerError for a name that is not `available`."""
        expressions = [self._weight, parse(sample_weight, where="data: weight"), *self._extras.values()]
        expressions += [c for c in self._classes.values() if isinstance(c, Expression)]
        needed = required_branches(expressions, self._define, available, where=where)
        group = self._group_branch(available, where)
        return needed | self.input_branches(available, where=where) | ({group} if group else set())

    def namespace(self, branches: Mapping[str, Any], *, where: str) -> Namespace:
        """The branches of a chunk with the config's definitions."""
        return Namespace(branches, self._define, where=where)

    def selected(self, namespace: Namespace, jets: int) -> NDArray[np.bool_]:
        """Which jets pass the selection, (J,)."""
        if self._selection is None:
            return np.ones(jets, bool)
        return _condition(namespace, self._selection, "data.selection", jets)

    def inputs(self, namespace: Namespace, jets: int) -> tuple[RawInputs, dict[str, int]]:
        """Model inputs of all jets of the chunk, and counts of missing, truncated and empty."""
        counts: dict[str, int] = {}
        jet = self.config.inputs.get("jet")
        jet_JF = None
        if isinstance(jet, JetSection):
            features = []
            for name, expression in self._jet.items():
                where = f"inputs.jet.features.{name}"
                values = _jet_level(namespace.evaluate(expression, where=where), where, jets)
                features.append(_as_feature(values, jet.features[name]))
            jet_JF = _side_by_side(features, jets)
            counts |= _missing("jet", self._jet, jet_JF)
        collections = {
            name: collection.evaluate(namespace, jets, counts)
            for name, collection in self._collections.items()
        }
        return RawInputs(jet_JF, collections), counts

    def spectators(self, namespace: Namespace, jets: int) -> dict[str, NDArray[np.float64]]:
        """The spectators of all jets of the chunk."""
        return _numbers(namespace, self._spectators, "spectators", jets)

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
        """The selected jets of a chunk that begins at entry `start` of the file `where`.

        `file_key` (below 2**62) tells files apart where no branch tells which jets share an event.

        Counts: `read`, `selected`, `class <name>`, `missing <input>.<feature>` (values that are NaN, ±inf or
        sentinels), `truncated <collection>` and `empty <collection>` (jets).
        """
        jets = len(next(iter(branches.values())))
        whole = self.namespace(branches, where=where)
        entry_J = np.flatnonzero(self.selected(whole, jets))
        namespace = whole
        if len(entry_J) < jets:
            namespace = self.namespace(
                {name: _taken(x, entry_J) for name, x in branches.items()}, where=where
            )
        selected = len(entry_J)
        labels_J = self._labels(namespace, sample, selected, entry_J + start, where)
        weights_J = _number(namespace, self._weight, "weights.event", selected) * _number(
            namespace, parse(sample_weight), f"data: weight of {sample}", selected
        )
        if not np.isfinite(weights_J).all():
            first = start + int(entry_J[np.flatnonzero(~np.isfinite(weights_J))[0]])
            raise JettaggerError(f"{where}: weights.event is not finite for entry {first}")
        inputs, counts = self.inputs(namespace, selected)
        per_class = {
            f"class {name}": int((labels_J == index).sum()) for index, name in enumerate(self._classes)
        }
        return Table(
            entry_J=entry_J + start,
            labels_J=labels_J,
            weights_J=weights_J,
            group_J=self._groups(branches, entry_J, start, file_key, where),
            inputs=inputs,
            spectators=self.spectators(namespace, selected),
            extras=_numbers(namespace, self._extras, "baselines", selected),
            counts={"read": jets, "selected": selected, **per_class, **counts},
        )

    def _labels(
        self, namespace: Namespace, sample: str, jets: int, entry_J: NDArray[np.int64], where: str
    ) -> NDArray[np.int64]:
        """Index of the one class of each jet; none or two are an error that names the jet."""
        belongs_JC = np.empty((jets, len(self._classes)), bool)
        for column, (name, condition) in enumerate(self._classes.items()):
            if isinstance(condition, Expression):
                belongs_JC[:, column] = _condition(namespace, condition, f"classes.{name}", jets)
            else:
                belongs_JC[:, column] = condition == sample
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
        self, branches: Mapping[str, Any], entry_J: NDArray[np.int64], start: int, file_key: int, where: str
    ) -> NDArray[np.int64]:
        name = self._group_branch(branches.keys(), where)
        if name is None:
            blocks_J: NDArray[np.int64] = file_key + (entry_J + start) // BLOCK
            return blocks_J
        values = from_branch(name, branches[name])
        if isinstance(values, Jagged):
            raise JettaggerError(f"{where}: data.group_by: '{name}' has one value a particle, not one a jet")
        if values.dtype.kind not in "iub":
            raise JettaggerError(f"{where}: data.group_by: '{name}' holds {values.dtype}, not whole numbers")
        return values[entry_J].astype(np.int64)


class _Collection:
    """The expressions of one collection."""

    def __init__(self, name: str, section: CollectionSection) -> None:
        self.name = name
        self.section = section
        where = f"inputs.{name}"
        self._select = _optional(section.select, f"{where}.select")
        self._sort_by = _optional(section.sort_by, f"{where}.sort_by")
        self._features = _features(section.features, f"{where}.features")
        self._coordinates: dict[str, Expression] = {}
        if section.coordinates is not None:
            texts = section.coordinates.model_dump()
            self._coordinates = {k: parse(texts[k], where=f"{where}.coordinates.{k}") for k in COORDINATES}

    @property
    def expressions(self) -> list[Expression]:
        optional = [x for x in (self._select, self._sort_by) if x is not None]
        return [*self._features.values(), *self._coordinates.values(), *optional]

    @property
    def spec(self) -> CollectionInput:
        section = self.section
        return CollectionInput(self.name, _spec(section), section.length, section.coordinates is not None)

    def anchors(self, available: Collection[str], where: str) -> frozenset[str]:
        """The branches that tell how many particles there are: the first that `from` matches."""
        matches = [name for name in available if fnmatchcase(name, self.section.from_)]
        if not matches:
            raise JettaggerError(
                f"{where}: inputs.{self.name}.from: no branch matches '{self.section.from_}' "
                f"(there are {', '.join(sorted(available)[:20])}, …)"
            )
        used = frozenset().union(*(expression.names for expression in self.expressions))
        return frozenset([next((name for name in matches if name in used), matches[0])])

    def evaluate(self, namespace: Namespace, jets: int, counts: dict[str, int]) -> RawCollection:
        """Selected, sorted, truncated particles of all jets."""
        where = f"inputs.{self.name}"
        columns = {
            name: namespace.evaluate(expression, where=f"{where}.features.{name}")
            for name, expression in self._features.items()
        }
        offsets = self._offsets(columns, where)
        lengths_J, rows = self._truncated(self._rows(namespace, offsets, where), offsets, counts)
        features = []
        for name, value in columns.items():
            flat = _particle_level(value, offsets, f"{where}.features.{name}")
            kept = flat if rows is None else flat[rows]
            features.append(_as_feature(kept, self.section.features[name]))
        values_NF = _side_by_side(features, int(lengths_J.sum()))
        counts |= _missing(self.name, columns, values_NF)
        counts[f"empty {self.name}"] = int((lengths_J == 0).sum())
        return RawCollection(values_NF, lengths_J, self._drawn(namespace, offsets, rows, where))

    def _offsets(self, columns: Mapping[str, Any], where: str) -> NDArray[np.int64]:
        for value in columns.values():
            if isinstance(value, Jagged):
                return value.offsets
        raise JettaggerError(
            f"{where}: no feature has one value a particle: write jet-level ones in inputs.jet"
        )

    def _drawn(
        self, namespace: Namespace, offsets: NDArray[np.int64], rows: NDArray[np.int64] | None, where: str
    ) -> Floats | None:
        if not self._coordinates:
            return None
        columns = []
        for name, expression in self._coordinates.items():
            place = f"{where}.coordinates.{name}"
            flat = _particle_level(namespace.evaluate(expression, where=place), offsets, place)
            flat = _float32(flat if rows is None else flat[rows])
            if not np.isfinite(flat).all():
                raise JettaggerError(
                    f"{place}: {(~np.isfinite(flat)).sum()} values are not finite: a particle has to lie "
                    f"somewhere (leave such particles out by inputs.{self.name}.select)"
                )
            columns.append(flat)
        return np.stack(columns, axis=1)

    def _rows(self, namespace: Namespace, offsets: NDArray[np.int64], where: str) -> "_Rows":
        """Rows that pass `select`, in the order of `sort_by`, with the jet of each."""
        rows: NDArray[np.int64] | None = None
        jet_N = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if self._select is not None:
            place = f"{where}.select"
            keep = _particle_level(namespace.evaluate(self._select, where=place), offsets, place)
            if keep.dtype != bool:
                raise JettaggerError(
                    f"{place}: a condition is expected, this has values of type {keep.dtype}"
                )
            if not keep.all():
                rows = np.flatnonzero(keep)
                jet_N = jet_N[rows]
        if self._sort_by is not None:
            place = f"{where}.sort_by"
            order_by = _particle_level(namespace.evaluate(self._sort_by, where=place), offsets, place)
            order_by = order_by if rows is None else order_by[rows]
            sorted_already = (order_by[1:] >= order_by[:-1]) | (jet_N[1:] != jet_N[:-1])
            if not sorted_already.all():
                order = np.lexsort((order_by, jet_N))
                rows = order if rows is None else rows[order]
        return _Rows(rows, jet_N)

    def _truncated(
        self, rows: "_Rows", offsets: NDArray[np.int64], counts: dict[str, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64] | None]:
        lengths_J = np.bincount(rows.jet_N, minlength=len(offsets) - 1)
        longest = self.section.length
        counts[f"truncated {self.name}"] = too_long = int((lengths_J > longest).sum())
        if not too_long:
            return lengths_J.astype(np.int32), rows.order
        first_J = np.cumsum(lengths_J) - lengths_J
        keep = np.arange(len(rows.jet_N)) - first_J[rows.jet_N] < longest
        index = np.flatnonzero(keep) if rows.order is None else rows.order[keep]
        return np.minimum(lengths_J, longest).astype(np.int32), index


class _Rows(NamedTuple):
    order: NDArray[np.int64] | None
    """None: all, as they stand."""
    jet_N: NDArray[np.int64]


def _optional(text: str | int | float | None, where: str) -> Expression | None:
    return None if text is None else parse(text, where=where)


def _features(features: Mapping[str, Any], where: str) -> dict[str, Expression]:
    return {
        name: parse(f.value if isinstance(f, FeatureSection) else f, where=f"{where}.{name}")
        for name, f in features.items()
    }


def _spec(section: JetSection | CollectionSection) -> tuple[Feature, ...]:
    features = []
    for name, feature in section.features.items():
        if not isinstance(feature, FeatureSection):
            feature = FeatureSection(value=feature)
        how = feature.normalise
        features.append(
            Feature(
                name=name,
                normalise=(how.shift, how.scale) if isinstance(how, Normalisation) else how,
                clip=None if feature.clip is None else (feature.clip[0], feature.clip[1]),
                missing=feature.missing,
            )
        )
    return tuple(features)


def _taken(array: Any, entry_J: NDArray[np.int64]) -> Any:
    if isinstance(array, Jagged):
        return _taken(array.to_awkward(), entry_J)
    return array[entry_J]


def _jet_level(value: Any, where: str, jets: int) -> NDArray[Any]:
    if isinstance(value, Jagged):
        raise JettaggerError(
            f"{where}: one value a jet is expected, this has one a particle: reduce it, "
            "for example by sum(…), max(…) or leading(…, 0)"
        )
    return np.broadcast_to(np.asarray(value), (jets,))


def _particle_level(value: Any, offsets: NDArray[np.int64], where: str) -> NDArray[Any]:
    if not isinstance(value, Jagged):
        jets = len(offsets) - 1
        return np.repeat(np.broadcast_to(np.asarray(value), (jets,)), np.diff(offsets))
    if value.offsets is not offsets and not np.array_equal(value.offsets, offsets):
        raise JettaggerError(f"{where}: it has another number of particles than the rest of the collection")
    return value.values


def _condition(namespace: Namespace, expression: Expression, where: str, jets: int) -> NDArray[np.bool_]:
    values = _jet_level(namespace.evaluate(expression, where=where), where, jets)
    if values.dtype.kind != "b":
        raise JettaggerError(
            f"{where}: a condition is expected, '{expression.text}' has values of type {values.dtype} "
            f"(write for example {expression.text} == 1)"
        )
    return values


def _number(namespace: Namespace, expression: Expression, where: str, jets: int) -> NDArray[np.float64]:
    return _jet_level(namespace.evaluate(expression, where=where), where, jets).astype(np.float64)


def _numbers(
    namespace: Namespace, expressions: Mapping[str, Expression], where: str, jets: int
) -> dict[str, NDArray[np.float64]]:
    return {
        name: _number(namespace, expression, f"{where}: {name}", jets)
        for name, expression in expressions.items()
    }


def _as_feature(values: NDArray[Any], feature: Any) -> Floats:
    """float32, with NaN for sentinels. These are compared in float32: -999.9 is no float32 and no branch holds it."""
    floats = _float32(values)
    if isinstance(feature, FeatureSection) and feature.sentinels:
        return np.where(np.isin(floats, np.array(feature.sentinels, np.float32)), np.float32(np.nan), floats)
    return floats


def _float32(values: NDArray[Any]) -> Floats:
    """What is too large becomes ±inf, and so is missing."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _side_by_side(columns: Sequence[Floats], rows: int) -> Floats:
    """Columns as one array, (R, F), filled in blocks that stay in the processor's cache: twice as fast."""
    values_RF = np.empty((rows, len(columns)), np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        for number, column in enumerate(columns):
            values_RF[block, number] = column[block]
    return values_RF


def _missing(name: str, features: Iterable[str], values_RF: Floats) -> dict[str, int]:
    """For each feature how many values are NaN or infinite; one look at all of them where none is."""
    none = bool(np.isfinite(values_RF).all())
    return {
        f"missing {name}.{feature}": 0 if none else int(np.count_nonzero(~np.isfinite(values_RF[:, column])))
        for column, feature in enumerate(features)
    }
