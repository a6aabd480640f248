"""The training of several members at once, from the start to what each leaves in its folder: as a single training does.

Early stopping and failures are a member's own; the steps are those of `one_pass`.
"""

import copy
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.training import checkpoints
from jettagger.training.beginning import on_device, start
from jettagger.training.conditions import conditions
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.feeding import fed
from jettagger.training.interruption import Interrupted, asked_to_stop, noted
from jettagger.training.loop import close_epoch, conclude
from jettagger.training.one_pass import Member, TogetherRun
from jettagger.training.optimisers import build_optimiser
from jettagger.training.progress import Progress
from jettagger.training.shortage import is_shortage
from jettagger.training.tensorboard import Log
from jettagger.training.training import MemberResult, Training


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
    with conditions(first.section, first.hardware), noted():
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
                waiting.save()
            raise


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


def _guarded(run: TogetherRun, running: Sequence[Member], done: int, steps: int) -> Iterator[Sequence[Batch]]:
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
