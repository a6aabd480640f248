"""What the training of one network is made of, and what comes of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from jettagger.advice import Advice
from jettagger.batch import Batch
from jettagger.models.parts.model import JetModel
from jettagger.training.augmentation import Mirror
from jettagger.training.compilation import Mode, Network
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.objective import Objective, objective_of
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.sharing import DropoutRows
from jettagger.training.state import EpochRecord


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
    """The best epoch's weights, or the mean's; a checkpoint that `checkpoints.load_weights` reads."""
    best_epoch: int
    """From 1."""
    best_loss: float
    """Its validation loss."""
    history: tuple[EpochRecord, ...]
    stopped_early: bool
    seconds: float
    jets: int
    """Jets trained on, over all epochs."""
    mean_loss: float | None = None
    """Validation loss of the mean of the weights that `training.swa` keeps in place of the best epoch's."""
    mean_auc: float | None = None
    mean_accuracy: float | None = None
    advice: tuple[Advice, ...] = ()
    """What the losses say of the training."""


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
    ranks: Ranks = field(default_factory=Ranks)
    """Who trains it together; each has its part of the batches in `train` and `validation`."""
    rows: DropoutRows | None = None
    """With several ranks: where each part lies in its batch."""
    whole: tuple[Batches, Batches] | None = None
    """With several ranks: `train` and `validation` with whole batches, for a diagnosis."""
    classes: int | None = None
    """Where the loss of a constant guess is ln(classes): the advice at the end compares with it."""
    rates: Callable[[int], float] | None = None
    """The learning rate of each step, in place of the schedule's: for the learning-rate finder."""
    runner: Network | None = None
    """The model compiled or recorded, for the steps of the training; None: it runs as it is."""
    runs: Mode = "eager"
    pending: list[tuple[int, Tensor]] = field(default_factory=list)
    """Steps not looked at yet, each with Σ w·l, Σ w and the norm of the gradient."""

    @cached_property
    def objective(self) -> Objective:
        """What is minimised."""
        return objective_of(self.model, self.section)

    @property
    def network(self) -> Network:
        """What a step runs: the model, however it runs."""
        return self.model if self.runner is None else self.runner

    @property
    def steps(self) -> int:
        """Steps in all epochs."""
        return self.section.epochs * self.train.steps
