"""How a training begins, anew or with its last checkpoint: the network on its device, the state, the folder."""

import json
from dataclasses import asdict, replace
from typing import Any

import torch

from jettagger.errors import JettaggerError
from jettagger.files import written_aside
from jettagger.models.parts.layers import BatchNorm
from jettagger.training import checkpoints
from jettagger.training.averages import average_of
from jettagger.training.compilation import runner_of
from jettagger.training.optimisers import build_optimiser
from jettagger.training.scaling import scaler_of
from jettagger.training.sharing import DropoutRows, same_start, share_statistics
from jettagger.training.state import EpochRecord, TrainingState
from jettagger.training.training import Training


def check_shared(training: Training) -> None:
    """Raises JettaggerError for what looks at pairs of jets, where a batch is spread over several ranks."""
    if training.ranks.world == 1:
        return
    pairs = {
        "mixup": ("mixes jets", training.section.mixup),
        "decorrelate": ("compares all pairs of jets", training.section.decorrelate),
    }
    for name, (does, section) in pairs.items():
        if section is not None:
            raise training.ranks.of_all(
                JettaggerError(
                    f"training.{name} {does} of the whole batch, and here each of several ranks has a part of it:"
                    f" leave {name} out, train in one process, or spread members with training.ranks: members"
                )
            )


def on_device(training: Training) -> Training:
    """The training with its network on the device, compiled or recorded where that is asked for and works."""
    section, device = training.section, training.hardware.device
    training.model.to(device)
    if device.type == "cuda":  # what cuDNN's convolutions are quickest with
        training.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if section.accumulate > 1 and training.rows is None:
        training = replace(training, rows=DropoutRows(training.model, training.model.inputs))
    if section.accumulate > 1:
        _say_what_sees_parts(training)
    if not (section.compile or section.cuda_graphs):
        return training
    if training.ranks.world > 1:
        training.progress.say("training.compile and cuda_graphs are left out: ranks speak within the network")
        return training
    sample = next(iter(training.train.epoch(0))).to(device)
    runner = runner_of(training.model, section, training.hardware, sample.inputs)
    if runner.remark is not None:
        training.progress.say(runner.remark)
    return replace(training, runner=runner.network, runs=runner.mode)


def _say_what_sees_parts(training: Training) -> None:
    """What is no sum over jets differs between a batch and its parts."""
    parts = f"each of the {training.section.accumulate} parts of a batch, not from the whole"
    if any(isinstance(x, BatchNorm) for x in training.model.modules()):
        training.progress.say(f"BatchNorm takes its statistics from {parts}")
    if training.section.decorrelate is not None:
        training.progress.say(f"the decorrelation takes dCor² from {parts}")


def start(training: Training, *, resume: bool, newest: int | None = None) -> TrainingState:
    """A new state, or the last checkpoint's; the folder agrees with it afterwards.

    Checkpoints from after step `newest` are passed over.
    """
    section, ranks = training.section, training.ranks
    same_start(ranks, training.model)
    if section.sync_batch_norm:
        share_statistics(training.model, ranks)
    state = TrainingState(training.model, build_optimiser(training.model, section.optimiser))
    state.scaler = scaler_of(training.hardware, state.optimiser)
    state.average = average_of(training.model, section, training.steps)
    content = ranks.first_does(lambda: _found(training, resume, newest))
    if content is not None:
        state.restore(content)
    if resume:
        training.progress.say(f"resuming after step {state.step} of {training.steps}")
    if ranks.first:
        metrics = training.directory / checkpoints.METRICS
        with checkpoints.saving(metrics), written_aside(metrics) as aside:
            aside.write_text("".join(metrics_line(record) for record in state.history), encoding="utf-8")
    return state


def _found(training: Training, resume: bool, newest: int | None) -> dict[str, Any] | None:
    """The last checkpoint, where there is one and it is asked for."""
    directory = training.directory
    if checkpoints.kept(directory) and not resume:
        raise JettaggerError(
            f"{directory} holds a training: --resume goes on with it, or choose another --output"
        )
    if not resume:
        return None
    checkpoints.clear_leftovers(directory)
    content, remarks = checkpoints.load_last(directory, identity_of(training), newest=newest)
    for remark in remarks:
        training.progress.say(remark)
    if remarks:
        checkpoints.remove_damaged(directory)
    return content


def identity_of(training: Training) -> dict[str, Any]:
    """What must be equal on resuming."""
    identity = {
        **training.config,
        "member": training.member,
        "precision in use": training.hardware.precision,
        checkpoints.RANKS: training.ranks.world,
    }
    return identity if training.runs == "eager" else {**identity, "network runs": training.runs}


def metrics_line(record: EpochRecord) -> str:
    """An epoch in metrics.jsonl."""
    return json.dumps(asdict(record)) + "\n"
