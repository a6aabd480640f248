"""Training and validation jets: prepared, split, described, and strictly apart."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.layout import described
from jettagger.data.prepared import Prepared, plan, prepare
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError


class Sides(NamedTuple):
    """Training and validation jets, each with its dataset."""

    train: Prepared
    train_rows: NDArray[np.int64]
    validation: Prepared
    validation_rows: NDArray[np.int64]

    @property
    def keys(self) -> list[str]:
        """Content keys of the datasets."""
        return list(dict.fromkeys([self.train.key, self.validation.key]))


def extras_of(data: DataConfig, section: BaselinesSection) -> dict[str, str | int | float]:
    """What the dataset of `data.train` holds beside inputs and spectators: for baselines, splits, weights."""
    return baselines.expressions(section) | splits.columns(data)


def prepare_sides(
    data: DataConfig,
    section: BaselinesSection,
    say: Callable[[str], None] = print,
    *,
    fold: int | None = None,
) -> Sides:
    """The jets to train on and those to validate with; says how many of which class there are.

    `fold` says which of `data.folds` is held out; by default none is.
    """
    check_apart(data)
    prepared = prepare(data, data.data.train, role="data.train", extras=extras_of(data, section))
    for line in describe(prepared, "data.train"):
        say(line)
    found = splits.split(prepared, data.data, fold)
    jets = {
        "to train on": len(found.train),
        "to validate with": len(found.validation),
        "held out": len(found.test),
    }
    if len(found.train) < len(prepared):
        say(
            "  "
            + ", ".join(
                f"{n} jets {use}" if i == 0 else f"{n} {use}" for i, (use, n) in enumerate(jets.items()) if n
            )
        )
    if not isinstance(data.data.validation, dict):
        return Sides(prepared, found.train, prepared, found.validation)
    extras = baselines.expressions(section)
    other = prepare(data, data.data.validation, role="data.validation", extras=extras)
    for line in describe(other, "data.validation"):
        say(line)
    return Sides(prepared, found.train, other, np.arange(len(other)))


def describe(prepared: Prepared, role: str) -> list[str]:
    """Lines that say what was read, and everything that was cut, truncated or missing."""
    counts = prepared.counts
    classes = ", ".join(f"{counts[f'class {name}']} {name}" for name in prepared.classes)
    lines = [f"{role}: {counts['read']} jets read, {counts['selected']} selected: {classes}"]
    meaning = {
        "missing": "{1}: {0} values are NaN, infinite or sentinels",
        "truncated": "{1}: {0} jets have more than inputs.{1}.length; the last in order are left out",
        "empty": "{1}: {0} jets have none",
    }
    for name, count in counts.items():
        kind, _, subject = name.partition(" ")
        if count and kind in meaning:
            lines.append("  " + meaning[kind].format(count, subject))
    lines += [f"  {line}" for line in described(counts)]
    return lines


def check_apart(data: DataConfig) -> None:
    """Raises JettaggerError when one file is on two of training, validation and test."""
    seen: dict[str, tuple[str, str]] = {}
    roles = {
        "data.train": data.data.train,
        "data.test": data.data.test,
        "data.validation": data.data.validation,
    }
    for role, samples in roles.items():
        for task in plan(data, samples, role=role) if isinstance(samples, dict) and samples else []:
            other, name = seen.setdefault(task.identity, (role, task.path))
            if other != role:
                raise JettaggerError(f"{task.path} ({role}) is the same file as {name} ({other})")
