"""The prepared dataset: columns of all files on disk, packed, memory-mapped, keyed by content.

A dataset is a folder `<key>/` of immutable shards, one for each (file, entry range), and a manifest with their
checksums. The key is made of the files' identities, of the parts of the config that decide the numbers, and of
FORMAT: neither dates nor the package's version enter. Values are raw; normalisation lives in the model.

A shard is written aside and renamed, so that one that exists is whole; a run that was killed goes on where it
was, and two runs that fill the same folder write the same bytes.

Shapes: J jets, N particles, F features, K coordinates.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import Inputs, InputSpec, Packed
from jettagger.data.columns import Columns, RawCollection, RawInputs, Table
from jettagger.data.reader import Source, find_files
from jettagger.data.schema import DataConfig, Samples, SampleSection
from jettagger.errors import JettaggerError
from jettagger.files import sha256, write_json, written_aside

FORMAT = 1
"""Raised by hand whenever the same config and files would give other bytes (tests/data hold golden ones)."""


@dataclass(frozen=True)
class Task:
    """One shard to fill: what a worker needs, and nothing that cannot be sent to another process."""

    path: str
    tree: str | None
    start: int
    stop: int
    branches: tuple[str, ...]
    sample: str
    sample_weight: str | float
    identity: str
    shard: str


class ShardRecord(NamedTuple):
    """What the manifest says of a shard."""

    name: str
    sha256: str
    path: str
    identity: str
    sample: str
    jets: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, opened. Small columns are in memory, inputs are memory-mapped."""

    directory: Path
    key: str
    classes: tuple[str, ...]
    spec: InputSpec
    records: tuple[ShardRecord, ...]
    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    """Event weights."""
    group_J: NDArray[np.int64]
    spectators: dict[str, NDArray[np.float64]]
    extras: dict[str, NDArray[np.float64]]
    first_S: NDArray[np.int64]
    """Index of each shard's first jet, and the number of jets at the end."""
    shards: tuple[RawInputs, ...]
    offsets: tuple[dict[str, NDArray[np.int64]], ...]
    """For each shard and collection: where each jet's particles begin."""

    def __len__(self) -> int:
        return len(self.labels_J)

    @property
    def counts(self) -> dict[str, int]:
        """Counts of all shards together: see `Columns.table`."""
        total: dict[str, int] = {}
        for record in self.records:
            for name, count in record.counts.items():
                total[name] = total.get(name, 0) + count
        return total

    def read(self, rows_J: NDArray[np.int64], inputs: InputSpec) -> RawInputs:
        """What a model that looks at `inputs` needs of jets `rows_J`, which ascend, copied into memory."""
        shards = [_only(raw, inputs) for raw in self.shards]
        pieces = []
        for shard, (low, high) in enumerate(zip(self.first_S[:-1], self.first_S[1:], strict=True)):
            begin, end = np.searchsorted(rows_J, [low, high])
            if end > begin:
                pieces.append(_taken(shards[shard], self.offsets[shard], rows_J[begin:end] - low))
        return _concatenated(pieces, shards[0]) if pieces else _none_of(shards[0])


def prepare(
    config: DataConfig,
    samples: Samples,
    *,
    role: str,
    extras: Mapping[str, str | int | float] | None = None,
    executor: Executor | None = None,
    progress: Callable[[Iterable[ShardRecord], int], Iterable[ShardRecord]] | None = None,
) -> Prepared:
    """The prepared dataset of `samples`, filled if it is not there yet.

    `role` names the samples in errors (`data.train`); `extras` are expressions of the baselines. Shards are
    filled by `executor` (anything with the `concurrent.futures` interface), or one after the other.
    Raises JettaggerError for files, branches, classes and selections that do not fit.
    """
    tasks, identities = plan(config, samples, role=role, extras=extras)
    key = _key(config, samples, identities, extras)
    directory = Path(config.data.prepared) / key
    manifest = directory / "manifest.json"
    if not manifest.exists():
        extras = dict(extras or {})
        run = executor.map if executor is not None else map
        count = len(tasks)
        filled = run(fill, [directory] * count, [config] * count, [extras] * count, tasks)
        records = list(progress(filled, count) if progress else filled)
        _check_yields(config, records, role)
        write_json(
            manifest, {"format": FORMAT, "key": key, "shards": [record._asdict() for record in records]}
        )
    return open_prepared(config, directory, extras)


