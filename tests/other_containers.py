"""The jets of toy_jets in the containers that are not ROOT, with the config that finds them there."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jettagger.data.schema import DataConfig
from toy_jets import CONFIG, FLAT, JAGGED, write_jets


class Written(NamedTuple):
    """A file and what a config has to say of it."""

    path: Path
    data: dict[str, Any]
    """Keys of `data`."""
    names: dict[str, str]
    """Stored name of each branch of toy_jets that has another one."""
    particles: str = "part_*"
    """`from` of the particles."""


def config_for(written: Written, **data: Any) -> DataConfig:
    """The toy config, with the names that the file uses and other keys of `data`."""
    text = CONFIG.format(folder="nowhere").replace("from: part_*", f"from: {written.particles}")
    for name, stored in written.names.items():
        text = re.sub(rf"(?<![\w.]){name}(?!\w)", stored, text)
    document = yaml.safe_load(text)
    document["data"] |= written.data | data
    return DataConfig(**{key: x for key, x in document.items() if key in DataConfig.model_fields})


def rectangular(branches: dict[str, Any], particles: int) -> dict[str, Any]:
    """The same jets with as many particles each, drawn anew."""
    drawn = np.random.default_rng(5)
    jets = len(branches["jet_pt"])
    slots = {name: drawn.uniform(1, 9, (jets, particles)).astype(np.float32) for name in JAGGED}
    return branches | {name: ak.from_regular(ak.Array(values)) for name, values in slots.items()}


def ttree(folder: Path, branches: dict[str, Any]) -> Written:
    return Written(write_jets(folder / "a.root", branches), {}, {})


def rntuple(folder: Path, branches: dict[str, Any]) -> Written:
    return Written(write_jets(folder / "b.root", branches, rntuple=True), {}, {})


def parquet(folder: Path, branches: dict[str, Any], **options: Any) -> Written:
    columns = {name: pa.array(branches[name]) for name in FLAT}
    for name in JAGGED:
        jagged = ak.to_packed(branches[name])
        offsets = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(jagged)))]).astype(np.int32)
        columns[name] = pa.ListArray.from_arrays(offsets, ak.to_numpy(ak.flatten(jagged)))
    pq.write_table(pa.table(columns), folder / "c.parquet", **({"row_group_size": 70} | options))
    return Written(folder / "c.parquet", {}, {})


def atlas(folder: Path, branches: dict[str, Any], **options: Any) -> Written:
    """Compounds `jets` and `tracks`; the filled slots of the latter are no prefix."""
    jets = np.zeros(len(branches["jet_pt"]), [(name, branches[name].dtype) for name in FLAT])
    for name in FLAT:
        jets[name] = branches[name]
    counts = ak.to_numpy(ak.num(branches["part_px"]))
    slots = int(counts.max()) + 2
    tracks = np.full((len(jets), slots), np.nan, [*((name, np.float32) for name in JAGGED), ("valid", bool)])
    tracks["valid"] = (np.arange(slots) > 1) & (np.arange(slots) < counts[:, None] + 2)
    for name in JAGGED:
        tracks[name][tracks["valid"]] = ak.to_numpy(ak.flatten(branches[name]))
    with h5py.File(folder / "d.h5", "w") as file:
        file.create_dataset("jets", data=jets)
        file.create_dataset("tracks", data=tracks, **options)
        file["metadata"] = np.arange(3)
    names = {name: f"jets.{name}" for name in FLAT} | {name: f"tracks.{name}" for name in JAGGED}
    return Written(folder / "d.h5", {}, names, "tracks.*")


def padded(branches: dict[str, Any], name: str) -> Any:
    """Slots of a fixed number, with 0 behind the particles."""
    most = int(ak.max(ak.num(branches[name])))
    return ak.to_numpy(ak.fill_none(ak.pad_none(branches[name], most, clip=True), 0)).astype(np.float32)


def jetnet(folder: Path, branches: dict[str, Any]) -> Written:
    """Plain arrays whose last axis has no names."""
    with h5py.File(folder / "e.h5", "w") as file:
        file["particle_features"] = np.stack([padded(branches, name) for name in JAGGED], axis=-1)
        file["jet_features"] = np.stack([branches[name] for name in FLAT], axis=-1).astype(np.float32)
    columns = {"particle_features": list(JAGGED), "jet_features": list(FLAT)}
    names = {x: f"jet_features.{x}" for x in FLAT} | {x: f"particle_features.{x}" for x in JAGGED}
    slots = {"particle_features.*": "particle_features.part_energy > 0"}
    return Written(folder / "e.h5", {"columns": columns, "slots": slots}, names, "particle_features.*")


def energyflow(folder: Path, branches: dict[str, Any], *, save: Callable[..., None] = np.savez) -> Written:
    X = np.stack([padded(branches, name) for name in JAGGED], axis=-1)
    save(folder / "f.npz", X=X, **{name: branches[name] for name in FLAT})
    data = {"columns": {"X": list(JAGGED)}, "slots": {"X.*": "X.part_energy > 0"}}
    return Written(folder / "f.npz", data, {name: f"X.{name}" for name in JAGGED}, "X.*")


def frame(branches: dict[str, Any]) -> pd.DataFrame:
    """Columns part_px_0, part_py_0, …, part_px_1, … and those of the jets."""
    slots = {name: padded(branches, name) for name in JAGGED}
    particles = slots["part_px"].shape[1]
    columns = {f"{name}_{p}": slots[name][:, p] for p in range(particles) for name in JAGGED}
    return pd.DataFrame(columns | {name: branches[name] for name in FLAT})


def pandas_fixed(folder: Path, branches: dict[str, Any]) -> Written:
    return _pandas(folder / "g.h5", branches, format="fixed")


def pandas_table(folder: Path, branches: dict[str, Any]) -> Written:
    return _pandas(folder / "h.h5", branches, format="table", complib="zlib", complevel=1)


def _pandas(path: Path, branches: dict[str, Any], **options: Any) -> Written:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame(branches).to_hdf(path, key="table", **options)
    return Written(path, {"slots": {"part_*": "part_energy > 0"}}, {})
