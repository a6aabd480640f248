"""The training of several members at once: one pass of `torch.vmap` through all their networks.

Member k sees the batches, masks and reflections that it sees alone, and its gradient is that of its own loss: losses
are added over members, never averaged. Clipping, learning rate, early stopping and the watch over NaN are a
member's own. What a member leaves in its folder is what a single training leaves there.

Shapes: M members, B jets.
"""

import copy
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import dropout_layers, set_dropout_generator
from jettagger.models.parts.layers import BatchNorm
from jettagger.randomness import key
from jettagger.training import checkpoints
from jettagger.training.averages import follow
from jettagger.training.device import threads
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.feeding import fed
from jettagger.training.interruption import Interrupted, asked_to_stop, noted
from jettagger.training.loop import close_epoch, conclude, finished, identity_of, on_device, start
from jettagger.training.loss import check_labels
from jettagger.training.optimisers import build_optimiser
from jettagger.training.progress import Progress
from jettagger.training.shortage import is_shortage
from jettagger.training.stack import Stack
from jettagger.training.state import TrainingState
from jettagger.training.step import CHECK_EVERY, augmented, learning_rate, stop
from jettagger.training.tensorboard import Log
from jettagger.training.together import Drawn, Together, batch_of, masks_of, met, side_by_side
from jettagger.training.training import MemberResult, Training

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


@dataclass(frozen=True)
class Failed:
    """A member that came to its end without a network."""

    member: int
    step: int | None
    """Steps done before."""
    error: NotFiniteError


def train_together(
    trainings: Sequence[Training], *, resume: bool = False, failed: Collection[int] = ()
) -> list[MemberResult | Failed]:
    """What `train_member` does for each, at once; a member that fails does no harm to the others.

    Others keep their last bit, as products of matrices and sums round by the place in memory: in the place of the
    failed member another one's weights ride along. `failed` are members that failed before the run was interrupted:
    they only ride along, and are not among the results. All have the same section, hardware and number of jets.
    Raises JettaggerError as `train_member` does, but for losses that are not finite.
    """
    first = trainings[0]
    if first.train.steps == 0 or first.validation.jets == 0:
        raise JettaggerError("no jets to train on or to validate with: check data.selection and the splits")
    with threads(first.section.threads), first.hardware.products(), noted():
        members = _start([training for training in trainings if training.member not in failed], resume)
        lost = [training for training in trainings if training.member in failed]
        while running := [member for member in members if member.running]:
            if due := [member for member in running if member.state.step == member.epoch_end]:
                _close(due)
                continue
            step = min(member.state.step for member in running)
            # After a change from one way of training to the other, some members are ahead: the others catch up.
            group = [member for member in running if member.state.step == step]
            ahead = [member.state.step for member in running if member.state.step > step]
            riders = [*lost, *(member.training for member in members if member.failure is not None)]
            _train_until(_with_riders(group, riders), min([group[0].epoch_end, *ahead]))
        return [_ended(member) for member in members]


def _start(trainings: Sequence[Training], resume: bool) -> list[Member]:
    newest = (
        common_step([checkpoints.steps_of(training.directory) for training in trainings]) if resume else None
    )
    members = []
    for training in trainings:
        training = on_device(training)
        state = start(training, resume=resume, newest=newest)
        members.append(
            Member(training, state, Log(training.directory, training.section.tensorboard, state.step))
        )
    return members


def common_step(saved: Sequence[Sequence[int]]) -> int | None:
    """The step that all members go on from, if each has a checkpoint of it; else None: each from its own newest.

    `saved`: the steps of each member's checkpoints, the newest first. A kill while checkpoints are written leaves some
    members one ahead; a member with at most one may also start anew.
    """
    oldest = min((steps[0] if steps else 0) for steps in saved)
    have = [oldest in steps or (oldest == 0 and len(steps) < 2) for steps in saved]
    return oldest if all(have) else None


def _with_riders(group: Sequence[Member], riders: Sequence[Training]) -> list[Member]:
    """The group, with copies of one of its members in the places of those that have failed."""
    found = list(group)
    for training in riders:
        model = copy.deepcopy(group[0].training.model)
        optimiser = build_optimiser(model, training.section.optimiser)
        optimiser.load_state_dict(copy.deepcopy(group[0].state.optimiser.state_dict()))
        state = replace(group[0].state, model=model, optimiser=optimiser, average=None)
        apart = replace(training, model=model)
        found.append(Member(apart, state, group[0].log, NotFiniteError("failed before")))
    return sorted(found, key=lambda member: member.training.member)


