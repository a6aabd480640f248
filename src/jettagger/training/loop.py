"""The training of one network: epochs of steps, a validation after each, checkpoints in between.

Shapes: B jets, C classes.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.files import written_aside
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.models.parts.model import JetModel
from jettagger.randomness import key
from jettagger.training import checkpoints
from jettagger.training.augmentation import Mirror
from jettagger.training.device import Hardware, threads
from jettagger.training.diagnosis import not_finite
from jettagger.training.feeding import fed
from jettagger.training.loss import check_labels, cross_entropy
from jettagger.training.optimisers import build_optimiser, rate
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.state import EpochRecord, EpochSums, TrainingState, start_average, update_average
from jettagger.training.tensorboard import Log
from jettagger.training.validation import validate

CHECK_EVERY = 32
"""Steps between two looks at the loss on an accelerator, where each look waits for it."""


class Batches(Protocol):
    """Jets in batches; an epoch can be entered anywhere and always has the same order."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def jets(self) -> int:
        """Jets in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 0), from batch `start` on."""


@dataclass(frozen=True)
class MemberResult:
    """What came of the training of one network."""

    member: int
    weights: Path
    """The best epoch's weights, a checkpoint that `checkpoints.load_weights` reads."""
    best_epoch: int
    """From 1."""
    best_loss: float
    """Its validation loss."""
    history: tuple[EpochRecord, ...]
    stopped_early: bool
    seconds: float
    jets: int
    """Jets trained on, over all epochs."""


@dataclass(frozen=True)
class Training:
    """What stays the same during the training of one network."""

    model: JetModel
    train: Batches
    validation: Batches
    section: TrainingSection
    directory: Path
    """Takes last.pt, previous.pt, best.pt and metrics.jsonl."""
    hardware: Hardware
    config: Mapping[str, Any]
    """All that decides the result; a checkpoint is only resumed under the same."""
    progress: Progress
    member: int = 0
    stream: int = 0
    """The member whose dropout masks are drawn; not `member` where ensemble.vary leaves batches out."""
    mirror: Mirror | None = None
    """Reflects jets at random, where the config asks for it."""
    pending: list[tuple[int, Tensor]] = field(default_factory=list)
    """Steps not looked at yet, each with Σ w·l, Σ w and the norm of the gradient."""

    @property
    def steps(self) -> int:
        """Steps in all epochs."""
        return self.section.epochs * self.train.steps


def train_member(training: Training, *, resume: bool = False) -> MemberResult:
    """Trains the network, or goes on with its training; at the end the model holds the best epoch's weights.

    The model has its initial weights and its normalisation. Raises JettaggerError when the folder holds a
    training and `resume` is not asked for, or when the loss becomes NaN or infinite.
    """
    if training.train.steps == 0 or training.validation.jets == 0:
        raise JettaggerError("no jets to train on or to validate with: check data.selection and the splits")
    with threads(training.section.threads):
        training.model.to(training.hardware.device)
        state = _start(training, resume)
        log = Log(training.directory, training.section.tensorboard, state.step)
        while not _finished(training.section, state):
            _train_epoch(training, state)
            _close_epoch(training, state, log)
        log.close()
        training.model.load_state_dict(state.best.weights)
        weights = checkpoints.save_best(training.directory, state.best.epoch, state.best.weights)
    return MemberResult(
        member=training.member,
        weights=weights,
        best_epoch=state.best.epoch,
        best_loss=state.best.loss,
        history=tuple(state.history),
        stopped_early=state.epoch < training.section.epochs,
        seconds=sum(record.seconds for record in state.history),
        jets=training.train.jets * state.epoch,
    )


