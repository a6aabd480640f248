"""Which jets train, which validate, and which are held out.

A fraction is taken by a hash of each jet's event, so that files can be added without a jet changing sides; a
condition and the folds look at branches, whose values the prepared dataset holds. Jets of one group (event) are
on one side, whatever the split is made by.

Shapes: J jets of the dataset.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.data import spectra
from jettagger.data.prepared import Prepared
from jettagger.data.sample_schema import DataSection, FoldsSection
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

PART = 1_000_000
"""Jets whose random numbers are drawn at a time."""
TEST, VALIDATION, FOLD = "data.test", "data.validation", "data.folds.by"
"""Columns of the prepared dataset that splits are made by."""


class Split(NamedTuple):
    """Rows of the training samples' dataset, each in one of three; they ascend."""

    train: Rows
    validation: Rows
    """Empty where the validation has samples of its own."""
    test: Rows
    """Held out by `data.test`, or by the fold; empty where the test has samples of its own."""


def columns(config: DataConfig) -> dict[str, str]:
    """What the dataset of `data.train` has to hold for its split and its training weights: `prepare(extras=)`."""
    found: dict[str, str] = {}
    section = config.data
    if isinstance(section.test, str):
        found[TEST] = section.test
    if isinstance(section.validation, str):
        found[VALIDATION] = section.validation
    return found | fold_column(section.folds) | spectra.expressions(config.weights.training)


def fold_column(folds: FoldsSection | None) -> dict[str, str]:
    """What a jet's fold is computed from, in a training and by a tagger alike; nothing without folds."""
    # Of whole numbers the remainder is exact, however large they are.
    return {} if folds is None else {FOLD: f"({folds.by}) % {folds.k}"}


def fold_numbers(values_J: NDArray[np.float64], folds: FoldsSection, where: str = "") -> NDArray[np.int64]:
    """The fold of each jet from its `fold_column`, (J,). Raises JettaggerError for what is no whole number."""
    whole_J = np.isin(values_J, np.arange(folds.k))
    if not whole_J.all():
        raise JettaggerError(
            f"{where}{': ' if where else ''}data.folds.by: '{folds.by}' is no whole number for "
            f"{int((~whole_J).sum())} of {len(values_J)} jets"
        )
    return values_J.astype(np.int64)


def split(prepared: Prepared, section: DataSection, fold: int | None = None, stream: int = 0) -> Split:
    """The sides of `data.train`, prepared with `columns`; `fold` is held out where there are folds.

    Another `stream` takes another random fraction for the validation; what is held out is the same.

    Raises JettaggerError where a group is on two sides, or a class is absent from a side.
    """
    if fold is not None and section.folds is not None:
        check_fold(section, fold)
    group_J = prepared.groups
    test_J = _held_out(prepared, section.test, TEST, group_J)
    validation_J = _held_out(prepared, section.validation, VALIDATION, group_J, stream)
    if isinstance(section.test, str) and isinstance(section.validation, str):
        _refuse_both(test_J, validation_J, section)
    if fold is not None and section.folds is not None:
        test_J |= folds_of(prepared, section, group_J) == fold
    validation_J &= ~test_J
    found = Split(*(np.flatnonzero(x) for x in (~(test_J | validation_J), validation_J, test_J)))
    held_out = {"data.validation": found.validation} if not isinstance(section.validation, dict) else {}
    if fold is not None or not isinstance(section.test, dict):
        held_out["data.test" if fold is None else f"data.folds (fold {fold})"] = found.test
    _check_classes(prepared, found.train, held_out, section)
    return found


