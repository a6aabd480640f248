"""Small ROOT files with JetClass branch names whose numbers are drawn, not simulated: for mechanics, not physics."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

FLAT = (
    "event_number",
    "jet_pt",
    "jet_eta",
    "jet_sdmass",
    "jet_tau2",
    "jet_tau3",
    "label_QCD",
    "label_Tbqq",
    "gen_weight",
)
JAGGED = ("part_px", "part_py", "part_energy", "part_deta", "part_dphi", "part_charge", "part_d0val")


def toy_jets(name: str, jets: int, seed: int) -> dict[str, Any]:
    """Branches of `jets` jets; Top has more, wider-spread particles than QCD. Some jets have none."""
    rng = np.random.default_rng([seed, name == "Top"])
    top = name == "Top"
    counts = rng.poisson(14 if top else 9, jets)
    counts[::37] = 0
    total = int(counts.sum())
    pt = rng.exponential(20.0, total) + 0.5
    phi = rng.normal(0, 0.3 if top else 0.15, total)
    eta = rng.normal(0, 0.3 if top else 0.15, total)
    particles = {
        "part_px": pt * np.cos(phi),
        "part_py": pt * np.sin(phi),
        "part_energy": pt * np.cosh(eta),
        "part_deta": eta,
        "part_dphi": phi,
        "part_charge": rng.integers(-1, 2, total),
        "part_d0val": rng.normal(0, 0.1, total),
    }
    branches: dict[str, Any] = {
        key: ak.unflatten(values.astype(np.float32), counts) for key, values in particles.items()
    }
    branches |= {
        "event_number": np.arange(jets, dtype=np.int64) // 2 + 1000 * seed,
        "jet_pt": rng.uniform(480, 700, jets).astype(np.float32),
        "jet_eta": rng.normal(0, 1, jets).astype(np.float32),
        "jet_sdmass": rng.normal(170 if top else 60, 30, jets).astype(np.float32),
        "jet_tau2": rng.uniform(0.1, 0.3, jets).astype(np.float32),
        "jet_tau3": (rng.uniform(0.02, 0.2, jets) * (0.6 if top else 1.0)).astype(np.float32),
        "label_QCD": np.full(jets, not top),
        "label_Tbqq": np.full(jets, top),
        "gen_weight": rng.uniform(0.5, 1.5, jets),
    }
    return branches


JETCLASS = (
    *(
        f"part_{x}"
        for x in ("px", "py", "energy", "deta", "dphi", "d0val", "d0err", "dzval", "dzerr", "charge")
    ),
    *(f"part_is{x}" for x in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")),
)


def jetclass_jets(name: str, jets: int, *, particles: int = 10) -> dict[str, Any]:
    """The branches that JetClass's 17 particle features need; numbers without any physics."""
    rng = np.random.default_rng([jets, name == "Top"])
    counts = rng.poisson(particles, jets)
    branches: dict[str, Any] = {
        branch: ak.unflatten(rng.uniform(0.1, 1, counts.sum()).astype(np.float32), counts)
        for branch in JETCLASS
    }
    return branches | {
        "event_number": np.arange(jets, dtype=np.int64) + jets * (name == "Top"),
        "jet_pt": rng.uniform(500, 700, jets).astype(np.float32),
        "jet_energy": rng.uniform(700, 900, jets).astype(np.float32),
        "label_QCD": np.full(jets, name == "QCD"),
        "label_Tbqq": np.full(jets, name == "Top"),
    }


def write_jets(path: Path, branches: dict[str, Any], *, rntuple: bool = False) -> Path:
    """A file with the tree `tree`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        if rntuple:
            file.mkrntuple("tree", branches)
        else:
            particles = [k for k in dict.fromkeys((*JAGGED, *JETCLASS)) if k in branches]
            jagged = ak.zip({k.removeprefix("part_"): branches[k] for k in particles})
            flat = {k: v for k, v in branches.items() if not k.startswith("part_")}
            file.mktree(
                "tree",
                {**{k: v.dtype for k, v in flat.items()}, "part": jagged.type},
                counter_name=lambda counted: f"n{counted}",
            )
            file["tree"].extend({**flat, "part": jagged})
    return path


CONFIG = """\
format: 1
data:
  train: {{QCD: {folder}/QCD_train.root, Top: {folder}/Top_train.root}}
  test: {{QCD: {folder}/QCD_test.root, Top: {folder}/Top_test.root}}
  validation: 0.25
  selection: (jet_pt > 500) & (abs(jet_eta) < 2)
  prepared: {folder}/prepared
classes:
  QCD: label_QCD == 1
  Top: label_Tbqq == 1
define:
  pt: hypot(part_px, part_py)
inputs:
  particles:
    from: part_*
    sort_by: -pt
    length: 16
    features:
      log_pt: log(pt)
      deta: {{value: part_deta, normalise: none}}
      charge: {{value: part_charge, normalise: none}}
    coordinates: {{eta: part_deta, phi: part_dphi, pt: pt}}
  jet:
    features:
      log_pt: log(jet_pt)
      mass: jet_sdmass
      tau32: {{value: jet_tau3 / jet_tau2, missing: 1}}
      leading: max(pt)
spectators: [jet_pt, jet_sdmass]
model: {{architecture: mlp, widths: [16], dropout: 0.1}}
training: {{epochs: 2, batch_size: 64, optimiser: {{name: adamw, lr: 1.0e-2}}}}
"""

ENSEMBLE = (
    *("ensemble.members=2", "training.threads=1", "training.precision=float32", "evaluation.bootstrap=10"),
    "baselines={cut: {signal: Top, discriminant: -jet_tau3 / jet_tau2, window: jet_sdmass > 100}, "
    "boosted_trees: {iterations: 5}}",
)
"""What the fixture `trained_run` puts over it: two networks and both baselines."""


def write_toy_data(folder: Path, jets: int = 300) -> Path:
    """Four files and `config.yaml`, whose path is returned."""
    for number, part in enumerate(("train", "test")):
        for name in ("QCD", "Top"):
            write_jets(folder / f"{name}_{part}.root", toy_jets(name, jets, number + 1))
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    return config
