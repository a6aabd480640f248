"""Steps of several members at once: one pass of `torch.vmap` through all their networks.

Member k sees the batches, masks and reflections that it sees alone, and its gradient is that of its own loss: losses
are added over members, never averaged. Clipping, learning rate and the watch over NaN are a member's own.

Shapes: M members, B jets.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jettagger.batch import Batch
from jettagger.models.parts.dropout import dropout_layers, set_dropout_generator
from jettagger.models.parts.layers import BatchNorm
from jettagger.randomness import key
from jettagger.training import checkpoints
from jettagger.training.averages import follow
from jettagger.training.beginning import identity_of
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.loop import finished
from jettagger.training.loss import check_labels
from jettagger.training.stack import Stack
from jettagger.training.state import TrainingState
from jettagger.training.step import CHECK_EVERY, augmented, learning_rate, stop
from jettagger.training.tensorboard import Log
from jettagger.training.together import (
    Drawn,
    Together,
    batch_of,
    leaves,
    masks_of,
    met,
    side_by_side,
    with_leaves,
)
from jettagger.training.training import Training

Losses = tuple[Tensor, Tensor, Tensor]


@dataclass
class Member:
    """A training in progress."""

    training: Training
    state: TrainingState
    log: Log
    failure: NotFiniteError | None = None

    @property
    def running(self) -> bool:
        """Whether there is more to train."""
        return self.failure is None and not finished(self.training.section, self.state)

    @property
    def epoch_end(self) -> int:
        """Steps at the end of the epoch in progress."""
        return (self.state.epoch + 1) * self.training.train.steps

    def save(self) -> None:
        """A checkpoint of a state that is known to be finite."""
        training, keep = self.training, self.training.section.keep_checkpoints
        checkpoints.save_last(training.directory, identity_of(training), self.state.content(), keep=keep)


class TogetherRun:
    """Steps of several members, from their present state on."""

    def __init__(self, group: Sequence[Member]) -> None:
        self.group = tuple(group)
        self.section = group[0].training.section
        self.hardware = group[0].training.hardware
        self.objective = group[0].training.objective
        self.names = [c.name for c in group[0].training.model.inputs.collections]
        self.generators = [torch.Generator(self.hardware.device) for _ in group]
        for member, generator in zip(group, self.generators, strict=True):
            member.training.model.train()
            set_dropout_generator(member.training.model, generator)
        self.stack = Stack([member.state for member in group])
        self.drawn: list[Drawn] | None = None
        self.pending: list[tuple[int, Tensor]] = []
        self._norms = [m for m in self.stack.template.modules() if isinstance(m, BatchNorm)]
        self._dropouts = list(dropout_layers(self.stack.template))

    @property
    def at(self) -> int:
        """Steps done."""
        return max(member.state.step for member in self.group)

    def step(self, given: Sequence[Batch]) -> None:
        """One step of every member."""
        if self.drawn is None:
            self.meet(given[0])
        batches = self.prepared(given)
        self.stack.clear_gradients()
        losses, weights, minimised = self.losses(batches)
        minimised.sum().backward()  # type: ignore[no-untyped-call]
        self.stack.add_l1(self.section.l1)
        norms_M = self.stack.clip(self.section.gradient_clip)
        self.pending.append((self.at, torch.stack((losses.detach(), weights, norms_M))))
        if self.hardware.device.type == "cpu" or len(self.pending) == CHECK_EVERY:
            self.look()
        self.stack.step(self._rates())
        for member, batch in zip(self.group, batches, strict=True):
            state = member.state
            if member.failure is not None:
                continue
            follow(state, self.section, member.training.steps)
            state.sums.jets += len(batch)
            state.step += 1

    def _rates(self) -> list[float]:
        """The members' learning rates; those that have failed follow another."""
        rates = [learning_rate(m.training, m.state, m.state.step) for m in self.group if m.failure is None]
        running = iter(rates)
        return (
            [next(running) if member.failure is None else rates[0] for member in self.group] if rates else []
        )

    def look(self) -> None:
        """Adds up what the last steps gave; a member whose loss or gradient is not finite has failed."""
        if not self.pending:
            return
        steps, rows = zip(*self.pending, strict=True)
        self.pending.clear()
        for step, values_M3 in zip(steps, torch.stack(rows).transpose(1, 2).tolist(), strict=True):
            for member, row in zip(self.group, values_M3, strict=True):
                if member.failure is not None:
                    continue
                if not all(map(math.isfinite, row)):
                    member.failure = _failure(member, step, row[2])
                    continue
                member.state.sums.losses += row[0]
                member.state.sums.weights += row[1]
                member.state.sums.norms += row[2]
                limit = self.section.gradient_clip
                member.state.sums.clipped += limit is not None and row[2] > limit

    def save(self) -> None:
        """A checkpoint of every member whose state is known to be finite."""
        self.look()
        self.stack.publish()
        for member in [member for member in self.group if member.failure is None]:
            member.save()

    def losses(self, batches: Sequence[Batch]) -> Losses:
        """Σ w·l, Σ w and what is minimised, of each member, (M,)."""
        tree = self.stack.tensors, side_by_side(batches, self.names), self._masks(batches)

        def one(*parts: Tensor) -> Losses:
            return self._one(*with_leaves(tree, iter(parts)))

        # Without branches: vmap looks at those of its arguments several times a step.
        found: Losses = torch.vmap(one, randomness="error")(*leaves(tree))
        return found

    def _masks(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        assert self.drawn is not None
        if not self.drawn:
            return {}
        for member, generator in zip(self.group, self.generators, strict=True):
            training = member.training
            generator.manual_seed(key(training.section.seed, "dropout", training.stream, member.state.step))
        return masks_of(self.drawn, batches, self.names, self.generators)

    def _one(self, tensors: dict[str, Tensor], part: Together, masks: dict[str, Tensor]) -> Losses:
        """The losses of one member; runs once, on tensors that stand for all."""
        for path, layer in self._dropouts:
            layer.mask = masks.get(path)
        for norm in self._norms:
            norm.real_rows = part.real or None
        batch = batch_of(part)
        with self.hardware.autocast():
            raw_BK = self.stack.call(tensors, batch.inputs)
        loss = self.objective(raw_BK[: len(batch)], batch)
        return loss.losses, loss.weights, loss.step

    def meet(self, batch: Batch) -> None:
        """Finds out, on a copy, what a forward pass draws and gives."""
        model = copy.deepcopy(self.group[0].training.model)
        with torch.no_grad(), self.hardware.autocast():
            self.drawn = met(model, batch.to(self.hardware.device), self.names)

    def prepared(self, given: Sequence[Batch]) -> list[Batch]:
        """The batches on the device, their labels checked, some of their jets reflected."""
        batches = []
        for member, one in zip(self.group, given, strict=True):
            batch = one if self.hardware.device.type == "cpu" else one.to(self.hardware.device)
            if member.state.epoch == 0 and one.labels_B.is_cpu:
                check_labels(one, member.training.model.outputs.classes)
            batches.append(augmented(member.training, member.state.step, batch))
        return batches


def _failure(member: Member, step: int, norm: float) -> NotFiniteError:
    try:
        stop(member.training, member.state, step, norm)
    except NotFiniteError as error:
        return error
