"""Training and validation jets: prepared, split, described, and strictly apart."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.executors import dask_workers
from jettagger.data.layout import described
from jettagger.data.prepared import Prepared, find, is_filled, plan, prepare
from jettagger.data.sample_schema import Samples
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


class Filling(NamedTuple):
    """How prepared datasets are filled: see `prepare`. It changes no number."""

    executor: Executor | None = None
    workers: int | None = None
    verify: bool = False


def extras_of(data: DataConfig, section: BaselinesSection) -> dict[str, str | int | float]:
    """What the dataset of `data.train` holds beside inputs and spectators: for baselines, splits, weights."""
    return baselines.expressions(section) | splits.columns(data)


def prepare_sides(
    data: DataConfig,
    section: BaselinesSection,
    say: Callable[[str], None] = print,
    filling: Filling = Filling(),  # noqa: B008 - it is immutable
    *,
    fold: int | None = None,
) -> Sides:
    """The jets to train on and those to validate with; says how many of which class there are.

    `fold` says which of `data.folds` is held out; by default none is.
    """
    return prepare_folds(data, section, [fold], say, filling)[fold]


def prepare_folds(
    data: DataConfig,
    section: BaselinesSection,
    folds: Sequence[int | None],
    say: Callable[[str], None] = print,
    filling: Filling = Filling(),  # noqa: B008 - it is immutable
) -> dict[int | None, Sides]:
    """The same for each of some folds, with the datasets opened once; all are split before any is trained.

    What a fold holds out is on neither of its sides: neither its weights nor its best epoch know these jets.
    """

    def prepared_of(samples: Samples, role: str, extras: Mapping[str, str | int | float]) -> Prepared:
        found = prepare(data, samples, role=role, extras=extras, say=say, **filling._asdict())
        for line in describe(found, role):
            say(line)
        return found

    check_apart(data)
    extras = extras_of(data, section)
    first = not is_filled(data, data.data.train, role="data.train", extras=extras)
    if first and isinstance(data.data.test, dict) and data.data.test:
        plan(data, data.data.test, role="data.test")  # what is wrong with these is said before the training
    prepared = prepared_of(data.data.train, "data.train", extras)
    found = {fold: splits.split(prepared, data.data, fold) for fold in folds}
    for fold, split in found.items():
        if len(split.train) < len(prepared):
            say(_yields(split, fold if len(found) > 1 else None))
    if not isinstance(data.data.validation, dict):
        return {
            fold: Sides(prepared, split.train, prepared, split.validation) for fold, split in found.items()
        }
    other = prepared_of(data.data.validation, "data.validation", baselines.expressions(section))
    return {fold: Sides(prepared, split.train, other, np.arange(len(other))) for fold, split in found.items()}


def _yields(split: splits.Split, fold: int | None) -> str:
    """`  600 jets to train on, 100 to validate with, 50 held out`."""
    jets = {
        "to train on": len(split.train),
        "to validate with": len(split.validation),
        "held out": len(split.test),
    }
    parts = [f"{n} jets {use}" if i == 0 else f"{n} {use}" for i, (use, n) in enumerate(jets.items()) if n]
    return "  " + ("" if fold is None else f"fold {fold}: ") + ", ".join(parts)


def prepare_all(
    data: DataConfig,
    section: BaselinesSection,
    say: Callable[[str], None] = print,
    *,
    workers: int | None = None,
    dask: str | None = None,
    verify: bool = False,
) -> Sides:
    """`jettagger prepare`: by processes of this machine, or the workers of the Dask cluster at `dask`."""
    if dask is None:
        return prepare_sides(data, section, say, Filling(None, workers, verify))
    if workers is not None:
        raise JettaggerError("--workers and --dask exclude each other: the cluster has its own workers")
    with dask_workers(dask) as executor:
        return prepare_sides(data, section, say, Filling(executor, None, verify))


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
    if prepared.skipped:
        lines.append(f"  {len(prepared.skipped)} files skipped (data.on_error: skip):")
        lines += [f"    {one.sample}: {one.path}: {one.reason}" for one in prepared.skipped]
    if prepared.rounding:
        worst = max(prepared.rounding.items(), key=lambda item: item[1].relative)
        lines.append(
            f"  stored as float16: relative error at most {worst[1].relative:.1e} ({worst[0]}), absolute "
            + ", ".join(f"{name} {errors.absolute:.1e}" for name, errors in prepared.rounding.items())
        )
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
        for file in find(data, samples, role=role).found if isinstance(samples, dict) else ():
            other, name = seen.setdefault(file.identity, (role, file.path))
            if other != role:
                raise JettaggerError(f"{file.path} ({role}) is the same file as {name} ({other})")
