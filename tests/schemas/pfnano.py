"""CMS PFNano: tree `Events`, jets nested in events, the tables that link them to candidates and vertices.

Names and types are those of cms-jet/PFNano (python/addPFCands_cff.py, python/addBTV.py and
plugins/JetConstituentTableProducer.cc, plugins/DeepJetTableProducer.cc).

Shapes: E events, J jets of all events, S slots.
"""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from schemas.drawn import Drawn, drawn

CHARGED = (
    *("trackEtaRel", "trackPtRel", "trackPPar", "trackDeltaR", "trackPParRatio"),
    *("trackSip2dVal", "trackSip2dSig", "trackSip3dVal", "trackSip3dSig", "trackJetDistVal"),
)
DEEPJET = {
    "Cpfcan": (
        *(f"BtagPf_{name}" for name in CHARGED),
        *("ptrel", "drminsv", "VTX_ass", "puppiw", "chi2", "quality"),
    ),
    "Npfcan": ("ptrel", "deltaR", "isGamma", "HadFrac", "drminsv", "puppiw"),
    "sv": (
        *("pt", "deltaR", "mass", "ntracks", "chi2", "normchi2"),
        *("dxy", "dxysig", "d3d", "d3dsig", "costhetasvpv", "enratio"),
    ),
}
SLOTS = {"Cpfcan": 25, "Npfcan": 25, "sv": 4}
COUNTS = {"Cpfcan": "nCpfcand", "Npfcan": "nNpfcand", "sv": "nsv"}
INTEGERS = ("VTX_ass", "quality", "isGamma")
DEEPCSV = (
    *("trackSumJetEtRatio", "trackSumJetDeltaR", "vertexCategory", "trackSip2dValAboveCharm"),
    *("trackSip2dSigAboveCharm", "trackSip3dValAboveCharm", "trackSip3dSigAboveCharm"),
)
DEEPCSV_COUNTS = ("jetNSelectedTracks", "jetNTracksEtaRel")
TABLE = ("btagEtaRel", "btagPtRatio", "btagPParRatio", "btagSip3dVal", "btagSip3dSig", "btagJetDistVal")
VERTICES = (
    *("mass", "pt", "ntracks", "chi2", "normchi2", "dxy", "dxysig", "d3d", "d3dsig", "costhetasvpv"),
    *("phirel", "ptrel", "deltaR", "enration"),
)
UNSET = 3.0e38
"""What slots without a candidate hold here, so that a test sees it where it is used."""


def nested(jets_E: np.ndarray, values: np.ndarray) -> ak.Array:
    """Values of all jets as one list an event; float32 and int32, as NanoAOD has them."""
    kinds = {"f": np.float32, "i": np.int32, "u": np.uint8, "b": bool}
    return ak.unflatten(values.astype(kinds[values.dtype.kind]), jets_E)


def candidates(some: Drawn, jets_E: np.ndarray, name: str, rng: np.random.Generator) -> dict[str, Any]:
    """`PFCands` in an order of their own, and the table `<name>PFCands` that says which jet has which."""
    event_N = np.repeat(np.arange(len(jets_E)), jets_E)[some.jet_N]
    order = np.lexsort((rng.random(len(event_N)), event_N))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    per_event = np.bincount(event_N, minlength=len(jets_E))
    first_E = np.cumsum(per_event) - per_event
    first_jet_E = np.cumsum(jets_E) - jets_E
    track = some.charge != 0
    columns = {
        "pt": some.pt,
        "eta": some.eta,
        "phi": some.phi,
        "mass": np.where(track, 0.1396, 0.0),
        "charge": some.charge,
        "pdgId": some.pid,
        "puppiWeight": np.ones(len(order)),
        "puppiWeightNoLep": np.ones(len(order)),
        "vtxChi2": np.where(track, 1.0, -1.0),
        "trkChi2": np.where(track, rng.uniform(0.5, 3, len(order)), -1.0),
        "dz": np.where(track, some.dz / 10, -1.0),
        "dzErr": np.where(track, some.dz_error / 10, -1.0),
        "d0": np.where(track, some.d0 / 10, -1.0),
        "d0Err": np.where(track, some.d0_error / 10, -1.0),
        "pvAssocQuality": rng.integers(0, 8, len(order)),
        "lostInnerHits": rng.integers(-1, 3, len(order)),
        "numberOfPixelHits": rng.integers(0, 5, len(order)),
        "trkQuality": rng.integers(0, 2, len(order)),
    }
    links = {
        "pFCandsIdx": place - first_E[event_N],
        "jetIdx": some.jet_N - first_jet_E[event_N],
        "pt": some.pt,
        **{column: np.where(track, rng.normal(size=len(order)), 0.0) for column in TABLE},
    }
    return {
        "PFCands": ak.zip({k: nested(per_event, x[order]) for k, x in columns.items()}),
        f"{name}PFCands": ak.zip({k: nested(per_event, x) for k, x in links.items()}),
    }


def vertices(jets_E: np.ndarray, name: str, rng: np.random.Generator) -> dict[str, Any]:
    """The table `<name>SVs`; -1 where a vertex is none of the event's `SV`."""
    vertices_J = rng.integers(0, 3, int(jets_E.sum()))
    event_J = np.repeat(np.arange(len(jets_E)), jets_E)
    per_event = np.bincount(event_J, vertices_J, minlength=len(jets_E)).astype(np.int64)
    number_J = np.concatenate([np.arange(n) for n in jets_E])
    rows = int(vertices_J.sum())
    columns = {
        "jetIdx": np.repeat(number_J, vertices_J),
        "sVIdx": rng.integers(-1, 2, rows),
        **{column: rng.uniform(0.1, 5, rows) for column in VERTICES},
    }
    return {f"{name}SVs": ak.zip({k: nested(per_event, x) for k, x in columns.items()})}


