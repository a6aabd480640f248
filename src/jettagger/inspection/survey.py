"""Every file of a config, opened and checked: faults are collected over all of them, not only the first one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jettagger.data.columns import Columns
from jettagger.data.containers.base import Source
from jettagger.data.locations import find_files
from jettagger.data.reader import opened, opening_of
from jettagger.data.sample_schema import Samples, SampleSection
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.expressions import Jagged, required_branches
from jettagger.expressions.jagged import from_branch
from jettagger.inspection.findings import Findings, Severity
from jettagger.inspection.terms import Term, branches_of, definitions, input_terms, label_terms

HEAD = 1000
"""Entries of each file that every expression is tried on before the file is read."""


class SurveyedFile(NamedTuple):
    """A file of a sample."""

    role: str
    """`train`, `validation`, `test`, or `against` for what has no labels."""
    sample: str
    weight: str | int | float
    """The sample's `weight`."""
    path: str
    identity: str
    entries: int | None
    """None where it cannot be opened."""
    branches: frozenset[str] | None
    """What is to be read; None where a fault forbids it."""


class Survey:
    """Looks at files one after the other and remembers what they have in common."""

    def __init__(
        self, config: DataConfig, columns: Mapping[str, Columns], terms: Sequence[Term], findings: Findings
    ) -> None:
        """`columns` by role; `terms` are expressions of other sections, computed for `data.train`."""
        self._config, self._columns, self._findings = config, columns, findings
        self._more_terms = terms
        self._opening = opening_of(config)
        self._definitions = definitions(config)
        self._identities: dict[str, tuple[str, str]] = {}
        self._types: dict[str, tuple[str, str]] = {}

    @property
    def _severity(self) -> Severity:
        """A file that is left out does not stop the training."""
        return "error" if self._config.data.on_error == "stop" else "warning"

    def samples(self, role: str, samples: Samples) -> list[SurveyedFile]:
        """The files of all samples of a role."""
        found: list[SurveyedFile] = []
        for name, section in samples.items():
            section = section if isinstance(section, SampleSection) else SampleSection(files=section)
            where = f"data.{role}.{name}" if role != "against" else f"--against {name}"
            patterns = [section.files] if isinstance(section.files, str) else section.files
            paths: dict[str, None] = {}
            for pattern in patterns:
                try:
                    paths.update(dict.fromkeys(find_files(pattern, where=where)))
                except JettaggerError as error:
                    self._findings.error(error, where=where)
            found += [self._file(role, name, section.weight, path) for path in paths]
        return found

    def _file(self, role: str, sample: str, weight: str | int | float, path: str) -> SurveyedFile:
        where = f"data.{role}.{sample}" if role != "against" else f"--against {sample}"
        nothing = SurveyedFile(role, sample, weight, path, "", None, None)
        try:
            source = opened(path, self._opening)
            entries = source.entries
            self._same_file(source.identity, role, path)
        except JettaggerError as error:
            self._findings.add(self._severity, where, str(error), file=path)
            return nothing
        if not entries:
            self._findings.add("warning", where, "the file holds no entries", file=path)
            return nothing._replace(identity=source.identity, entries=0)
        branches = self._branches(source, role, weight)
        return nothing._replace(identity=source.identity, entries=entries, branches=branches)

    def _same_file(self, identity: str, role: str, path: str) -> None:
        other_role, other = self._identities.setdefault(identity, (role, path))
        if (other_role, other) != (role, path) and role != "against":
            message = f"{path} ({role}) is the same file as {other} ({other_role})"
            self._findings.add("error", "data", message)

    def _terms(self, role: str, weight: str | int | float) -> list[Term]:
        terms = input_terms(self._config)
        if role == "against":
            return terms
        more = self._more_terms if role == "train" else ()
        return [*terms, *label_terms(self._config, weight), *more]

    def _branches(self, source: Source, role: str, weight: str | int | float) -> frozenset[str] | None:
        """What the terms need of a file; None where one of them cannot be computed."""
        path, columns = source.location, self._columns[role]
        terms = self._terms(role, weight)
        try:
            stored = source.branches
            names = columns.layout.names(stored)
        except JettaggerError as error:
            self._findings.add(self._severity, "data", _moved(str(error), path), file=path)
            return None
        good = [term for term in terms if self._has_branches(term, names, path)]
        branches = frozenset[str]()
        try:
            if len(good) < len(terms):
                needed = required_branches([t.expression for t in good], self._definitions, names, where=path)
                branches = columns.layout.stored(needed, stored, where=path)
            elif role == "against":
                branches = columns.input_branches(stored, where=path) | self._weight_branches(source)
            else:
                branches = columns.branches(stored, where=path, sample_weight=weight)
            tried = self._tried(source, branches, good, columns)
        except JettaggerError as error:
            self._findings.add(self._severity, "data", _moved(str(error), path), file=path)
            return None
        return branches if tried and len(good) == len(terms) else None

    def _weight_branches(self, source: Source) -> frozenset[str]:
        """What event weights need, if the file has it: data has none."""
        layout = self._columns["against"].layout
        terms = label_terms(self._config, 1.0)[-2:]
        try:
            needed = required_branches(
                [term.expression for term in terms], self._definitions, layout.names(source.branches)
            )
            return layout.stored(needed, source.branches, where=source.location)
        except JettaggerError:
            message = f"no branch for weights.event '{self._config.weights.event}': every jet counts 1"
            self._findings.add("warning", "--against", message, file=source.location)
            return frozenset()

    def _has_branches(self, term: Term, names: tuple[str, ...], path: str) -> bool:
        try:
            required_branches([term.expression], self._definitions, names, where=path)
        except JettaggerError as error:
            self._findings.add(self._severity, term.key, _moved(str(error), path), file=path)
            return False
        return True

    def _tried(self, source: Source, branches: frozenset[str], terms: list[Term], columns: Columns) -> bool:
        """Computes every term for the first entries; notes the branches' types and every fault."""
        if not branches:
            return False
        path = source.location
        chunk = source.read(branches, 0, min(source.entries, HEAD))
        jets = columns.layout.jets(chunk.branches, where=path)
        namespace = columns.namespace(jets.branches, where=path, jets=len(jets))
        used = branches_of(self._config, terms) & set(jets.branches)
        fine = self._same_types({name: jets.branches[name] for name in sorted(used)}, path)
        for term in terms:
            try:
                term.check(namespace, len(jets))
            except JettaggerError as error:
                self._findings.add(self._severity, term.key, _moved(str(error), path), file=path)
                fine = False
        return fine

    def _same_types(self, branches: Mapping[str, object], path: str) -> bool:
        """Whether every branch is a number (or a list) here where it was one in the files before."""
        fine = True
        for name, array in branches.items():
            value = from_branch(name, array)
            nested_here = isinstance(value, Jagged)
            dtype = value.values.dtype if isinstance(value, Jagged) else value.dtype
            kind = f"a list of {dtype} a jet" if nested_here else f"one {dtype} a jet"
            known, first = self._types.setdefault(name, (kind, path))
            if known == kind:
                continue
            nested = known.split()[0] != kind.split()[0]
            message = f"branch '{name}' holds {kind} here, and {known} in {first}"
            self._findings.add(self._severity if nested else "warning", "data", message, file=path)
            fine &= not nested
        return fine


def _moved(message: str, path: str) -> str:
    """The message without the file, which stands beside it."""
    return message.replace(f"{path}: ", "")
