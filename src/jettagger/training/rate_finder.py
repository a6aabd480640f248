"""Looks for a learning rate: the loss of one network whose rate rises from step to step, or of copies side by side,
each at a rate of its own (arXiv:1506.01186).

Shapes: S points of a scan, one a step or one a copy.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.randomness import key
from jettagger.training.beginning import on_device
from jettagger.training.conditions import conditions
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.optimisers import build_optimiser
from jettagger.training.scaling import scaler_of
from jettagger.training.state import EpochSums, TrainingState
from jettagger.training.step import look, make_step
from jettagger.training.training import Training

Floats = NDArray[np.float64]

SMOOTHING = 0.9
"""Share of the running mean of the loss that is kept from step to step."""
DIVERGED = 3.0
"""A scan stops where the smoothed loss is this many times that after the first steps."""
FEWEST = 10
"""First steps: within them a loss that is not finite is a fault of the data, not of the rate."""


class ScanRange(NamedTuple):
    """Which rates are tried."""

    lowest: float = 1.0e-6
    highest: float = 10.0
    steps: int = 300
    """Of the optimiser: from the lowest to the highest rate, or at each rate."""

    def check(self) -> None:
        """Raises JettaggerError for a range that is none."""
        if not 0 < self.lowest < self.highest < math.inf:
            raise JettaggerError(
                f"--lowest {self.lowest:g} --highest {self.highest:g}: rates must be above 0 and rise"
            )
        if self.steps < 2 * FEWEST:
            raise JettaggerError(f"--steps {self.steps}: a scan needs {2 * FEWEST} steps at least")

    def rates(self, number: int) -> Floats:
        """`number` rates, evenly spaced in their logarithm."""
        return np.geomspace(self.lowest, self.highest, number)


class Suggestion(NamedTuple):
    """A learning rate, or None, and why."""

    rate: float | None
    reason: str


@dataclass(frozen=True)
class RateScan:
    """What a scan found."""

    rates_S: Floats
    losses_S: Floats
    """The loss of each step; side by side: of the last step. NaN where it was not finite."""
    smoothed_S: Floats
    """Their running mean; side by side: at the last step."""
    side_by_side: bool
    steps: int
    """Steps that were made."""
    ended: str
    """Why the scan ended where it did."""
    suggestion: Suggestion

    def document(self) -> dict[str, Any]:
        """Plain values for JSON; null in place of NaN."""

        def plain(values_S: Floats) -> list[float | None]:
            return [x if math.isfinite(x) else None for x in values_S.tolist()]

        return {
            "kind": "side by side" if self.side_by_side else "rising",
            "steps": self.steps,
            "ended": self.ended,
            "suggested_rate": self.suggestion.rate,
            "reason": self.suggestion.reason,
            "rates": self.rates_S.tolist(),
            "losses": plain(self.losses_S),
            "smoothed": plain(self.smoothed_S),
        }


def rising_scan(training: Training, chosen: ScanRange) -> RateScan:
    """One network, whose rate rises exponentially; ends early where the loss diverges. Nothing is written.

    Raises JettaggerError where the loss is not finite from the start.
    """
    chosen.check()
    rates_S = chosen.rates(chosen.steps)
    training = replace(training, rates=lambda step: float(rates_S[step]))
    losses: list[float] = []
    mean, diverged, ended = RunningMean(), False, "the highest rate was reached"
    with conditions(training.section, training.hardware):
        for loss in losses_of_steps(training, chosen.steps):
            losses.append(loss)
            mean.add(loss)
            if diverged := mean.diverged:
                words = (
                    f"rose above {DIVERGED:g} times its start" if math.isfinite(loss) else "was not finite"
                )
                ended = f"the loss {words} at a rate of {rates_S[len(losses) - 1]:.3g}"
                break
    made, smoothed_S = len(losses), np.array(mean.history)
    return RateScan(
        rates_S[:made],
        np.array(losses),
        smoothed_S,
        False,
        made,
        ended,
        suggest_rising(rates_S[:made], smoothed_S, diverged=diverged),
    )


class RunningMean:
    """The loss smoothed over steps, without the bias of its start."""

    def __init__(self) -> None:
        self._sum, self._weight = 0.0, 0.0
        self.history: list[float] = []

    def add(self, loss: float) -> None:
        """Takes a step's loss."""
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        self.history.append(self._sum / self._weight)

    @property
    def diverged(self) -> bool:
        """Whether it is not finite, or far above what it was after the first steps."""
        now, first = self.history[-1], self.history[min(FEWEST, len(self.history)) - 1]
        # Losses such as a Gaussian's may begin below or near 0.
        level = max(abs(first), first - min(self.history))
        return not now - first <= (DIVERGED - 1) * level