def _start(training: Training, resume: bool) -> TrainingState:
    """A new state, or the last checkpoint's; the folder agrees with it afterwards."""
    section, directory = training.section, training.directory
    state = TrainingState(training.model, build_optimiser(training.model, section.optimiser))
    if section.ema is not None:
        state.average = start_average(training.model)
    used = any((directory / name).exists() for name in (checkpoints.LAST, checkpoints.PREVIOUS))
    if used and not resume:
        raise JettaggerError(
            f"{directory} holds a training: --resume goes on with it, or choose another --output"
        )
    if resume:
        checkpoints.clear_leftovers(directory)
        content, remarks = checkpoints.load_last(directory, _identity(training))
        for remark in remarks:
            training.progress.say(remark)
        if content is not None:
            state.restore(content)
        training.progress.say(f"resuming after step {state.step} of {training.steps}")
    with written_aside(directory / checkpoints.METRICS) as aside:
        aside.write_text("".join(_line(record) for record in state.history), encoding="utf-8")
    return state


def _train_epoch(training: Training, state: TrainingState) -> None:
    """The steps of the epoch in progress that are still to be made."""
    done = state.step - state.epoch * training.train.steps
    generator = torch.Generator(training.hardware.device)
    set_dropout_generator(training.model, generator)
    training.model.train()
    training.progress.start(state.epoch, training.train.steps, done)
    began = saved = time.monotonic()
    with fed(training.train.epoch(state.epoch, done), training.hardware.device) as batches:
        for batch in batches:
            generator.manual_seed(key(training.section.seed, "dropout", training.stream, state.step))
            _step(training, state, batch)
            training.progress.advance()
            now = time.monotonic()
            state.sums.seconds, began = state.sums.seconds + now - began, now
            interval = training.section.checkpoint_seconds
            if interval is not None and now - saved > interval:
                _look(training, state)
                checkpoints.save_last(training.directory, _identity(training), state.content())
                saved = time.monotonic()
    _look(training, state)
    expected = (state.epoch + 1) * training.train.steps
    assert state.step == expected, (
        f"an epoch has {training.train.steps} batches, got {state.step - expected} more"
    )


def _mirrored(training: Training, state: TrainingState, inputs: Inputs) -> Inputs:
    """The inputs of this step, some of them reflected; which ones is keyed by the step."""
    if training.mirror is None:
        return inputs
    stream = key(training.section.seed, "reflections", training.stream, state.step)
    device = training.hardware.device
    return training.mirror(inputs, torch.Generator(device).manual_seed(stream))


def _step(training: Training, state: TrainingState, given: Batch) -> None:
    """One step of the optimiser, and what is remembered of it."""
    section = training.section
    on_cpu = training.hardware.device.type == "cpu"
    batch = given if on_cpu else given.to(training.hardware.device)
    inputs = _mirrored(training, state, batch.inputs)
    with training.hardware.autocast():
        logits_BC = training.model(inputs)
    if state.epoch == 0 and given.labels_B.is_cpu:  # later epochs have the same jets
        check_labels(given, logits_BC.shape[1])
    loss = cross_entropy(logits_BC, batch.labels_B, batch.weights_B, section.label_smoothing)
    state.optimiser.zero_grad()
    loss.step.backward()  # type: ignore[no-untyped-call]
    norm = clip_gradients(state.optimiser, section.gradient_clip)
    training.pending.append((state.step, torch.stack((loss.losses.detach(), loss.weights, norm))))
    if on_cpu or len(training.pending) == CHECK_EVERY:
        _look(training, state)
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(training, state, state.step)
    state.optimiser.step()
    if state.average is not None and section.ema is not None:
        update_average(state.average, training.model, state.step, section.ema)
    state.sums.jets += len(batch)
    state.step += 1


def _look(training: Training, state: TrainingState) -> None:
    """Adds up what the last steps gave. Raises JettaggerError at the first that is not finite."""
    if not training.pending:
        return
    rows = torch.stack([row for _, row in training.pending]).tolist()
    for (step, _), row in zip(training.pending, rows, strict=True):
        if not all(map(math.isfinite, row)):
            training.pending.clear()
            _stop(training, state, step, row[2])
        state.sums.losses += row[0]
        state.sums.weights += row[1]
        state.sums.norms += row[2]
    training.pending.clear()


