"""Top Tagging Reference (arXiv:1902.09914): a pandas table, key `table`, 200 four-momenta a jet, zero padded."""

from pathlib import Path

import numpy as np
import pandas as pd

from schemas.drawn import drawn

SLOTS = 200
PARTS = {"train": 0, "test": 1, "val": 2}
"""What `ttv` holds for each file."""


def frame(jets: int, seed: int, ttv: int) -> pd.DataFrame:
    """QCD and top jets mixed; float32 momenta and int64 labels."""
    columns: dict[str, list[np.ndarray]] = {}
    for signal, prongs in ((0, 1), (1, 3)):
        some = drawn(jets, seed + signal, prongs=prongs, particles=45, pt=(550.0, 650.0))
        momenta = {
            "E": some.pt * np.cosh(some.eta),
            "PX": some.pt * np.cos(some.phi),
            "PY": some.pt * np.sin(some.phi),
            "PZ": some.pt * np.sinh(some.eta),
        }
        padded = {name: some.slots(values, SLOTS) for name, values in momenta.items()}
        for slot in range(SLOTS):
            for name in momenta:
                columns.setdefault(f"{name}_{slot}", []).append(padded[name][:, slot])
        for name in momenta:
            truth = signal * some.total(momenta[name]).astype(np.float32)
            columns.setdefault(f"truth{name}", []).append(truth)
        columns.setdefault("ttv", []).append(np.full(jets, ttv, np.int64))
        columns.setdefault("is_signal_new", []).append(np.full(jets, signal, np.int64))
    order = np.random.default_rng(seed).permutation(2 * jets)
    return pd.DataFrame({name: np.concatenate(parts)[order] for name, parts in columns.items()})


def write(folder: Path, jets: int = 60) -> int:
    """The three files of the set; how many jets test."""
    place = folder / "data" / "top_tagging"
    place.mkdir(parents=True)
    for part, ttv in PARTS.items():
        frame(jets, 10 * ttv, ttv).to_hdf(
            place / f"{part}.h5", key="table", format="table", complib="zlib", complevel=1
        )
    return 2 * jets
