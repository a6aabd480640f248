"""What is suspicious about variables and branches, in words, with the line of the config that helps.

Shapes: R rows (jets or particles).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.input_schema import FeatureSection, Normalisation
from jettagger.data.schema import DataConfig
from jettagger.expressions import parse
from jettagger.inspection.findings import Findings
from jettagger.inspection.kept import Kept
from jettagger.inspection.statistics import Statistics, Summary

Floats = NDArray[np.float64]
QUANTILES = (0.001, 0.01, 0.16, 0.5, 0.84, 0.99, 0.999)
MANY_MISSING = 0.05
"""Fraction of values that are missing above which there is a warning."""
MANY_CLIPPED = 0.05
SPIKE = 0.005
"""Fraction of values at the smallest or largest above which these may be a sentinel."""
GAP = 5.0
"""Distance of such a value to all others, in half-widths of the central 68 %."""


class Treated(NamedTuple):
    """What the first layer of the network makes of an input."""

    shift: float
    scale: float
    clipped: float
    """Fraction of the finite values that `clip` cuts."""


class Variable(NamedTuple):
    """An input, a spectator or a target."""

    summary: Summary
    quantiles: dict[str, float]
    """Of the kept training jets, finite values, unweighted."""
    treated: Treated | None
    """None for spectators and targets."""


def variables(config: DataConfig, summaries: Sequence[Summary], training: Sequence[Kept]) -> list[Variable]:
    """Each variable with its quantiles and its treatment."""
    sections = _sections(config)
    found = []
    for summary in summaries:
        values_R = _values(summary.name, training)
        section = sections.get(summary.name)
        found.append(Variable(summary, quantiles(values_R), _treated(section, values_R) if section else None))
    return found


def quantiles(values_R: Floats) -> dict[str, float]:
    """Of finite values, by the fraction that lies below; NaN without any."""
    found = np.quantile(values_R, QUANTILES) if len(values_R) else np.full(len(QUANTILES), np.nan)
    return {f"{q:g}": float(x) for q, x in zip(QUANTILES, found, strict=True)}


def judge_variables(config: DataConfig, found: Sequence[Variable], findings: Findings) -> None:
    """Warns of what is constant, missing, clipped or no number."""
    sections = _sections(config)
    for variable in found:
        name = variable.summary.name
        if name in sections:
            key = f"inputs.{name.replace('.', '.features.', 1)}"
            _judge(key, variable.summary, findings, value=str(sections[name].value), is_input=True)
            if variable.treated is not None and variable.treated.clipped > MANY_CLIPPED:
                said = f"clip {sections[name].clip} cuts {variable.treated.clipped:.1%} of the values"
                findings.add("warning", key, said, advice="clip: [-10, 10]  # or another normalise")
        else:
            _judge(f"spectators: {name}", variable.summary, findings, value=name, is_input=False)


def judge_branches(config: DataConfig, statistics: Statistics, findings: Findings) -> None:
    """Warns of sentinels and constants among the branches themselves."""
    for summary in statistics.summaries():
        where = f"branch {summary.name}"
        if summary.constant and summary.values - summary.nan - summary.infinite > 1:
            findings.add("warning", where, f"is {summary.minimum:g} wherever it has a value")
        for sentinel, count in summary.sentinels.items():
            if is_sentinel(summary, float(sentinel)):
                findings.add(
                    "warning",
                    where,
                    share(count, summary, f"equal {sentinel}"),
                    advice=_advice(config, summary.name, sentinel),
                )
        if summary.large and not summary.whole:
            said = share(summary.large, summary, f"are beyond 10^6 (up to {_extreme(summary):g})")
            findings.add("warning", where, said)
        _judge_spikes(config, summary, statistics.few(summary.name), where, findings)


def _judge(key: str, summary: Summary, findings: Findings, *, value: str, is_input: bool) -> None:
    known = summary.values - summary.nan - summary.infinite
    if summary.values and not known:
        findings.add("warning", key, f"every value of '{value}' is missing (NaN, infinite or a sentinel)")
    elif summary.constant and known > 1:
        tail = ": a network learns nothing from it" if is_input else ""
        findings.add("warning", key, f"'{value}' is {summary.minimum:g} for every jet or particle{tail}")
    lost = (summary.nan + summary.infinite) / summary.values if summary.values else 0.0
    if known and lost > MANY_MISSING:
        said = f"{lost:.1%} of the values are missing ({summary.nan} NaN or sentinels, {summary.infinite} infinite)"
        findings.add("warning", key, said, advice="missing: <value>  # default: what the network sees as 0")
    if is_input and summary.large:
        findings.add(
            "warning", key, share(summary.large, summary, f"are beyond 10^6 (up to {_extreme(summary):g})")
        )
    for sentinel, count in summary.sentinels.items() if is_input else ():
        if is_sentinel(summary, float(sentinel)):
            said = share(count, summary, f"equal {sentinel}")
            findings.add("warning", key, said, advice=f"sentinels: [{sentinel}]")


def is_sentinel(summary: Summary, sentinel: float) -> bool:
    """Round numbers within a continuous range are no sentinels; the smallest or largest value may be one."""
    return (
        sentinel in (summary.minimum, summary.maximum)
        or abs(sentinel) >= 1e10
        or (np.float32(sentinel) in (np.float32(summary.minimum), np.float32(summary.maximum)))
    )


def _judge_spikes(
    config: DataConfig, summary: Summary, sample: Floats, where: str, findings: Findings
) -> None:
    if len(sample) < 100 or summary.constant:
        return
    for value, count, others in (
        (summary.minimum, summary.at_minimum, sample[sample > summary.minimum]),
        (summary.maximum, summary.at_maximum, sample[sample < summary.maximum]),
    ):
        known = summary.values - summary.nan - summary.infinite
        if (
            count < max(SPIKE * known, 10)
            or f"{value:g}" in summary.sentinels
            or not len(np.unique(others)) > 25
        ):
            continue
        nearest = float(np.abs(others - value).min())
        low, high = np.quantile(others, [0.16, 0.84])
        if high > low and nearest > GAP * (high - low) / 2:
            said = f"{share(count, summary, f'equal {value:g}')}, far from all others: a sentinel?"
            findings.add("warning", where, said, advice=_advice(config, summary.name, f"{value:g}"))


def share(count: int, summary: Summary, words: str) -> str:
    """`30 of 300 values (10.00%) equal -999`."""
    return f"{count} of {summary.values} values ({count / max(summary.values, 1):.2%}) {words}"


def _extreme(summary: Summary) -> float:
    return max(summary.minimum, summary.maximum, key=abs)


def _advice(config: DataConfig, branch: str, sentinel: str) -> str:
    """The line for the first input that is made of a branch."""
    define = {name: parse(text).names for name, text in config.define.items()}
    for name, section in _sections(config).items():
        expression = parse(section.value)
        used = set(expression.names)
        while more := set().union(*(define[n] for n in used if n in define)) - used:
            used |= more
        if float(sentinel) in section.sentinels:
            continue
        if expression.text == branch:
            return (
                f"inputs.{name.replace('.', '.features.', 1)}: {{value: {branch}, sentinels: [{sentinel}]}}"
            )
        if branch in used:
            value = f'"where({branch} == {sentinel}, nan, {expression.text})"'
            return f"inputs.{name.replace('.', '.features.', 1)}: {{value: {value}}}"
    return ""


def _sections(config: DataConfig) -> dict[str, FeatureSection]:
    """The inputs by <input>.<feature>."""
    return {
        f"{name}.{feature}": given if isinstance(given, FeatureSection) else FeatureSection(value=given)
        for name, section in config.inputs.items()
        for feature, given in section.features.items()
    }


def _values(name: str, training: Sequence[Kept]) -> Floats:
    """Finite values of a variable among the kept training jets."""
    parts = []
    for kept in training:
        if name in kept.names:
            parts.append(kept.values_JV[kept.side_J == 0, kept.names.index(name)])
        for particles in kept.particles:
            if name in particles.names:
                wanted_N = kept.side_J[particles.jet_N] == 0
                parts.append(particles.values_NF[wanted_N, particles.names.index(name)])
    values_R = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    return values_R[np.isfinite(values_R)]


def _treated(section: FeatureSection, values_R: Floats) -> Treated:
    from jettagger.models.parts.normalisation import measure

    if isinstance(section.normalise, Normalisation):
        shift, scale = section.normalise.shift, section.normalise.scale
    elif section.normalise == "auto":
        shift, scale = measure(values_R)
    else:
        shift, scale = 0.0, 1.0
    if section.clip is None or not len(values_R):
        return Treated(shift, scale, 0.0)
    low, high = section.clip
    scaled_R = (values_R - shift) / scale
    return Treated(shift, scale, float(((scaled_R < low) | (scaled_R > high)).mean()))
