"""All that changes while a network is trained, in one object: what a checkpoint holds."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from jettagger.training.schedules import Plateau

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class EpochRecord:
    """A line of metrics.jsonl."""

    epoch: int
    """From 1."""
    step: int
    """Steps done at its end."""
    train_loss: float
    """Mean over the epoch, while the weights changed; Σ w·l / Σ w."""
    validation_loss: float
    accuracy: float | None
    """Of the validation jets, weighted; None without classes."""
    auc: float | None
    """Of the validation jets, weighted; one-vs-rest macro beyond two classes; None where it is undefined."""
    lr: float
    """Of the last step."""
    gradient_norm: float
    """Mean over the steps, before clipping; of those that were made, in float16."""
    seconds: float
    """For training and validation, summed over all runs that worked on the epoch."""
    jets_per_second: float
    """In training alone."""
    targets: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By regression target, of the validation jets in its units: `bias`, `resolution`, `pull_width`."""
    decorrelation: float | None = None
    """Squared distance correlation of score and variable, of the validation jets; None where it is not asked for."""
    clipped: float = 0.0
    """Share of the steps whose gradient was clipped."""
    left_out: int = 0
    """Steps that were not made because the scaled gradient was infinite; in float16 only."""
    l1: float = 0.0
    """λ Σ|w| of the weights at its end, where `training.l1` asks for it; not part of the losses."""


@dataclass
class EpochSums:
    """Sums over the steps of the epoch in progress."""

    losses: float = 0.0
    weights: float = 0.0
    norms: float = 0.0
    clipped: int = 0
    left_out: int = 0
    left_out_in_a_row: int = 0
    jets: int = 0
    seconds: float = 0.0


@dataclass
class Best:
    """The best epoch so far, and how long the training has waited for a better one."""

    loss: float = math.inf
    epoch: int = 0
    """From 1; 0: none yet."""
    weights: Weights = field(default_factory=dict)
    """On the CPU."""
    to_beat: float = math.inf
    """The loss that early stopping compares with: it falls by `min_delta` at least."""
    waited: int = 0

    def observe(self, record: EpochRecord, weights: Weights, min_delta: float) -> bool:
        """Takes a new epoch; whether it is the best."""
        if record.validation_loss < self.to_beat - min_delta:
            self.to_beat, self.waited = record.validation_loss, 0
        else:
            self.waited += 1
        if record.validation_loss >= self.loss:
            return False
        self.loss, self.epoch = record.validation_loss, record.epoch
        self.weights = {
            name: x.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, x in weights.items()
        }
        return True


@dataclass
class TrainingState:
    """Everything that a training needs to go on as if nothing had happened.

    Random numbers need no place here: they are keyed by (seed, purpose, member, step).
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    """Steps done, over all epochs."""
    scaler: GradScaler | None = None
    """Scales the loss in float16."""
    average: Weights | None = None
    """Running mean of the weights, where the config asks for one (`ema`, `swa`)."""
    averaged: int = 0
    """`swa`: weights in the mean so far."""
    plateau: Plateau = field(default_factory=Plateau)
    best: Best = field(default_factory=Best)
    sums: EpochSums = field(default_factory=EpochSums)
    history: list[EpochRecord] = field(default_factory=list)
    """One record for each epoch that is complete."""

    @property
    def epoch(self) -> int:
        """The epoch in progress, from 0."""
        return len(self.history)

    def content(self) -> dict[str, Any]:
        """Plain values and tensors for a file; the tensors are the live ones."""
        return {
            "model": dict(self.model.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
            "average": self.average,
            "averaged": self.averaged,
            "plateau": asdict(self.plateau),
            "best": {**vars(self.best)},
            "sums": asdict(self.sums),
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over what `content` gave, on whatever device the tensors now are."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.scaler is not None:
            self.scaler.load_state_dict(content["scaler"])
        self.step = content["step"]
        if self.average is not None:
            for name, mean in self.average.items():
                mean.copy_(content["average"][name])
        self.averaged = content["averaged"]
        self.plateau = Plateau(**content["plateau"])
        self.best = Best(**content["best"])
        self.sums = EpochSums(**content["sums"])
        self.history = [EpochRecord(**record) for record in content["history"]]
