"""Regression targets as the loss sees them: shifted and scaled by what the training jets have.

Shapes: R jets of a split, T targets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.prepared import Prepared
from jettagger.errors import JettaggerError

Floats = NDArray[np.float32]
Rows = NDArray[np.integer]


class Scaling(NamedTuple):
    """A target's normalised value is (target - shift) / scale."""

    shift_T: Floats
    """Median."""
    scale_T: Floats
    """Half the width of the central 68 %."""


def scaling_of(prepared: Prepared, rows_R: Rows) -> Scaling:
    """Measured on the jets `rows_R`, those that are trained on. Raises JettaggerError where a target says nothing."""
    shifts, scales = [], []
    for name, values_J in prepared.targets.items():
        values_R = values_J[rows_R]
        known_R = values_R[np.isfinite(values_R)].astype(np.float64)
        if not len(known_R):
            raise JettaggerError(f"targets.{name}: none of {len(rows_R)} training jets has a finite value")
        low, median, high = np.quantile(known_R, [0.16, 0.5, 0.84])
        scale = (high - low) / 2 or known_R.std()
        if not np.float32(scale) > 0:
            raise JettaggerError(
                f"targets.{name}: it is {known_R[0]:g} for all training jets, so there is nothing to learn"
            )
        shifts.append(median)
        scales.append(scale)
    return Scaling(np.array(shifts, np.float32), np.array(scales, np.float32))


def beside(prepared: Prepared, rows_R: Rows, variable: str | None) -> Floats | None:
    """(R,), the spectator that scores are decorrelated from; None where there is none."""
    if variable is None:
        return None
    values_R: Floats = prepared.spectators[variable][rows_R].astype(np.float32)
    return values_R


def normalised(prepared: Prepared, rows_R: Rows, scaling: Scaling) -> Floats | None:
    """(R, T), NaN where a target is unknown; None without targets."""
    if not prepared.target_names:
        return None
    raw_RT = np.stack([values_J[rows_R] for values_J in prepared.targets.values()], axis=1)
    found_RT: Floats = (raw_RT - scaling.shift_T) / scaling.scale_T
    return found_RT
