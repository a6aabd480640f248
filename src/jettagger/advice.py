"""What the epochs of a training say of it, in words and with the numbers that they say it by."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics

Epoch = Mapping[str, float | None]
"""One epoch of a training: `epoch` (from 1), `train_loss`, `validation_loss`, and what else was recorded: `lr`,
`gradient_norm`, `clipped`, `auc`, `accuracy`."""

Floats = NDArray[np.float64]
_SHORTEST = 4
_RISE = 0.02
_DRIFT = 0.002
_PROGRESS = 0.01
_CHANCE = 0.9
_JUMPS = 0.3
_SLOW = 0.25
_STRAIGHT = 0.7
_CLIPPED = 0.9
_SHAKY = 0.05


class Advice(NamedTuple):
    """A verdict and the sentence that gives its reasons."""

    verdict: str
    """`diverged`, `too short`, `learning rate too high`, `learning rate too low`, `underfitting`, `overfitting`,
    `still improving` or `converged`; beside it `always clipped`, `unstable validation`, `figures beyond
    their range`."""
    sentence: str
    """One or two sentences with epochs and losses."""


def advise(history: Sequence[Epoch], classes: int | None = None) -> tuple[Advice, ...]:
    """The verdict on one member's epochs (none for no epochs), then what else stands out.

    That is: a gradient that was clipped in 90 % of the steps of the second half of the epochs; a validation loss
    that scatters there by more than 5 % from epoch to epoch, and more than twice as much as the training loss; an AUC
    or accuracy outside 0 to 1.
    """
    if len(history) == 0:
        return ()
    beside = [judge(history) for judge in (_clipped, _shaky, _beyond)]
    return (diagnose(history, classes), *(found for found in beside if found is not None))


def diagnose(history: Sequence[Epoch], classes: int | None = None) -> Advice:
    """Reads one member's epochs; `classes` gives the loss of a constant guess, ln(classes).

    In this order: a loss that is not finite; fewer than 4 epochs; a training loss that ends more than 0.2 % (and four
    times its scatter) above where it began, or that rose in more than 30 % of the epochs by more than 2 %; a training
    loss that fell by less than a quarter, in nine epochs of ten, and for each unit of learning rate nearly as fast in
    the second half of the epochs as in the first; a training loss that stays above 90 % of ln(classes); a validation
    loss that ended more than 2 % (and three times its scatter) above its best, both averaged over a tenth of the
    epochs, while the training loss went on falling; a validation loss that fell by more than 1 % in the last fifth of
    the epochs; else converged.
    """
    train, validation = _column(history, "train_loss"), _column(history, "validation_loss")
    broken = _first_broken(history)
    if broken is not None:
        return Advice("diverged", f"The loss was not finite from epoch {broken} on.")
    if len(train) < _SHORTEST:
        return Advice("too short", f"Only {len(train)} epochs: too few to judge the training.")
    found = _unstable(train) or _too_slow(train, _column(history, "lr"))
    for judge in (_underfitting, _overfitting, _improving):
        found = found or judge(train, validation, classes)
    return found or _converged(train, validation)


def advise_members(
    histories: Sequence[Sequence[Epoch]], classes: int | None = None, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Sentences on all members: the count of each verdict, then the first member's reasons for each.

    `names` says which trainings they are (`member 3`, `fold 1, member 0`); by default members 0, 1, ….
    """
    names = names or [f"member {number}" for number in range(len(histories))]
    found = {
        name: advise(history, classes)
        for name, history in zip(names, histories, strict=True)
        if len(history) > 0
    }
    if len(found) < 2:
        return tuple(one.sentence for one in chain.from_iterable(found.values()))
    several = "trainings" if any("fold" in name for name in found) else "members"
    sentences = []
    for verdict, count in Counter(one.verdict for one in chain.from_iterable(found.values())).most_common():
        first, reasons = next(
            (name, one.sentence)
            for name, advices in found.items()
            for one in advices
            if one.verdict == verdict
        )
        sentences.append(
            f"{count} of {len(found)} {several}: {verdict}. {first[0].upper()}{first[1:]}: {reasons}"
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


def _unstable(train: Floats) -> Advice | None:
    rises = np.flatnonzero(np.diff(train) > _RISE * _level(train)[:-1])
    # A loss that stays where it was ends above its start every other time.
    if train[-1] - train[0] > max(_DRIFT * _level(train)[0], 4 * _jitter(train)):
        text = f"The training loss ended at {train[-1]:.4g}, above {train[0]:.4g} after the first epoch"
    elif len(rises) > _JUMPS * (len(train) - 1):
        text = f"The training loss rose by more than 2 % in {len(rises)} of {len(train) - 1} epochs"
    else:
        return None
    return Advice("learning rate too high", f"{text}: the learning rate looks too high.")


def _too_slow(train: Floats, lr: Floats) -> Advice | None:
    """A loss that falls by as much for each unit of the rate at the end as at the start has only begun to fall."""
    half, falls = len(train) // 2, -np.diff(train)
    if (falls > 0).mean() < 0.9 or train[0] - train[-1] > _SLOW * _level(train)[0]:
        return None
    reach = lr[1:] if np.isfinite(lr).all() else np.ones_like(falls)
    early, late = (falls[part].sum() / reach[part].sum() for part in (slice(half), slice(half, None)))
    if late < _STRAIGHT * early:
        return None
    shown = f" (highest: {lr.max():.3g})" if np.isfinite(lr).all() else ""
    return Advice(
        "learning rate too low",
        f"The training loss fell from {train[0]:.4g} to {train[-1]:.4g} only, in nearly every epoch, and for each "
        f"unit of learning rate {late / early:.2f} times as fast in the second half of the epochs as in the first: "
        f"the learning rate{shown} looks too low.",
    )


def _underfitting(train: Floats, validation: Floats, classes: int | None) -> Advice | None:
    del validation
    if classes is None or train[-1] < _CHANCE * math.log(classes):
        return None
    chance = math.log(classes)
    return Advice(
        "underfitting",
        f"Underfitting: the training loss ended at {train[-1]:.4g}, {100 * train[-1] / chance:.0f} % of "
        f"ln {classes} = {chance:.4g}, which a constant guess reaches (underfitting is epistemic in the "
        "lecture's words).",
    )


def _overfitting(train: Floats, validation: Floats, classes: int | None) -> Advice | None:
    del classes
    if not np.isfinite(validation).all():
        return None
    # Means over as many epochs as the tail has: the lowest of many noisy epochs is low by chance.
    width = max(1, len(validation) // 10)
    means = np.convolve(validation, np.full(width, 1 / width), mode="valid")
    low = int(means.argmin())
    best, tail = low + int(validation[low : low + width].argmin()), float(means[-1])
    scatter = _jitter(validation) * math.sqrt(2 / width)
    level = float(_level(validation)[best])
    if tail - means[low] <= max(_RISE * level, 3 * scatter) or train[-1] >= train[best]:
        return None
    rise = tail - validation[best]
    return Advice(
        "overfitting",
        f"Overfitting from epoch {best + 1}: since then the validation loss rose from {validation[best]:.4g} "
        f"to {tail:.4g} (+{100 * rise / level:.0f} %) while the training loss fell from "
        f"{train[best]:.4g} to {train[-1]:.4g}.",
    )


def _improving(train: Floats, validation: Floats, classes: int | None) -> Advice | None:
    del classes
    name, losses = ("validation", validation) if np.isfinite(validation).all() else ("training", train)
    last = max(2, len(losses) // 5)
    before, now = float(losses[:-last].min()), float(losses[-last:].min())
    level = float(_level(losses)[:-last].min())
    if before - now <= max(_PROGRESS * level, 2 * _jitter(losses)):
        return None
    return Advice(
        "still improving",
        f"Still improving: in the last {last} of {len(losses)} epochs the best {name} loss fell from "
        f"{before:.4g} to {now:.4g} (-{100 * (before - now) / level:.1f} %); "
        "a longer training may help.",
    )


def _converged(train: Floats, validation: Floats) -> Advice:
    if not np.isfinite(validation).all():
        return Advice("converged", f"Converged: the training loss ended at {train[-1]:.4g}.")
    best = int(validation.argmin())
    gap = validation[best] - train[best]
    return Advice(
        "converged",
        f"Converged: the validation loss was best in epoch {best + 1} of {len(validation)}, "
        f"{validation[best]:.4g} against {train[best]:.4g} in training (gap {gap:+.2g}), and ended at "
        f"{validation[-1]:.4g}; no sign of over- or underfitting.",
    )


def _level(losses: Floats) -> Floats:
    """What changes of a loss are compared with: itself, or its whole range where it may be negative."""
    return losses if losses.min() > 0 else np.full_like(losses, np.ptp(losses))


def _jitter(losses: Floats) -> float:
    """Scatter of the losses in the second half about their own neighbours, one standard deviation."""
    half = losses[len(losses) // 2 :]
    if len(half) < 4:
        return 0.0
    second = half[2:] - 2 * half[1:-1] + half[:-2]
    return 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6)


def _clipped(history: Sequence[Epoch]) -> Advice | None:
    half = len(history) // 2
    share, norm = (float(_column(history[half:], key).mean()) for key in ("clipped", "gradient_norm"))
    if not share >= _CLIPPED:  # NaN where it was not recorded
        return None
    return Advice(
        "always clipped",
        f"From epoch {half + 1} on the gradient was clipped in {100 * share:.0f} % of the steps (its norm was "
        f"{norm:.3g} in the mean): gradient_clip decides the size of the steps; raise it, or lower the learning rate.",
    )


def _shaky(history: Sequence[Epoch]) -> Advice | None:
    train, validation = _column(history, "train_loss"), _column(history, "validation_loss")
    if not (np.isfinite(train).all() and np.isfinite(validation).all()):
        return None
    half = len(validation) // 2
    scatter, level = _jitter(validation), float(np.median(_level(validation)[half:]))
    if scatter <= max(_SHAKY * level, 2 * _jitter(train)):
        return None
    return Advice(
        "unstable validation",
        f"The validation loss scatters by {scatter:.2g} ({100 * scatter / level:.0f} %) from epoch to epoch in the "
        f"second half, the training loss by {_jitter(train):.2g}: the best epoch is partly luck; more validation "
        "jets, a lower rate at the end, or a mean of the weights (ema, swa) would steady it.",
    )


def _beyond(history: Sequence[Epoch]) -> Advice | None:
    parts = []
    for key, name in (("auc", "AUC"), ("accuracy", "accuracy")):
        values = _column(history, key)
        outside = values[metrics.outside(values)]
        if len(outside):
            worst = float(outside[np.abs(outside - 0.5).argmax()])
            parts.append(f"the {name} in {len(outside)} of {len(values)} epochs (such as {worst:.4g})")
    if not parts:
        return None
    return Advice(
        "figures beyond their range",
        f"Outside 0 to 1 on the validation jets: {' and '.join(parts)}, since negative event weights outweigh the "
        "others among part of these jets. They are not clipped; more validation jets would steady them.",
    )
