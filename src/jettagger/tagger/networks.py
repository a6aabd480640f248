"""What networks say of batches of jets, together or each by itself.

Shapes: J jets, M members, K output columns, C classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jettagger.batch import Inputs
from jettagger.models.parts.model import JetModel
from jettagger.uncertainty.decomposition import Accumulator, Decomposition
from jettagger.uncertainty.ensemble import estimates_of, probabilities_of, raw_outputs
from jettagger.uncertainty.mc_dropout import pass_outputs
from jettagger.uncertainty.regression import TargetAccumulator, TargetPrediction, joined, nothing


class Network(NamedTuple):
    """Which training a network comes from."""

    member: int
    fold: int | None = None
    """The fold that it has not seen; None without folds."""

    @property
    def name(self) -> str:
        """`member_0`, or `fold_2/member_0`: as in the run's folder and in front of its weights."""
        return f"member_{self.member}" if self.fold is None else f"fold_{self.fold}/member_{self.member}"

    @property
    def words(self) -> str:
        """`member 1`, or `fold 2, member 1`."""
        return f"member {self.member}" if self.fold is None else f"fold {self.fold}, member {self.member}"


class Scores(NamedTuple):
    """What a tagger says of J jets, one entry a jet."""

    decomposition: Decomposition
    members_MJC: NDArray[np.float32] | None
    """Each member's probabilities; None for MC dropout. With folds, the M-th network of the jet's own fold."""
    targets: Mapping[str, TargetPrediction] = {}
    """What is said of each regression target."""


def scores_of(
    networks: Sequence[JetModel],
    batches: Iterable[Inputs],
    device: torch.device,
    *,
    mc_dropout: int = 0,
    seed: int = 0,
) -> Scores:
    """Scores of batches of raw inputs, in their order, by all of the networks."""
    decompositions: list[Decomposition] = []
    members: list[NDArray[np.float32]] = []
    outputs = networks[0].outputs
    targets: dict[str, list[TargetPrediction]] = {one.name: [] for one in outputs.targets}
    for inputs in batches:
        inputs = inputs.to(device)
        accumulator = Accumulator()
        regression = {one.name: TargetAccumulator(one) for one in outputs.targets}
        if mc_dropout:
            _add_passes(accumulator, regression, networks, inputs, mc_dropout, seed)
        else:
            raw = [raw_outputs(model, inputs) for model in networks]
            # In float64: in float32 all confident jets would tie at 1.
            probabilities_MBC = np.stack(
                [probabilities_of(x, model.outputs) for x, model in zip(raw, networks, strict=True)]
            )
            accumulator.add_many(probabilities_MBC)
            members.append(probabilities_MBC.astype(np.float32))
            for raw_BK, model in zip(raw, networks, strict=True):
                _add_estimates(regression, raw_BK, model)
        decompositions.append(accumulator.result())
        for name, one in regression.items():
            targets[name].append(one.result())
    if not decompositions:
        return _nothing(networks, mc_dropout)
    return Scores(
        _one_after_the_other(decompositions),
        np.concatenate(members, axis=1) if members else None,
        {name: joined(parts) for name, parts in targets.items()},
    )


def put_back(parts: Sequence[Scores], rows: Sequence[NDArray[np.int64]]) -> Scores:
    """Scores of jets that were scored in several parts, in the order of the jets."""
    back_J = np.argsort(np.concatenate(rows), kind="stable")
    whole = _one_after_the_other([part.decomposition for part in parts])
    ordered = {name: values[back_J] for name, values in whole._asdict().items() if name != "samples"}
    # A fold may lack a member that failed: its spread is that of the others.
    fewest = min(part.decomposition.samples for part in parts)
    members = [part.members_MJC[:fewest] for part in parts if part.members_MJC is not None]
    return Scores(
        Decomposition(**ordered, samples=fewest),
        np.concatenate(members, axis=1)[:, back_J] if members else None,
        {name: joined([part.targets[name] for part in parts]).at(back_J) for name in parts[0].targets},
    )


def _add_passes(
    accumulator: Accumulator,
    regression: Mapping[str, TargetAccumulator],
    networks: Sequence[JetModel],
    inputs: Inputs,
    passes: int,
    seed: int,
) -> None:
    for number, model in enumerate(networks):
        for raw_BK in pass_outputs(model, inputs, passes, seed + number):
            accumulator.add(probabilities_of(raw_BK, model.outputs))
            _add_estimates(regression, raw_BK, model)


def _add_estimates(
    regression: Mapping[str, TargetAccumulator], raw_BK: torch.Tensor, model: JetModel
) -> None:
    for name, estimate in estimates_of(raw_BK, model).items():
        regression[name].add(estimate)


def _nothing(networks: Sequence[JetModel], mc_dropout: int) -> Scores:
    outputs = networks[0].outputs
    empty_JC, empty_J = np.empty((0, len(outputs.classes))), np.empty(0)
    samples = len(networks) * max(mc_dropout, 1)
    targets = {one.name: nothing(one, samples) for one in outputs.targets}
    return Scores(Decomposition(empty_JC, empty_JC, empty_J, empty_J, empty_J, samples), None, targets)


def _one_after_the_other(parts: Sequence[Decomposition]) -> Decomposition:
    """The decompositions of batches as that of all their jets."""

    def joined(field: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, field) for part in parts])

    return Decomposition(
        probabilities_NC=joined("probabilities_NC"),
        std_NC=joined("std_NC"),
        total_entropy_N=joined("total_entropy_N"),
        expected_entropy_N=joined("expected_entropy_N"),
        mutual_information_N=joined("mutual_information_N"),
        samples=parts[0].samples,
    )
