"""What a training's loss curves say, in words and with the numbers that they say it by."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.evaluation.predictions import Epoch

Floats = NDArray[np.float64]
_SHORTEST = 4
_RISE = 0.02
_PROGRESS = 0.01
_CHANCE = 0.9
_JUMPS = 0.3


class Diagnosis(NamedTuple):
    """A verdict and the sentence that gives its reasons."""

    verdict: str
    """`diverged`, `too short`, `learning rate too high`, `underfitting`, `overfitting`, `still improving` or
    `converged`."""
    sentence: str
    """One or two sentences with epochs and losses."""


def diagnose(history: Sequence[Epoch], classes: int | None = None) -> Diagnosis:
    """Reads one member's epochs; `classes` gives the loss of a constant guess, ln(classes).

    In this order: a loss that is not finite; fewer than 4 epochs; a training loss that ends above where it
    began, or that rose in more than 30 % of the epochs by more than 2 %; a training loss that stays above
    90 % of ln(classes); a validation loss that ended more than 2 % (and three times its scatter) above its
    best, both averaged over a tenth of the epochs, while the training loss went on falling; a validation loss
    that fell by more than 1 % in the last fifth of the epochs; else converged.
    """
    train, validation = _column(history, "train_loss"), _column(history, "validation_loss")
    broken = _first_broken(history)
    if broken is not None:
        return Diagnosis("diverged", f"The loss was not finite from epoch {broken} on.")
    if len(train) < _SHORTEST:
        return Diagnosis("too short", f"Only {len(train)} epochs: too few to judge the training.")
    for judge in (_unstable, _underfitting, _overfitting, _improving):
        found = judge(train, validation, classes)
        if found is not None:
            return found
    return _converged(train, validation)


def diagnose_members(histories: Sequence[Sequence[Epoch]], classes: int | None = None) -> tuple[str, ...]:
    """Sentences on all members: the count of each verdict, then the first member's reasons for each."""
    found = [diagnose(history, classes) for history in histories if len(history) > 0]
    if len(found) < 2:
        return tuple(one.sentence for one in found)
    sentences = []
    for verdict, count in Counter(one.verdict for one in found).most_common():
        first = next(k for k, one in enumerate(found) if one.verdict == verdict)
        sentences.append(
            f"{count} of {len(found)} members: {verdict}. Member {first}: {found[first].sentence}"
        )
    return tuple(sentences)


def _column(history: Sequence[Epoch], key: str) -> Floats:
    values = [epoch.get(key) for epoch in history]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _first_broken(history: Sequence[Epoch]) -> int | None:
    """Epoch (from 1) of the first loss that is NaN or infinite; a missing validation loss is none."""
    for number, epoch in enumerate(history, start=1):
        for key in ("train_loss", "validation_loss"):
            value = epoch.get(key)
            if (value is None and key == "train_loss") or (value is not None and not math.isfinite(value)):
                return number
    return None


def _unstable(train: Floats, validation: Floats, classes: int | None) -> Diagnosis | None:
    del validation, classes
    rises = np.flatnonzero(train[1:] > train[:-1] * (1 + _RISE))
    if train[-1] > train[0]:
        text = f"The training loss ended at {train[-1]:.4g}, above {train[0]:.4g} after the first epoch"
    elif len(rises) > _JUMPS * (len(train) - 1):
        text = f"The training loss rose by more than 2 % in {len(rises)} of {len(train) - 1} epochs"
    else:
        return None
    return Diagnosis("learning rate too high", f"{text}: the learning rate looks too high.")


def _underfitting(train: Floats, validation: Floats, classes: int | None) -> Diagnosis | None:
    del validation
    if classes is None or train[-1] < _CHANCE * math.log(classes):
        return None
    chance = math.log(classes)
    return Diagnosis(
        "underfitting",
        f"Underfitting: the training loss ended at {train[-1]:.4g}, {100 * train[-1] / chance:.0f} % of "
        f"ln {classes} = {chance:.4g}, which a constant guess reaches (underfitting is epistemic in the "
        "lecture's words).",
    )


def _overfitting(train: Floats, validation: Floats, classes: int | None) -> Diagnosis | None:
    del classes
    if not np.isfinite(validation).all():
        return None
    # Means over as many epochs as the tail has: the lowest of many noisy epochs is low by chance.
    width = max(1, len(validation) // 10)
    means = np.convolve(validation, np.full(width, 1 / width), mode="valid")
    low = int(means.argmin())
    best, tail = low + int(validation[low : low + width].argmin()), float(means[-1])
    scatter = _jitter(validation) * math.sqrt(2 / width)
    if tail - means[low] <= max(_RISE * means[low], 3 * scatter) or train[-1] >= train[best]:
        return None
    rise = tail - validation[best]
    return Diagnosis(
        "overfitting",
        f"Overfitting from epoch {best + 1}: since then the validation loss rose from {validation[best]:.4g} "
        f"to {tail:.4g} (+{100 * rise / validation[best]:.0f} %) while the training loss fell from "
        f"{train[best]:.4g} to {train[-1]:.4g}.",
    )


def _improving(train: Floats, validation: Floats, classes: int | None) -> Diagnosis | None:
    del classes
    name, losses = ("validation", validation) if np.isfinite(validation).all() else ("training", train)
    last = max(2, len(losses) // 5)
    before, now = float(losses[:-last].min()), float(losses[-last:].min())
    if before - now <= max(_PROGRESS * abs(before), 2 * _jitter(losses)):
        return None
    return Diagnosis(
        "still improving",
        f"Still improving: in the last {last} of {len(losses)} epochs the best {name} loss fell from "
        f"{before:.4g} to {now:.4g} (-{100 * (before - now) / abs(before):.1f} %); "
        "a longer training may help.",
    )


def _converged(train: Floats, validation: Floats) -> Diagnosis:
    if not np.isfinite(validation).all():
        return Diagnosis("converged", f"Converged: the training loss ended at {train[-1]:.4g}.")
    best = int(validation.argmin())
    gap = validation[best] - train[best]
    return Diagnosis(
        "converged",
        f"Converged: the validation loss was best in epoch {best + 1} of {len(validation)}, "
        f"{validation[best]:.4g} against {train[best]:.4g} in training (gap {gap:+.2g}), and ended at "
        f"{validation[-1]:.4g}; no sign of over- or underfitting.",
    )


def _jitter(losses: Floats) -> float:
    """Scatter of the losses in the second half about their own neighbours, one standard deviation."""
    half = losses[len(losses) // 2 :]
    if len(half) < 4:
        return 0.0
    second = half[2:] - 2 * half[1:-1] + half[:-2]
    return 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6)
