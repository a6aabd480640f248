"""The 17 particle features that JetClass taggers look at, for jettagger and, in its own words, for weaver.

Both make the same numbers of the same branches: `loader.py` compares their sums before it measures. weaver then
shifts, scales and pads to 128 slots on every batch; jettagger's prepared data are raw and packed, and its models
normalise in their first layer.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

CLASSES = {"QCD": "label_QCD", "Top": "label_Tbqq"}
"""Sample, which is a class -> the branch that is 1 for it."""
LENGTH = 128
"""Particles that are kept of a jet."""


class Feature(NamedTuple):
    """A value of each particle."""

    value: str
    standardisation: tuple[float, ...] = ()
    """weaver's: subtract, multiply by, and the edges of the clip, where these are not -5 and 5."""


FEATURES = {
    "log_pt": Feature("log(hypot(part_px, part_py))", (1.7, 0.7)),
    "log_energy": Feature("log(part_energy)", (2.0, 0.7)),
    "log_pt_fraction": Feature("log(hypot(part_px, part_py) / jet_pt)", (-4.7, 0.7)),
    "log_energy_fraction": Feature("log(part_energy / jet_energy)", (-4.7, 0.7)),
    "dr": Feature("hypot(part_deta, part_dphi)", (0.2, 4.0)),
    "charge": Feature("part_charge"),
    "is_charged_hadron": Feature("part_isChargedHadron"),
    "is_neutral_hadron": Feature("part_isNeutralHadron"),
    "is_photon": Feature("part_isPhoton"),
    "is_electron": Feature("part_isElectron"),
    "is_muon": Feature("part_isMuon"),
    "d0": Feature("tanh(part_d0val)"),
    "d0_error": Feature("part_d0err", (0, 1, 0, 1)),
    "dz": Feature("tanh(part_dzval)"),
    "dz_error": Feature("part_dzerr", (0, 1, 0, 1)),
    "deta": Feature("part_deta"),
    "dphi": Feature("part_dphi"),
}
BRANCHES = sorted({name for x in FEATURES.values() for name in re.findall(r"(?:part|jet)_\w+", x.value)})
"""What the features need."""
EVENT = "event_number"
"""Keeps the jets of an event on one side of jettagger's splits; weaver has no such thing and does not read it."""


def jettagger_config(samples: dict[str, list[str]], prepared: Path | str) -> dict[str, Any]:
    """Sections `data`, `classes` and `inputs` for ROOT files."""
    return {
        "data": {"train": samples, "prepared": str(prepared)},
        "classes": {name: f"{label} == 1" for name, label in CLASSES.items()},
        "inputs": {
            "particles": {
                "from": "part_*",
                "length": LENGTH,
                "features": {name: feature.value for name, feature in FEATURES.items()},
            }
        },
    }


def atlas_config(samples: dict[str, list[str]], prepared: Path | str) -> dict[str, Any]:
    """The same for the HDF5 file that `atlas_file.write` makes: it holds the features themselves."""
    return {
        "data": {"train": samples, "prepared": str(prepared), "group_by": f"jets.{EVENT}"},
        "classes": {name: f"jets.label == {number}" for number, name in enumerate(CLASSES)},
        "inputs": {
            "particles": {
                "from": "tracks.*",
                "length": LENGTH,
                "features": {name: f"tracks.{name}" for name in FEATURES},
            }
        },
    }


def weaver_config(*, standardise: bool) -> dict[str, Any]:
    """A data config of weaver-core; without `standardise` the values are raw."""
    variables = [
        [name, *feature.standardisation] if standardise and feature.standardisation else [name, None]
        for name, feature in FEATURES.items()
    ]
    return {
        "new_variables": {
            "part_mask": "np.ones_like(part_energy)",
            **{name: _in_numpy(feature.value) for name, feature in FEATURES.items()},
        },
        "preprocess": {"method": "manual"},
        "inputs": {
            "pf_features": {"length": LENGTH, "pad_mode": "constant", "vars": variables},
            "pf_mask": {"length": LENGTH, "pad_mode": "constant", "vars": [["part_mask", None]]},
        },
        "labels": {"type": "simple", "value": list(CLASSES.values())},
    }


def _in_numpy(value: str) -> str:
    return re.sub(r"\b(log|hypot|tanh)\(", r"np.\1(", value)
