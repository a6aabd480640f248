"""JetNet (arXiv:2106.11535): HDF5, `particle_features` (jets, 30, 4) and `jet_features` (jets, 4), a file a class."""

from pathlib import Path

import h5py
import numpy as np

from schemas.drawn import drawn

SLOTS = 30
PRONGS = {"g": 1, "q": 1, "t": 3, "w": 2, "z": 2}


def write(folder: Path, jets: int = 1000) -> int:
    """The five files of the set; all of them are scored, since none is for tests."""
    place = folder / "data" / "jetnet"
    place.mkdir(parents=True)
    for seed, (name, prongs) in enumerate(PRONGS.items()):
        some = drawn(jets, seed, prongs=prongs, particles=25, pt=(800.0, 1200.0))
        relative = (some.deta, some.dphi, some.pt / some.jet_pt[some.jet_N], np.ones_like(some.pt))
        particles = np.stack([some.slots(x, SLOTS) for x in relative], axis=-1)
        mass = np.random.default_rng(seed).uniform(20, 200, jets)
        features = (some.jet_pt, some.jet_eta, mass, np.minimum(some.counts_J, SLOTS))
        with h5py.File(place / f"{name}.hdf5", "w") as file:
            file["particle_features"] = particles.astype(np.float32)
            file["jet_features"] = np.stack(features, axis=-1).astype(np.float32)
    return jets * len(PRONGS)
