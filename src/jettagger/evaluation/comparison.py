"""Several runs on the same jets: differences with paired-bootstrap errors, spread over seeds.

Shapes: N jets, R replicas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.errors import JettaggerError, unknown_name
from jettagger.evaluation.discriminants import Pair, log_odds, rank_pair, rankings_against_rest
from jettagger.evaluation.evaluate import evaluate
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.results import Difference, Evaluation, Result, SeedSpread
from jettagger.evaluation.schema import EvaluationSection
from jettagger.metrics import Measurement, Statistic, spread

Floats = NDArray[np.float64]
_OF_PROBABILITIES = ("accuracy", "nll", "brier", "ece")
LOG_REJECTION = "log_rejection"


@dataclass(frozen=True)
class _Unit:
    """A run, or a group of runs that differ in their seed."""

    name: str
    runs: tuple[str, ...]


def compare(runs: Sequence[Predictions], settings: EvaluationSection | None = None) -> Evaluation:
    """Evaluates each run, and on shared jets the differences to the reference."""
    settings = EvaluationSection() if settings is None else settings
    _check_names(runs)
    results = tuple(evaluate(run, settings) for run in runs)
    units = _units(results)
    names = [unit.name for unit in units]
    if settings.reference is not None and settings.reference not in names:
        raise unknown_name("run", settings.reference, names, where="evaluation.reference")
    paired, notes = _same_jets(runs)
    replicas = _replicas(runs, results, settings) if settings.bootstrap >= 2 else {}
    differences: tuple[Difference, ...] = ()
    if replicas and paired and len(units) > 1:
        reference = next(unit for unit in units if settings.reference in (None, unit.name))
        differences = tuple(
            _difference(unit, reference, results, replicas) for unit in units if unit is not reference
        )
    return Evaluation(
        results=results,
        differences=differences,
        seeds=tuple(_seed_spread(unit, results) for unit in units if len(unit.runs) > 1),
        bootstrap_errors={
            run: {figure: float(spread(values_R)) for figure, values_R in figures.items()}
            for run, figures in replicas.items()
        },
        settings=settings,
        notes=tuple(dict.fromkeys([*(note for run in runs for note in run.notes), *notes])),
    )


def figures_of(result: Result) -> dict[str, float]:
    """The figures that are compared, by name: `auc`, `accuracy`, …, `log_rejection Top_vs_QCD 0.3`."""
    figures = {} if result.auc is None else {"auc": result.auc.value}
    for name in _OF_PROBABILITIES:
        measurement: Measurement | None = getattr(result, name)
        if measurement is not None:
            figures[name] = measurement.value
    for pair in result.pairs:
        for wanted, rejection in pair.rejections.items():
            value = np.nan if rejection.value is None else float(np.log(rejection.value))
            figures[f"{LOG_REJECTION} {pair.name} {wanted:g}"] = value
    return figures


def _of_targets(result: Result) -> dict[str, float]:
    """The figures of targets whose spread over seeds is given."""
    figures = {}
    for one in result.targets:
        figures[f"bias {one.name}"] = one.residuals.bias.value
        figures[f"resolution {one.name}"] = one.residuals.resolution.value
    return figures


def _check_names(runs: Sequence[Predictions]) -> None:
    if not runs:
        raise JettaggerError("nothing to evaluate: no run was given")
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise JettaggerError(f"two runs are called '{name}'; names must differ")


def _units(results: Sequence[Result]) -> list[_Unit]:
    members: dict[str, list[str]] = {}
    for result in results:
        members.setdefault(result.group if result.group is not None else result.name, []).append(result.name)
    return [_Unit(name if len(runs) > 1 else runs[0], tuple(runs)) for name, runs in members.items()]


def _same_jets(runs: Sequence[Predictions]) -> tuple[bool, list[str]]:
    first, notes = runs[0], []
    for run in runs[1:]:
        if run.classes != first.classes:
            notes.append(f"{run.name} has other classes than {first.name}: no differences are given")
        elif not (
            np.array_equal(run.labels_N, first.labels_N) and np.array_equal(run.weights_N, first.weights_N)
        ):
            notes.append(f"{run.name} was tested on other jets than {first.name}: no differences are given")
    return not notes, notes


def _replicas(
    runs: Sequence[Predictions], results: Sequence[Result], settings: EvaluationSection
) -> dict[str, dict[str, Floats]]:
    """Values of each figure of each run in the shared replicas, (R,)."""
    replicas: dict[str, dict[str, Floats]] = {}
    for group in _equal_weights(runs):
        statistics = [
            (runs[k].name, names, statistic)
            for k in group
            for names, statistic in _statistics(runs[k], results[k], settings)
        ]
        if not statistics:
            continue
        values = metrics.bootstrap(
            [statistic for _, _, statistic in statistics],
            runs[group[0]].weights_N,
            replicas=settings.bootstrap,
            seed=settings.seed,
        )
        for (run, names, _), columns_R in zip(statistics, values, strict=True):
            named = {name: columns_R[:, column] for column, name in enumerate(names) if name}
            replicas.setdefault(run, {}).update(named)
    return replicas


def _equal_weights(runs: Sequence[Predictions]) -> list[list[int]]:
    """Runs that can be resampled in one go, since their jets have the same weights."""
    groups: list[list[int]] = []
    for k, run in enumerate(runs):
        for group in groups:
            if np.array_equal(runs[group[0]].weights_N, run.weights_N):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def _statistics(
    run: Predictions, result: Result, settings: EvaluationSection
) -> list[tuple[list[str], Statistic]]:
    """Names of the columns (empty: not kept) with what computes them."""
    wanted = settings.signal_efficiencies
    p_NC = None if run.decomposition is None else run.decomposition.probabilities_NC
    statistics: list[tuple[list[str], Statistic]] = []
    two = len(run.classes) == 2 or p_NC is None
    for number, pair in enumerate(result.pairs):
        indices = Pair(run.classes.index(pair.signal), run.classes.index(pair.background))
        scores_N = run.scores_N if p_NC is None else log_odds(p_NC, indices)
        assert scores_N is not None
        names = [f"{LOG_REJECTION} {pair.name} {wish:g}" for wish in wanted]
        ranking = rank_pair(np.asarray(scores_N, np.float64), run, indices)
        first = "auc" if two and number == 0 else ""
        statistics.append(([first, *names], metrics.ranking_statistic(ranking, wanted)))
    if p_NC is not None:
        if not two:
            statistics.append((["auc"], metrics.macro_statistic(rankings_against_rest(p_NC, run))))
        statistics.extend(_probability_statistics(p_NC, run, settings.calibration_bins))
    return statistics


def _probability_statistics(p_NC: Floats, run: Predictions, bins: int) -> list[tuple[list[str], Statistic]]:
    true_N = np.take_along_axis(p_NC, run.labels_N[:, None], 1)[:, 0]
    squares_N = (p_NC**2).sum(1) - 2 * true_N + 1
    return [
        (["accuracy"], metrics.mean_statistic(p_NC.argmax(-1) == run.labels_N)),
        (["nll"], metrics.mean_statistic(-np.log(np.clip(true_N, np.finfo(np.float64).eps, 1.0)))),
        (["brier"], metrics.mean_statistic(squares_N)),
        (["ece"], metrics.ece_statistic(p_NC, run.labels_N, bins)),
    ]


def _difference(
    unit: _Unit, reference: _Unit, results: Sequence[Result], replicas: Mapping[str, Mapping[str, Floats]]
) -> Difference:
    values = {result.name: figures_of(result) for result in results}
    shared = [
        figure
        for figure in values[unit.runs[0]]
        if all(figure in values[run] for run in (*unit.runs, *reference.runs))
    ]
    figures, seed_errors = {}, {}
    for figure in shared:
        sides = [np.array([values[run][figure] for run in one.runs]) for one in (unit, reference)]
        means_R = [np.mean([replicas[run][figure] for run in one.runs], axis=0) for one in (unit, reference)]
        error = float(spread(means_R[0] - means_R[1]))
        figures[figure] = Measurement(float(sides[0].mean() - sides[1].mean()), error)
        if max(len(side) for side in sides) > 1:
            several = [side for side in sides if len(side) > 1]
            seed_errors[figure] = float(np.sqrt(sum(side.var(ddof=1) / len(side) for side in several)))
    plain = {name: one for name, one in figures.items() if not name.startswith(LOG_REJECTION)}
    return Difference(unit.name, reference.name, plain, _by_pair(figures), seed_errors)


def _by_pair(figures: Mapping[str, Measurement]) -> dict[str, dict[float, Measurement]]:
    nested: dict[str, dict[float, Measurement]] = {}
    for name, measurement in figures.items():
        if name.startswith(LOG_REJECTION):
            pair, wanted = name.removeprefix(LOG_REJECTION).strip().rsplit(" ", 1)
            nested.setdefault(pair, {})[float(wanted)] = measurement
    return nested


def _seed_spread(unit: _Unit, results: Sequence[Result]) -> SeedSpread:
    values = [figures_of(result) | _of_targets(result) for result in results if result.name in unit.runs]
    figures = {}
    for name in values[0]:
        if all(name in one for one in values):
            column = np.array([one[name] for one in values], np.float64)
            is_log = name.startswith(LOG_REJECTION)
            figures[name.replace(LOG_REJECTION, "rejection")] = np.exp(column) if is_log else column
    return SeedSpread(unit.name, unit.runs, figures)
