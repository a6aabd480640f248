"""One pass over the files: cut flows, statistics, fingerprints, and a bounded sample of jets.

Jets go through `Columns.table`, as they do when a training's data are prepared; what has no labels goes through
the parts of it that a prediction uses.

Shapes: J jets, V jet-level variables.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.data import splits
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Chunk, Source
from jettagger.data.layout import Branches, Jets
from jettagger.data.reader import opened, opening_of
from jettagger.data.rows import RawInputs
from jettagger.data.schema import DataConfig
from jettagger.data.values import number, taken
from jettagger.errors import JettaggerError
from jettagger.expressions import Jagged, Namespace, parse
from jettagger.expressions.jagged import from_branch
from jettagger.inspection.findings import Findings, Severity
from jettagger.inspection.fingerprints import Hashes, fingerprints
from jettagger.inspection.kept import Kept, Part, Reservoir, rows_of
from jettagger.inspection.overlaps import Marks
from jettagger.inspection.sides import SIDES, folds_of, side_of, split_faults
from jettagger.inspection.statistics import Statistics, means
from jettagger.inspection.survey import SurveyedFile
from jettagger.inspection.targets import raw_targets
from jettagger.inspection.terms import (
    Term,
    branches_of,
    class_names,
    class_terms,
    input_terms,
    label_terms,
    selection_terms,
)
from jettagger.inspection.yields import CutCounter, CutFlow, YieldCounter


class Selected(NamedTuple):
    """The selected jets of a chunk."""

    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    group_J: NDArray[np.int64]
    inputs: RawInputs
    spectators: dict[str, NDArray[np.float64]]
    extras: dict[str, NDArray[np.float64]]
    targets: dict[str, NDArray[np.float32]]
    hashes_J: Hashes


class Walk:
    """What is gathered while files are read."""

    def __init__(
        self, config: DataConfig, columns: Mapping[str, Columns], findings: Findings, limit: int
    ) -> None:
        """`columns` by role; at most `limit` jets of each sample are kept."""
        self._config, self._columns, self._findings, self._limit = config, columns, findings, limit
        self._extras = tuple(splits.columns(config))
        self._cuts = selection_terms(config)
        self._classes = class_terms(config)
        self.yields = YieldCounter(class_names(config))
        self.branches, self.variables = Statistics(), Statistics()
        self.targets = {name: Statistics() for name in class_names(config)}
        self._reservoirs: dict[tuple[str, str], Reservoir] = {}
        self._marks: dict[tuple[str, str], list[tuple[Hashes, NDArray[np.int64]]]] = {}
        spec = columns["train"].spec
        self._features = {c.name: tuple(f.name for f in c.features) for c in spec.collections}
        self._jet_features = tuple(f"jet.{feature.name}" for feature in spec.jet)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The selection's parts as they are written."""
        return tuple(cut.expression.text for cut in self._cuts)

    @property
    def names(self) -> tuple[str, ...]:
        """The jet-level variables of the kept jets: features, spectators, multiplicities and means."""
        of_particles = [
            name
            for collection, features in self._features.items()
            for name in (f"{collection}.count", *(f"mean {collection}.{f}" for f in features))
        ]
        return (*self._jet_features, *self._config.spectators, *of_particles)

    def file(self, file: SurveyedFile) -> CutFlow:
        """Reads a file; a part that cannot be used is noted and left out."""
        counter = CutCounter(len(self._cuts), tuple(self._classes))
        complete = file.branches is not None
        if file.branches is not None:
            source = opened(file.path, opening_of(self._config))
            complete = self._chunks(source, file, file.branches, counter)
        return counter.result(file.role, file.sample, file.path, file.entries, complete=complete)

    def kept(self) -> list[Kept]:
        """A random part of the selected jets of each sample."""
        found = [
            reservoir.kept(
                self.names,
                self._features,
                self._extras if role == "train" else (),
                tuple(self._config.targets) if role != "against" else (),
            )
            for (role, _), reservoir in self._reservoirs.items()
        ]
        return [one for one in found if one is not None]

    def marks(self) -> list[Marks]:
        """The fingerprints of all selected jets that have labels."""
        return [
            Marks(
                side,
                sample,
                np.concatenate([hashes for hashes, _ in parts]),
                np.concatenate([groups for _, groups in parts]),
            )
            for (side, sample), parts in self._marks.items()
        ]

    def _chunks(
        self, source: Source, file: SurveyedFile, branches: frozenset[str], counter: CutCounter
    ) -> bool:
        complete = True
        for start, stop in source.ranges(branches):
            try:
                self._chunk(source.read(branches, start, stop), file, counter)
            except JettaggerError as error:
                place = "data" if file.role != "against" else "--against"
                severity: Severity = "error" if self._config.data.on_error == "stop" else "warning"
                message = str(error).replace(f"{file.path}: ", "")
                self._findings.add(severity, place, message, file=file.path)
                complete = False
        return complete

    def _chunk(self, chunk: Chunk, file: SurveyedFile, counter: CutCounter) -> None:
        columns = self._columns[file.role]
        jets = columns.layout.jets(chunk.branches, where=file.path, first=chunk.start)
        namespace = columns.namespace(jets.branches, where=file.path, jets=len(jets))
        passes = [_condition(cut, namespace, len(jets)) for cut in self._cuts]
        belongs = self._belongs(namespace, file, len(jets)) if file.role != "against" else []
        counter.add(passes, belongs, len(jets))
        for name in self._looked_at(file, jets):
            value = from_branch(name, jets.branches[name])
            self.branches.add(name, value.values if isinstance(value, Jagged) else value)
        if file.role == "against":
            self._take(file, counter, self._unlabelled(jets, chunk.start, file))
        else:
            targets = raw_targets(self._config, columns, namespace, len(jets))
            self._take(file, counter, self._labelled(chunk, file)._replace(targets=targets))

    def _looked_at(self, file: SurveyedFile, jets: Jets) -> list[str]:
        """The branches that expressions use, and the one that tells the events apart."""
        terms = input_terms(self._config)
        if file.role != "against":
            terms += label_terms(self._config, file.weight)
        group = self._config.data.group_by or "event_number"
        wanted = branches_of(self._config, terms) | {group}
        return [name for name in jets.branches if name in wanted]

    def _belongs(self, namespace: Namespace, file: SurveyedFile, jets: int) -> list[NDArray[np.bool_]]:
        return [
            np.full(jets, term == file.sample) if isinstance(term, str) else _condition(term, namespace, jets)
            for term in self._classes.values()
        ]

    def _labelled(self, chunk: Chunk, file: SurveyedFile) -> Selected:
        table = self._columns[file.role].table(
            chunk.branches,
            start=chunk.start,
            sample=file.sample,
            sample_weight=file.weight,
            where=file.path,
            file_key=_file_key(file),
        )
        return Selected(
            table.labels_J,
            table.weights_J,
            table.group_J,
            table.inputs,
            table.spectators,
            table.extras,
            {},
            fingerprints(table.inputs, table.spectators, len(table.labels_J)),
        )

    def _unlabelled(self, jets: Jets, start: int, file: SurveyedFile) -> Selected:
        columns = self._columns[file.role]
        whole = columns.namespace(jets.branches, where=file.path, jets=len(jets))
        kept_J = np.flatnonzero(columns.selected(whole, len(jets)))
        count = len(kept_J)
        branches = Branches(jets.branches, lambda name: taken(jets.branches[name], kept_J))
        namespace = columns.namespace(branches, where=file.path, jets=count)
        inputs, _ = columns.inputs(namespace, count)
        weights_J = np.ones(count)
        weight = parse(self._config.weights.event, where="weights.event")
        if weight.names <= branches.keys() | self._config.define.keys():
            try:
                weights_J = number(namespace, weight, "weights.event", count)
            except JettaggerError:  # told of by the survey: a definition needs a branch that is not there
                weights_J = np.ones(count)
        weights_J = weights_J * number(namespace, parse(file.weight), "weight", count)
        return Selected(
            np.full(count, -1),
            weights_J,
            _file_key(file) + start + jets.entry_J[kept_J],  # jets of an entry stay together
            inputs,
            columns.spectators(namespace, count),
            {},
            {},
            np.empty(0, np.uint64),
        )

    def _take(self, file: SurveyedFile, counter: CutCounter, selected: Selected) -> None:
        jets = len(selected.labels_J)
        counter.selected += jets
        counter.sum_of_weights += float(selected.weights_J.sum())
        side_J = side_of(self._config, file.role, selected.group_J, selected.extras)
        if file.role != "against":
            self._count(file, selected, side_J)
            self._describe(selected)
        key = (file.role, file.sample)
        reservoir = self._reservoirs.setdefault(key, Reservoir(*key, self._limit))
        keys_J = reservoir.wanted(jets)
        rows = np.flatnonzero(keys_J < reservoir.below)
        if not len(rows):
            return
        raw = rows_of(selected.inputs, rows)
        names = self._extras if file.role == "train" else ()
        extras = [selected.extras[name][rows] for name in names]
        part = Part(
            keys_J[rows],
            self._values(raw, [values_J[rows] for values_J in selected.spectators.values()], len(rows)),
            selected.labels_J[rows],
            selected.weights_J[rows],
            selected.group_J[rows],
            side_J[rows],
            np.stack(extras, 1) if extras else np.empty((len(rows), 0)),
            np.stack([x_J[rows] for x_J in selected.targets.values()], 1)
            if selected.targets
            else np.empty((len(rows), 0), np.float32),
        )
        reservoir.add(part, raw)

    def _count(self, file: SurveyedFile, selected: Selected, side_J: NDArray[np.int8]) -> None:
        for side in np.unique(side_J):
            rows = np.flatnonzero(side_J == side)
            self.yields.add(SIDES[side], selected.labels_J[rows], selected.weights_J[rows])
            parts = self._marks.setdefault((SIDES[side], file.sample), [])
            parts.append((selected.hashes_J[rows], selected.group_J[rows]))
        for key, fault in split_faults(self._config, selected.extras) if file.role == "train" else ():
            self._findings.add("error", key, fault, file=file.path)
        fold_J = folds_of(self._config, selected.extras) if file.role == "train" else None
        for fold in [] if fold_J is None else np.unique(fold_J):
            rows = np.flatnonzero(fold_J == fold)
            self.yields.add(f"fold {fold:g}", selected.labels_J[rows], selected.weights_J[rows])

    def _describe(self, selected: Selected) -> None:
        if selected.inputs.jet_JF is not None:
            for column, name in enumerate(self._jet_features):
                self.variables.add(name, selected.inputs.jet_JF[:, column])
        for collection, features in self._features.items():
            values_NF = selected.inputs.collections[collection].values_NF
            for column, feature in enumerate(features):
                self.variables.add(f"{collection}.{feature}", values_NF[:, column])
        for name, values_J in selected.spectators.items():
            self.variables.add(name, values_J)
        for number_of_class, statistics in enumerate(self.targets.values()):
            for name, targets_J in selected.targets.items():
                statistics.add(name, targets_J[selected.labels_J == number_of_class])

    def _values(
        self, inputs: RawInputs, spectators: Sequence[NDArray[np.float64]], jets: int
    ) -> NDArray[np.float32]:
        columns = [inputs.jet_JF] if inputs.jet_JF is not None else []
        columns += [values_J.astype(np.float32)[:, None] for values_J in spectators]
        for collection in self._features:
            raw = inputs.collections[collection]
            columns.append(raw.lengths_J.astype(np.float32)[:, None])
            columns.append(means(raw.values_NF, raw.lengths_J))
        return np.concatenate(columns, axis=1) if columns else np.empty((jets, 0), np.float32)


def _file_key(file: SurveyedFile) -> int:
    return randomness.key(0, file.identity) >> 1


def _condition(term: Term, namespace: Namespace, jets: int) -> NDArray[np.bool_]:
    values = namespace.evaluate(term.expression, where=term.key)
    if isinstance(values, Jagged):
        raise JettaggerError(f"{term.key}: one value a jet is expected, this has one a particle")
    return np.broadcast_to(values.astype(bool), (jets,))
