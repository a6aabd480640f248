"""Which jets a run is evaluated on: those of `data.test`, of --data, or those that its training held out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.sample_schema import DataSection, Samples, SampleSection
from jettagger.data.schema import ClassSection
from jettagger.errors import JettaggerError
from jettagger.evaluation.predictions import Evaluated
from jettagger.tagger import Tagger


class Run(NamedTuple):
    """A bundle, and the run directory around it if there is one."""

    name: str
    path: Path
    tagger: Tagger
    document: Mapping[str, Any]
    """The resolved config."""


Part = Literal["folds", "test"]
"""Of the jets of a run with folds: those that its folds held out one after the other, or data.test."""


class ScoredJets(NamedTuple):
    """Jets that are scored: rows of a dataset."""

    prepared: Prepared
    rows: NDArray[np.int64]
    evaluated: Evaluated
    fold_J: NDArray[np.int64] | None = None
    """Which fold's networks score each jet of `rows`; None: there is one set of networks."""
    notes: tuple[str, ...] = ()

    def origin(self) -> tuple[NDArray[np.int64], ...]:
        """File, entry, and number in the entry of each jet."""
        return tuple(x[self.rows] for x in self.prepared.origin())

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each jet."""
        return self.prepared.labels_J[self.rows].astype(np.int64)

    def picked(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Columns of the dataset, of these jets."""
        return {name: values[self.rows] for name, values in columns.items()}


def same_jets(one: ScoredJets, other: ScoredJets) -> bool:
    """Whether the same jets stand in the same order, with the same labels."""
    pairs = zip((*one.origin(), one.labels), (*other.origin(), other.labels), strict=True)
    return all(np.array_equal(mine, its) for mine, its in pairs)


def samples_from(data: Sequence[str]) -> Samples:
    """`FILES` or `SAMPLE=FILES` from the command line as samples."""
    samples: dict[str, list[str]] = {}
    for text in data:
        name, equals, pattern = text.partition("=")
        named = equals and name.isidentifier()  # a path may hold a '=' as well
        samples.setdefault(name if named else "data", []).append(pattern if named else text)
    return {name: SampleSection(files=files) for name, files in samples.items()}


def weighted(samples: Samples, section: DataSection) -> Samples:
    """The samples with the weights that the config gives to samples of their names."""
    known = section.train | (section.test if isinstance(section.test, dict) else {})
    found: dict[str, SampleSection] = {}
    for name, sample in samples.items():
        assert isinstance(sample, SampleSection)
        like = known.get(name)
        found[name] = (
            sample.model_copy(update={"weight": like.weight}) if isinstance(like, SampleSection) else sample
        )
    return dict(found)


def parts_of(runs: Sequence[Run], data: Sequence[str] = ()) -> list[Part]:
    """What of the runs is evaluated, one report each: what the folds held out, and data.test where there is one."""
    if data or not all(run.tagger.folds for run in runs):
        return ["test"]
    return ["folds", "test"] if all(run.tagger.config.data.test for run in runs) else ["folds"]


def scored_jets(run: Run, data: Sequence[str], part: Part) -> ScoredJets:
    """The jets of `data`, or of the config's test samples, or those that its training held out."""
    config = run.tagger.config
    section = BaselinesSection.model_validate(run.document.get("baselines") or {})
    extras = baselines.expressions(section)
    if not data and part == "folds":
        return _out_of_fold(run, extras | splits.columns(config))
    samples = weighted(samples_from(data), config.data) if data else config.data.test
    if not isinstance(samples, dict) or (not samples and "fold" in run.tagger.card):
        return _held_out(run, extras | splits.columns(config))
    if not samples:
        raise JettaggerError(
            f"{run.path}: no test jets: its config has no data.test, and --data is not given"
            + (
                "; of its training jets networks of other folds have seen the labels"
                if _averaged(run)
                else ""
            )
        )
    _check_samples(run, samples)
    role = "--data" if data else "data.test"
    if run.tagger.folds:
        extras |= splits.fold_column(config.data.folds)
    prepared = _with_advice(run, lambda: prepare(config, samples, role=role, extras=extras))
    _check_unseen(run, prepared)
    fold_J = run.tagger.folds_of(prepared.extras, where=role) if run.tagger.folds else None
    return ScoredJets(prepared, np.arange(len(prepared)), "data" if data else "test", fold_J)


