"""All figures of a report, in the order of the page."""

from collections.abc import Sequence

from jettagger.evaluation.results import Evaluation, Result
from jettagger.report.class_figures import calibration_drawing, confusion_drawing, scores_drawing
from jettagger.report.jet_figures import mass_drawing, pt_drawing
from jettagger.report.regression_figures import pull_drawings, residual_drawings
from jettagger.report.roc_figures import roc_drawing, significance_drawing
from jettagger.report.style import Drawing, freeze, hep_style
from jettagger.report.training_figures import training_drawing
from jettagger.report.uncertainty_figures import coverage_drawing, uncertainty_drawings

MOST_PAIRS = 6
"""With more pairs of classes than this only those against the first class are drawn."""


def draw(evaluation: Evaluation) -> list[Drawing]:
    """Every figure that the results allow."""
    results, label = evaluation.results, evaluation.settings.label
    reference = _reference_run(evaluation)
    with hep_style():
        pairs = drawn_pairs(results)
        drawings: list[Drawing | None] = []
        for pair in pairs:
            drawings.append(roc_drawing(results, pair, reference, label))
            drawings.append(significance_drawing(results, pair, label))
            drawings.append(scores_drawing(results, pair, label))
        drawings.append(confusion_drawing(results, label))
        drawings.append(calibration_drawing(results, label))
        for pair in pairs:
            drawings.append(pt_drawing(results, pair, label))
            drawings.append(mass_drawing(results, pair, label))
        drawings.extend(residual_drawings(results, label))
        drawings.extend(pull_drawings(results, label))
        drawings.append(training_drawing(results, label))
        drawings.extend(uncertainty_drawings(results, label))
        drawings.append(coverage_drawing(results, label))
        drawn = [drawing for drawing in drawings if drawing is not None]
        for drawing in drawn:
            freeze(drawing.figure)
    return drawn


def drawn_pairs(results: Sequence[Result]) -> list[str]:
    """Names of the pairs that get figures."""
    names = list(dict.fromkeys(pair.name for result in results for pair in result.pairs))
    if len(names) <= MOST_PAIRS:
        return names
    first = results[0].classes[0]
    against_first = [pair.name for pair in results[0].pairs if pair.background == first]
    return against_first or names[:MOST_PAIRS]


def _reference_run(evaluation: Evaluation) -> str:
    """The run that ratios are taken to: the reference, or the first run of a group of that name."""
    wanted = evaluation.settings.reference
    for result in evaluation.results:
        if wanted in (None, result.name, result.group):
            return result.name
    return evaluation.results[0].name
