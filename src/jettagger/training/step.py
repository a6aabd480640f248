"""One step of a training: loss, gradient, weights; and the watch over whether they stay finite.

Shapes: B jets, C classes.
"""

import math
from typing import NoReturn

import torch
from torch import Tensor

from jettagger.batch import Batch, Inputs
from jettagger.randomness import key
from jettagger.training.averages import follow
from jettagger.training.diagnosis import not_finite
from jettagger.training.l1 import add_l1
from jettagger.training.loss import check_labels, cross_entropy
from jettagger.training.schedules import rate
from jettagger.training.sharing import mean_statistics, sum_gradients, unshared
from jettagger.training.state import TrainingState
from jettagger.training.training import Training

CHECK_EVERY = 32
"""Steps between two looks at the loss on an accelerator, where each look waits for it."""


def make_step(training: Training, state: TrainingState, given: Batch) -> None:
    """One step of the optimiser, and what is remembered of it."""
    section = training.section
    on_cpu = training.hardware.device.type == "cpu"
    batch = given if on_cpu else given.to(training.hardware.device)
    magnitude = training.ranks.begin_sum(torch.linalg.vector_norm(batch.weights_B, 1))
    if training.rows is not None:
        training.rows.set(batch.part)
    inputs = mirrored(training, state, batch)
    with training.hardware.autocast():
        logits_BC = training.model(inputs)
    if state.epoch == 0 and given.labels_B.is_cpu:  # later epochs have the same jets
        check_labels(given, logits_BC.shape[1])
    loss = cross_entropy(logits_BC, batch.labels_B, batch.weights_B, section.label_smoothing)
    loss = loss._replace(magnitude=magnitude())
    state.optimiser.zero_grad()
    loss.step.backward()  # type: ignore[no-untyped-call]
    sums = sum_gradients(
        training.ranks,
        state.optimiser,
        torch.stack((loss.losses.detach(), loss.weights.to(loss.losses.dtype))),
    )
    if not section.sync_batch_norm:
        mean_statistics(training.ranks, training.model)
    add_l1(training.model, section.l1)
    norm = clip_gradients(state.optimiser, section.gradient_clip)
    training.pending.append((state.step, torch.stack((*sums, norm))))
    if on_cpu or len(training.pending) == CHECK_EVERY:
        look(training, state)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(training, state, state.step)
    state.optimiser.step()
    follow(state, section, training.steps)
    state.sums.jets += len(batch) if batch.part is None else batch.part.jets.total
    state.step += 1


def look(training: Training, state: TrainingState) -> None:
    """Adds up what the last steps gave. Raises JettaggerError at the first that is not finite."""
    if not training.pending:
        return
    rows = torch.stack([row for _, row in training.pending]).tolist()
    for (step, _), row in zip(training.pending, rows, strict=True):
        if not all(map(math.isfinite, row)):
            training.pending.clear()
            stop(training, state, step, row[2])
        state.sums.losses += row[0]
        state.sums.weights += row[1]
        state.sums.norms += row[2]
        limit = training.section.gradient_clip
        state.sums.clipped += limit is not None and row[2] > limit
    training.pending.clear()


def clip_gradients(optimiser: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """The norm of the gradient over all parameters; where it exceeds `limit`, it is scaled down to it."""
    groups = optimiser.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / norm.clamp(min=limit)))
    return norm


def mirrored(training: Training, state: TrainingState, batch: Batch) -> Inputs:
    """The inputs of this step, some of them reflected; which ones is keyed by the step."""
    if training.mirror is None:
        return batch.inputs
    stream = key(training.section.seed, "reflections", training.stream, state.step)
    device = training.hardware.device
    rows = None if batch.part is None else batch.part.jets
    return training.mirror(batch.inputs, torch.Generator(device).manual_seed(stream), rows)


def learning_rate(training: Training, state: TrainingState, step: int) -> float:
    """The learning rate of a step of the epoch in progress."""
    section = training.section
    if training.rates is not None:
        return training.rates(step)
    share = rate(step, training.steps, section.schedule)
    return section.peak_rate * share * state.plateau.factor


def stop(training: Training, state: TrainingState, step: int, norm: float) -> NoReturn:
    """Ends a training whose loss or gradient is not finite, with all that can be found out."""
    steps, section = training.train.steps, training.section
    train = training.train if training.whole is None else training.whole[0]
    batch = next(train.epoch(step // steps, step % steps)).to(training.hardware.device)
    where = f"epoch {step // steps + 1}, batch {step % steps + 1} of {steps} (step {step})"
    facts = [f"learning rate {learning_rate(training, state, step):.3g}", f"gradient norm {norm:.3g}"]
    with unshared(training.model, training.rows):
        error = not_finite(training.model, batch, training.hardware, section, where, facts)
    error.step = step
    raise training.ranks.of_all(error)
