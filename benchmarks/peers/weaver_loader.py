"""Batches of weaver-core, through its own classes: run by the interpreter that weaver-core is installed in.

`loader.py` starts it. The data loader is made as weaver's command makes it, but for the last, shorter batch,
which is kept. Nothing of jettagger is imported.
"""

import json
import sys
import time
from itertools import islice

import torch
from torch.utils.data import DataLoader
from weaver.utils.dataset import SimpleIterDataset

from measuring.stopwatch import measured


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    jets, batch_size, workers = told["jets"], told["batch_size"], told["workers"]
    steps = -(-jets // batch_size) + workers  # each worker may end with a shorter batch
    begin = time.perf_counter()
    dataset = SimpleIterDataset(
        told["files"],
        told["config"],
        batch_size=batch_size,
        for_training=True,
        fetch_by_files=told["fetch_by_files"],
        fetch_step=told["fetch_step"],
        in_memory=told["in_memory"],
        infinity_mode=told["in_memory"],
        name="train",
    )
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    if told["check"]:
        check(loader)
        return
    batches = None
    for name in ("first epoch", "later epoch") if told["in_memory"] else told["passes"]:
        with measured(name) as figures:
            # In memory, the iterator goes on for ever and an epoch is a number of steps.
            batches = iter(loader) if batches is None else batches
            seen = 0
            for X, _, _ in islice(batches, jets // batch_size if told["in_memory"] else steps):
                if not seen and name.startswith("first"):
                    print(json.dumps({"first batch": time.perf_counter() - begin}), flush=True)
                seen += len(X["pf_features"])
            figures["jets"] = seen
        if not told["in_memory"]:
            batches = None
            if seen != jets:
                raise SystemExit(f"{seen} jets came out of {jets}")


def check(loader: DataLoader) -> None:
    """Tells the sums that the raw features of all jets have, and the number of particles."""
    sums, particles = 0.0, 0
    for X, _, _ in loader:
        sums = sums + X["pf_features"].double().sum(dim=(0, 2))
        particles += int(X["pf_mask"].sum())
    print(json.dumps({"sums": sums.tolist(), "particles": particles}), flush=True)


if __name__ == "__main__":
    main()
