"""Whether networks can be trained together: tried on their first batches, on copies.

Shapes: M members.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jettagger.batch import Batch
from jettagger.randomness import key
from jettagger.training.one_pass import Member, TogetherRun
from jettagger.training.optimisers import build_optimiser
from jettagger.training.state import TrainingState
from jettagger.training.tensorboard import Log
from jettagger.training.together import Unclear
from jettagger.training.training import Training

TOLERANCE = {torch.float64: 1.0e-9, torch.float32: 1.0e-3}
"""Distance of two gradients over their size, from the order of sums alone."""
COARSE = 0.1
"""The same with matrix products in bfloat16."""


class Trial(NamedTuple):
    """What came of it."""

    obstacle: str | None
    """Why the members cannot be trained together; None: they can."""
    flops: int
    """Of a forward pass of one member through its first batch, a multiplication and an addition counted as two."""
    convolutions: bool
    """Whether a part of them is in convolutions."""
    particles: bool
    """Whether the network looks at particles."""


def attempt(trainings: Sequence[Training]) -> Trial:
    """Compares the gradients of two members in one pass with those of each alone; changes nothing."""
    pair = list(trainings[:2])
    batches = [next(iter(training.train.epoch(0))) for training in pair]
    alone = [_alone(copied(training), batch) for training, batch in zip(pair, batches, strict=True)]
    counts = _operations(copied(pair[0]), batches[0])
    convolutions = any("convolution" in str(operator) for operator in counts)
    flops = int(sum(counts.values()))
    return Trial(_obstacle(pair, batches, alone), flops, convolutions, bool(pair[0].model.inputs.collections))


def _obstacle(pair: Sequence[Training], batches: Sequence[Batch], alone: Sequence[Tensor]) -> str | None:
    if len({len(batch) for batch in batches}) > 1:
        return "members have different numbers of jets"
    run = TogetherRun([copied(training) for training in pair])
    try:
        run.meet(batches[0])
        run.losses(run.prepared(batches))[2].sum().backward()  # type: ignore[no-untyped-call]
    except (Unclear, RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        # What torch.vmap cannot do it says in many ways.
        return str(error).strip().split("\n")[0]
    for member, expected in enumerate(alone):
        parts = [p.grad[member].reshape(-1) for p in run.stack.parameters.values() if p.grad is not None]
        found = torch.cat(parts)
        limit = COARSE if run.hardware.bfloat16 else TOLERANCE.get(expected.dtype, COARSE)
        if not torch.isfinite(expected).all():
            continue  # such a member fails, alone or not
        if found.shape != expected.shape or float((found - expected).norm()) > limit * float(expected.norm()):
            return "in one pass the gradients differ from those of each network alone"
    return None


def _operations(member: Member, batch: Batch) -> dict[Any, int]:
    """Operations of a forward pass, by kind."""
    counter, model = FlopCounterMode(display=False), member.training.model.eval()
    with counter, torch.no_grad():
        model(batch.inputs.to(member.training.hardware.device))
    return dict(counter.get_flop_counts().get("Global", {}))


def copied(training: Training) -> Member:
    """The training at its first step, on copies of all that changes."""
    model = copy.deepcopy(training.model).to(training.hardware.device)
    apart = replace(training, model=model, pending=[])
    return Member(
        apart, TrainingState(model, build_optimiser(model, training.section.optimiser)), Log(Path(), False, 0)
    )


def _alone(member: Member, given: Batch) -> Tensor:
    """The gradient of a member's first step, all weights one after the other."""
    training = member.training
    run = TogetherRun([member])
    [batch] = run.prepared([given])
    run.generators[0].manual_seed(key(training.section.seed, "dropout", training.stream, 0))
    with training.hardware.autocast():
        raw_BK = training.model(batch.inputs)
    loss = training.objective(raw_BK, batch).step
    gradients = torch.autograd.grad(loss, list(training.model.parameters()), allow_unused=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients if gradient is not None])
