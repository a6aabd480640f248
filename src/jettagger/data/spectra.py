"""Training weights: classes balanced, spectra made flat or alike, and no weight too large.

A training weight is a factor for each (class, bin of the spectrum), fitted on the event weights of the training
jets alone. It multiplies the loss, or says how often a jet is drawn; no metric ever sees it.

Shapes: R jets of the training split, C classes, K bins of the spectrum (all variables together).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.prepared import Prepared
from jettagger.data.sample_schema import TrainingWeights
from jettagger.errors import JettaggerError

Floats = NDArray[np.float64]
Counts = NDArray[np.integer]
Rows = NDArray[np.integer]


class TrainingWeightsResult(NamedTuple):
    """The training weights of a split, without event weights."""

    factor_R: NDArray[np.float32]
    """Factor of each jet, at least 0; 0: the jet is not trained on."""
    outside: int
    """Jets outside the edges of the spectrum, or without a value: their factor is 0."""
    capped: int
    """Jets whose factor was lowered to the cap."""
    largest: float
    """Largest factor over the mean of its class's jets that are trained on."""
    notes: tuple[str, ...]
    """What could not be done as asked, and what was left out: one line each."""


class _Bins(NamedTuple):
    """The spectrum's bins of the training jets."""

    bin_R: NDArray[np.int32]
    """-1 outside the edges."""
    number: int
    """K."""


def expressions(section: TrainingWeights) -> dict[str, str]:
    """What the prepared dataset has to hold for the training weights."""
    where, spectrum = _spectrum(section)
    return {_column(where, number): text for number, text in enumerate(spectrum)}


def weights_of(
    prepared: Prepared, rows_R: Rows, section: TrainingWeights, classes: Sequence[str]
) -> TrainingWeightsResult:
    """The training weights of jets `rows_R`, fitted on these same jets.

    Spectra first, then the cap, then the classes. Each class keeps its sum of (event weight × factor) over the
    jets inside the edges, or all classes get the same if they are balanced. Where jets are drawn the cap comes last
    and is one on repetition: classes that are too small for it stay below the others.
    """
    labels_R = prepared.labels_J[rows_R].astype(np.int64)
    events_R = prepared.weights_J[rows_R].astype(np.float64)
    bins = _bins_of(prepared, rows_R, section)
    inside_R = bins.bin_R >= 0
    cell_R = (labels_R * bins.number + bins.bin_R)[inside_R]
    cells = len(classes) * bins.number
    shape = len(classes), bins.number
    jets_CK = np.bincount(cell_R, minlength=cells).reshape(shape)
    weighted = np.bincount(cell_R, events_R[inside_R], minlength=cells)
    sums_CK = weighted.astype(np.float64).reshape(shape)
    notes: list[str] = []
    outside = len(rows_R) - int(inside_R.sum())
    if outside:
        where, _ = _spectrum(section)
        notes.append(
            f"{where}: {outside} of {len(rows_R)} training jets lie outside the edges and are left out"
        )
    factor_CK = _shaped(sums_CK, jets_CK, section, classes, notes)
    capped, drawn = 0, section.method == "sampling"
    if not drawn:
        factor_CK, capped = _capped(factor_CK, jets_CK, sums_CK, section.cap)
    if section.balance == "classes":
        factor_CK = factor_CK * _balancing(sums_CK * factor_CK, classes)[:, None]
    if drawn:
        one = 1, cells
        row, capped = _capped(factor_CK.reshape(one), jets_CK.reshape(one), sums_CK.reshape(one), section.cap)
        factor_CK = row.reshape(shape)
    if capped:
        mean = "the mean of all jets: a jet is drawn no more often in an epoch" if drawn else "the mean"
        notes.append(
            f"weights.training.cap: the weights of {capped} jets are lowered to {section.cap:g} × {mean}"
        )
    factor_R = np.zeros(len(rows_R), np.float32)
    factor_R[inside_R] = factor_CK.astype(np.float32).ravel()[cell_R]
    return TrainingWeightsResult(factor_R, outside, capped, _largest(factor_CK, jets_CK), tuple(notes))


