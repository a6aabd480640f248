"""Copies of one network side by side, each trained at a learning rate of its own: the finder's scan in one pass.

Shapes: M copies, B jets.
"""

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.randomness import key
from jettagger.training.conditions import conditions
from jettagger.training.optimisers import build_optimiser
from jettagger.training.rate_finder import (
    RateScan,
    RunningMean,
    ScanRange,
    Suggestion,
    endless,
    rounded,
)
from jettagger.training.stack import Stack
from jettagger.training.state import TrainingState
from jettagger.training.step import augmented
from jettagger.training.training import Training

Floats = NDArray[np.float64]


def side_by_side_scan(training: Training, chosen: ScanRange, copies: int) -> RateScan:
    """`copies` of the network make equal steps on the same batches with the same masks, each at its own rate.

    Raises JettaggerError for a network that cannot be run so, and where no loss is finite from the start.
    """
    chosen.check()
    check_copies(copies)
    rates_M = chosen.rates(copies)
    means = [RunningMean() for _ in range(copies)]
    with conditions(training.section, training.hardware):
        together = Copies(training, rates_M)
        for batch in endless(training, chosen.steps):
            for mean, loss in zip(means, together.step(batch), strict=True):
                mean.add(loss)
    smoothed_M = np.array([mean.history[-1] for mean in means])
    start = means[0].history[0]  # of all: with the same weights, before the first step
    lost = int((~np.isfinite(smoothed_M)).sum())
    return RateScan(
        rates_M,
        together.losses_M,
        smoothed_M,
        True,
        chosen.steps,
        f"{copies} copies made {chosen.steps} steps each" + (f", {lost} of them diverged" if lost else ""),
        suggest_of_copies(rates_M, smoothed_M, start),
    )


def check_copies(copies: int) -> None:
    """Raises JettaggerError for a number of copies of which none could be compared with another."""
    if copies < 2:
        raise JettaggerError(f"--side-by-side {copies}: two rates at least can be compared, write 2 or more")


class Copies:
    """M copies of a training's network, stacked, on the same batches with the same dropout masks."""

    def __init__(self, training: Training, rates_M: Floats) -> None:
        model, device = training.model.to(training.hardware.device), training.hardware.device
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            raise JettaggerError(
                "--side-by-side: recurrent layers cannot be run for several networks at once; leave it out"
            )
        if training.hardware.float16:
            raise JettaggerError(
                "--side-by-side: float16 needs a scale for each network; write another precision"
            )
        if training.section.accumulate > 1:
            raise JettaggerError(
                "--side-by-side: batches pass whole, not in parts: write a smaller batch_size, and no accumulate"
            )
        self.training, self.made = training, 0
        self.losses_M: Floats = np.full(len(rates_M), math.nan)
        self._rates = rates_M.tolist()
        models = [copy.deepcopy(model) for _ in rates_M]
        section = training.section.optimiser
        self._stack = Stack([TrainingState(one, build_optimiser(one, section)) for one in models])
        self._generator = torch.Generator(device)
        set_dropout_generator(self._stack.template, self._generator)

    def step(self, given: Batch) -> list[float]:
        """One step of every copy; the loss of each before it, NaN where it is not finite."""
        training, section = self.training, self.training.section
        batch = given.to(training.hardware.device)
        batch = augmented(training, self.made, batch)
        self._generator.manual_seed(key(section.seed, "dropout", training.stream, self.made))
        self._stack.clear_gradients()
        minimised_M, losses_M = self._losses(batch)
        minimised_M.sum().backward()  # type: ignore[no-untyped-call]
        self._stack.add_l1(section.l1)
        if section.gradient_clip is not None:
            self._stack.clip(section.gradient_clip)
        self._stack.step(self._rates)
        self.made += 1
        found_M = losses_M.detach().double().cpu().numpy()
        self.losses_M = np.where(np.isfinite(found_M), found_M, math.nan)
        if self.made == 1 and np.isnan(self.losses_M).all():
            raise JettaggerError("the loss is not finite in the first step, at any rate: `train` says why")
        return [float(x) for x in self.losses_M]

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimised, and the mean loss, of each copy: (M,)."""

        def one(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with self.training.hardware.autocast():
                raw_BK = self._stack.call(tensors, batch.inputs)
            loss = self.training.objective(raw_BK, batch)
            return loss.step, loss.losses / loss.weights

        try:
            found: tuple[Tensor, Tensor] = torch.vmap(one, randomness="same")(self._stack.tensors)
        except (RuntimeError, ValueError) as error:
            if "vmap" not in str(error):
                raise
            raise JettaggerError(
                f"--side-by-side: this network cannot be run for several at once ({error}); leave it out"
            ) from error
        return found


def suggest_of_copies(rates_M: Floats, smoothed_M: Floats, start: float) -> Suggestion:
    """The rate of the lowest loss, and those that are as good."""
    known_M = np.isfinite(smoothed_M)
    if not known_M.any() or start - np.nanmin(smoothed_M) < 0.02 * abs(start):
        return Suggestion(
            None, "no rate lowered the loss by 2 %: nothing can be read from it; try more --steps"
        )
    best = int(np.nanargmin(smoothed_M))
    good_M = rates_M[known_M & (smoothed_M <= smoothed_M[best] + 0.02 * abs(smoothed_M[best]))]
    end = {0: "; a lower --lowest may do better", len(rates_M) - 1: "; a higher --highest may do better"}
    return Suggestion(
        rounded(float(rates_M[best])),
        f"the smoothed loss ended lowest at {rates_M[best]:.2g} ({smoothed_M[best]:.4g}, from {start:.4g}), and within "
        f"2 % of it from {good_M.min():.2g} to {good_M.max():.2g}{end.get(best, '')}",
    )
