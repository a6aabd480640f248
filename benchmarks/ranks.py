"""How training scales from one Gloo rank to two, with one thread each and the same global batch.

    python benchmarks/ranks.py [--architecture mlp --architecture particle_cnn] [--batch-size 1024] [--repeats 5]

Each number of ranks runs in processes of its own, in turns; the median of the repeats is given, in wall time: the
machine has to be idle and to have a core for each rank. `of ideal` is (steps/s of N ranks) / (N · steps/s of one).
`messages` is the time that the same number of all-reduces of the same sizes takes with nothing between them, and
`limit` what would be left of the ideal if only these were added to 1/N of a step: what keeps the measured figure below
that is the part of a step that does not shrink with the batch, and ranks that wait for each other.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

sys.path.insert(0, str(Path(__file__).parent))

from jettagger.batch import Batch, Inputs, Packed, Part, Rows
from jettagger.models import architectures
from jettagger.training.device import Hardware, threads
from jettagger.training.distribution import Ranks, connected
from jettagger.training.launch import found_ranks
from jettagger.training.loop import train_member
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.sharing import DropoutRows
from jettagger.training.training import Training
from trainer_overhead import Listed, make_batch, make_model

WARM_UP = 5
"""All-reduces before the clock is started."""


def part_of(batch: Batch, rank: int, world: int) -> Batch:
    """A rank's part of a batch."""
    if world == 1:
        return batch
    low, high = (len(batch) * n // world for n in (rank, rank + 1))
    packed = batch.inputs.collections["particles"]
    assert isinstance(packed, Packed)
    assert batch.inputs.jet_BF is not None
    edges = [int(packed.lengths_B[:n].sum()) for n in (low, high, len(batch))]
    mine = slice(edges[0], edges[1])
    assert packed.coordinates_NK is not None
    particles = Packed(packed.features_NF[mine], packed.lengths_B[low:high], packed.coordinates_NK[mine])
    return replace(
        batch,
        inputs=Inputs(batch.inputs.jet_BF[low:high], {"particles": particles}),
        labels_B=batch.labels_B[low:high],
        weights_B=batch.weights_B[low:high],
        index_B=batch.index_B[low:high],
        part=Part(
            Rows(low, high - low, len(batch)),
            {"particles": Rows(edges[0], edges[1] - edges[0], edges[2])},
        ),
    )


class Timed(Listed):
    """Batches whose last epoch took `seconds` of wall time."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        began = time.perf_counter()
        yield from self.batches[start:]
        self.seconds = time.perf_counter() - began


def counted(ranks: Ranks) -> list[int]:
    """Lists the bytes of each all-reduce from now on."""
    sizes: list[int] = []
    all_reduce = distributed.all_reduce

    def reduce(x: Tensor, *arguments: Any, **named: Any) -> Any:
        sizes.append(x.numel() * x.element_size())
        return all_reduce(x, *arguments, **named)

    distributed.all_reduce = reduce
    return sizes


def messages(sizes: list[int], ranks: Ranks) -> float:
    """Seconds that all-reduces of these sizes take by themselves."""
    tensors = [torch.zeros(size // 4) for size in sizes]
    for x in tensors[:WARM_UP]:
        ranks.sum(x)
    began = time.perf_counter()
    for x in tensors:
        ranks.sum(x)
    return time.perf_counter() - began


def measure(architecture: str, batch_size: int, steps: int) -> dict[str, float]:
    """Of one rank: steps a second, all-reduces and bytes a step, seconds a step that these take alone."""
    ranks, device = found_ranks(), torch.device("cpu")
    with threads(1), connected(ranks, device, 120.0) as ranks, tempfile.TemporaryDirectory() as folder:
        whole = [make_batch(batch_size, number) for number in range(steps)]
        batches = Timed([part_of(batch, ranks.rank, ranks.world) for batch in whole])
        model = make_model(architecture, whole[0].inputs)
        sizes = counted(ranks)
        train_member(
            Training(
                model=model,
                train=batches,
                validation=Listed([batches.batches[0]]),
                section=TrainingSection(epochs=2, checkpoint_seconds=None),
                directory=Path(folder),
                hardware=Hardware(device, bfloat16=False),
                config={},
                progress=Progress("benchmark", 2, quiet=True),
                ranks=ranks,
                rows=DropoutRows(model, model.inputs) if ranks.world > 1 else None,
            )
        )
        of_step = sizes[-(len(sizes) // (2 * steps)) :] if sizes else []
        spent = messages(of_step * steps, ranks) / steps if of_step else 0.0
    return {
        "rate": steps / batches.seconds,
        "all-reduces": len(of_step),
        "bytes": sum(of_step),
        "messages": spent,
    }


def start(world: int, options: argparse.Namespace, architecture: str) -> dict[str, float]:
    """What rank 0 of `world` processes measures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--rank", "--architecture", architecture]
    command += ["--batch-size", str(options.batch_size), "--steps", str(options.steps)]
    fixed = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **fixed, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        raise SystemExit("a rank has failed")
    found: dict[str, float] = json.loads(said[0])
    return found


def report(architecture: str, options: argparse.Namespace) -> str:
    """One line."""
    one, two = [], []
    for _ in range(options.repeats):
        one.append(start(1, options, architecture))
        two.append(start(2, options, architecture))
    rates = [statistics.median(found["rate"] for found in side) for side in (one, two)]
    spent = statistics.median(found["messages"] for found in two)
    limit = (0.5 / rates[0]) / (0.5 / rates[0] + spent)
    size = two[0]["bytes"]
    return (
        f"{architecture}, batch {options.batch_size}: {rates[0]:.1f} steps/s with one rank, {rates[1]:.1f} with two,"
        f" {rates[1] / (2 * rates[0]):.2f} of ideal (limit by messages {limit:.2f}); {two[0]['all-reduces']:.0f}"
        f" all-reduces and {size / 1e3:.1f} kB a step take {spent * 1e3:.2f} ms by themselves,"
        f" {size / max(spent, 1e-9) / 1e6:.0f} MB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", action="append", choices=architectures())
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.architecture or ["mlp", "particle_cnn"]
    if options.rank:
        print(json.dumps(measure(chosen[0], options.batch_size, options.steps)))
        return
    for architecture in chosen:
        print(report(architecture, options), flush=True)


if __name__ == "__main__":
    main()
