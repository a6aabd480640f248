"""What `jettagger simulate` writes: JetClass branch names with `event_number` and `jet_mass`."""

from pathlib import Path

import numpy as np

from schemas import jetclass
from schemas.drawn import drawn


def write(folder: Path, jets: int = 60) -> int:
    """QCD and top jets for training and test; how many jets test."""
    for number, part in enumerate(("train", "test")):
        for name, label, prongs in (("QCD", "label_QCD", 1), ("Top", "label_Tbqq", 3)):
            some = drawn(jets, 10 * number + prongs, prongs=prongs, pt=(500.0, 700.0))
            columns = jetclass.branches(some, label)
            columns["event_number"] = np.arange(jets) // 2
            columns["jet_mass"] = columns["jet_sdmass"] + np.float32(10)
            columns["gen_jet_mass"] = columns["jet_mass"] * np.linspace(0.9, 1.1, jets, dtype=np.float32)
            columns["gen_jet_energy"] = columns["jet_energy"] * np.linspace(1.1, 0.9, jets, dtype=np.float32)
            jetclass.write_file(folder / "data" / "top" / f"{name}_{part}.root", columns)
    return 2 * jets