def deepjet(jets: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The inputs of DeepJet: a branch a number and slot, slots beyond the number of candidates unset."""
    columns: dict[str, np.ndarray] = {"DeepJet_npv": rng.integers(10, 60, jets)}
    for kind, names in DEEPJET.items():
        number = rng.integers(0, SLOTS[kind] + 5, jets)
        columns[f"DeepJet_{COUNTS[kind]}"] = number
        for name in names:
            for slot in range(SLOTS[kind]):
                values = rng.normal(size=jets)
                if name in INTEGERS:
                    columns[f"DeepJet_{kind}_{name}_{slot}"] = np.where(number > slot, values > 0, -(10**9))
                else:
                    columns[f"DeepJet_{kind}_{name}_{slot}"] = np.where(number > slot, values, UNSET)
    columns |= {f"DeepCSV_{name}": rng.choice([-999.0, 0.3, 1.2], jets) for name in DEEPCSV}
    return columns | {f"DeepCSV_{name}": rng.integers(0, 10, jets) for name in DEEPCSV_COUNTS}


def write_file(path: Path, collections: dict[str, Any], events: int, rng: np.random.Generator) -> None:
    """A counter `n<collection>` for each, as in NanoAOD; LZMA takes long, so zlib."""
    flat = {
        "run": np.ones(events, np.uint32),
        "luminosityBlock": np.ones(events, np.uint32),
        "event": np.arange(events, dtype=np.uint64),
        "genWeight": rng.choice([-0.5, 1.0, 1.5], events, p=[0.1, 0.5, 0.4]).astype(np.float32),
        "PV_npvs": rng.integers(10, 60, events).astype(np.int32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        types = {k: x.dtype for k, x in flat.items()} | {k: x.type for k, x in collections.items()}
        file.mktree("Events", types, counter_name=lambda counted: f"n{counted}")
        file["Events"].extend({**flat, **collections})


def write_ak8(folder: Path, events: int = 40) -> int:
    """QCD, H→bb and H→cc for training and test; how many jets test."""
    tested = 0
    for seed, (process, hadrons) in enumerate((("QCD", (0, 0)), ("Hbb", (2, 0)), ("Hcc", (0, 2)))):
        for part in ("train", "test"):
            rng = np.random.default_rng([seed, part == "test"])
            jets_E = rng.integers(0, 4, events)
            jets = int(jets_E.sum())
            some = drawn(jets, seed, prongs=1 + (seed > 0), particles=40, pt=(150.0, 900.0))
            columns = {
                "pt": some.jet_pt,
                "eta": some.jet_eta,
                "phi": some.jet_phi,
                "mass": rng.uniform(20, 200, jets),
                "msoftdrop": rng.uniform(-1, 200, jets),
                **{f"tau{n}": rng.uniform(0, 0.5 / n, jets) for n in (1, 2, 3, 4)},
                "nBHadrons": np.full(jets, hadrons[0], np.uint8),
                "nCHadrons": np.full(jets, hadrons[1], np.uint8),
                "hadronFlavour": np.full(jets, {(2, 0): 5, (0, 2): 4}.get(hadrons, 0)),
            }
            collections = {"FatJet": ak.zip({k: nested(jets_E, x) for k, x in columns.items()})}
            collections |= candidates(some, jets_E, "FatJet", rng) | vertices(jets_E, "FatJet", rng)
            write_file(folder / "data" / "pfnano" / f"{process}_{part}_0.root", collections, events, rng)
            tested += jets if part == "test" else 0
    return tested


def write_ak4(folder: Path, events: int = 60) -> int:
    """Top pairs and QCD for training and test; how many jets test."""
    tested = 0
    for seed, process in enumerate(("ttbar", "QCD")):
        for part in ("train", "test"):
            rng = np.random.default_rng([7, seed, part == "test"])
            jets_E = rng.integers(0, 6, events)
            jets = int(jets_E.sum())
            # hadron flavour, parton flavour, b hadrons; the last has no parton: pile-up
            truth = np.array([(5, 5, 1), (5, 21, 2), (4, -4, 0), (0, 2, 0), (0, 21, 0), (0, 0, 0)])
            flavour_J3 = truth[rng.integers(len(truth), size=jets)]
            columns = {
                "pt": rng.uniform(15, 300, jets),
                "eta": rng.uniform(-3, 3, jets),
                "phi": rng.uniform(-np.pi, np.pi, jets),
                "mass": rng.uniform(2, 30, jets),
                "hadronFlavour": flavour_J3[:, 0],
                "partonFlavour": flavour_J3[:, 1],
                "nBHadrons": flavour_J3[:, 2],
                "nCHadrons": (flavour_J3[:, 0] == 4).astype(int),
                **deepjet(jets, rng),
            }
            collections = {"Jet": ak.zip({k: nested(jets_E, x) for k, x in columns.items()})}
            write_file(folder / "data" / "pfnano" / f"{process}_{part}_0.root", collections, events, rng)
            tested += jets if part == "test" else 0
    return tested