def _with_advice(run: Run, prepare_them: Callable[[], Prepared]) -> Prepared:
    """Adds to what is wrong with the branch of data.folds.by what else can be asked for."""
    try:
        return prepare_them()
    except JettaggerError as error:
        if not run.tagger.folds or splits.FOLD not in str(error):
            raise
        raise JettaggerError(
            f"{error}\nIt tells which network of {run.name} never saw a jet. For jets that none of them was trained "
            "on, ask for the mean over folds: --mean-over-folds"
        ) from error


def _check_unseen(run: Run, prepared: Prepared) -> None:
    """Raises JettaggerError for a file that networks which score it were trained or validated on."""
    data = run.tagger.card["data"]
    # With folds, the networks that score a training jet are those that never saw it; but validation samples chose
    # the epochs of all of them.
    known = set(data.get("validation_files", ()) if run.tagger.folds else data["files"])
    for record in prepared.records:
        if record.identity in known:
            raise JettaggerError(f"{record.path}: {run.name} was trained or validated on this file")


def _out_of_fold(run: Run, extras: Mapping[str, str | int | float]) -> ScoredJets:
    """All jets of the training samples, each to be scored by the networks of the fold that held it out.

    The config is the bundle's own, and a jet's fold hangs on nothing else: also where files have been added since,
    none of these networks was trained on the jet, nor validated on it.
    """
    config = run.tagger.config
    assert config.data.folds is not None, "its tagger has folds"
    prepared = prepare(config, config.data.train, role="data.train", extras=extras)
    fold_J = splits.folds_of(prepared, config.data)
    note = (
        f"{run.name}: all {len(prepared)} training jets, each scored by networks of the fold that held it out "
        f"(data.folds: k {config.data.folds.k}, by {config.data.folds.by}): neither their weights nor their best "
        "epochs know it"
    )
    return ScoredJets(prepared, np.arange(len(prepared)), "folds", fold_J, (note,))


def _held_out(run: Run, extras: Mapping[str, str | int | float]) -> ScoredJets:
    """The jets of the training samples that are on the test side, or in the one fold that was held out.

    The config is the bundle's own, and a jet's side hangs on nothing else: none of these was trained on, also
    where files have been added since.
    """
    config, card = run.tagger.config, run.tagger.card
    prepared = prepare(config, config.data.train, role="data.train", extras=extras)
    # A bundle of format 1 may be that of one fold: its network has seen neither the fold nor the test side.
    alone = card.get("fold", {}).get("fold") if isinstance(config.data.test, dict) else None
    rows = splits.split(prepared, config.data, alone).test
    fold_J = splits.folds_of(prepared, config.data)[rows] if run.tagger.folds else None
    return ScoredJets(prepared, rows, "test" if alone is None else "fold", fold_J)


def _averaged(run: Run) -> bool:
    return "folds" in run.tagger.card and not run.tagger.folds


def left_out(run: Run, prepared: Prepared) -> tuple[str, ...]:
    """Notes of the files that data.on_error left out of the training and of the test jets."""
    trained = run.tagger.card["data"].get("skipped", [])
    return (
        *(
            f"{run.name} was trained without {one['path']} ({one['sample']}): {one['reason']}"
            for one in trained
        ),
        *(f"{one.path} ({one.sample}) is not among the test jets: {one.reason}" for one in prepared.skipped),
    )


def _check_samples(run: Run, samples: Samples) -> None:
    """Where the classes are samples, files need one: raises JettaggerError for those without."""
    classes = run.tagger.config.classes.values()
    known = [
        condition.sample for condition in classes if isinstance(condition, ClassSection) and condition.sample
    ]
    if known and len(known) == len(classes) and not all(name in known for name in samples):
        allowed = " and ".join(f"--data {name}=FILES" for name in known)
        raise JettaggerError(
            f"--data: the classes of {run.name} are samples; say which files are which: {allowed}"
        )
