"""`jettagger inspect`: looks at everything that a config names, and finds what is wrong before any training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.columns import Columns
from jettagger.data.sample_schema import Samples, SampleSection
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError, unknown_name
from jettagger.expressions import parse
from jettagger.inspection.comparison import Comparison, compare
from jettagger.inspection.correlations import Correlation, correlation
from jettagger.inspection.findings import Finding, Findings
from jettagger.inspection.inputs import Variable, judge_branches, judge_variables, variables
from jettagger.inspection.judgement import judge_layout, judge_overlaps, judge_yields, roles_of
from jettagger.inspection.kept import Kept
from jettagger.inspection.overlaps import Overlaps, overlaps
from jettagger.inspection.reading import Walk
from jettagger.inspection.spectra import Spectrum, jet_values, joined, particle_values, spectra
from jettagger.inspection.statistics import Summary
from jettagger.inspection.survey import Survey, SurveyedFile
from jettagger.inspection.targets import Target, judge_targets, target_spectra, targets
from jettagger.inspection.terms import Term, class_names
from jettagger.inspection.training_weights import Weighting, weighting
from jettagger.inspection.yields import CutFlow, Yield

JETS = 100_000
"""Jets of each sample that figures and correlations are made of, unless set otherwise."""


@dataclass(frozen=True)
class Used:
    """What figures, correlations and comparisons look at of a sample: a random part of its selected jets."""

    role: str
    sample: str
    selected: int
    jets: int
    """For jet-level variables."""
    particle_jets: int
    """For particles."""


@dataclass(frozen=True)
class Inspection:
    """Everything that was found."""

    name: str
    cuts: tuple[str, ...]
    """The parts of data.selection."""
    findings: tuple[Finding, ...]
    files: tuple[CutFlow, ...]
    yields: tuple[Yield, ...]
    used: tuple[Used, ...]
    variables: tuple[Variable, ...]
    """Inputs and spectators over all selected jets with labels."""
    targets: tuple[Target, ...]
    branches: tuple[Summary, ...]
    """What is read, over all jets."""
    overlaps: Overlaps
    spectra: tuple[Spectrum, ...]
    """Of the training jets, by class."""
    correlations: dict[str, Correlation]
    """Of the training jets, by class."""
    weights: Weighting | None
    """None without training jets."""
    comparisons: tuple[Comparison, ...]

    @property
    def status(self) -> int:
        """2 where something would stop a training, else 0."""
        return 2 if any(finding.severity == "error" for finding in self.findings) else 0


def inspect(
    config: DataConfig,
    section: BaselinesSection,
    *,
    name: str,
    against: Sequence[str] = (),
    reference: str | None = None,
    jets: int = JETS,
    say: Callable[[str], None] = print,
) -> Inspection:
    """Reads all files of `config` and those of `against` (`NAME=FILES`), and collects every fault.

    `reference` is the training sample that `against` is compared with; default: all of them.
    Raises JettaggerError only for arguments that make no sense: what is wrong with the data is found.
    """
    others = _against(against)
    if reference is not None and reference not in config.data.train:
        raise unknown_name("sample", reference, config.data.train, where="--reference")
    findings = Findings()
    columns = _columns(config, section)
    terms = [
        Term(key, parse(text, where=key), "number")
        for key, text in {**baselines.expressions(section), **splits.columns(config)}.items()
    ]
    survey = Survey(config, columns, terms, findings)
    roles = roles_of(config) | ({"against": others} if others else {})
    files = [file for role, samples in roles.items() for file in survey.samples(role, samples)]
    walk = Walk(config, columns, findings, jets)
    flows = [_read(walk, file, number, len(files), say) for number, file in enumerate(files, 1)]
    return _result(config, name, walk, flows, findings, reference, say)


def _read(walk: Walk, file: SurveyedFile, number: int, files: int, say: Callable[[str], None]) -> CutFlow:
    flow = walk.file(file)
    say(f"{number}/{files} {file.path}: {flow.read} jets read, {flow.selected} selected")
    return flow


def _result(
    config: DataConfig,
    name: str,
    walk: Walk,
    flows: list[CutFlow],
    findings: Findings,
    reference: str | None,
    say: Callable[[str], None],
) -> Inspection:
    kept = walk.kept()
    training = [one for one in kept if one.role == "train"]
    found = variables(config, walk.variables.summaries(), training)
    twice = overlaps(walk.marks(), has_events=_has_events(config, walk))
    yields = walk.yields.yields()
    judge_variables(config, found, findings)
    judge_branches(config, walk.branches, findings)
    judge_yields(config, flows, yields, findings)
    judge_overlaps(config, twice, findings)
    judge_layout(config, walk.branches.summaries(), findings)
    by_class = _by_class(config, training)
    regressed = targets(config, walk.targets, by_class)
    judge_targets(regressed, findings)
    return Inspection(
        name=name,
        cuts=walk.cuts,
        weights=_weights(config, training, findings),
        comparisons=tuple(_comparisons(training, kept, reference, say)),
        findings=tuple(findings),
        files=tuple(flows),
        yields=yields,
        used=tuple(Used(k.role, k.sample, k.read, k.jets, k.particle_jets) for k in kept),
        variables=tuple(found),
        targets=tuple(regressed),
        branches=walk.branches.summaries(),
        overlaps=twice,
        spectra=tuple(_spectra(by_class)),
        correlations={
            label: correlation(
                parts[0].names,
                np.concatenate([one.values_JV for one in parts]),
                np.concatenate([one.weights_J for one in parts]),
            )
            for label, parts in by_class.items()
        },
    )


def _against(given: Sequence[str]) -> Samples:
    samples: dict[str, list[str]] = {}
    for text in given:
        name, equals, files = text.partition("=")
        if not equals or not name.isidentifier() or not files:
            raise JettaggerError(
                f"--against {text}: NAME=FILES is expected, such as data=ntuples/data_*.root"
            )
        samples.setdefault(name, []).append(files)
    return {name: SampleSection(files=files) for name, files in samples.items()}


def _columns(config: DataConfig, section: BaselinesSection) -> dict[str, Columns]:
    """What the files of each role are read for: the same as for a training."""
    of_baselines = baselines.expressions(section)
    others = Columns(config, of_baselines)
    return {
        "train": Columns(config, {**of_baselines, **splits.columns(config)}),
        "validation": others,
        "test": others,
        "against": Columns(config),
    }


def _has_events(config: DataConfig, walk: Walk) -> bool:
    """Whether a branch tells the events apart; it is read where there is one."""
    known = {summary.name for summary in walk.branches.summaries()}
    return (config.data.group_by or "event_number") in known


def _by_class(config: DataConfig, training: Sequence[Kept]) -> dict[str, list[Kept]]:
    """The kept training jets of each class; a sample counts as much as the jets that it was drawn from."""
    found: dict[str, list[Kept]] = {}
    for number, name in enumerate(class_names(config)):
        for kept in training:
            rows = np.flatnonzero((kept.labels_J == number) & (kept.side_J == 0))
            if len(rows):
                found.setdefault(name, []).append(_some(kept, rows))
    return found


def _some(kept: Kept, rows_J: NDArray[np.int64]) -> Kept:
    new_J = np.full(kept.jets, -1)
    new_J[rows_J] = np.arange(len(rows_J))
    particles = tuple(
        p._replace(values_NF=p.values_NF[new_J[p.jet_N] >= 0], jet_N=new_J[p.jet_N][new_J[p.jet_N] >= 0])
        for p in kept.particles
    )
    return kept._replace(
        values_JV=kept.values_JV[rows_J],
        labels_J=kept.labels_J[rows_J],
        weights_J=kept.weights_J[rows_J] * (kept.read / kept.jets),
        group_J=kept.group_J[rows_J],
        side_J=kept.side_J[rows_J],
        targets={name: values_J[rows_J] for name, values_J in kept.targets.items()},
        particles=particles,
        particle_jets=int((rows_J < kept.particle_jets).sum()),
    )


def _spectra(by_class: Mapping[str, Sequence[Kept]]) -> list[Spectrum]:
    found = []
    for level, take in (("jet", jet_values), ("particle", particle_values)):
        values = {
            name: joined([take(k, np.arange(k.jets)) for k in parts]) for name, parts in by_class.items()
        }
        found += spectra(values, level)
    return found + target_spectra(by_class)


def _weights(config: DataConfig, training: Sequence[Kept], findings: Findings) -> Weighting | None:
    if not any((kept.side_J == 0).any() for kept in training):
        return None
    try:
        found = weighting(config, training)
    except JettaggerError as error:
        findings.error(error, where="weights.training")
        return None
    for note in found.notes:
        findings.add("warning", "weights.training", note)
    return found


def _comparisons(
    training: Sequence[Kept], kept: Sequence[Kept], reference: str | None, say: Callable[[str], None]
) -> list[Comparison]:
    """Each sample of `against` with the training samples."""
    first = [one for one in training if reference in (None, one.sample)]
    others = [one for one in kept if one.role == "against"]
    if not first or not others:
        return []
    name = reference or "training samples"
    found = []
    for other in others:
        say(f"comparing {other.sample} with {name}")
        found.append(compare(name, first, other.sample, [other]))
    return found
