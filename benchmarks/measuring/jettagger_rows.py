"""What `loader.py` measures of uproot alone and of jettagger; started by it, once for each figure.

Told as JSON: `kind` (uproot, prepare, batches or check), `config` (data sections), `processes`, `batch_size`.
"""

import json
import sys
import time
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import uproot

from jettagger.data.batches import Batches
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.schema import DataConfig
from measuring.processes import meet, started
from measuring.stopwatch import measured, phase, tell

KINDS = ["TTree", "ROOT::RNTuple"]


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    {"uproot": uproot_alone, "prepare": fill, "batches": batches, "check": check}[told["kind"]](told)


def uproot_alone(told: dict[str, Any]) -> None:
    """The branches that the features need and the labels, whole files, into awkward arrays."""
    files = told["files"]
    with started(told["processes"]) as executor:
        for name in told["passes"]:
            with measured(name) as figures:
                figures["jets"] = sum(executor.map(read_whole, files, [told["branches"]] * len(files)))


def read_whole(path: str, branches: list[str]) -> int:
    with uproot.open(path, array_cache=None) as file:
        tree = file[file.keys(cycle=False, filter_classname=KINDS)[0]]
        return len(tree.arrays(branches, how=dict)[branches[0]])


def fill(told: dict[str, Any]) -> None:
    """Shards on disk with their checksums, and from there the first batch."""
    with started(told["processes"]) as executor:
        for name in told["passes"]:
            with TemporaryDirectory(dir=told["scratch"]) as folder:
                told["config"]["data"]["prepared"] = folder
                config = DataConfig.model_validate(told["config"])
                begin = time.perf_counter()
                with measured(name) as figures:
                    prepared = prepare(config, config.data.train, role="data.train", executor=executor)
                    figures["jets"] = len(prepared)
                if name == told["passes"][0]:
                    next(epoch_of(prepared, told["batch_size"]).epoch(0))
                    print(json.dumps({"first batch": time.perf_counter() - begin}), flush=True)
                phase("end")


class Lap(NamedTuple):
    """What one process did between two meetings; all clocks are the machine's."""

    jets: int
    begin: float
    end: float
    processor: float


def batches(told: dict[str, Any]) -> None:
    """Epochs of shuffled, materialised float32 batches; several processes share the jets as ranks do."""
    number = told["processes"]
    with started(number) as executor:
        found = list(executor.map(epochs, [told] * number, range(number)))
    for name in found[0]:
        laps = [of_rank[name] for of_rank in found]
        wall = max(lap.end for lap in laps) - min(lap.begin for lap in laps)
        tell(name, jets=sum(x.jets for x in laps), wall=wall, processor=sum(x.processor for x in laps))


def epochs(told: dict[str, Any], rank: int) -> dict[str, Lap]:
    """One process's share."""
    begin = time.perf_counter()
    ours = epoch_of(found(told), told["batch_size"], rank, told["processes"])
    laps = {}
    for number, name in enumerate(("first epoch", "later epoch")):
        meet()
        if rank == 0:
            phase(name)
        processor, wall, jets = time.process_time(), time.perf_counter(), 0
        for batch in ours.epoch(number):
            if not jets and not number and not rank:
                print(json.dumps({"first batch": time.perf_counter() - begin}), flush=True)
            jets += len(batch)
        laps[name] = Lap(jets, wall, time.perf_counter(), time.process_time() - processor)
    return laps


def epoch_of(prepared: Prepared, batch_size: int, rank: int = 0, ranks: int = 1) -> Batches:
    rows_R = np.array_split(np.arange(len(prepared)), ranks)[rank]
    return Batches(prepared, rows_R, batch_size // ranks, shuffle=(1, 0))


def found(told: dict[str, Any]) -> Prepared:
    """The prepared dataset, which is filled in this process if it is not there yet."""
    config = DataConfig.model_validate(told["config"])
    return prepare(config, config.data.train, role="data.train", executor=started(1))


def check(told: dict[str, Any]) -> None:
    """Tells the sums that the features of all jets have, and the number of particles and bytes."""
    prepared = found(told)
    sums_F, particles = torch.zeros((), dtype=torch.float64), 0
    for batch in epoch_of(prepared, told["batch_size"]).epoch(0):
        packed = batch.inputs.collections["particles"]
        sums_F = sums_F + packed.features_NF.double().sum(dim=0)
        particles += len(packed.features_NF)
    folder = str(prepared.directory)
    print(
        json.dumps({"sums": sums_F.tolist(), "particles": particles, "jets": len(prepared), "folder": folder})
    )


if __name__ == "__main__":
    main()
