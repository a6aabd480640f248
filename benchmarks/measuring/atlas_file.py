"""The jets of ROOT files as an HDF5 file of the ATLAS kind: compound `jets`, and `tracks` padded to 128 with `valid`.

It holds the 17 features themselves, since that is what such files hold and what their loaders take.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import uproot
from numpy.typing import NDArray

from jettagger.expressions import Namespace, parse
from measuring.inputs import BRANCHES, CLASSES, EVENT, FEATURES, LENGTH

JET = np.dtype([("label", "i4"), (EVENT, "i8")])
TRACK = np.dtype([(name, "f4") for name in FEATURES] + [("valid", "?")])
CHUNK = 100
"""Jets that are compressed together, as in the files of ATLAS's own writer."""
STEP = 5000


def write(path: Path, files: list[str]) -> Path:
    """All jets of `files`, in a random order, since salt shuffles no more than whole batches of neighbours."""
    jets, tracks = (np.concatenate(parts) for parts in zip(*_compounds(files), strict=True))
    order = np.random.default_rng(1).permutation(len(jets))
    with h5py.File(path, "w") as file:
        file.create_dataset("jets", data=jets[order], chunks=(CHUNK,), compression="lzf")
        file.create_dataset("tracks", data=tracks[order], chunks=(CHUNK, LENGTH), compression="lzf")
    return path


def _compounds(files: list[str]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    expressions = {name: parse(feature.value) for name, feature in FEATURES.items()}
    wanted = [*BRANCHES, *CLASSES.values(), EVENT]
    for branches in uproot.iterate([f"{file}:tree" for file in files], wanted, step_size=STEP, how=dict):
        namespace = Namespace(branches, {})
        jets = np.zeros(len(branches[EVENT]), JET)
        tracks = np.zeros((len(jets), LENGTH), TRACK)
        for number, label in enumerate(CLASSES.values()):
            jets["label"][np.asarray(branches[label]) == 1] = number
        jets[EVENT] = branches[EVENT]
        for name, expression in expressions.items():
            jagged = namespace.evaluate(expression).to_awkward()
            tracks[name] = ak.fill_none(ak.pad_none(jagged, LENGTH, clip=True), 0)
        tracks["valid"] = np.arange(LENGTH) < np.asarray(ak.num(jagged))[:, None]
        yield jets, tracks
