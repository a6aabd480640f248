"""The learning rate as a function of the step."""

import math
from dataclasses import dataclass

from jettagger.training.optimiser_schema import ScheduleSection


def rate(step: int, steps: int, section: ScheduleSection) -> float:
    """Learning rate of step 0 … steps - 1, as a fraction of the highest; `plateau` multiplies its own on top.

    The warm-up follows half a cosine from `initial` to 1, which is reached after `warm_up` of the steps.
    one_cycle (arXiv:1708.07120, momentum held constant) and cosine (arXiv:1608.03983, one period) then follow
    half a cosine down to `final`, which is the rate of the last step. flat_then_decay stays at 1 for `flat` of
    the steps and falls exponentially to `final`, that of the last step. step falls by `factor` at each of
    `milestones`.
    """
    share = (0.3 if section.name == "one_cycle" else 0.0) if section.warm_up is None else section.warm_up
    rising = round(share * steps)
    if step < rising:
        return _half_cosine(section.initial, 1.0, step / rising)
    if section.name in ("one_cycle", "cosine"):
        return _half_cosine(1.0, section.final, (step - rising) / max(steps - 1 - rising, 1))
    if section.name == "flat_then_decay":
        begin = round(section.flat * steps)
        return float(section.final ** (max(step - begin, 0) / max(steps - 1 - begin, 1)))
    if section.name == "step":
        return float(section.factor ** sum(step >= round(m * steps) for m in section.milestones))
    return 1.0


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Plateau:
    """How far the rate has come down because the validation loss stood still."""

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def observe(self, loss: float, section: ScheduleSection) -> None:
        """Takes the validation loss of an epoch; does nothing for other schedules."""
        if section.name != "plateau":
            return
        if loss < self.best - section.min_delta:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > section.patience:
            self.factor, self.waited = max(self.factor * section.factor, section.final), 0
