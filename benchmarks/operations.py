"""What the operations of a training step take one by one, against the step: how much there is to gain.

    python benchmarks/operations.py [FOLDER] [--network p_cnn] [--precision bfloat16] [--threads 2] [--repeats 7]
    python benchmarks/operations.py --members 16 [--threads 1]

Every operation of one step on real jets is run again by itself, on the same tensors (as they are after the step), and
medians are summed: by kind, for matrix products and convolutions with their rate. Alone, small operands come from the
cache and the calls of one operation after another are quick; a step takes longer by what it loads from memory and by
Python between the operations. FOLDER as in training.py. With `--members`, the small MLPs of ensembles.py in one pass,
at batch 64.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ensembles import members_of, seconds_of
from jettagger.data.batches import Batches
from jettagger.data.prepared import prepare
from jettagger.data.schema import DataConfig
from jettagger.training.device import Precision, threads
from jettagger.training.kept_memory import kept_memory
from jettagger.training.one_pass import TogetherRun
from measuring.networks import NETWORKS, data_config, samples_in
from measuring.processes import started
from measuring.training_rows import bare_step, make_model

Step = Callable[[], object]
SHOWN = 12
STEPS = 30


class Call(NamedTuple):
    """An operation of the step."""

    operation: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    flops: float


class Recorder(TorchDispatchMode):
    """Keeps every operation that it sees, with its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        found = func(*args, **options)
        count = flop_registry.get(func._overloadpacket)
        flops = 0.0 if count is None else float(count(*args, **options, out_val=found))
        self.calls.append(Call(func, args, options, flops))
        return found


def step_of_network(name: str, folder: Path, temporary: str, precision: Precision) -> Step:
    """Forward, cross-entropy, backward, AdamW, on the same batch each time."""
    config = DataConfig.model_validate(data_config(samples_in(folder), temporary))
    prepared = prepare(config, config.data.train, role="data.train", executor=started(1))
    model = make_model(name, prepared)
    rows_R, size = np.arange(len(prepared)), NETWORKS[name].batch_size
    batch = next(Batches(prepared, rows_R, size, shuffle=(1, 0), inputs=model.inputs).epoch(0))
    return partial(bare_step(model, precision), batch)


def step_of_members(number: int) -> Step:
    """The small MLPs, all at once."""
    members = members_of("small", 64, number)
    run = TogetherRun(members)
    batches = [next(iter(member.training.train.epoch(0))) for member in members]
    return lambda: run.step(batches)


def median_seconds(action: Step, repeats: int) -> float:
    """After one run that is not counted."""
    return statistics.median([seconds_of(action, time.perf_counter) for _ in range(repeats + 1)][1:])


def show(step: Step, repeats: int) -> None:
    for _ in range(STEPS // 2):
        step()
    whole = median_seconds(step, STEPS)
    with Recorder() as recorder:
        step()
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with torch.no_grad():
        for operation, arguments, named, flops in recorder.calls:
            seconds = median_seconds(partial(operation, *arguments, **named), repeats)
            kinds[operation._overloadpacket.__name__].append((seconds, flops))
    sums = {kind: tuple(map(sum, zip(*runs, strict=True))) for kind, runs in kinds.items()}
    print(f"{'operation':32}{'calls':>7}{'ms alone':>10}{'GFLOP/s':>10}")
    ordered = sorted(sums, key=lambda kind: -sums[kind][0])
    for kind in ordered[:SHOWN]:
        seconds, flops = sums[kind]
        rate = f"{flops / seconds / 1e9:10.0f}" if flops else ""
        print(f"{kind:32}{len(kinds[kind]):7}{seconds * 1e3:10.2f}{rate}")
    alone = sum(seconds for seconds, _ in sums.values())
    rest = sum(sums[kind][0] for kind in ordered[SHOWN:])
    counted = sum(len(kinds[kind]) for kind in ordered[SHOWN:])
    products = sum(seconds for seconds, flops in sums.values() if flops)
    print(f"{'others':32}{counted:7}{rest * 1e3:10.2f}")
    print(
        f"\nproducts and convolutions alone {products * 1e3:.2f} ms, all {len(recorder.calls)} operations alone "
        f"{alone * 1e3:.2f} ms, the step {whole * 1e3:.2f} ms (median of {STEPS})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/top"))
    parser.add_argument("--network", choices=[*NETWORKS], default="p_cnn")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--members", type=int, help="MLPs in one pass instead")
    parser.add_argument("--threads", type=int, help="default: 2, and 1 with --members")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    number = options.threads or (2 if options.members is None else 1)
    with tempfile.TemporaryDirectory() as temporary, threads(number), kept_memory(torch.device("cpu")):
        if options.members is not None:
            print(f"{options.members} MLPs of 3 x 64, batch 64, float32, threads: {number}")
            show(step_of_members(options.members), options.repeats)
        else:
            step = step_of_network(options.network, options.folder, temporary, options.precision)
            size = NETWORKS[options.network].batch_size
            print(f"{options.network}, batch {size}, {options.precision}, threads: {number}")
            show(step, options.repeats)


if __name__ == "__main__":
    main()