def loss_weights(
    prepared: Prepared, rows_R: Rows, factor_R: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """What each jet counts in a loss: its event weight, times its training weight if that is given."""
    weights_R = prepared.weights_J[rows_R].astype(np.float64)
    if factor_R is not None:
        weights_R *= factor_R
    with np.errstate(over="ignore"):
        floats_R = weights_R.astype(np.float32)
    lost_R = ~np.isfinite(floats_R) | ((floats_R == 0) & (weights_R != 0))
    if lost_R.any():
        raise JettaggerError(
            f"weights.event: a weight of {weights_R[lost_R][0]:g} is beyond float32: scale the weights to about 1"
        )
    return floats_R


def _spectrum(section: TrainingWeights) -> tuple[str, Mapping[str, list[float]]]:
    """The key of the spectrum that is asked for, and its variables with their edges."""
    if section.flatten is not None:
        return "weights.training.flatten", section.flatten
    if section.match is not None:
        return "weights.training.match", section.match.spectrum
    return "weights.training", {}


def _column(where: str, number: int) -> str:
    # Not the expression itself: a / in it would be a folder of the shard.
    return f"{where}, variable {number + 1}"


def _bins_of(prepared: Prepared, rows_R: Rows, section: TrainingWeights) -> _Bins:
    """The bin of each jet; the last bin of a variable contains its upper edge."""
    where, spectrum = _spectrum(section)
    bin_R, number = np.zeros(len(rows_R), np.int32), 1
    columns = prepared.extras if spectrum else {}
    for column, edges in enumerate(spectrum.values()):
        x_R = columns[_column(where, column)][rows_R]
        edges_K = np.asarray(edges)
        here_R = np.searchsorted(edges_K, x_R, side="right") - 1
        here_R[x_R == edges_K[-1]] = len(edges) - 2
        here_R[~((x_R >= edges_K[0]) & (x_R <= edges_K[-1]))] = -1
        both_R = bin_R * (len(edges) - 1) + here_R
        bin_R = np.where((here_R < 0) | (bin_R < 0), -1, both_R).astype(np.int32)
        number *= len(edges) - 1
    return _Bins(bin_R, number)


def _shaped(
    sums_CK: Floats,
    jets_CK: Counts,
    section: TrainingWeights,
    classes: Sequence[str],
    notes: list[str],
) -> Floats:
    """Factors that give each class the spectrum that is asked for."""
    where, spectrum = _spectrum(section)
    if not spectrum:
        return np.ones(sums_CK.shape)
    used_CK = sums_CK > 0
    wanted_CK = used_CK.astype(np.float64)
    if section.match is not None:
        reference = classes.index(section.match.to)
        wanted_CK = used_CK * np.maximum(sums_CK[reference], 0.0)
    for number, name in enumerate(classes):
        if not wanted_CK[number].any():
            raise JettaggerError(
                f"{where}: no bin holds jets of class {name} with a positive sum of event weights"
                + (f" where {section.match.to} has some" if section.match else "")
            )
        if lost := int((jets_CK[number] * (wanted_CK[number] == 0)).sum()):
            why = "their event weights add up to 0 or less"
            if section.match is not None and section.match.to != name:
                why += f", or {section.match.to} has none there"
            notes.append(f"{where}: {lost} jets of class {name} are left out: in their bins {why}")
        reachable_K = (
            wanted_CK[reference] > 0 if section.match is not None else np.ones(sums_CK.shape[1], bool)
        )
        if empty := int((reachable_K & (jets_CK[number] == 0)).sum()):
            notes.append(f"{where}: class {name} has no jets in {empty} of {len(reachable_K)} bins")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor_CK = np.where(used_CK, wanted_CK / sums_CK, 0.0)
    kept_C = np.where(wanted_CK > 0, sums_CK, 0.0).sum(1)
    return np.asarray(factor_CK * (kept_C / wanted_CK.sum(1))[:, None])


def _capped(factor_CK: Floats, jets_CK: Counts, sums_CK: Floats, cap: float | None) -> tuple[Floats, int]:
    """Factors of at most `cap` times the mean of their row (class), and how many jets were lowered.

    The mean is that of the result, so that the cap holds exactly; each row keeps its sum of weights.
    """
    if cap is None:
        return factor_CK, 0
    result_CK, capped = factor_CK.copy(), 0
    for row, jets_K, sums_K in zip(result_CK, jets_CK, sums_CK, strict=True):
        over_K = (row > _limit(row, jets_K * (row > 0), cap)) & (jets_K > 0)
        if over_K.any():
            before = sums_K @ row
            row[over_K] = _limit(row, jets_K * (row > 0), cap)
            row *= before / (sums_K @ row)
            capped += int(jets_K[over_K].sum())
    return result_CK, capped


def _limit(factor_K: Floats, jets_K: Counts, cap: float) -> float:
    """t such that the largest of min(factor, t) is `cap` times their mean over jets; inf if it is less anyhow.

    With the bins in ascending order and everything beyond bin k at the limit, t = cap · (Σ_k n f + t · n_above) / n;
    the right k is the first whose t lies below the factors beyond it.
    """
    order_K = np.argsort(factor_K)
    f_K, n_K = factor_K[order_K], jets_K[order_K]
    below_K = np.cumsum(n_K * f_K)
    room_K = n_K.sum() - cap * (n_K.sum() - np.cumsum(n_K))
    with np.errstate(divide="ignore", invalid="ignore"):
        limit_K = np.where((room_K > 0) & (below_K > 0), cap * below_K / room_K, np.inf)
    found = np.flatnonzero(limit_K < np.append(f_K[1:], np.inf))
    return float(limit_K[found[0]]) if len(found) else np.inf


def _balancing(sums_CK: Floats, classes: Sequence[str]) -> Floats:
    """A factor a class that gives all the same sum, and leaves the sum over all as it was."""
    sums_C = sums_CK.sum(1)
    if (sums_C <= 0).any():
        name = classes[int(sums_C.argmin())]
        raise JettaggerError(
            f"weights.training.balance: the event weights of class {name} add up to {sums_C.min():g}"
        )
    return np.asarray(sums_C.mean() / sums_C)


def _largest(factor_CK: Floats, jets_CK: Counts) -> float:
    trained_CK = jets_CK * (factor_CK > 0)
    means_C = (trained_CK * factor_CK).sum(1) / np.maximum(trained_CK.sum(1), 1)
    ratio_CK = np.where(trained_CK > 0, factor_CK, 0.0) / np.where(means_C > 0, means_C, 1.0)[:, None]
    return float(ratio_CK.max())
