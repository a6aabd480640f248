"""How much slower the trainer is than a bare PyTorch loop on the same batches, network and optimiser.

    python benchmarks/trainer_overhead.py [--architecture mlp] [--repeats 15]

The bare loop is forward, weighted cross-entropy, backward, fused AdamW and nothing else. The trainer also has
a schedule, the norm of the gradient, the check for NaN, keyed dropout and its sums. Both take turns, with one
thread, in processor time, which a busy machine disturbs least; the median of the neighbours' ratios is given.
Validation and the checkpoint at the end of an epoch are not in it. Limit: 1.05.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional

from jettagger.batch import Batch, CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models import architectures, build, config_class
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.training.device import Hardware, threads
from jettagger.training.loop import train_member
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.training import Training

FEATURES, PARTICLES = 17, 60
SPEC = InputSpec(
    jet=tuple(Feature(f"jet{i}") for i in range(FEATURES)),
    collections=(
        CollectionInput("particles", tuple(Feature(f"p{i}") for i in range(FEATURES)), 128, coordinates=True),
    ),
)


class Listed:
    """Batches in memory, always in the same order; the last epoch took `seconds` of processor time."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.steps = len(batches)
        self.jets = sum(map(len, batches))
        self.seconds = 0.0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        began = time.process_time()
        yield from self.batches[start:]
        self.seconds = time.process_time() - began


def make_batch(size: int, number: int) -> Batch:
    generator = torch_generator(1, "benchmark", number)
    lengths_B = torch.randint(PARTICLES // 2, PARTICLES * 3 // 2, (size,), generator=generator)
    rows = int(lengths_B.sum())
    packed = Packed(
        torch.randn(rows, FEATURES, generator=generator),
        lengths_B,
        torch.rand(rows, 3, generator=generator) * torch.tensor([1.0, 1.0, 100.0]),
    )
    inputs = Inputs(torch.randn(size, FEATURES, generator=generator), {"particles": packed})
    labels_B = torch.randint(0, 2, (size,), generator=generator)
    return Batch(inputs, labels_B, torch.rand(size, generator=generator), torch.arange(size))


def make_model(architecture: str, sample: Inputs) -> JetModel:
    config = config_class(architecture).model_validate({"architecture": architecture, "dropout": 0.1})
    model = build(config, SPEC, 2, torch_generator(1, "initialisation", 0))
    model.fit_inputs(sample)
    return model


def bare(model: JetModel, batches: Listed) -> float:
    """Seconds of one epoch."""
    model.train()
    set_dropout_generator(model, torch.Generator())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            losses_B = functional.cross_entropy(model(batch.inputs), batch.labels_B, reduction="none")
            loss = (batch.weights_B * losses_B).sum() / batch.weights_B.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return batches.seconds


def trained(model: JetModel, batches: Listed) -> float:
    """Seconds of the steps of one epoch, with warm caches as in the bare loop."""
    section = TrainingSection(epochs=2, checkpoint_seconds=None)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            model=model,
            train=batches,
            validation=Listed(batches.batches[:1]),
            section=section,
            directory=Path(folder),
            hardware=Hardware(torch.device("cpu"), bfloat16=False),
            config={},
            progress=Progress("benchmark", 2, quiet=True),
        )
        train_member(training)
    return batches.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", choices=architectures(), default="mlp")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with threads(1):
        batches = Listed([make_batch(options.batch_size, number) for number in range(options.steps)])
        sample = batches.batches[0].inputs
        ratios, times = [], []
        for _ in range(options.repeats):
            alone = bare(make_model(options.architecture, sample), batches)
            whole = trained(make_model(options.architecture, sample), batches)
            ratios.append(whole / alone)
            times.append(alone / batches.steps)
    low, high = min(ratios), max(ratios)
    print(
        f"{options.architecture}, batch {options.batch_size}, one thread: bare step"
        f" {statistics.median(times) * 1e3:.3f} ms, trainer / bare {statistics.median(ratios):.3f}"
        f" ({low:.3f}-{high:.3f}, {options.repeats} pairs)"
    )


if __name__ == "__main__":
    main()
