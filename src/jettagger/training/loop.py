"""The training of one network: epochs of steps, a validation after each, checkpoints in between.

Shapes: B jets, K output columns.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import count
from typing import NoReturn

import torch
from torch import Tensor
from torch.func import functional_call

from jettagger.advice import advise
from jettagger.batch import Batch, Inputs
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.randomness import key
from jettagger.training import checkpoints
from jettagger.training.averages import measure_statistics
from jettagger.training.beginning import check_shared, identity_of, metrics_line, on_device, start
from jettagger.training.conditions import conditions
from jettagger.training.diagnosis import not_finite
from jettagger.training.feeding import fed
from jettagger.training.interruption import Interrupted, asked_to_stop, noted
from jettagger.training.l1 import l1_penalty
from jettagger.training.recomputation import recomputed
from jettagger.training.schema import TrainingSection
from jettagger.training.sharing import kept_together, share_statistics, unshared
from jettagger.training.shortage import is_shortage, shortage_of
from jettagger.training.state import EpochRecord, EpochSums, TrainingState
from jettagger.training.step import add_gradient, clear_gradients, look, make_step
from jettagger.training.tensorboard import Log
from jettagger.training.training import MemberResult, Training
from jettagger.training.validation import Validation, validate

ASK_EVERY = 8
"""Batches between two moments at which ranks tell each other whether a signal has come."""


def train_member(training: Training, *, resume: bool = False) -> MemberResult:
    """Trains the network, or goes on with its training; at the end the model holds the weights that are kept:
    the best epoch's, or the mean that `training.swa` asks for.

    The model has its initial weights and its normalisation. Raises JettaggerError when the folder holds a
    training and `resume` is not asked for, or when the loss becomes NaN or infinite.
    """
    if training.train.steps == 0 or training.validation.jets == 0:
        raise JettaggerError("no jets to train on or to validate with: check data.selection and the splits")
    check_shared(training)
    with conditions(training.section, training.hardware), noted():
        training = on_device(training)
        state = start(training, resume=resume)
        log = Log(training.directory, training.section.tensorboard and training.ranks.first, state.step)
        again = training.section.activation_checkpointing
        with recomputed(training.model) if again else nullcontext():
            while not finished(training.section, state):
                _train_epoch(training, state)
                close_epoch(training, state, log)
        log.close()
        return conclude(training, state)


def conclude(training: Training, state: TrainingState) -> MemberResult:
    """The model gets the weights that are kept, and the folder its `best.pt`."""
    mean = None if training.section.swa is None else _take_mean(training, state)
    if mean is None:
        training.model.load_state_dict(state.best.weights)
    share_statistics(training.model, None)
    epoch = state.best.epoch if mean is None else state.epoch
    weights = training.directory / checkpoints.BEST
    if training.ranks.first:
        checkpoints.save_best(training.directory, epoch, training.model.state_dict())
    return MemberResult(
        member=training.member,
        weights=weights,
        best_epoch=state.best.epoch,
        best_loss=state.best.loss,
        history=tuple(state.history),
        stopped_early=state.epoch < training.section.epochs,
        seconds=sum(record.seconds for record in state.history),
        jets=training.train.jets * state.epoch,
        mean_loss=None if mean is None else mean.loss,
        mean_auc=None if mean is None else mean.auc,
        mean_accuracy=None if mean is None else mean.accuracy,
        advice=advise([asdict(record) for record in state.history], training.classes),
    )


def _train_epoch(training: Training, state: TrainingState) -> None:
    """The steps of the epoch in progress that are still to be made."""
    done = state.step - state.epoch * training.train.steps
    generator = torch.Generator(training.hardware.device)
    set_dropout_generator(training.model, generator)
    training.model.train()
    training.progress.start(state.epoch, training.train.steps, done)
    began = saved = time.monotonic()
    with fed(training.train.epoch(state.epoch, done), training.hardware.device) as batches:
        for batch in _guarded(training, state, batches):
            generator.manual_seed(key(training.section.seed, "dropout", training.stream, state.step))
            _step(training, state, batch)
            training.progress.advance()
            now = time.monotonic()
            state.sums.seconds, began = state.sums.seconds + now - began, now
            interval = training.section.checkpoint_seconds
            if training.ranks.first and interval is not None and now - saved > interval:
                _save(training, state)
                saved = time.monotonic()
    if training.rows is not None:
        training.rows.set(None)
    look(training, state)
    expected = (state.epoch + 1) * training.train.steps
    assert state.step == expected, (
        f"an epoch has {training.train.steps} batches, got {state.step - expected} more"
    )
    remark = kept_together(training.ranks, training.model)
    if remark is not None:
        training.progress.say(remark)


def _step(training: Training, state: TrainingState, batch: Batch) -> None:
    """`make_step`. Raises JettaggerError, which says what would fit, when there is no memory for it."""
    try:
        make_step(training, state, batch)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        found = str(error)  # the error itself holds the memory of the step

    def gradient(part: Batch) -> None:
        clear_gradients(state.optimiser)
        add_gradient(training, state, part, None)

    clear_gradients(state.optimiser)
    with unshared(training.model, training.rows):
        answer = shortage_of(batch, training.section.accumulate, found, training.hardware.device, gradient)
    raise training.ranks.of_all(answer)


def _guarded(training: Training, state: TrainingState, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches. What is learned is saved when a signal asks for the end, or when the next batch cannot be had."""
    waiting = iter(batches)
    for number in count():
        try:
            batch = next(waiting, None)
        except (JettaggerError, OSError) as error:
            _save(training, state)
            training.progress.say(f"saved after step {state.step}, because: {error}")
            raise
        if batch is None:
            return
        yield batch
        name = asked_to_stop()
        if training.ranks.world > 1:
            name = training.ranks.agreed(name) if number % ASK_EVERY == 0 else None
        if name is not None:
            look(training, state)
            # Launchers end all ranks when the first has ended: none does before it is saved.
            training.ranks.first_does(lambda: _save(training, state))
            training.ranks.after_first()
            raise Interrupted(name, training.directory, state.step)