def folds_of(
    prepared: Prepared, section: DataSection, group_J: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The fold of each jet, (J,). Raises JettaggerError for what is no whole number, or parts a group."""
    assert section.folds is not None, "without data.folds there are no folds"
    found_J = fold_numbers(prepared.extras[FOLD], section.folds)
    _check_together(found_J, prepared.groups if group_J is None else group_J, FOLD, str(section.folds.by))
    return found_J


def chosen_folds(section: DataSection, fold: int | None = None) -> list[int | None]:
    """The folds that are trained: all, or `fold` alone; [None] without folds.

    Raises JettaggerError where `--fold` and `data.folds` do not go together.
    """
    if fold is None:
        return [None] if section.folds is None else list(range(section.folds.k))
    check_fold(section, fold)
    return [fold]


def check_fold(section: DataSection, fold: int) -> None:
    """Raises JettaggerError where there is no such fold."""
    if section.folds is None:
        raise JettaggerError(f"--fold {fold}: the config has no data.folds")
    if fold not in range(section.folds.k):
        raise JettaggerError(f"--fold {fold}: data.folds.k is {section.folds.k}; folds are counted from 0")


def _held_out(
    prepared: Prepared, side: object, name: str, group_J: NDArray[np.int64], stream: int = 0
) -> Mask:
    """Which jets a fraction or a condition takes; none where the side has samples of its own."""
    if isinstance(side, float):
        # A stream a side: the test says nothing of the validation.
        purpose: tuple[randomness.Part, ...] = (name.removeprefix("data."), *([stream] if stream else []))
        parts = np.array_split(group_J, len(group_J) // PART + 1)
        return np.concatenate([randomness.uniform_of(part, 0, *purpose) < side for part in parts])
    if not isinstance(side, str):
        return np.zeros(len(group_J), bool)
    values_J = prepared.extras[name]
    if (other := np.flatnonzero((values_J != 0) & (values_J != 1))).size:
        raise JettaggerError(
            f"{name}: a condition is expected, '{side}' is {values_J[other[0]]:g} for {len(other)} of "
            f"{len(values_J)} jets (write for example {side} == 0)"
        )
    found_J: Mask = values_J == 1
    _check_together(found_J, group_J, name, side)
    return found_J


def bootstrap(group_R: NDArray[np.int64], generator: np.random.Generator) -> Rows:
    """Positions of a bootstrap sample, ascending: as many groups as there are, drawn with replacement.

    All jets of a group (event) are drawn together, since they are not independent. doi:10.1214/aos/1176344552.
    """
    _, number_R = np.unique(group_R, return_inverse=True)
    groups = int(number_R.max()) + 1 if len(number_R) else 0
    times_G = (
        np.bincount(generator.integers(groups, size=groups), minlength=groups) if groups else np.zeros(0, int)
    )
    return np.repeat(np.arange(len(group_R)), times_G[number_R])


def _check_together(side_J: NDArray[np.generic], group_J: NDArray[np.int64], name: str, text: str) -> None:
    """Raises JettaggerError where jets of one group are on different sides."""
    order_J = np.argsort(group_J, kind="stable")
    sorted_J = group_J[order_J]
    same = sorted_J[1:] == sorted_J[:-1]
    apart = np.flatnonzero(same & (side_J[order_J[1:]] != side_J[order_J[:-1]]))
    if len(apart):
        number = len(np.unique(sorted_J[apart]))
        raise JettaggerError(
            f"{name}: '{text}' parts jets that stay together: {number} groups, the first of them "
            f"{sorted_J[apart[0]]}. Jets of one event are on one side: set data.group_by to the branch that tells "
            "the events apart (default: event_number, or blocks of neighbouring entries), and split by that"
        )


def _refuse_both(test_J: Mask, validation_J: Mask, section: DataSection) -> None:
    if both := int((test_J & validation_J).sum()):
        raise JettaggerError(
            f"{both} jets fulfil both data.test ('{section.test}') and data.validation ('{section.validation}')"
        )


def _check_classes(prepared: Prepared, train: Rows, held_out: dict[str, Rows], section: DataSection) -> None:
    """Raises JettaggerError when jets are in no class, or a class is absent from a side."""
    unknown = int(((prepared.labels_J < 0) | (prepared.labels_J >= len(prepared.classes))).sum())
    if unknown:
        raise JettaggerError(
            f"data.train: {unknown} of {len(prepared)} jets have no class; training needs labelled jets: check "
            "`classes` against `data.selection`"
        )
    asked = {"data.validation": section.validation, "data.test": section.test}
    asked = {name: value for name, value in asked.items() if not isinstance(value, dict)}
    told = ", ".join(f"{name}: {value}" for name, value in asked.items())
    for name, rows in {"training": train, **held_out}.items():
        found = np.bincount(prepared.labels_J[rows], minlength=len(prepared.classes))
        for class_name, jets in zip(prepared.classes, found, strict=True):
            if not jets:
                raise JettaggerError(
                    f"classes.{class_name}: no jet on the {name.removeprefix('data.')} side of the split ({told}, "
                    f"{len(np.unique(prepared.groups))} groups of jets that stay together)"
                )
