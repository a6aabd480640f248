"""What yields, overlaps and the layout say is wrong: classes without jets, jets that leak, units, links."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from jettagger.data.input_schema import CollectionSection
from jettagger.data.sample_schema import Samples
from jettagger.data.schema import DataConfig
from jettagger.data.units import is_energy
from jettagger.inspection.findings import Findings
from jettagger.inspection.overlaps import Overlaps
from jettagger.inspection.statistics import Summary
from jettagger.inspection.yields import CutFlow, Yield

TOO_LARGE = 14_000.0
"""GeV: no mean energy of particles or jets is above the energy of the LHC's protons together."""


def roles_of(config: DataConfig) -> dict[str, Samples]:
    """The samples of each side that has some of its own."""
    sides = {"train": config.data.train, "validation": config.data.validation, "test": config.data.test}
    return {role: samples for role, samples in sides.items() if isinstance(samples, dict) and samples}


def judge_yields(
    config: DataConfig, flows: Sequence[CutFlow], yields: Sequence[Yield], findings: Findings
) -> None:
    """A class with no jets, a selection that leaves nothing."""
    for flow in flows:
        if flow.read and flow.complete and not flow.selected:
            said = f"data.selection leaves none of {flow.read} jets"
            findings.add("warning", "data.selection", said, file=flow.file)
    for role, sample in dict.fromkeys((flow.role, flow.sample) for flow in flows):
        mine = [flow for flow in flows if (flow.role, flow.sample) == (role, sample)]
        if config.data.on_error == "skip" and not any(flow.complete for flow in mine):
            said = f"data.on_error: skip leaves none of {len(mine)} files"
            findings.add("error", f"data.{role}.{sample}", said)
    for role in roles_of(config):
        mine = [flow for flow in flows if flow.role == role]
        read, selected = sum(f.read for f in mine), sum(f.selected for f in mine)
        if read and not selected:
            said = f"leaves none of {read} jets of data.{role}"
            findings.add("error", "data.selection", f"'{config.data.selection}' {said}")
    sides = {one.side for one in yields if one.name == "all" and one.jets}
    if any(flow.role == "train" and flow.selected for flow in flows):
        for side in ("train", "validation", "test"):
            asked = side == "train" or isinstance(getattr(config.data, side), float | str)
            if asked and side not in sides:
                findings.add("error", f"data.{side}", "no selected jet of data.train is on this side")
    for one in yields:
        if (one.name == "all") == bool(config.classes):
            continue
        if config.classes and one.side in sides and not one.jets:
            findings.add("error", f"classes.{one.name}", f"no selected jet of '{one.side}' belongs to it")
        elif one.sum_of_weights <= 0:
            where = f"classes.{one.name}" if config.classes else "weights.event"
            findings.add("error", where, f"event weights of '{one.side}' sum to {one.sum_of_weights:g}")


def judge_overlaps(config: DataConfig, found: Overlaps, findings: Findings) -> None:
    """Jets that stand twice, jets and events on two sides."""
    for one in found.repeats:
        if one.repeated:
            event = "" if one.same_event is None else f", {one.same_event} of them with the same event number"
            said = f"{one.repeated} of {one.jets} jets are equal to an earlier one of '{one.side}'{event}"
            findings.add("warning", "data", said)
    for leak in found.leaks:
        if leak.jets:
            event = (
                "" if leak.same_event is None else f", {leak.same_event} of them with the same event number"
            )
            said = f"{leak.jets} jets of '{leak.second}' are equal to one of '{leak.first}'{event}: they leak"
            findings.add("warning", "data", said)
        split = isinstance(config.data.validation, str) or isinstance(config.data.test, str)
        if (
            leak.events
            and leak.first == "train"
            and split
            and not isinstance(getattr(config.data, leak.second), dict)
        ):
            said = f"{leak.events} event numbers are on both sides, '{leak.first}' and '{leak.second}'"
            findings.add("error", f"data.{leak.second}", said)


def judge_layout(config: DataConfig, branches: Sequence[Summary], findings: Findings) -> None:
    """Energies that cannot be in GeV; jets that each see all particles of their event."""
    # Sentinels such as 1e32 have findings of their own.
    plain = (x for x in branches if is_energy(x.name) and not x.sentinels)
    energies = {x.name: x.mean for x in plain if x.mean > TOO_LARGE}
    if energies and config.data.units == "GeV":
        name = max(energies, key=energies.__getitem__)
        said = f"the mean of '{name}' is {energies[name]:.3g}, which is too much for GeV"
        more = f" (and {len(energies) - 1} other branches)" if len(energies) > 1 else ""
        findings.add("warning", "data.units", said + more, advice="units: MeV")
    if config.data.jets is None:
        return
    for name, section in config.inputs.items():
        if isinstance(section, CollectionSection) and section.index is None:
            prefix = section.from_.rstrip("*")
            if not fnmatchcase(prefix, config.data.jets) and not fnmatchcase(f"{prefix}x", config.data.jets):
                said = f"without an index each jet sees all of '{section.from_}' in its event"
                findings.add(
                    "warning", f"inputs.{name}", said, advice="index: {jet: …, particle: …}  # docs/layout.md"
                )
