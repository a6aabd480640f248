"""Quark and gluon jets of EnergyFlow (arXiv:1810.05165): npz with X (jets, particles, 4) and y (jets), float64."""

from pathlib import Path

import numpy as np

from schemas.drawn import drawn


def arrays(jets: int, seed: int) -> dict[str, np.ndarray]:
    """X: pT, rapidity, azimuth in [0, 2π), PDG code; padded with zeros to the longest jet. y: 1 is a quark."""
    parts, labels = [], []
    for quark, particles in ((0.0, 50), (1.0, 30)):
        some = drawn(jets, seed + int(quark), particles=particles, radius=0.4, pt=(500.0, 550.0))
        values = (some.pt, some.eta, some.phi % (2 * np.pi), some.pid.astype(float))
        longest = max(int(some.counts_J.max()), 1)
        parts.append(np.stack([some.slots(x, longest, np.float64) for x in values], axis=-1))
        labels.append(np.full(jets, quark))
    longest = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, longest - part.shape[1]), (0, 0))) for part in parts]
    order = np.random.default_rng(seed).permutation(2 * jets)
    return {"X": np.concatenate(padded)[order], "y": np.concatenate(labels)[order]}


def write(folder: Path, jets: int = 15) -> int:
    """The twenty files of the set; how many jets test."""
    place = folder / "data" / "quark_gluon"
    place.mkdir(parents=True)
    for number in range(20):
        name = "QG_jets.npz" if number == 0 else f"QG_jets_{number}.npz"
        np.savez_compressed(place / name, **arrays(jets, 2 * number))
    return 2 * 2 * jets
