"""Batches of salt, through its own classes: run by the interpreter that salt is installed in.

`loader.py` starts it. salt reads an HDF5 file of padded tracks; its shuffling is of whole batches of
neighbours. Nothing of jettagger is imported.
"""

import json
import sys
import time

import torch
from salt.data import SaltDataset
from salt.data.samplers import RandomBatchSampler
from torch.utils.data import DataLoader

from measuring.stopwatch import measured


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    begin = time.perf_counter()
    dataset = SaltDataset(
        told["file"],
        norm_dict={},
        variables={"tracks": told["features"]},
        stage="fit",
        labels={"jets": ["label"]},
        input_map={"tracks": "tracks", "jets": "jets"},
    )
    workers = told["workers"]
    loader = DataLoader(
        dataset,
        batch_size=None,
        collate_fn=None,
        sampler=RandomBatchSampler(dataset, told["batch_size"], shuffle=True, drop_last=False),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    if told["check"]:
        check(loader)
        return
    for name in ("first epoch", "later epoch"):
        with measured(name) as figures:
            seen = 0
            for inputs, _, _ in loader:
                if not seen and name == "first epoch":
                    print(json.dumps({"first batch": time.perf_counter() - begin}), flush=True)
                seen += len(inputs["tracks"])
            figures["jets"] = seen
        if seen != told["jets"]:
            raise SystemExit(f"{seen} jets came out of {told['jets']}")


def check(loader: DataLoader) -> None:
    """Tells the sums that the features of all jets have, and the number of particles."""
    sums, particles = 0.0, 0
    for inputs, padded, _ in loader:
        sums = sums + inputs["tracks"].double().sum(dim=(0, 1))
        particles += int((~padded["tracks"]).sum())
    print(json.dumps({"sums": sums.tolist(), "particles": particles}), flush=True)


if __name__ == "__main__":
    main()
