"""The `Tagger`: raw jets in, columns with what its networks say of them out.

Shapes: J jets, E entries of a file.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import torch
from numpy.typing import NDArray

from jettagger.batch import Inputs
from jettagger.data import splits
from jettagger.data.columns import Columns
from jettagger.data.locations import find_files
from jettagger.data.reader import opening_of, source_of
from jettagger.data.rows import RawInputs, offsets_of, take
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.models.parts.model import JetModel
from jettagger.tagger.given import is_list_of_paths, named_arrays
from jettagger.tagger.networks import Network, Scores, put_back, scores_of
from jettagger.uncertainty.columns import class_columns, target_columns

BATCH = 1024
"""Jets that go through the networks together."""


class Scored(NamedTuple):
    """Scores of some entries of a file, or of arrays."""

    first: int
    """Number of the first entry in the file."""
    entries: int
    columns: dict[str, NDArray[Any]]
    """One value a jet: see `Tagger.score`."""
    counts_E: NDArray[np.int64] | None
    """Jets of each entry, where jets are nested in events; None where an entry is a jet."""


@dataclass(frozen=True)
class Tagger:
    """Networks with all that is needed to score raw jets."""

    config: DataConfig
    members: tuple[JetModel, ...]
    card: Mapping[str, Any]
    """What is known of it: classes, inputs, training, versions, metrics."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    networks: tuple[Network, ...] = ()
    """Where each of `members` comes from; empty: members 0, 1, … without folds."""

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds whose networks are here; where there are some, a jet is scored by those of its own fold."""
        return tuple(dict.fromkeys(one.fold for one in self.networks if one.fold is not None))

    def of_fold(self, fold: int) -> "Tagger":
        """The networks that never saw the fold, as a tagger for any jets. Raises JettaggerError without such."""
        kept = [k for k, one in enumerate(self.networks) if one.fold == fold]
        if not kept:
            raise JettaggerError(f"fold {fold}: this tagger has {_listed(self.folds)}")
        return self._with(kept, [Network(self.networks[k].member) for k in kept])

    def mean_over_folds(self) -> "Tagger":
        """The networks of all folds as one ensemble, for jets that none of them was trained on.

        No event number is looked at. Of a training jet most networks have seen the label: their mean is no fair
        score of it. The spread between them holds that between training samples too.
        """
        if not self.folds:
            raise JettaggerError("mean over folds: this tagger has no folds")
        return self._with(range(len(self.members)), [Network(k) for k in range(len(self.members))])

    def first_members(self) -> "Tagger":
        """One network alone; with folds one of each."""
        folds = [one.fold for one in self.networks] or [None] * len(self.members)
        kept = [folds.index(fold) for fold in dict.fromkeys(folds)]
        return self._with(kept, [self.networks[k] for k in kept] if self.networks else [])

    def _with(self, kept: Iterable[int], networks: Sequence[Network]) -> "Tagger":
        return replace(self, members=tuple(self.members[k] for k in kept), networks=tuple(networks))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the scores, in the order of the outputs."""
        return tuple(self.config.classes)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the regression targets."""
        return tuple(self.config.targets)

    @cached_property
    def _columns(self) -> Columns:
        """Parsed once: an analysis may ask for a few jets at a time."""
        return Columns(self.config, splits.fold_column(self.config.data.folds) if self.folds else None)

    def branches(self, available: Collection[str], *, where: str, spectators: bool = True) -> frozenset[str]:
        """What a prediction reads of those that are `available`. Raises JettaggerError for one that is missing."""
        needed = self._columns.input_branches(available, where=where, spectators=spectators)
        if not self.folds:
            return needed
        try:
            return needed | self._columns.extra_branches(available, where=where)
        except JettaggerError as error:
            raise JettaggerError(
                f"{error}\nIt tells which network never saw a jet (data.folds: this tagger holds the networks of "
                f"{len(self.folds)} folds). For jets that none of them was trained on, ask for the mean over folds: "
                "--mean-over-folds, or Tagger.mean_over_folds()"
            ) from error

    def predict(self, jets: Any, *, mc_dropout: int = 0, seed: int = 0) -> ak.Array:
        """Scores of jets, as an awkward record array with one entry for each input jet, in order.

        `jets`: an awkward record array (nested events keep their nesting), a dict of arrays, a structured NumPy
        array, or the path (glob, list) of files, with the branches that the config names. Where `data.jets`
        says that an entry is an event, there is a list for each event, of its jets in their order. With
        `mc_dropout=T` each member is run T times with dropout on.

        Fields: a probability for each class; `std` with the standard deviation of each between members;
        `mutual_information` (between trainings, epistemic), `expected_entropy` (label noise, aleatoric) and
        `total_entropy` in nats; `passes_selection`. For each regression target: `<target>`; `<target>_error`,
        the error that a Gaussian loss has learned with the spread between members; `<target>_std`, that spread
        alone; `<target>_q16` and so on for quantiles. Without classes only these stand beside
        `passes_selection`. Raises JettaggerError for a branch that is missing.
        """
        if mc_dropout < 0:
            raise JettaggerError(
                f"predict: mc_dropout is {mc_dropout}; it is a number of passes, or 0 for none"
            )
        if isinstance(jets, (str, Path)) or is_list_of_paths(jets):
            paths = [jets] if isinstance(jets, (str, Path)) else list(jets)
            files = find_files([str(path) for path in paths], where="predict")
            parts = [
                part
                for file in files
                for part in self.predict_file(file, mc_dropout=mc_dropout, seed=seed, spectators=False)
            ]
            return self._nested(parts)
        if isinstance(jets, ak.Array) and jets.ndim > 1 and jets.fields:
            counts = ak.num(jets, axis=1)
            scores = self.predict(ak.flatten(jets, axis=1), mc_dropout=mc_dropout, seed=seed)
            return ak.unflatten(scores, counts)
        branches = named_arrays(jets)
        return self._nested(
            [self.scored(branches, where="predict", mc_dropout=mc_dropout, seed=seed, spectators=False)]
        )

    def predict_file(
        self, path: str | Path, *, mc_dropout: int = 0, seed: int = 0, spectators: bool = True
    ) -> Iterator[Scored]:
        """The scores of each chunk of a file's entries, in order."""
        source = source_of(path, opening_of(self.config))
        needed = self.branches(source.branches, where=str(path), spectators=spectators)
        for chunk in source.chunks(needed):
            yield self.scored(
                chunk.branches,
                where=str(path),
                first=chunk.start,
                mc_dropout=mc_dropout,
                seed=seed,
                spectators=spectators,
            )

    def score(
        self,
        branches: Mapping[str, Any],
        *,
        where: str,
        mc_dropout: int = 0,
        seed: int = 0,
        spectators: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """Flat columns, one entry a jet: `<class>`, `std_<class>`, the entropies, targets, `passes_selection`,
        spectators."""
        return self.scored(
            branches, where=where, mc_dropout=mc_dropout, seed=seed, spectators=spectators
        ).columns

    def scored(
        self,
        branches: Mapping[str, Any],
        *,
        where: str,
        first: int = 0,
        mc_dropout: int = 0,
        seed: int = 0,
        spectators: bool = True,
    ) -> Scored:
        """The same, with the number of jets of each entry; `first` is the number of the first entry in its file."""
        columns = self._columns
        needed = self.branches(branches.keys(), where=where, spectators=spectators)
        used = {name: branches[name] for name in sorted(needed)}
        found = columns.layout.jets(used, where=where, first=first)
        jets = len(found)
        namespace = columns.namespace(found.branches, where=where, jets=jets)
        selected_J = columns.selected(namespace, jets)
        raw, _ = columns.inputs(namespace, jets, selected_J)
        fold_J = self.folds_of(columns.extras(namespace, jets), where=where) if self.folds else None
        scores = self.run_rows(jets, partial(_sliced, raw), fold_J, mc_dropout=mc_dropout, seed=seed)
        result = class_columns(self.classes, scores.decomposition) if self.classes else {}
        for name, predicted in scores.targets.items():
            result |= target_columns(name, predicted)
        result["passes_selection"] = selected_J
        if spectators:
            result |= columns.spectators(namespace, jets)
        entries = jets if found.counts_E is None else len(found.counts_E)
        return Scored(first, entries, result, found.counts_E)

    def folds_of(self, extras: Mapping[str, NDArray[np.float64]], *, where: str) -> NDArray[np.int64]:
        """The fold of each jet, (J,), by the function that split the training jets."""
        assert self.config.data.folds is not None, "only a config with data.folds makes a tagger with folds"
        return splits.fold_numbers(extras[splits.FOLD], self.config.data.folds, where)

    def run_rows(
        self,
        jets: int,
        inputs_of: Callable[[NDArray[np.int64]], Iterable[Inputs]],
        fold_J: NDArray[np.int64] | None = None,
        *,
        mc_dropout: int = 0,
        seed: int = 0,
    ) -> Scores:
        """Scores of jets 0, 1, …, each by the networks of its fold; `inputs_of` gives the inputs of some of them.

        The jets of a fold go through its networks together: their scores are, to the last bit, what the tagger of
        that fold alone gives for them.
        """
        rows = np.arange(jets)
        if fold_J is None or not jets:
            alone = self if fold_J is None else self.of_fold(self.folds[0])
            return alone.run(inputs_of(rows), mc_dropout=mc_dropout, seed=seed)
        rows_F = {fold: np.flatnonzero(fold_J == fold) for fold in np.unique(fold_J).tolist()}
        parts = [
            self.of_fold(fold).run(inputs_of(rows), mc_dropout=mc_dropout, seed=seed)
            for fold, rows in rows_F.items()
        ]
        return put_back(parts, list(rows_F.values()))

    def run(self, batches: Iterable[Inputs], *, mc_dropout: int = 0, seed: int = 0) -> Scores:
        """Scores of batches of raw inputs, in their order. A tagger with folds takes them by `run_rows`."""
        assert not self.folds, "without the folds of jets it is not known which networks may score them"
        return scores_of(self.members, batches, self.device, mc_dropout=mc_dropout, seed=seed)

    def _nested(self, parts: Sequence[Scored]) -> ak.Array:
        """One record a jet, in a list for each event where jets are nested in events."""
        record = self._record(_joined([part.columns for part in parts]))
        counts = [part.counts_E for part in parts if part.counts_E is not None]
        return ak.unflatten(record, np.concatenate(counts)) if counts else record

    def _record(self, columns: Mapping[str, NDArray[Any]]) -> ak.Array:
        spreads = [f"std_{name}" for name in self.classes]
        fields: dict[str, Any] = {name: columns[name] for name in self.classes}
        if spreads:
            fields["std"] = ak.zip({name: columns[f"std_{name}"] for name in self.classes})
        others = {name: x for name, x in columns.items() if name not in (*self.classes, *spreads)}
        return ak.zip(fields | others, depth_limit=1)


def _listed(folds: Sequence[int]) -> str:
    return f"folds {', '.join(map(str, folds))}" if folds else "no folds"


def _sliced(raw: RawInputs, rows_J: NDArray[np.int64]) -> Iterator[Inputs]:
    offsets = offsets_of(raw)
    for start in range(0, len(rows_J), BATCH):
        yield take(raw, offsets, rows_J[start : start + BATCH])


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
