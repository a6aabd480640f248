"""The points of a sweep: which values are tried, each checked as a config before anything runs."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jettagger.cluster.plan import JOBS, SWEEP
from jettagger.cluster.resolved import Resolve, Resolved
from jettagger.cluster.sweep_schema import DrawnSection, SweepSection
from jettagger.errors import JettaggerError
from jettagger.files import write_json, written_aside
from jettagger.randomness import numpy_generator

PLAN = "sweep.json"
"""In the folder of a sweep: its points and their values."""

FORMAT = 1


@dataclass(frozen=True)
class Point:
    """A run of the sweep."""

    name: str
    """Of its folder."""
    values: Mapping[str, Any]
    """Key of the config -> value."""
    seed: int | None
    """training.seed, where sweep.seeds repeats each point."""

    @property
    def overrides(self) -> list[str]:
        """As `--set` takes them."""
        given = {**self.values, **({} if self.seed is None else {"training.seed": self.seed})}
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]


@dataclass(frozen=True)
class Sweep:
    """What is tried, and by what it is judged."""

    metric: str
    points: tuple[Point, ...]


def points(section: SweepSection) -> Sweep:
    """All points: each of the grid, with each drawn one, with each seed."""
    grid = [
        dict(zip(section.grid, values, strict=True)) for values in itertools.product(*section.grid.values())
    ]
    settings = [{**one, **drawn} for one in grid for drawn in _drawn(section)]
    seeds: Sequence[int | None] = section.seeds or [None]
    repeated = [(one, seed) for one in settings for seed in seeds]
    width = max(3, len(str(len(repeated) - 1)))
    found = (Point(f"point_{n:0{width}d}", one, seed) for n, (one, seed) in enumerate(repeated))
    return Sweep(section.metric, tuple(found))


def _drawn(section: SweepSection) -> Iterator[dict[str, Any]]:
    if section.random is None:
        yield {}
        return
    for number in range(section.random.points):
        yield {
            key: _draw(choice, section.random.seed, number, key)
            for key, choice in section.random.values.items()
        }


def _draw(choice: list[Any] | DrawnSection, seed: int, number: int, key: str) -> Any:
    """One value, rounded to four digits where it is a number with decimals."""
    generator = numpy_generator(seed, "sweep", key, number)
    if isinstance(choice, list):
        return choice[int(generator.integers(len(choice)))]
    if choice.integer is not None:
        first, last = choice.integer
        return int(generator.integers(first, last + 1))
    if choice.log is not None:
        low, high = map(math.log, choice.log)
        return float(f"{math.exp(generator.uniform(low, high)):.4g}")
    assert choice.uniform is not None
    low, high = choice.uniform
    return float(f"{generator.uniform(low, high):.4g}")


def checked_points(resolve: Resolve) -> tuple[Sweep, dict[str, Resolved]]:
    """The sweep of a config, and the config of each point. Raises JettaggerError for the points that are wrong."""
    base = resolve([])
    if base.sweep is None:
        raise JettaggerError("the config has no section 'sweep': it says which values are tried")
    sweep = points(base.sweep)
    configs, wrong = {}, []
    for point in sweep.points:
        try:
            configs[point.name] = resolve([*point.overrides, "sweep=null"])
        except JettaggerError as error:
            wrong.append(str(error))
    if wrong:
        shown = "\n".join(dict.fromkeys(wrong[:10]))
        raise JettaggerError(
            f"{len(wrong)} of {len(sweep.points)} points of the sweep are not valid:\n{shown}"
        )
    return sweep, configs


def write_sweep(run: Path, sweep: Sweep, base: Resolved, configs: Mapping[str, Resolved]) -> None:
    """Leaves the plan and all configs in the run. Raises JettaggerError where another sweep lies there."""
    document = {"format": FORMAT, **asdict(sweep)}
    if (run / PLAN).exists() and json.loads((run / PLAN).read_text(encoding="utf-8")) != json.loads(
        json.dumps(document)
    ):
        raise JettaggerError(f"{run} holds another sweep: choose another --output")
    texts = {SWEEP: base.yaml, **{f"{name}.yaml": config.yaml for name, config in configs.items()}}
    for name, text in texts.items():
        with written_aside(run / JOBS / name) as aside:
            aside.write_text(text, encoding="utf-8")
    write_json(run / PLAN, document)


def read_sweep(run: Path) -> Sweep | None:
    """The sweep that lies in a folder, or None. Raises JettaggerError when its plan is damaged."""
    path = run / PLAN
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise JettaggerError(f"{path}: written in format {stored['format']}, this version reads {FORMAT}")
        return Sweep(stored["metric"], tuple(Point(**point) for point in stored["points"]))
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise JettaggerError(f"{path}: is damaged: {error!r}") from error
