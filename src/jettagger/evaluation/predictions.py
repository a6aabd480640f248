"""What a tagger or a baseline said of the jets of a test sample.

Shapes: N jets, C classes, M members.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jettagger.uncertainty.decomposition import Decomposition


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
    """Mean probabilities with spreads; None if and only if `scores_N` is given."""
    members_MNC: NDArray[np.float32] | None = None
    """Each member's probabilities; None for MC dropout and baselines."""
    spectators: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
