"""What a tagger or a baseline said of the jets of a test sample.

Shapes: N jets, C classes, M members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jettagger.advice import Epoch
from jettagger.uncertainty.decomposition import Decomposition
from jettagger.uncertainty.regression import TargetPrediction

Cost = Mapping[str, float | str]
"""`seconds`, `jets`, `flops`, `watt_hours`; `energy` (measured, estimated, partly measured) and `how` in words."""

Evaluated = Literal["test", "data", "folds", "fold"]
"""Which jets: those of `data.test`; those of --data; all training jets, each by networks of the fold that held it
out; those of one fold, which alone was held out."""


@dataclass(frozen=True)
class Predictions:
    """Scores of one tagger on labelled jets, one entry a jet, in the order of the files."""

    name: str
    """Short, unique in a report: `particle_cnn`, `particle_cnn (MC dropout)`, `cut`."""
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    """Index into the classes."""
    weights_N: NDArray[np.float64]
    """Event weights; may be negative."""
    scores_N: NDArray[np.float64] | None = None
    """For a baseline that gives a discriminant and no probability (a cut): larger is more like `signal`."""
    decomposition: Decomposition | None = None
    """Mean probabilities with spreads; None for a cut, which gives `scores_N`, and without classes."""
    members_MNC: NDArray[np.float32] | None = None
    """Each member's probabilities; None for MC dropout and baselines."""
    member_names: Sequence[str] = ()
    """Which network each of them is, `member 3`; empty: members 0, 1, …."""
    targets: Mapping[str, TargetPrediction] = field(default_factory=dict)
    """What is said of each regression target."""
    truths: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    """The targets themselves; NaN where one is unknown."""
    spectators: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    """Variables that the tagger did not see, such as `jet_pt` in GeV."""
    group: str | None = None
    """Runs that differ in their seed only share a group: mean and spread over seeds are given for it."""
    seed: int | None = None
    """Seed of the training."""
    history: Sequence[Sequence[Epoch]] = ()
    """For each network the epochs of its training."""
    trainings: Sequence[str] = ()
    """Which training each of `history` is, `fold 1, member 0`; empty: those of members 0, 1, …."""
    guessing: int | None = None
    """Classes where the loss of a guess is ln(classes), which advice compares with; None for other losses."""
    n_parameters: int | None = None
    """Trainable parameters of one member."""
    training_seconds: float | None = None
    """Wall time of the training, all members."""
    cost: Cost | None = None
    """Of all trainings of the run together, as its card has it."""
    evaluated: Evaluated = "test"
    notes: tuple[str, ...] = ()
    """What a reader must know of the jets, such as files that were left out."""
