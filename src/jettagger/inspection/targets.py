"""What the regression targets look like, class by class, and what a training would refuse or leave out of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.columns import Columns
from jettagger.data.schema import DataConfig
from jettagger.data.values import float32, numbers
from jettagger.expressions import Namespace, parse
from jettagger.inspection.findings import Findings
from jettagger.inspection.inputs import MANY_MISSING, Variable, is_sentinel, quantiles, share
from jettagger.inspection.kept import Kept
from jettagger.inspection.spectra import Spectrum, Values, joined, spectra
from jettagger.inspection.statistics import Statistics
from jettagger.inspection.terms import class_names


class Target(NamedTuple):
    """A regression target."""

    name: str
    value: str
    """Its expression."""
    loss: str
    of_class: dict[str, Variable]
    """Over all selected jets with labels; where there are no classes, of `jets`."""


def raw_targets(
    config: DataConfig, columns: Columns, namespace: Namespace, jets: int
) -> dict[str, NDArray[np.float32]]:
    """The targets of the selected jets of a chunk, with the infinite values that a training takes for unknown."""
    if not config.targets:
        return {}
    selected_J = columns.selected(namespace, jets)
    values = numbers(
        namespace, {name: parse(one.value) for name, one in config.targets.items()}, "targets", jets
    )
    return {name: float32(values_J)[selected_J] for name, values_J in values.items()}


def targets(
    config: DataConfig, statistics: Mapping[str, Statistics], by_class: Mapping[str, Sequence[Kept]]
) -> list[Target]:
    """Each target; `statistics` are those of the classes, `by_class` the training jets that were kept of them."""
    summaries = {label: {s.name: s for s in one.summaries()} for label, one in statistics.items()}
    found = []
    for name, section in config.targets.items():
        of_class = {}
        for label in [label for label in class_names(config) if name in summaries.get(label, {})]:
            parts = [kept.targets[name] for kept in by_class.get(label, ())]
            values_J = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
            named = quantiles(values_J[np.isfinite(values_J)])
            of_class[label] = Variable(summaries[label][name], named, None)
        found.append(Target(name, str(section.value), section.loss.name, of_class))
    return found


def target_spectra(by_class: Mapping[str, Sequence[Kept]]) -> list[Spectrum]:
    """The distributions of the targets of the kept training jets."""
    values = {
        label: joined(
            [
                [Values(name, x_J.astype(np.float64), k.weights_J, None) for name, x_J in k.targets.items()]
                for k in parts
            ]
        )
        for label, parts in by_class.items()
    }
    return spectra(values, "target")


def judge_targets(found: Sequence[Target], findings: Findings) -> None:
    """Errors for targets that a training refuses; warnings of what is unknown, and of what may mean 'unknown'."""
    for target in found:
        where, summaries = f"targets.{target.name}", [v.summary for v in target.of_class.values()]
        values, unknown = sum(s.values for s in summaries), sum(s.nan + s.infinite for s in summaries)
        known = [s for s in summaries if s.values > s.nan + s.infinite]
        if not values:
            continue
        if not known:
            findings.add("error", where, f"none of {values} selected jets has a finite '{target.value}'")
            continue
        low, high = min(s.minimum for s in known), max(s.maximum for s in known)
        if low == high and values - unknown > 1:
            said = f"'{target.value}' is {low:g} for all selected jets: there is nothing to learn"
            findings.add("error", where, said)
        if unknown > MANY_MISSING * values:
            said = f"{unknown} of {values} jets ({unknown / values:.1%}) have no finite '{target.value}'"
            findings.add("warning", where, f"{said}: they do not enter this target's loss")
        for label, variable in target.of_class.items():
            for sentinel, count in variable.summary.sentinels.items():
                if low < high and is_sentinel(variable.summary, float(sentinel)):
                    said = f"{label}: {share(count, variable.summary, f'equal {sentinel}')}: not known?"
                    advice = f'value: "where({target.value} == {sentinel}, nan, {target.value})"'
                    findings.add("warning", where, said, advice=advice)
