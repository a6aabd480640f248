"""Whether everybody makes the same numbers, before it is said who makes them faster."""

from typing import Any, NamedTuple

import numpy as np

from measuring.fresh_process import run
from measuring.inputs import FEATURES
from measuring.rows import BATCH_SIZE, OURS, SALT, WEAVER, Files, Place, config_of

TOLERANCE = 1e-5
"""Of a feature's sum, relative to its largest possible: float32 is summed in another order."""


class Sums(NamedTuple):
    """Of all jets of some files."""

    sums_F: "np.ndarray[Any, Any]"
    particles: int


def of_jettagger(files: Files, place: Place) -> Sums:
    """Fills the prepared data that are kept."""
    told = {"kind": "check", "config": config_of(files, place.kept(files.container)), "processes": 1}
    return _sums(run(OURS, told | {"batch_size": BATCH_SIZE}).told)


def of_weaver(files: Files, place: Place, python: str) -> Sums:
    told = {
        "files": {"jets": files.paths},
        "config": place.weaver_config(standardise=False),
        "fetch_by_files": True,
        "fetch_step": 1,
        "in_memory": False,
    }
    return _sums(run(WEAVER, told | _checking(files), python=python).told)


def of_salt(files: Files, python: str) -> Sums:
    told = {"file": files.paths[0], "features": list(FEATURES)}
    return _sums(run(SALT, told | _checking(files), python=python).told)


def compare(ours: Sums, theirs: Sums, who: str) -> None:
    """Ends the benchmark if a sum differs."""
    if ours.particles != theirs.particles:
        raise SystemExit(f"{who} keeps {theirs.particles} particles, jettagger {ours.particles}")
    scale = np.maximum(abs(ours.sums_F), ours.particles * 1e-2)
    for name, difference in zip(FEATURES, abs(ours.sums_F - theirs.sums_F) / scale, strict=True):
        if not difference < TOLERANCE:
            raise SystemExit(f"{who} computes another {name}: its sum differs by {difference:.1e}")


def _checking(files: Files) -> dict[str, Any]:
    return {"check": True, "jets": files.jets, "batch_size": BATCH_SIZE, "workers": 0}


def _sums(told: dict[str, Any]) -> Sums:
    return Sums(np.array(told["sums"]), told["particles"])
