"""An ensemble trained in one pass against the same members one after the other, and which of them the rule picks.

    python benchmarks/ensembles.py [--architectures mlp image_cnn particle_cnn] [--members 2 4 16]
                                   [--batch-sizes 64 256 2048] [--threads 1 0] [--steps 4] [--repeats 5]

The trainer's own steps on jets in memory: AdamW, gradient norms, dropout off. Both ways take turns; the median of the
neighbours' ratios is given, above 1 where one pass is the faster: in processor time for one thread, which a busy
machine disturbs least, and in wall time for several (`--threads 0`: as many as PyTorch takes). Limits: at least 4 for
16 small MLPs at batch 64, and never below 0.95 for what the rule picks. `small` is an MLP of 3 x 64.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from jettagger.batch import Batch, Inputs
from jettagger.models import build, config_class
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.randomness import torch_generator
from jettagger.training.device import Hardware, threads
from jettagger.training.execution import rule
from jettagger.training.kept_memory import kept_memory
from jettagger.training.one_pass import Member, TogetherRun
from jettagger.training.optimisers import build_optimiser
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.state import TrainingState
from jettagger.training.step import make_step
from jettagger.training.tensorboard import Log
from jettagger.training.training import Training
from jettagger.training.trial import attempt
from trainer_overhead import PARTICLES, SPEC, make_batch

SETTINGS: dict[str, dict[str, Any]] = {
    "small": {"architecture": "mlp", "widths": [64, 64, 64]},
    "mlp": {"architecture": "mlp"},
    "mlp_batch_norm": {"architecture": "mlp", "norm": "batch", "dropout": 0.1},
    "image_cnn": {"architecture": "image_cnn"},
    "particle_cnn": {"architecture": "particle_cnn"},
    "particle_cnn_small": {"architecture": "particle_cnn", "widths": [16, 16], "dense": [16]},
}


class Listed:
    """One batch again and again."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps, self.jets = batch, steps, steps * len(batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from [self.batch] * (self.steps - start)


def make_training(name: str, size: int, member: int) -> Training:
    settings = SETTINGS[name]
    config = config_class(settings["architecture"]).model_validate(settings)
    model = build(config, SPEC, 2, torch_generator(1, "initialisation", member))
    sample = make_batch(256, 0).inputs
    model.fit_inputs(sample)
    full = make_batch(size, member + 1)
    wanted = {c.name: full.inputs.collections[c.name] for c in model.inputs.collections}
    batch = Batch(Inputs(full.inputs.jet_BF, wanted), full.labels_B, full.weights_B, full.index_B)
    section = TrainingSection.model_validate({"schedule": "constant", "epochs": 1000})
    return Training(
        model=model,
        train=Listed(batch, 1000),
        validation=Listed(batch, 1),
        section=section,
        directory=Path(),
        hardware=Hardware(torch.device("cpu"), bfloat16=False),
        config={},
        progress=Progress("", 1, quiet=True),
        member=member,
        stream=member,
    )


def members_of(name: str, size: int, number: int) -> list[Member]:
    found = []
    for member in range(number):
        training = make_training(name, size, member)
        state = TrainingState(training.model, build_optimiser(training.model, training.section.optimiser))
        set_dropout_generator(training.model.train(), torch.Generator())
        found.append(Member(training, state, Log(Path(), False, 0)))
    return found


def loop(members: Sequence[Member], steps: int) -> None:
    for member in members:
        for batch in [next(iter(member.training.train.epoch(0)))] * steps:
            make_step(member.training, member.state, batch)


def seconds_of(action: Any, clock: Any) -> float:
    began = clock()
    action()
    return float(clock() - began)


def compare(name: str, size: int, number: int, steps: int, repeats: int, clock: Any) -> tuple[float, float]:
    """Loop over one pass in time; and ms that a step of all members takes in the loop."""
    together, alone = members_of(name, size, number), members_of(name, size, number)
    run = TogetherRun(together)
    batches = [next(iter(member.training.train.epoch(0))) for member in together]
    pairs = []
    for _ in range(repeats + 1):
        looped = seconds_of(lambda: loop(alone, steps), clock)
        passed = seconds_of(lambda: [run.step(batches) for _ in range(steps)], clock)
        pairs.append((looped / passed, looped / steps * 1000))
    return statistics.median(r for r, _ in pairs[1:]), statistics.median(t for _, t in pairs[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--architectures", nargs="+", default=["small", "mlp", "image_cnn", "particle_cnn"], choices=SETTINGS
    )
    parser.add_argument("--members", nargs="+", type=int, default=[2, 4, 16])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 256, 2048])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 0], help="0: as many as PyTorch takes")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--slowest",
        type=float,
        default=2000.0,
        help="ms a step of the loop beyond which larger cases are left out",
    )
    options = parser.parse_args()
    print(f"{PARTICLES} particles a jet; loop time / one-pass time; what the rule picks")
    for number_of_threads in options.threads:
        clock = time.process_time if number_of_threads == 1 else time.perf_counter
        with threads(number_of_threads or None), kept_memory(torch.device("cpu")):
            print(f"{torch.get_num_threads()} threads", flush=True)
            for name in options.architectures:
                for size in options.batch_sizes:
                    for number in options.members:
                        line(name, size, number, options, clock)


def line(name: str, size: int, number: int, options: argparse.Namespace, clock: Any) -> None:
    trial = attempt([make_training(name, size, member) for member in range(2)])
    picked = rule(trial, number, torch.device("cpu"))
    one = members_of(name, size, 1)
    probe = seconds_of(lambda: loop(one, 2), clock) / 2 * 1000
    if probe * number > options.slowest:
        print(
            f"{name:20} batch {size:5} members {number:3}: left out, {probe:.0f} ms a step; rule: {picked.way}"
        )
        return
    ratio, looped = compare(name, size, number, options.steps, options.repeats, clock)
    chosen = 1.0 if picked.way == "loop" else ratio
    print(
        f"{name:20} batch {size:5} members {number:3}: {ratio:5.2f}   loop {looped:8.2f} ms   "
        f"{trial.flops / 1e6:8.2f} MFLOP   rule: {picked.way}{'' if chosen >= 0.95 else '  SLOWER'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
