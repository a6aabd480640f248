"""JetClass-II (arXiv:2405.12972): parquet, one row a jet, lists of particles, `jet_label` from 0 to 187."""

from pathlib import Path

import awkward as ak
import numpy as np

from schemas import jetclass
from schemas.drawn import drawn

LABELS = {"Res2P": range(15), "Res34P": range(15, 161), "QCD": range(161, 188)}
"""The numbers that each part of the set holds."""
FILES = {
    "Res2P": ("0000", "0200", "0299"),
    "Res34P": ("0000", "0859", "0860", "0900", "1000", "1074", "1075", "1080", "1289"),
    "QCD": ("0000", "0279", "0280", "0349", "0350", "0419"),
}
"""First and last files of training, validation and test, and one for each pattern between them."""
TESTED = {"Res2P": 1, "Res34P": 3, "QCD": 2}
FLAGS = ("part_isElectron", "part_isMuon", "part_isPhoton", "part_isChargedHadron", "part_isNeutralHadron")


def rows(labels: range, seed: int) -> ak.Array:
    """A jet of each label."""
    some = drawn(len(labels), seed, prongs=1 + seed % 4, particles=25, pt=(200.0, 2000.0))
    made = jetclass.branches(some, "")
    rng = np.random.default_rng(seed)
    columns = {name: x for name, x in made.items() if name.startswith("part_")}
    columns |= {name: ak.values_astype(columns[name] != 0, bool) for name in FLAGS}
    columns["part_charge"] = ak.values_astype(columns["part_charge"], np.int32)
    columns |= {f"jet_{name}": made[f"jet_{name}"] for name in ("pt", "eta", "phi", "energy")}
    columns["jet_sdmass"] = rng.uniform(25, 450, len(labels)).astype(np.float32)
    columns["jet_nparticles"] = some.counts_J.astype(np.int32)
    columns |= {f"jet_tau{n}": made[f"jet_tau{n}"] for n in (1, 2, 3, 4)}
    columns["jet_label"] = np.array(labels, np.int32)
    for axis in ("px", "py", "pz", "energy"):
        columns[f"genpart_{axis}"] = columns[f"part_{axis}"]
    columns["genpart_pid"] = ak.values_astype(some.jagged(some.pid), np.int32)
    columns["genjet_pt"] = columns["jet_pt"]
    columns["aux_genpart_pid"] = ak.values_astype(some.jagged(some.pid)[:, :3], np.int32)
    columns["aux_genpart_isResX"] = columns["aux_genpart_pid"] == 25
    return ak.zip(columns, depth_limit=1)


def write(folder: Path) -> int:
    """The files that the shipped config names; how many jets test."""
    place = folder / "data" / "JetClassII" / "Pythia"
    place.mkdir(parents=True)
    for part, numbers in FILES.items():
        for seed, number in enumerate(numbers):
            ak.to_parquet(rows(LABELS[part], seed), place / f"{part}_{number}.parquet")
    return sum(TESTED[part] * len(labels) for part, labels in LABELS.items())
