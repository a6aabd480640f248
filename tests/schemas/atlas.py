"""ATLAS flavour tagging: HDF5 with compound `jets` (jets) and `tracks` (jets, 40), `valid` slots, MeV."""

from pathlib import Path

import h5py
import numpy as np

from schemas.drawn import drawn

SLOTS = 40
JETS = {
    "f4": ("pt", "eta", "abs_eta", "mass", "pt_btagJes", "eta_btagJes", "HadronConeExclTruthLabelPt"),
    "i4": ("n_tracks", "HadronConeExclTruthLabelID", "n_truth_promptLepton", "flavour_label"),
}
TRACKS = {
    "f4": (
        *("d0", "z0SinTheta", "dphi", "deta", "qOverP"),
        *("IP3D_signed_d0_significance", "IP3D_signed_z0_significance"),
        *("phiUncertainty", "thetaUncertainty", "qOverPUncertainty"),
    ),
    "u1": (
        *("numberOfPixelHits", "numberOfSCTHits"),
        *("numberOfInnermostPixelLayerHits", "numberOfNextToInnermostPixelLayerHits"),
        *("numberOfInnermostPixelLayerSharedHits", "numberOfInnermostPixelLayerSplitHits"),
        *("numberOfPixelSharedHits", "numberOfPixelSplitHits", "numberOfSCTSharedHits"),
        *("numberOfPixelHoles", "numberOfSCTHoles"),
    ),
    "?": ("valid",),
}
FLAVOURS = (0, 4, 5, 15)


def _compound(fields: dict[str, tuple[str, ...]]) -> np.dtype:
    return np.dtype([(name, kind) for kind, names in fields.items() for name in names])


def write_file(path: Path, jets: int, seed: int) -> None:
    """Jets of all flavours; heavy ones have displaced tracks. What is in slots that are not valid is not zero."""
    rng = np.random.default_rng(seed)
    flavour = rng.permutation(np.resize(FLAVOURS, jets))
    some = drawn(jets, seed, particles=9, radius=0.4, pt=(25.0, 200.0))
    heavy_N = np.isin(flavour, (4, 5))[some.jet_N]
    table = np.zeros(jets, _compound(JETS))
    table["pt"] = table["pt_btagJes"] = 1000 * some.jet_pt
    table["eta"] = table["eta_btagJes"] = some.jet_eta
    table["abs_eta"] = np.abs(some.jet_eta)
    table["mass"] = 1000 * rng.uniform(3, 20, jets)
    table["n_tracks"] = some.counts_J
    table["HadronConeExclTruthLabelID"] = flavour
    table["HadronConeExclTruthLabelPt"] = 700 * some.jet_pt
    tracks = np.zeros((jets, SLOTS), _compound(TRACKS))
    for name in TRACKS["f4"]:
        tracks[name] = -999.0
    tracks["valid"] = some.slots(np.ones(len(some.pt)), SLOTS, bool)
    scale = np.where(heavy_N, 4.0, 1.0)
    significance = rng.normal(size=(2, len(some.pt))) * scale
    values = {
        "d0": 0.02 * significance[0],
        "z0SinTheta": 0.05 * significance[1],
        "dphi": some.dphi,
        "deta": some.deta,
        "qOverP": some.charge / (1000 * some.pt * np.cosh(some.eta)),
        "IP3D_signed_d0_significance": significance[0],
        "IP3D_signed_z0_significance": significance[1],
        **{name: rng.uniform(1e-5, 1e-3, len(some.pt)) for name in TRACKS["f4"] if "Uncertainty" in name},
        **{name: rng.integers(0, 9, len(some.pt)) for name in TRACKS["u1"]},
    }
    for name, one in values.items():
        tracks[name] = np.where(tracks["valid"], some.slots(one, SLOTS, np.float64), tracks[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("jets", data=table, compression="gzip", chunks=(40,))
        file.create_dataset("tracks", data=tracks, compression="gzip", chunks=(40, SLOTS))


def write(folder: Path, jets: int = 240) -> int:
    """Two files for training and one for test; how many jets test."""
    for seed, name in enumerate(("train_0", "train_1", "test_0")):
        write_file(folder / "data" / "atlas" / f"{name}.h5", jets, seed)
    return jets
