"""Why a loss became NaN or infinite: which batch, which jets, which features, and what to try.

Shapes: B jets, N particles, F features, C classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jettagger.batch import Batch, Inputs, InputSpec, Packed

EXTREME = 1000.0
"""Distance from the batch's median, in half-widths of its central 68 %, beyond which a value is named."""

LARGE = 1.0e10
"""Size beyond which a value is named although its neighbours are as large: its square overflows soon."""

SHOWN = 3

Losses = Callable[[Inputs], Tensor]
"""Inputs to the loss of each jet, (B,)."""


@dataclass(frozen=True)
class Suspect:
    """A feature with values that no network takes well."""

    block: str
    """`jet` or the collection."""
    column: int
    name: str
    worst: float
    """NaN, ±inf, or the value farthest from the median."""
    count: int
    """Values that are not finite or extreme."""
    jets_B: Tensor
    """bool: the jets that hold them."""
    severity: float
    """Infinite for values that are not finite, else the distance from the median in widths."""
    usual: float
    """The batch's median."""


def diagnose(batch: Batch, losses: Losses | None, spec: InputSpec) -> list[str]:
    """Sentences on the jets and features at fault. `losses` is None when the network itself is lost."""
    suspects = sorted(find_suspects(batch.inputs, spec), key=lambda s: -s.severity)
    lines = []
    bad_B = None
    if losses is not None:
        bad_B = ~torch.isfinite(losses(batch.inputs))
        lines.append(_jets(batch, bad_B))
        guilty = _guilty(batch, losses, suspects) if bad_B.any() else []
        if guilty:
            names = " and ".join(s.name for s in guilty)
            lines.append(f"the loss is finite once {names} is replaced by the batch's median")
            suspects = guilty
    lines += [_describe(s, batch) for s in suspects[:SHOWN]]
    if len(suspects) > SHOWN:
        lines.append(f"{len(suspects) - SHOWN} more features have such values")
    if not suspects:
        lines.append("no feature has values that are not finite or extreme")
    bad_weights = batch.index_B[~torch.isfinite(batch.weights_B)]
    if len(bad_weights):
        lines.append(f"the weights of jets {_first(bad_weights)} are not finite: check weights.event")
    return [line for line in lines if line]


def find_suspects(inputs: Inputs, spec: InputSpec) -> Iterator[Suspect]:
    """Every feature with values that are not finite or extreme; padding is not looked at."""
    if inputs.jet_BF is not None:
        jets = torch.arange(len(inputs), device=inputs.jet_BF.device)
        names = [f"jet.{feature.name}" for feature in spec.jet]
        yield from _columns("jet", inputs.jet_BF, jets, names, len(inputs))
    for collection in spec.collections:
        particles = inputs.collections.get(collection.name)
        if particles is not None:
            packed = particles if isinstance(particles, Packed) else particles.packed()
            names = [f"{collection.name}.{feature.name}" for feature in collection.features]
            yield from _columns(collection.name, packed.features_NF, packed.jet_N, names, len(inputs))


def _columns(block: str, values_NF: Tensor, jet_N: Tensor, names: list[str], jets: int) -> Iterator[Suspect]:
    for column, name in enumerate(names[: values_NF.shape[1]]):
        x_N = values_NF[:, column].double()
        finite_N = torch.isfinite(x_N)
        known_N = x_N[finite_N]
        median, width = _spread(known_N)
        distance_N = torch.where(finite_N, (x_N - median).abs() / width, math.inf)
        bad_N = (distance_N > EXTREME) | (x_N.abs() > LARGE) | ~finite_N
        if bad_N.any():
            severity_N = torch.where(bad_N, distance_N, -1.0)
            at = int(severity_N.argmax())
            jets_B = torch.zeros(jets, dtype=torch.bool, device=x_N.device)
            jets_B[jet_N[bad_N]] = True
            count, severity = int(bad_N.sum()), float(severity_N[at])
            yield Suspect(block, column, name, float(x_N[at]), count, jets_B, severity, median)


def _spread(known_N: Tensor) -> tuple[float, float]:
    """Median and half-width of the central 68 %; (0, 1) where nothing is known."""
    if len(known_N) == 0:
        return 0.0, 1.0
    ordered_N = known_N.sort().values
    low, median, high = (float(ordered_N[int(q * (len(ordered_N) - 1))]) for q in (0.16, 0.5, 0.84))
    return median, (high - low) / 2 or max(abs(median), 1.0)


def _guilty(batch: Batch, losses: Losses, suspects: list[Suspect]) -> list[Suspect]:
    """The one suspect without which the loss is finite, else the first few that are to blame together."""
    considered = suspects[:20]
    for suspect in considered:
        if torch.isfinite(losses(_without(batch.inputs, suspect))).all():
            return [suspect]
    inputs = batch.inputs
    for count, suspect in enumerate(considered, start=1):
        inputs = _without(inputs, suspect)
        if torch.isfinite(losses(inputs)).all():
            return considered[:count]
    return []


def _without(inputs: Inputs, suspect: Suspect) -> Inputs:
    """The same inputs, the suspect's values replaced by its median."""

    def replaced(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., suspect.column] = suspect.usual
        return x

    if suspect.block == "jet":
        assert inputs.jet_BF is not None
        return replace(inputs, jet_BF=replaced(inputs.jet_BF))
    particles = inputs.collections[suspect.block]
    values = particles.features_NF if isinstance(particles, Packed) else particles.features_BPF
    changed = particles.with_features(replaced(values))
    return replace(inputs, collections={**inputs.collections, suspect.block: changed})


def _describe(suspect: Suspect, batch: Batch) -> str:
    jets = _first(batch.index_B[suspect.jets_B])
    ordinary = f", the median is {suspect.usual:.4g}"
    kind = "not finite or extreme" if math.isinf(suspect.severity) else "extreme"
    return f"{suspect.name}: {suspect.count} values {kind}, worst {suspect.worst:.4g}{ordinary}, jets {jets}"


def _jets(batch: Batch, bad_B: Tensor) -> str:
    count = int(bad_B.sum())
    if count == 0:
        return "each jet's loss is finite: the gradient is not"
    return f"{count} of {len(batch)} jets have no finite loss: jets {_first(batch.index_B[bad_B])}"


def _first(index: Tensor, shown: int = 5) -> str:
    more = ", …" if len(index) > shown else ""
    return ", ".join(str(int(i)) for i in index[:shown]) + more