def losses_of_steps(training: Training, steps: int) -> Iterator[float]:
    """Makes steps and gives the loss of each, before it; NaN for one that is not finite, and then the end."""
    training = on_device(training)
    state = TrainingState(training.model, build_optimiser(training.model, training.section.optimiser))
    state.scaler = scaler_of(training.hardware, state.optimiser)
    generator = torch.Generator(training.hardware.device)
    set_dropout_generator(training.model, generator)
    training.model.train()
    for batch in endless(training, steps):
        generator.manual_seed(key(training.section.seed, "dropout", training.stream, state.step))
        try:
            yield _loss_of_step(training, state, batch)
        except NotFiniteError:
            if state.step < FEWEST:
                raise
            yield math.nan
            return


def _loss_of_step(training: Training, state: TrainingState, batch: Batch) -> float:
    state.sums = EpochSums()
    make_step(training, state, batch)
    look(training, state)
    if state.sums.weights <= 0:
        raise JettaggerError(
            f"the weights of a batch add up to {state.sums.weights:.4g}: a scan needs a larger training.batch_size"
        )
    return state.sums.losses / state.sums.weights


def endless(training: Training, steps: int) -> Iterator[Batch]:
    """So many batches, epoch after epoch."""
    made = 0
    for epoch in count():
        for batch in training.train.epoch(epoch):
            if made == steps:
                return
            made += 1
            yield batch


def suggest_rising(rates_S: Floats, smoothed_S: Floats, *, diverged: bool) -> Suggestion:
    """The rate at which the smoothed loss falls fastest, by a straight line over half a decade.

    It is no higher than a third of the rate at which the loss is lowest: a training is longer than a scan.
    """
    known_S = np.isfinite(smoothed_S)
    logs_S, losses_S = np.log10(rates_S[known_S]), smoothed_S[known_S]
    settled = min(FEWEST, len(losses_S) - 1)
    low = settled + int(losses_S[settled:].argmin())
    start, fall = losses_S[settled], losses_S[settled] - losses_S[low]
    if fall < 0.02 * abs(start):
        advice = "a lower --lowest" if diverged else "a higher --highest or more --steps"
        words = f"the loss fell from {start:.4g} to {losses_S[low]:.4g} only: nothing can be read from it"
        return Suggestion(None, f"{words}; try {advice}")
    slopes_S = np.full(low + 1, np.inf)
    for s in range(settled, low + 1):
        near_S = np.abs(logs_S - logs_S[s]) <= 0.25
        if near_S.sum() > 2:
            slopes_S[s] = np.polyfit(logs_S[near_S], losses_S[near_S], 1)[0]
    steepest, lowest = 10 ** logs_S[int(slopes_S.argmin())], 10 ** logs_S[low]
    rate = rounded(min(steepest, lowest / 3))
    which = "the former" if rate == rounded(steepest) else "a third of the latter"
    end = "" if diverged else "; it did not diverge: a higher --highest may show more"
    lowest_loss = f"{losses_S[low]:.4g}, from {start:.4g}"
    reason = f"the loss falls fastest at {steepest:.2g} and is lowest at {lowest:.2g} ({lowest_loss}): {which}{end}"
    return Suggestion(rate, reason)


def rounded(rate: float) -> float:
    """Two digits: no scan knows more."""
    return float(f"{rate:.2g}")


def write_scan(path: Path, scan: RateScan, facts: dict[str, Any]) -> None:
    """`lr_finder.json`: the scan, and which optimiser and batch size it is for."""
    write_json(path, {**facts, **scan.document()})