def plan(
    config: DataConfig,
    samples: Samples,
    *,
    role: str,
    extras: Mapping[str, str | int | float] | None = None,
) -> tuple[list[Task], list[str]]:
    """The shards to fill and the files' identities; opens every file and finds every missing branch."""
    columns = Columns(config, extras)
    tasks: list[Task] = []
    identities: list[str] = []
    seen: dict[str, Path] = {}
    for sample, section in samples.items():
        if not isinstance(section, SampleSection):
            section = SampleSection(files=section)
        for path in find_files(section.files, where=f"{role}.{sample}"):
            source = Source(path, config.data.tree)
            if source.identity in seen:
                raise JettaggerError(f"{role}: {path} and {seen[source.identity]} are the same file")
            seen[source.identity] = path
            identities.append(source.identity)
            branches = columns.branches(source.branches, where=str(path), sample_weight=section.weight)
            for start, stop in source.ranges(branches):
                tasks.append(
                    Task(
                        path=str(path),
                        tree=config.data.tree,
                        start=start,
                        stop=stop,
                        branches=tuple(sorted(branches)),
                        sample=sample,
                        sample_weight=section.weight,
                        identity=source.identity,
                        shard=f"shard-{len(tasks):05d}.h5",
                    )
                )
    return tasks, identities


def fill(
    directory: Path, config: DataConfig, extras: Mapping[str, str | int | float], task: Task
) -> ShardRecord:
    """Fills one shard, unless it is there already."""
    path = directory / task.shard
    if not path.exists():
        chunk = Source(Path(task.path), task.tree).read(task.branches, task.start, task.stop)
        table = Columns(config, extras).table(
            chunk.branches,
            start=task.start,
            sample=task.sample,
            sample_weight=task.sample_weight,
            where=task.path,
            file_key=randomness.key(0, task.identity) >> 1,
        )
        with written_aside(path) as aside:
            _write_shard(aside, table)
    with h5py.File(path, "r") as file:
        counts = json.loads(file.attrs["counts"])
    return ShardRecord(
        task.shard, sha256(path), task.path, task.identity, task.sample, counts["selected"], counts
    )


def open_prepared(
    config: DataConfig, directory: Path, extras: Mapping[str, str | int | float] | None = None
) -> Prepared:
    """A dataset that was filled before."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise JettaggerError(
            f"{directory}: prepared data of format {manifest['format']}, this version reads {FORMAT}"
        )
    records = tuple(ShardRecord(**record) for record in manifest["shards"])
    small: dict[str, list[Any]] = {}
    shards = []
    offsets = []
    for record in records:
        if not (directory / record.name).is_file():
            raise JettaggerError(
                f"{directory / record.name} is missing: delete {directory} and prepare again"
            )
        shards.append(_map_shard(directory / record.name, small))
        offsets.append({name: _offsets(raw.lengths_J) for name, raw in shards[-1].collections.items()})
    columns = {name: np.concatenate(values) for name, values in small.items()}
    return Prepared(
        directory=directory,
        key=manifest["key"],
        classes=tuple(config.classes),
        spec=Columns(config).spec,
        records=records,
        labels_J=columns["labels"],
        weights_J=columns["weights"],
        group_J=columns["group"],
        spectators={name: columns[f"spectators/{name}"] for name in config.spectators},
        extras={name: columns[f"extras/{name}"] for name in (extras or {})},
        first_S=np.concatenate([[0], np.cumsum([record.jets for record in records])]),
        shards=tuple(shards),
        offsets=tuple(offsets),
    )


def take(raw: RawInputs, offsets: Mapping[str, NDArray[np.int64]], rows_B: NDArray[np.int64]) -> Inputs:
    """The tensors of jets `rows_B`, in that order, from inputs in memory."""
    taken = _taken(raw, offsets, rows_B)
    return to_tensors(taken)


def to_tensors(raw: RawInputs) -> Inputs:
    """NumPy columns as what a model takes, without a copy."""
    return Inputs(
        None if raw.jet_JF is None else torch.from_numpy(raw.jet_JF),
        {
            name: Packed(
                torch.from_numpy(collection.values_NF),
                torch.from_numpy(collection.lengths_J.astype(np.int64)),
                None if collection.coordinates_NK is None else torch.from_numpy(collection.coordinates_NK),
            )
            for name, collection in raw.collections.items()
        },
    )


def offsets_of(raw: RawInputs) -> dict[str, NDArray[np.int64]]:
    """For each collection: where each jet's particles begin, and the end."""
    return {name: _offsets(collection.lengths_J) for name, collection in raw.collections.items()}


def _key(
    config: DataConfig,
    samples: Samples,
    identities: Sequence[str],
    extras: Mapping[str, str | int | float] | None,
) -> str:
    """Hash of all that decides the numbers."""
    matters = {
        "format": FORMAT,
        "files": list(identities),
        "weights": {n: s.weight if isinstance(s, SampleSection) else 1.0 for n, s in samples.items()},
        "samples": list(samples),
        "extras": dict(extras or {}),
        **config.model_dump(
            mode="json", include={"classes", "inputs", "define", "spectators"}, by_alias=True
        ),
        "event": config.weights.event,
        **config.data.model_dump(mode="json", include={"selection", "group_by", "tree"}),
    }
    # Order matters: it decides the order of columns and rows.
    return hashlib.sha256(json.dumps(matters).encode()).hexdigest()[:16]


