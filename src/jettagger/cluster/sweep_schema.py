"""The section of the YAML that says which values a sweep tries."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jettagger.schema import Problem, Section, Words, refuse

Value = Annotated[Any, Words("any value that the key may have")]
Key = Annotated[str, Field(min_length=1)]
Values = Annotated[list[Value], Field(min_length=1)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
IntegerPair = Annotated[list[int], Field(min_length=2, max_length=2)]
Metric = Literal["validation_loss", "auc", "accuracy"]

NOT_SWEPT = ("cluster", "sweep", "format")
"""Sections that decide no result."""


class DrawnSection(Section):
    """Between which values one is drawn; exactly one of the three."""

    log: Pair | None = None
    """[low, high], evenly in the logarithm; both > 0."""
    uniform: Pair | None = None
    """[low, high], evenly."""
    integer: IntegerPair | None = None
    """[low, high], whole numbers, both included."""

    @model_validator(mode="after")
    def _one(self) -> "DrawnSection":
        given = [name for name in ("log", "uniform", "integer") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of log, uniform, integer is expected, not {len(given)}")
        low, high = getattr(self, given[0])
        if low >= high:
            raise ValueError(f"{given[0]}: [{low}, {high}] does not ascend")
        if given[0] == "log" and low <= 0:
            raise ValueError(f"log: [{low}, {high}] must be above 0")
        return self


class RandomSection(Section):
    """Points whose values are drawn."""

    points: Annotated[int, Field(ge=1, le=10_000)]
    """How many; the first ones stay what they are when there are more."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of the draws."""
    values: Annotated[dict[Key, Values | DrawnSection], Field(min_length=1)]
    """Key of the config, such as training.optimiser.lr -> a list to draw from, or {log: [low, high]}."""


class SweepSection(Section):
    """Which values of the config are tried; each point is a run of its own."""

    grid: dict[Key, Values] = {}
    """Key of the config, such as model.dropout -> its values; every combination is a point."""
    random: RandomSection | None = None
    """Points with drawn values; beside a grid, each is tried at every point of the grid."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """Values of training.seed with which each point is repeated: their spread is in the table."""
    metric: Metric = "validation_loss"
    """What the table is sorted by, with the weights that each network keeps, on the validation jets."""

    @model_validator(mode="after")
    def _points(self) -> "SweepSection":
        refuse(_problems(self))
        return self

    @property
    def points(self) -> int:
        """How many runs it takes."""
        drawn = self.random.points if self.random is not None else 1
        return math.prod(map(len, self.grid.values())) * drawn * len(self.seeds or [None])


def _problems(section: SweepSection) -> list[Problem]:
    drawn = section.random.values if section.random is not None else {}
    problems = []
    for place, keys in ((("grid",), section.grid), (("random", "values"), drawn)):
        for key in keys:
            if key.partition(".")[0] in NOT_SWEPT:
                problems.append(Problem((*place, key), f"'{key}' changes no result: it cannot be swept"))
            if key == "training.seed" and section.seeds is not None:
                problems.append(Problem((*place, key), "sweep.seeds gives the seeds already"))
    for key in sorted({*section.grid} & {*drawn}):
        problems.append(Problem(("random", "values", key), "stands in sweep.grid as well"))
    if section.seeds is not None and len(set(section.seeds)) < len(section.seeds):
        problems.append(Problem(("seeds",), f"a seed stands twice: {section.seeds}"))
    if not section.grid and section.random is None:
        problems.append(Problem((), "neither grid nor random gives a point"))
    elif section.points > 10_000:
        problems.append(Problem((), f"{section.points} points are too many (at most 10000)"))
    return problems
