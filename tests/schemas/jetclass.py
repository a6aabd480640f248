"""JetClass (arXiv:2202.03772): tree `tree`, one entry a jet, lists of particles, ten one-hot labels; LZ4."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from schemas.drawn import Drawn, drawn

LABELS = {
    "ZJetsToNuNu": "label_QCD",
    "HToBB": "label_Hbb",
    "HToCC": "label_Hcc",
    "HToGG": "label_Hgg",
    "HToWW4Q": "label_H4q",
    "HToWW2Q1L": "label_Hqql",
    "ZToQQ": "label_Zqq",
    "WToQQ": "label_Wqq",
    "TTBar": "label_Tbqq",
    "TTBarLep": "label_Tbl",
}
"""The label of each process, in the order of the branches."""
PRONGS = dict.fromkeys(LABELS, 2) | {"ZJetsToNuNu": 1, "HToWW4Q": 4, "TTBar": 3}


def branches(jets: Drawn, label: str) -> dict[str, Any]:
    """The branches of JetClass files: float32, and int32 labels; `part_*` are lists."""
    jet_N = jets.jet_N
    sign_N = np.where(jets.jet_eta > 0, 1.0, -1.0)[jet_N]
    kind = np.abs(jets.pid)
    particles = {
        "part_px": jets.pt * np.cos(jets.phi),
        "part_py": jets.pt * np.sin(jets.phi),
        "part_pz": jets.pt * np.sinh(jets.eta),
        "part_energy": jets.pt * np.cosh(jets.eta),
        "part_deta": jets.deta * sign_N,
        "part_dphi": jets.dphi,
        "part_d0val": jets.d0,
        "part_d0err": jets.d0_error,
        "part_dzval": jets.dz,
        "part_dzerr": jets.dz_error,
        "part_charge": jets.charge,
        "part_isChargedHadron": kind == 211,
        "part_isNeutralHadron": kind == 130,
        "part_isPhoton": kind == 22,
        "part_isElectron": kind == 11,
        "part_isMuon": kind == 13,
    }
    result: dict[str, Any] = {name: jets.jagged(x.astype(np.float32)) for name, x in particles.items()}
    number = len(jets.counts_J)
    result |= {name: np.full(number, name == label, np.int32) for name in LABELS.values()}
    rng = np.random.default_rng(number)
    jet_level = {
        "jet_pt": jets.jet_pt,
        "jet_eta": jets.jet_eta,
        "jet_phi": jets.jet_phi,
        "jet_energy": jets.total(jets.pt * np.cosh(jets.eta)),
        "jet_nparticles": jets.counts_J,
        "jet_sdmass": rng.uniform(0, 250, number),
        **{f"jet_tau{n}": rng.uniform(0, 0.5 / n, number) for n in (1, 2, 3, 4)},
        "aux_genpart_eta": jets.jet_eta,
        "aux_genpart_phi": jets.jet_phi,
        "aux_genpart_pid": np.full(number, 25),
        "aux_genpart_pt": jets.jet_pt,
        "aux_truth_match": np.full(number, 41),
    }
    return result | {name: x.astype(np.float32) for name, x in jet_level.items()}


def write_file(path: Path, columns: dict[str, Any], *, rntuple: bool = False) -> Path:
    """A file with the tree `tree`. uproot writes no `vector<float>`: the lists of a TTree are counted arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path, compression=uproot.LZ4(4)) as file:
        if rntuple:
            file.mkrntuple("tree", columns)
            return path
        lists = {k.removeprefix("part_"): x for k, x in columns.items() if k.startswith("part_")}
        part = ak.zip(lists)
        flat = {k: x for k, x in columns.items() if not k.startswith("part_")}
        types = {**{k: x.dtype for k, x in flat.items()}, "part": part.type}
        file.mktree("tree", types, counter_name=lambda counted: f"n{counted}")
        file["tree"].extend({**flat, "part": part})
    return path


def write(folder: Path, jets: int = 20) -> int:
    """A file of each process for each part, where the shipped configs look for them; how many jets test."""
    for number, part in enumerate(("train_100M", "val_5M", "test_20M")):
        for position, (process, label) in enumerate(LABELS.items()):
            some = drawn(jets, 100 * number + position, prongs=PRONGS[process])
            path = folder / "data" / "JetClass" / "Pythia" / part / f"{process}_{number:03d}.root"
            write_file(path, branches(some, label))
    return jets * len(LABELS)