def _close(members: Sequence[Member]) -> None:
    """The end of an epoch; where a signal comes in it, the steps of those that wait for their turn are saved."""
    for number, member in enumerate(members):
        try:
            close_epoch(member.training, member.state, member.log)
        except NotFiniteError as error:
            member.failure = error
        except Interrupted:
            for waiting in members[number + 1 :]:
                _save(waiting)
            raise


def _save(member: Member) -> None:
    """A checkpoint of a member whose state is known to be finite."""
    training, keep = member.training, member.training.section.keep_checkpoints
    checkpoints.save_last(training.directory, identity_of(training), member.state.content(), keep=keep)


def _ended(member: Member) -> MemberResult | Failed:
    member.log.close()
    if member.failure is not None:
        return Failed(member.training.member, member.failure.step, member.failure)
    return conclude(member.training, member.state)


def _train_until(group: Sequence[Member], end: int) -> None:
    """The steps up to `end`, or up to one at which a member fails."""
    running = [member for member in group if member.failure is None]
    training, state = running[0].training, running[0].state
    section, done = training.section, state.step - state.epoch * training.train.steps
    label = f"{len(running)} members" if len(running) > 1 else training.progress.label
    progress = Progress(label, section.epochs, quiet=training.progress.quiet)
    run = TogetherRun(group)
    progress.start(state.epoch, training.train.steps, done)
    began = saved = time.monotonic()
    for batches in _guarded(run, running, done, end - state.step):
        with _enough_memory(len(group)):
            run.step(batches)
        progress.advance()
        now = time.monotonic()
        for member in running:
            member.state.sums.seconds += (now - began) / len(running)
        began, interval = now, section.checkpoint_seconds
        if interval is not None and now - saved > interval:
            run.save()
            saved = time.monotonic()
    run.look()
    run.stack.publish()
    progress.close()


@contextmanager
def _enough_memory(members: int) -> Iterator[None]:
    """Turns a shortage of memory into an error that says what would need less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        fewer = f"{{chunk: {members // 2}}}" if members > 3 else "loop"
        raise JettaggerError(
            f"no memory for {members} networks in one pass: write ensemble.execution: {fewer}, and go on with --resume"
        ) from error


def _guarded(
    run: "TogetherRun", running: Sequence[Member], done: int, steps: int
) -> Iterator[Sequence[Batch]]:
    """The next batches of all members, until one of those that are running fails.

    As in a single training, what is learned is saved when a signal asks for the end, or when a batch cannot be had.
    """
    group, device = run.group, run.hardware.device
    with ExitStack() as feeds:
        epochs = (member.training.train.epoch(member.state.epoch, done) for member in group)
        sources = [iter(feeds.enter_context(fed(batches, device))) for batches in epochs]
        for _ in range(steps):
            try:
                batches = [next(source) for source in sources]
            except (JettaggerError, OSError) as error:
                run.save()
                running[0].training.progress.say(f"saved after step {run.at}, because: {error}")
                raise
            yield batches
            if (name := asked_to_stop()) is not None:
                run.save()
                raise Interrupted(name, running[0].training.directory, run.at)
            if any(member.failure is not None for member in running):
                return


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
        self._all = torch.vmap(self._one, randomness="error")

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
            _save(member)

    def losses(self, batches: Sequence[Batch]) -> Losses:
        """Σ w·l, Σ w and what is minimised, of each member, (M,)."""
        assert self.drawn is not None
        for member, generator in zip(self.group, self.generators, strict=True):
            training = member.training
            generator.manual_seed(key(training.section.seed, "dropout", training.stream, member.state.step))
        masks = masks_of(self.drawn, batches, self.names, self.generators)
        together = side_by_side(batches, self.names)
        found: tuple[Tensor, Tensor, Tensor] = self._all(self.stack.tensors, together, masks)
        return found

    def _one(
        self, tensors: dict[str, Tensor], part: Together, masks: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
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