def _check_yields(config: DataConfig, records: Sequence[ShardRecord], role: str) -> None:
    read = sum(record.counts["read"] for record in records)
    selected = sum(record.counts["selected"] for record in records)
    if not read:
        raise JettaggerError(f"{role}: the files hold no jets")
    if not selected:
        raise JettaggerError(f"{role}: data.selection '{config.data.selection}' leaves none of {read} jets")
    for name in config.classes:
        if not sum(record.counts[f"class {name}"] for record in records):
            raise JettaggerError(
                f"classes.{name}: none of the {selected} selected jets of {role} belongs to it"
            )


def _write_shard(path: Path, table: Table) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["counts"] = json.dumps(table.counts)
        for name in ("entry", "labels", "weights", "group"):
            _write(file, name, getattr(table, f"{name}_J"))
        for kind in ("spectators", "extras"):
            for name, values in getattr(table, kind).items():
                _write(file, f"{kind}/{name}", values)
        if table.inputs.jet_JF is not None:
            _write(file, "jet", table.inputs.jet_JF)
        for name, collection in table.inputs.collections.items():
            _write(file, f"collections/{name}/values", collection.values_NF)
            _write(file, f"collections/{name}/lengths", collection.lengths_J)
            if collection.coordinates_NK is not None:
                _write(file, f"collections/{name}/coordinates", collection.coordinates_NK)


def _write(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Contiguous and uncompressed, so that it can be memory-mapped; without time stamps."""
    file.create_dataset(name, data=np.ascontiguousarray(values), track_times=False)


def _map_shard(path: Path, small: dict[str, list[Any]]) -> RawInputs:
    """Maps the inputs of a shard, and appends its small columns to `small`."""
    with h5py.File(path, "r") as file:
        for name in ("labels", "weights", "group"):
            small.setdefault(name, []).append(file[name][:])
        for kind in ("spectators", "extras"):
            for name, dataset in file.get(kind, {}).items():
                small.setdefault(f"{kind}/{name}", []).append(dataset[:])
        jet = _mapped(path, file["jet"]) if "jet" in file else None
        collections = {
            name: RawCollection(
                _mapped(path, group["values"]),
                group["lengths"][:],
                _mapped(path, group["coordinates"]) if "coordinates" in group else None,
            )
            for name, group in file.get("collections", {}).items()
        }
    return RawInputs(jet, collections)


def _mapped(path: Path, dataset: h5py.Dataset) -> NDArray[Any]:
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    return np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)


def _offsets(lengths_J: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths_J, dtype=np.int64)])


def _only(raw: RawInputs, inputs: InputSpec) -> RawInputs:
    """The columns that a model looks at."""
    collections = {wanted.name: raw.collections[wanted.name] for wanted in inputs.collections}
    return RawInputs(raw.jet_JF if inputs.jet else None, collections)


def _taken(raw: RawInputs, offsets: Mapping[str, NDArray[np.int64]], rows_B: NDArray[np.int64]) -> RawInputs:
    """The jets `rows_B`, in that order; a copy."""
    collections = {}
    for name, collection in raw.collections.items():
        lengths_B = collection.lengths_J[rows_B]
        ends_B = np.cumsum(lengths_B, dtype=np.int64)
        # Row n of the result is row start_of_its_jet + (n - first_row_of_its_jet) of the source.
        rows_N = np.repeat(offsets[name][rows_B] - (ends_B - lengths_B), lengths_B)
        rows_N += np.arange(len(rows_N))
        coordinates = collection.coordinates_NK
        collections[name] = RawCollection(
            np.take(collection.values_NF, rows_N, axis=0),
            lengths_B,
            None if coordinates is None else np.take(coordinates, rows_N, axis=0),
        )
    jet_BF = None if raw.jet_JF is None else np.take(raw.jet_JF, rows_B, axis=0)
    return RawInputs(jet_BF, collections)


def _concatenated(pieces: Sequence[RawInputs], like: RawInputs) -> RawInputs:
    if len(pieces) == 1:
        return pieces[0]
    collections = {}
    for name, first in like.collections.items():
        parts = [piece.collections[name] for piece in pieces]
        collections[name] = RawCollection(
            np.concatenate([part.values_NF for part in parts]),
            np.concatenate([part.lengths_J for part in parts]),
            None
            if first.coordinates_NK is None
            else np.concatenate([part.coordinates_NK for part in parts if part.coordinates_NK is not None]),
        )
    jets = [piece.jet_JF for piece in pieces if piece.jet_JF is not None]
    return RawInputs(np.concatenate(jets) if jets else None, collections)


def _none_of(like: RawInputs) -> RawInputs:
    return _taken(like, offsets_of(like), np.empty(0, np.int64))
