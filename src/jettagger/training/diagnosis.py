"""Why a loss became NaN or infinite: which batch, which jets, which features, and what to try.

Shapes: B jets, N particles, F features, C classes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jettagger.batch import Batch, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.model import JetModel
from jettagger.training.device import Hardware
from jettagger.training.objective import Objective
from jettagger.training.schema import TrainingSection

EXTREME = 1000.0
"""Distance from the batch's median, in half-widths of its central 68 %, beyond which a value is named."""

LARGE = 1.0e10
"""Size beyond which a value is named although its neighbours are as large: its square overflows soon."""

SHOWN = 3

Losses = Callable[[Inputs], Tensor]
"""Inputs to the loss of each jet, (B,)."""

Healthy = Callable[[Inputs], bool]
"""Whether loss and gradient are finite."""


class NotFiniteError(JettaggerError):
    """A training that came to its end because its loss or gradient became NaN or infinite."""

    step: int | None = None
    """Steps done before, where it is known."""


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
    holders: Tensor
    """(B,) bool: the jets that hold them."""
    severity: float
    """Infinite for values that are not finite, else the distance from the median in widths."""
    usual: float
    """The batch's median."""


def not_finite(
    model: JetModel,
    batch: Batch,
    hardware: Hardware,
    section: TrainingSection,
    objective: Objective,
    where: str,
    facts: list[str],
) -> NotFiniteError:
    """The error for a batch whose loss or gradient is NaN or infinite. `model` is as it was at that step."""
    head = f"the loss or its gradient is not finite in {where}: {', '.join(facts)}"
    lost = [name for name, x in model.named_parameters() if not torch.isfinite(x).all()]
    if lost:
        lines = [f"{len(lost)} weights of the network are no longer finite, the first is {lost[0]}"]
        lines += describe(rank_suspects(batch.inputs, model.inputs), batch)
    else:
        lines = diagnose(batch, *_probes(model, batch, hardware, objective), model.inputs)
    smaller = f"optimiser.lr ({section.optimiser.lr:.3g} is highest now)"
    clip = (
        "gradient_clip: 1.0"
        if section.gradient_clip is None
        else f"gradient_clip below {section.gradient_clip}"
    )
    precision = ", precision: float32" if hardware.precision != "float32" else ""
    advice = (
        "try for such features a clip or another expression (a log, a tanh); under training: a smaller"
        f" {smaller}, {clip}{precision}. What was saved is from before this step"
    )
    return NotFiniteError("\n  ".join([head, *lines, advice]))


def _probes(
    model: JetModel, batch: Batch, hardware: Hardware, objective: Objective
) -> tuple[Losses, Healthy]:
    def weighted_losses(inputs: Inputs) -> Tensor:
        with hardware.autocast():
            raw_BK = model(inputs)
        return batch.weights_B * objective.losses(raw_BK, batch.truth)

    def healthy(inputs: Inputs) -> bool:
        loss = weighted_losses(inputs).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        known = [loss, *(x for x in gradients if x is not None)]
        return all(bool(torch.isfinite(x).all()) for x in known)

    return lambda inputs: weighted_losses(inputs).detach(), healthy


def diagnose(batch: Batch, losses: Losses, healthy: Healthy, spec: InputSpec) -> list[str]:
    """Phrases on the jets and features at fault, for a network whose own weights are finite."""
    suspects = rank_suspects(batch.inputs, spec)
    lines = [_jets(batch, ~torch.isfinite(losses(batch.inputs)))]
    guilty = _guilty(batch.inputs, healthy, suspects)
    if guilty:
        names = " and ".join(suspect.name for suspect in guilty)
        lines.append(f"loss and gradient are finite once {names} is replaced by the batch's median")
    lines += describe(guilty or suspects, batch)
    bad_weights = batch.index_B[~torch.isfinite(batch.weights_B)]
    if len(bad_weights):
        lines.append(f"the weights of jets {_first(bad_weights)} are not finite: check `weights`")
    return lines


def describe(suspects: list[Suspect], batch: Batch) -> list[str]:
    """A phrase for each of the worst features."""
    if not suspects:
        return ["no feature has values that are not finite or extreme"]
    lines = [_describe(suspect, batch) for suspect in suspects[:SHOWN]]
    more = len(suspects) - SHOWN
    return lines if more <= 0 else [*lines, f"{more} more features have such values"]


def rank_suspects(inputs: Inputs, spec: InputSpec) -> list[Suspect]:
    """The features with values that are not finite or extreme, the worst first."""
    return sorted(find_suspects(inputs, spec), key=lambda suspect: -suspect.severity)


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


def _guilty(inputs: Inputs, healthy: Healthy, suspects: list[Suspect]) -> list[Suspect]:
    """The one suspect without which all is finite, else the first few that are to blame together."""
    considered = suspects[:20]
    for suspect in considered:
        if healthy(_without(inputs, suspect)):
            return [suspect]
    for count, suspect in enumerate(considered, start=1):
        inputs = _without(inputs, suspect)
        if healthy(inputs):
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
    values = f"{suspect.count} value{'s' if suspect.count > 1 else ''}"
    kind = "not finite or extreme" if math.isinf(suspect.severity) else "extreme"
    jets = _first(batch.index_B[suspect.holders])
    return (
        f"{suspect.name}: {values} {kind}, the worst {suspect.worst:.4g} where the median is"
        f" {suspect.usual:.4g} (jets {jets})"
    )


def _jets(batch: Batch, bad_B: Tensor) -> str:
    count = int(bad_B.sum())
    if count == 0:
        return "each jet's loss is finite: the gradient is not"
    return f"{count} of {len(batch)} jets have no finite loss: jets {_first(batch.index_B[bad_B])}"


def _first(index: Tensor, shown: int = 5) -> str:
    more = ", …" if len(index) > shown else ""
    return ", ".join(str(int(i)) for i in index[:shown]) + more