def _close_epoch(training: Training, state: TrainingState, log: Log) -> None:
    """Validation, the record of the epoch, the best weights, the checkpoint."""
    began, section, sums = time.monotonic(), training.section, state.sums
    training.model.eval()
    with fed(training.validation.epoch(0), training.hardware.device) as batches:
        found = validate(_network(training, state), batches, training.hardware)
    if sums.weights <= 0:
        raise JettaggerError(
            f"the weights of the training jets add up to {sums.weights:.4g}: check weights.event"
        )
    if found.bad is not None:
        _stop_in_validation(training, state, found.bad)
    record = EpochRecord(
        epoch=state.epoch + 1,
        step=state.step,
        train_loss=sums.losses / sums.weights,
        validation_loss=found.loss,
        accuracy=found.accuracy,
        auc=found.auc,
        lr=state.optimiser.param_groups[0]["lr"],
        gradient_norm=sums.norms / training.train.steps,
        seconds=sums.seconds + time.monotonic() - began,
        jets_per_second=sums.jets / max(sums.seconds, 1e-9),
    )
    state.plateau.observe(found.loss, section.schedule)
    weights = training.model.state_dict() if state.average is None else state.average
    stopping = section.early_stopping
    best = state.best.observe(record, weights, stopping.min_delta if stopping else 0.0)
    state.history.append(record)
    state.sums = EpochSums()
    if best:
        checkpoints.save_best(training.directory, state.best.epoch, state.best.weights)
    checkpoints.save_last(training.directory, _identity(training), state.content())
    with (training.directory / checkpoints.METRICS).open("a", encoding="utf-8") as lines:
        lines.write(_line(record))
    log.add(record)
    training.progress.end(record, best=best)


def _finished(section: TrainingSection, state: TrainingState) -> bool:
    stopping = section.early_stopping
    return state.epoch == section.epochs or (stopping is not None and state.best.waited >= stopping.patience)


def clip_gradients(optimiser: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """The norm of the gradient over all parameters; where it exceeds `limit`, it is scaled down to it."""
    groups = optimiser.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if limit is not None:
        torch._foreach_mul_(gradients, (limit / norm.clamp(min=limit)))
    return norm


def _network(training: Training, state: TrainingState) -> Callable[[Inputs], Tensor]:
    """The network that is validated and kept: with the mean of its weights, where there is one."""
    model, average = training.model, state.average
    if average is None:
        return model
    return lambda inputs: functional_call(model, average, (inputs,))


def _rate(training: Training, state: TrainingState, step: int) -> float:
    """The learning rate of a step of the epoch in progress."""
    section = training.section
    share = rate(step, training.steps, section.schedule)
    return section.optimiser.lr * share * state.plateau.factor


def _identity(training: Training) -> dict[str, Any]:
    """What must be equal on resuming."""
    precision = "bfloat16" if training.hardware.bfloat16 else "float32"
    return {**training.config, "member": training.member, "precision in use": precision}


def _line(record: EpochRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def _stop(training: Training, state: TrainingState, step: int, norm: float) -> NoReturn:
    """Ends a training whose loss or gradient is not finite, with all that can be found out."""
    steps, section = training.train.steps, training.section
    batch = next(training.train.epoch(step // steps, step % steps)).to(training.hardware.device)
    where = f"epoch {step // steps + 1}, batch {step % steps + 1} of {steps} (step {step})"
    facts = [f"learning rate {_rate(training, state, step):.3g}", f"gradient norm {norm:.3g}"]
    raise not_finite(training.model, batch, training.hardware, section, where, facts)


def _stop_in_validation(training: Training, state: TrainingState, number: int) -> NoReturn:
    batch = next(training.validation.epoch(0, number)).to(training.hardware.device)
    where, facts = f"the validation after epoch {state.epoch + 1}", [f"after step {state.step}"]
    raise not_finite(training.model, batch, training.hardware, training.section, where, facts)
