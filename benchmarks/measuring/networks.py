"""The networks of `training.py`, in jettagger's words; `peers/weaver_training.py` has the same in torch's."""

from pathlib import Path
from typing import Any, NamedTuple

from jettagger.data.locations import find_files
from jettagger.errors import JettaggerError
from measuring.inputs import CLASSES, FEATURES, jettagger_config


class Network(NamedTuple):
    """A published network."""

    model: dict[str, Any]
    """The YAML's section, without dropout where everybody's is of another generator."""
    batch_size: int


NETWORKS = {
    "p_cnn": Network({"architecture": "p_cnn", "dropout": 0.2}, 512),
    "particle_net": Network({"architecture": "particle_net", "dropout": 0.1}, 128),
    "pfn": Network(
        {"architecture": "particle_cnn", "widths": [128] * 3, "summary": ["sum"], "dense": [128] * 3}, 512
    ),
}


def samples_in(folder: Path) -> dict[str, list[str]]:
    """The files of each class; ends the program where there are none."""
    try:
        return {
            name: list(map(str, find_files(str(folder / f"{name}*.root"), where="FOLDER")))
            for name in CLASSES
        }
    except JettaggerError as error:
        raise SystemExit(str(error)) from error


def data_config(samples: dict[str, list[str]], prepared: str) -> dict[str, Any]:
    """The jets of `loader.py`, with weaver's fixed shifts, scales and clips in place of measured ones."""
    config = jettagger_config(samples, prepared)
    features: dict[str, Any] = {}
    for name, feature in FEATURES.items():
        if not feature.standardisation:
            features[name] = {"value": feature.value, "normalise": "none", "clip": None}
            continue
        shift, factor, low, high = (*feature.standardisation, -5, 5)[:4]
        fixed = {"shift": shift, "scale": 1 / factor}
        features[name] = {"value": feature.value, "normalise": fixed, "clip": [low, high]}
    config["inputs"]["particles"]["features"] = features
    config["inputs"]["particles"]["coordinates"] = {
        "eta": "part_deta",
        "phi": "part_dphi",
        "pt": "hypot(part_px, part_py)",
    }
    return config
