"""Many ROOT files from a few: jets drawn at random, turned and reflected, so that no file is like another.

Shapes: J jets of a file, N particles of all its jets.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from jettagger.data.locations import find_files
from measuring.inputs import BRANCHES, CLASSES, EVENT

SOURCE_JETS = 5000
"""Jets of each class that are drawn from."""
KINDS = ["TTree", "ROOT::RNTuple"]


def make_files(source: Path, folder: Path, files: int, jets: int) -> list[Path]:
    """`files` files of `jets` jets each in `folder`, the classes in turn, from the jets in `source`."""
    folder.mkdir(parents=True)
    names = list(CLASSES)
    paths = [folder / f"{names[number % len(names)]}_{number:04d}.root" for number in range(files)]
    processes = min(len(os.sched_getaffinity(0)), files)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        uuids = list(executor.map(make_file, repeat(source), paths, repeat(jets), range(files)))
    if len(set(uuids)) != files:
        raise SystemExit("two files have the same UUID")
    return paths


def make_file(source: Path, path: Path, jets: int, seed: int) -> str:
    """Writes one file, LZ4-compressed as JetClass's are, and returns its UUID."""
    rng = np.random.default_rng(seed)
    stored = jets_of(source, path.name.split("_")[0])
    drawn = rng.integers(len(stored[EVENT]), size=jets)
    branches = {name: ak.to_packed(ak.Array(array)[drawn]) for name, array in stored.items()}
    counts_J = np.asarray(ak.num(branches["part_px"]))
    flat = {name: np.asarray(ak.flatten(x)) for name, x in branches.items() if name.startswith("part_")}
    angle_N = np.repeat(rng.uniform(0, 2 * np.pi, jets), counts_J).astype(np.float32)
    sign_N = np.repeat(rng.choice(np.float32([-1, 1]), jets), counts_J)
    cos_N, sin_N = np.cos(angle_N), np.sin(angle_N)
    px_N, py_N = flat["part_px"], flat["part_py"]
    flat |= {"part_px": px_N * cos_N - py_N * sin_N, "part_py": px_N * sin_N + py_N * cos_N}
    flat |= {name: flat[name] * sign_N for name in ("part_deta", "part_d0val")}
    jagged = ak.zip({name.removeprefix("part_"): ak.unflatten(x, counts_J) for name, x in flat.items()})
    jet = {name: np.asarray(array) for name, array in branches.items() if not name.startswith("part_")}
    jet[EVENT] = np.arange(jets, dtype=np.int64) + seed * jets
    with uproot.recreate(path, compression=uproot.LZ4(1)) as file:
        types: dict[str, Any] = {name: array.dtype for name, array in jet.items()} | {"part": jagged.type}
        file.mktree("tree", types, counter_name=lambda counted: f"n{counted}")
        file["tree"].extend({**jet, "part": jagged})
        return str(file.file.uuid)


@lru_cache
def jets_of(source: Path, sample: str) -> dict[str, Any]:
    """The first jets of a class."""
    path = find_files(str(source / f"{sample}*.root"), where="FOLDER")[0]
    with uproot.open(path) as file:
        tree = file[file.keys(cycle=False, filter_classname=KINDS)[0]]
        wanted = [*BRANCHES, *CLASSES.values(), EVENT]
        arrays: dict[str, Any] = tree.arrays(wanted, entry_stop=SOURCE_JETS, how=dict)
        return arrays
