"""On which side of the training each jet lies, chunk by chunk; the whole dataset is split by `data.splits`.

Shapes: J jets.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.data import splits
from jettagger.data.schema import DataConfig

SIDES = ("train", "validation", "test")


def side_of(
    config: DataConfig, role: str, group_J: NDArray[np.int64], extras: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.int8]:
    """Index in SIDES of each jet of a sample of `data.<role>`."""
    side_J = np.full(len(group_J), SIDES.index(role) if role in SIDES else -1, np.int8)
    if role != "train":
        return side_J
    for name, section in (("validation", config.data.validation), ("test", config.data.test)):
        if isinstance(section, float):
            side_J[randomness.uniform_of(group_J, 0, name) < section] = SIDES.index(name)
        elif isinstance(section, str):
            side_J[extras[f"data.{name}"] == 1] = SIDES.index(name)
    return side_J


def split_faults(config: DataConfig, extras: Mapping[str, NDArray[np.float64]]) -> Iterator[tuple[str, str]]:
    """What a training stops at where it splits the jets of `data.train`: the config's key, and what is wrong."""
    conditions = {}
    for name in ("test", "validation"):
        text = getattr(config.data, name)
        if isinstance(text, str):
            conditions[name], values_J = text, extras[f"data.{name}"]
            if not np.isin(values_J, (0, 1)).all():
                yield f"data.{name}", f"a condition is expected, '{text}' is a number (write '{text} == 0')"
    if len(conditions) == 2 and np.any((extras[splits.TEST] == 1) & (extras[splits.VALIDATION] == 1)):
        test, validation = conditions["test"], conditions["validation"]
        yield "data", f"jets fulfil both data.test ('{test}') and data.validation ('{validation}')"
    if config.data.folds is not None:
        whole_J = np.isin(extras[splits.FOLD], np.arange(config.data.folds.k))
        if not whole_J.all():
            yield splits.FOLD, f"'{config.data.folds.by}' is no whole number"


def folds_of(config: DataConfig, extras: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """The fold of each jet of `data.train`; None where there are no folds."""
    return extras[splits.FOLD] if config.data.folds is not None else None
