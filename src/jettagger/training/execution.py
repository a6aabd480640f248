"""How the members of an ensemble are trained: one after the other, in one pass, or so many at a time.

The choice changes the last bits of the weights, so that no clock decides it unasked; it is written into the run, and a
run that goes on keeps to it.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.training.kept_memory import kept_memory
from jettagger.training.one_pass import Member, TogetherRun
from jettagger.training.schema import ChunkSection, EnsembleSection, TrainingSection
from jettagger.training.step import make_step
from jettagger.training.training import Training
from jettagger.training.trial import Trial, copied

RECORD = "ensemble.json"

Way = Literal["loop", "vectorised"]

FEWEST = 4
"""Members from which on one pass can pay."""
MOST_FLOPS = {"cpu": 20_000_000, "cuda": 2_000_000_000}
"""Operations of a forward pass of one member up to which one pass is the faster. Beyond, the arithmetic itself takes
the time, and products of many matrices are slower than single ones. benchmarks/ensembles.py shows it for the CPU; for
CUDA devices it is not measured."""
PARTICLES_SHARE = 0.05
"""Of these operations for a network of particles: most of its time is spent in moving rows."""
MOST_MEMBERS = 32
"""In one pass: beyond, the members' activations no longer fit into the processor's caches."""


KNOWN = {
    *("loss", "decorrelate", "keep_checkpoints", "watts"),
    *("epochs", "batch_size", "optimiser", "schedule", "gradient_clip", "early_stopping", "label_smoothing"),
    *(
        "lr_scaling",
        "swa",
        "l1",
        "ranks",
        "sync_batch_norm",
        "rank_timeout",
    ),
    *("reflections", "ema", "device", "precision", "threads", "seed", "checkpoint_seconds", "tensorboard"),
}
"""Keys of `training` that mean the same in one pass; what is added to the section is not among them unasked."""
TIMED = 7
"""Steps of each kind in a timed trial; their median decides."""


class Execution(NamedTuple):
    """How members are trained."""

    way: Way
    chunk: int
    """Members at a time."""
    why: str
    """In words."""

    def __str__(self) -> str:
        if self.way == "loop":
            return f"members are trained one after the other ({self.why})"
        return f"{self.chunk} members are trained at a time, in one pass ({self.why})"


def rule(trial: Trial, members: int, device: torch.device) -> Execution:
    """What is the faster, by size and number alone: the same on every machine of a kind."""
    if members < FEWEST:
        return Execution("loop", 1, f"fewer than {FEWEST} members")
    if trial.obstacle is not None:
        return Execution("loop", 1, trial.obstacle)
    if trial.convolutions:
        return Execution("loop", 1, "convolutions of several networks at once are slow")
    most = MOST_FLOPS[device.type] * (PARTICLES_SHARE if trial.particles else 1.0)
    if trial.flops > most:
        return Execution(
            "loop", 1, f"{trial.flops / 1e6:.1f} MFLOP a step and member, more than {most / 1e6:.1f}"
        )
    return Execution(
        "vectorised", even_chunk(members, MOST_MEMBERS), f"{trial.flops / 1e6:.1f} MFLOP a step and member"
    )


def even_chunk(members: int, most: int) -> int:
    """The size of the fewest chunks of at most `most` members that are even but for one."""
    return -(-members // -(-members // most))


def not_vectorised(section: TrainingSection) -> str | None:
    """The first setting that one pass does not know; None: it knows all that differ from their defaults."""
    for name, field in TrainingSection.model_fields.items():
        if name not in KNOWN and getattr(section, name) != field.get_default(call_default_factory=True):
            return f"training.{name} is only known to the loop"
    if section.batch_size == "all":
        return "training.batch_size: all passes the jets in parts, which is only known to the loop"
    return None


def stored(folder: Path) -> Execution | None:
    """What `store` left. Raises JettaggerError where it cannot be read."""
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["execution"]
        found = Execution(str(content["way"]), int(content["chunk"]), str(content["why"]))  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JettaggerError(f"{path} cannot be read: {error}") from error
    return found


def store(folder: Path, execution: Execution) -> None:
    """Leaves `ensemble.json` in a run."""
    write_json(folder / RECORD, {"execution": execution._asdict()})


def asked_for(section: EnsembleSection, members: int) -> Execution | None:
    """What the config says without a look at the networks; None where it leaves the choice."""
    asked = section.execution
    if asked == "loop" or (isinstance(asked, ChunkSection) and asked.chunk == 1):
        return Execution("loop", 1, "ensemble.execution")
    if isinstance(asked, ChunkSection):
        return Execution("vectorised", min(asked.chunk, members), "ensemble.execution")
    return Execution("vectorised", members, "ensemble.execution") if asked == "vectorised" else None


def measured(trainings: Sequence[Training], members: int) -> Execution:
    """What is the faster in steps of both kinds, on copies; `trainings` are as many as would be trained at a time."""
    batches = [next(iter(training.train.epoch(0))) for training in trainings]
    together = TogetherRun([copied(training) for training in trainings])
    alone = [copied(training) for training in trainings]
    for member in alone:
        set_dropout_generator(member.training.model.train(), torch.Generator(member.training.hardware.device))
    ratios = []
    with kept_memory(together.hardware.device):
        for _ in range(TIMED + 1):
            looped = _seconds(partial(_steps, alone, batches))
            ratios.append(looped / _seconds(partial(together.step, batches)))
    gain = statistics.median(ratios[1:])
    why = f"one pass is {gain:.2f} × as fast in a trial"
    if gain < 1:
        return Execution("loop", 1, why)
    return Execution("vectorised", even_chunk(members, len(trainings)), why)


def _steps(members: Sequence[Member], batches: Sequence[Batch]) -> None:
    for member, batch in zip(members, batches, strict=True):
        make_step(member.training, member.state, batch)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
