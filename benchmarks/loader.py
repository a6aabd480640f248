"""How fast jets come from ROOT files, and from prepared data, with one process and one thread.

    python benchmarks/loader.py [FOLDER] [--repeats 5] [--config configs/particle_cnn.yaml]

FOLDER (default: data/top) holds QCD*.root and Top*.root with the branches that the config names. Three rows,
in turn, `repeats` times:

- uproot alone: the branches that the particle features need, whole files, into awkward arrays;
- ROOT → prepared: selection, classes, features, coordinates, shards on disk with their checksums;
- prepared → batches: an epoch of shuffled, materialised float32 batches of 512 jets, after one to warm up.

Times are those of the processor, which a busy machine disturbs least; the wall time stands beside them. The
median of each row, and of the ratio of neighbours, is given. Limits: ROOT → prepared at 0.60 of uproot
alone, prepared → batches at 500k jets/s, for 17 features of 60 particles a jet.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import uproot

from jettagger import yaml_source
from jettagger.data.batches import Batches
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Source
from jettagger.data.locations import find_files
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.reader import opening_of, source_of
from jettagger.data.schema import DataConfig

BATCH_SIZE = 512
KINDS = ["TTree", "ROOT::RNTuple"]


class Rate(NamedTuple):
    """Jets per second."""

    processor: float
    wall: float


def particle_inputs(document: dict[str, Any], folder: Path, prepared: Path) -> DataConfig:
    """The data sections of a config with its particle features only, for the files of `folder`."""
    parts = {name: document[name] for name in ("classes", "define") if name in document}
    inputs = {name: section for name, section in document["inputs"].items() if name != "jet"}
    samples = {name: str(folder / f"{name}*.root") for name in document["data"]["train"]}
    data = {**document["data"], "train": samples, "test": {}, "prepared": str(prepared)}
    return DataConfig.model_validate({**parts, "inputs": inputs, "data": data})


def read_with_uproot(config: DataConfig, sources: list[Source]) -> None:
    """Every branch that preparation reads, and nothing else."""
    columns = Columns(config)
    for source in sources:
        branches = sorted(columns.branches(source.branches, where=str(source.location), sample_weight=1.0))
        with uproot.open(source.location, array_cache=None) as file:
            tree = file[config.data.tree or file.keys(cycle=False, filter_classname=KINDS)[0]]
            assert len(tree.arrays(branches, how=dict)) == len(branches)


def epoch(batches: Batches, number: int) -> None:
    jets = sum(len(batch) for batch in batches.epoch(number))
    assert jets == batches.jets


def rate(jets: int, work: Callable[[], Any]) -> Rate:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Rate(jets / (time.process_time() - processor), jets / (time.perf_counter() - wall))


def one_round(config: DataConfig, rows: dict[str, list[Rate]]) -> None:
    """Measures each row once."""
    samples = config.data.train
    paths = [path for name in samples for path in find_files(samples[name], where=name)]  # type: ignore[arg-type]
    sources = [source_of(path, opening_of(config)) for path in paths]
    jets = sum(source.entries for source in sources)
    rows["uproot alone"].append(rate(jets, lambda: read_with_uproot(config, sources)))
    found: list[Prepared] = []
    filling = rate(jets, lambda: found.append(prepare(config, samples, role="files")))
    rows["ROOT → prepared"].append(filling)
    prepared = found[0]
    batches = Batches(prepared, np.arange(len(prepared)), BATCH_SIZE, shuffle=(1, 0))
    epoch(batches, 0)
    rows["prepared → batches"].append(rate(batches.jets, lambda: epoch(batches, 1)))
    if len(rows["uproot alone"]) == 1:
        for collection in prepared.spec.collections:
            rows_read = prepared.read(np.arange(len(prepared)), prepared.spec).collections[collection.name]
            mean = rows_read.lengths_J.mean()
            print(f"{jets} jets, {collection.name}: {len(collection.features)} features, {mean:.0f} a jet")


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates of the loader.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/top"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", type=Path, default=Path("configs/particle_cnn.yaml"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    document = yaml_source.read(options.config).content
    rows: dict[str, list[Rate]] = {"uproot alone": [], "ROOT → prepared": [], "prepared → batches": []}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as temporary:
            config = particle_inputs(document, options.folder, Path(temporary))
            one_round(config, rows)
    for name, rates in rows.items():
        processor, wall = (statistics.median(x) for x in zip(*rates, strict=True))
        print(f"{name:<20} {processor / 1000:8.1f}k jets/s  (wall {wall / 1000:.1f}k)")
    ratios = [b.processor / a.processor for a, b in zip(*list(rows.values())[:2], strict=True)]
    print(f"ROOT → prepared is {statistics.median(ratios):.2f} of uproot alone")


if __name__ == "__main__":
    main()