def _save(training: Training, state: TrainingState) -> None:
    """A checkpoint of a state that is known to be finite."""
    look(training, state)
    if training.ranks.first:
        keep = training.section.keep_checkpoints
        checkpoints.save_last(training.directory, identity_of(training), state.content(), keep=keep)


def close_epoch(training: Training, state: TrainingState, log: Log) -> None:
    """Validation, the record of the epoch, the best weights, the checkpoint."""
    began, section, sums = time.monotonic(), training.section, state.sums
    training.model.eval()
    with fed(training.validation.epoch(0), training.hardware.device) as batches:
        guarded = _guarded(training, state, batches)
        found = validate(
            _network(training, state), guarded, training.hardware, training.objective, training.ranks
        )
    if sums.weights <= 0:
        message = f"the weights of the training jets add up to {sums.weights:.4g}: check weights.event"
        raise training.ranks.of_all(JettaggerError(message))
    if found.bad is not None:
        _stop_in_validation(training, state, found.bad)
    record = EpochRecord(
        epoch=state.epoch + 1,
        step=state.step,
        train_loss=sums.losses / sums.weights,
        validation_loss=found.loss,
        accuracy=found.accuracy,
        auc=found.auc,
        targets=found.targets,
        decorrelation=found.decorrelation,
        lr=state.optimiser.param_groups[0]["lr"],
        gradient_norm=sums.norms / max(training.train.steps - sums.left_out, 1),
        left_out=sums.left_out,
        seconds=sums.seconds + time.monotonic() - began,
        jets_per_second=sums.jets / max(sums.seconds, 1e-9),
        clipped=sums.clipped / training.train.steps,
        l1=l1_penalty(training.model, section.l1),
    )
    state.plateau.observe(found.loss, section.schedule)
    weights = training.model.state_dict() if section.ema is None else state.average
    assert weights is not None
    stopping = section.early_stopping
    best = state.best.observe(record, weights, stopping.min_delta if stopping else 0.0)
    state.history.append(record)
    state.sums = EpochSums(left_out_in_a_row=sums.left_out_in_a_row)
    if best and training.ranks.first:
        checkpoints.save_best(training.directory, state.best.epoch, state.best.weights)
    _save(training, state)
    if training.ranks.first:
        metrics = training.directory / checkpoints.METRICS
        with checkpoints.saving(metrics), metrics.open("a", encoding="utf-8") as lines:
            lines.write(metrics_line(record))
    log.add(record)
    training.progress.end(record, best=best)


def _take_mean(training: Training, state: TrainingState) -> Validation:
    """Puts the equal mean of the weights into the model; what it is worth."""
    assert state.average is not None
    model, device = training.model, training.hardware.device
    model.load_state_dict(state.average)
    share_statistics(model, training.ranks)
    with fed(training.train.epoch(0), device) as batches:
        measure_statistics(model, batches, training.hardware)
    with fed(training.validation.epoch(0), device) as batches:
        found = validate(model, batches, training.hardware, training.objective, training.ranks)
    if found.bad is not None:
        _stop_in_validation(training, state, found.bad)
    training.progress.say(
        f"mean of {state.averaged} weights: validation {found.loss:.4f} (best epoch, {state.best.epoch}: "
        f"{state.best.loss:.4f})"
    )
    return found


def finished(section: TrainingSection, state: TrainingState) -> bool:
    """Whether all epochs are done, or the validation loss has stood still for long enough."""
    stopping = section.early_stopping
    return state.epoch == section.epochs or (stopping is not None and state.best.waited >= stopping.patience)


def _network(training: Training, state: TrainingState) -> Callable[[Inputs], Tensor]:
    """The network that is validated after an epoch: with the running mean of its weights, where there is one."""
    model, average = training.model, state.average
    if average is None or training.section.ema is None:
        return model
    return lambda inputs: functional_call(model, average, (inputs,))


def _stop_in_validation(training: Training, state: TrainingState, number: int) -> NoReturn:
    validation = training.validation if training.whole is None else training.whole[1]
    batch = next(validation.epoch(0, number)).to(training.hardware.device)
    where, facts = f"the validation after epoch {state.epoch + 1}", [f"after step {state.step}"]
    with unshared(training.model, training.rows):
        error = not_finite(
            training.model, batch, training.hardware, training.section, training.objective, where, facts
        )
    error.step = state.step
    raise training.ranks.of_all(error)
