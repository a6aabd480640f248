"""Training and validation jets: prepared, split, described, and strictly apart."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.data.batches import split
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


def prepare_sides(data: DataConfig, section: BaselinesSection, say: Callable[[str], None] = print) -> Sides:
    """The jets to train on and those to validate with; says how many of which class there are."""
    check_apart(data)
    extras = baselines.expressions(section)
    prepared = prepare(data, data.data.train, role="data.train", extras=extras)
    for line in describe(prepared, "data.train"):
        say(line)
    if isinstance(data.data.validation, dict):
        other = prepare(data, data.data.validation, role="data.validation", extras=extras)
        for line in describe(other, "data.validation"):
            say(line)
        return Sides(prepared, np.arange(len(prepared)), other, np.arange(len(other)))
    rows, held_out = split(prepared, data.data.validation)
    say(f"  {len(rows)} jets to train on, {len(held_out)} to validate with")
    return Sides(prepared, rows, prepared, held_out)


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
    roles = {"data.train": data.data.train, "data.test": data.data.test}
    if isinstance(data.data.validation, dict):
        roles["data.validation"] = data.data.validation
    for role, samples in roles.items():
        for task in plan(data, samples, role=role) if samples else []:
            other, name = seen.setdefault(task.identity, (role, task.path))
            if other != role:
                raise JettaggerError(f"{task.path} ({role}) is the same file as {name} ({other})")
