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
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import Inputs, InputSpec, Packed
from jettagger.data.columns import Columns, RawCollection, RawInputs, Table
from jettagger.data.reader import find_files, opened
from jettagger.data.schema import (
    CollectionSection,
    DataConfig,
    FeatureSection,
    JetSection,
    Samples,
    SampleSection,
)
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


class Block(NamedTuple):
    """Where an array lies in a shard. Nothing is open: thousands of shards would be thousands of open files."""

    path: Path
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self) -> NDArray[Any]:
        """The array, memory-mapped."""
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise JettaggerError(f"{self.path} cannot be read any more: {error}") from error


class CollectionBlocks(NamedTuple):
    """A collection's arrays: see `RawCollection`."""

    values: Block
    lengths: Block
    coordinates: Block | None


class Shard(NamedTuple):
    """One shard."""

    columns: dict[str, Block]
    """One value a jet: entry, labels, weights, group, spectators/<name>, extras/<name>."""
    jet: Block | None
    collections: dict[str, CollectionBlocks]

    def mapped(self, inputs: InputSpec) -> RawInputs:
        """What a model looks at, memory-mapped."""
        collections = {}
        for wanted in inputs.collections:
            values, lengths, coordinates = self.collections[wanted.name]
            collections[wanted.name] = RawCollection(
                values.mapped(), lengths.mapped(), None if coordinates is None else coordinates.mapped()
            )
        return RawInputs(self.jet.mapped() if inputs.jet and self.jet else None, collections)


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, opened: labels and weights are in memory, all else is read when it is asked for."""

    directory: Path
    key: str
    classes: tuple[str, ...]
    spec: InputSpec
    records: tuple[ShardRecord, ...]
    labels_J: NDArray[np.int64]
    weights_J: NDArray[np.float64]
    """Event weights."""
    spectator_names: tuple[str, ...]
    extra_names: tuple[str, ...]
    first_S: NDArray[np.int64]
    """Index of each shard's first jet, and the number of jets at the end."""
    shards: tuple[Shard, ...]

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

    @property
    def groups(self) -> NDArray[np.int64]:
        """Jets of one group never lie on two sides of a split."""
        return _column(self.shards, "group")

    @property
    def spectators(self) -> dict[str, NDArray[np.float64]]:
        """What is kept beside the scores."""
        return {name: _column(self.shards, f"spectators/{name}") for name in self.spectator_names}

    @property
    def extras(self) -> dict[str, NDArray[np.float64]]:
        """What the baselines look at."""
        return {name: _column(self.shards, f"extras/{name}") for name in self.extra_names}

    def origin(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each jet comes from: a number that names its file by its content, and its entry there."""
        names = [randomness.key(0, record.identity) for record in self.records]
        file_J = np.repeat(np.array(names, np.int64), [record.jets for record in self.records])
        return file_J, _column(self.shards, "entry")

    def read(self, rows_J: NDArray[np.int64], inputs: InputSpec) -> RawInputs:
        """What a model that looks at `inputs` needs of jets `rows_J`, which ascend, copied into memory."""
        found: list[tuple[Shard, NDArray[np.int64]]] = []
        for shard, low, high in zip(self.shards, self.first_S[:-1], self.first_S[1:], strict=True):
            begin, end = np.searchsorted(rows_J, [low, high])
            if end > begin:
                found.append((shard, rows_J[begin:end] - low))
        particles = {
            wanted.name: sum(int(s.collections[wanted.name].lengths.mapped()[r].sum()) for s, r in found)
            for wanted in inputs.collections
        }
        mapped = ((shard.mapped(inputs), rows) for shard, rows in found)
        pieces = ((raw, offsets_of(raw), rows) for raw, rows in mapped)
        return _copied(pieces, self.shards[0].mapped(inputs), len(rows_J), particles)


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
    tasks = plan(config, samples, role=role, extras=extras)
    key = _key(config, tasks, extras)
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
    found = open_prepared(config, directory, extras)
    # The same files may have lain elsewhere when the dataset was filled.
    paths = {task.identity: task.path for task in tasks}
    return replace(found, records=tuple(r._replace(path=paths[r.identity]) for r in found.records))


def plan(
    config: DataConfig,
    samples: Samples,
    *,
    role: str,
    extras: Mapping[str, str | int | float] | None = None,
) -> list[Task]:
    """The shards to fill; opens every file and finds every missing branch."""
    columns = Columns(config, extras)
    tasks: list[Task] = []
    seen: dict[str, Path] = {}
    for sample, section in samples.items():
        if not isinstance(section, SampleSection):
            section = SampleSection(files=section)
        for path in find_files(section.files, where=f"{role}.{sample}"):
            source = opened(path, config.data.tree)
            if source.identity in seen:
                raise JettaggerError(f"{role}: {path} and {seen[source.identity]} are the same file")
            seen[source.identity] = path
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
    return tasks


def fill(
    directory: Path, config: DataConfig, extras: Mapping[str, str | int | float], task: Task
) -> ShardRecord:
    """Fills one shard, unless it is there already."""
    path = directory / task.shard
    if not path.exists():
        chunk = opened(Path(task.path), task.tree).read(task.branches, task.start, task.stop)
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
    shards: list[Shard] = []
    for record in records:
        path = directory / record.name
        if not path.is_file():
            raise JettaggerError(f"{path} is missing: delete {directory} and prepare again")
        try:
            shards.append(_open_shard(path))
        except (OSError, KeyError) as error:
            raise JettaggerError(f"{path} is damaged: delete {directory} and prepare again") from error
    return Prepared(
        directory=directory,
        key=manifest["key"],
        classes=tuple(config.classes),
        spec=Columns(config).spec,
        records=records,
        labels_J=_column(shards, "labels"),
        weights_J=_column(shards, "weights"),
        spectator_names=tuple(config.spectators),
        extra_names=tuple(extras or {}),
        first_S=np.concatenate([[0], np.cumsum([record.jets for record in records])]),
        shards=tuple(shards),
    )


def take(raw: RawInputs, offsets: Mapping[str, NDArray[np.int64]], rows_B: NDArray[np.int64]) -> Inputs:
    """The tensors of jets `rows_B`, in that order, from inputs in memory."""
    particles = {name: int(x.lengths_J[rows_B].sum()) for name, x in raw.collections.items()}
    return to_tensors(_copied([(raw, offsets, rows_B)], raw, len(rows_B), particles))


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
    tasks: Sequence[Task],
    extras: Mapping[str, str | int | float] | None,
) -> str:
    """Hash of all that decides the numbers, such as which file belongs to which sample."""
    of_sample: dict[str, tuple[str | float, dict[str, None]]] = {}
    for task in tasks:
        of_sample.setdefault(task.sample, (task.sample_weight, {}))[1][task.identity] = None
    matters = {
        "format": FORMAT,
        "samples": [[name, weight, list(files)] for name, (weight, files) in of_sample.items()],
        "extras": dict(extras or {}),
        **config.model_dump(mode="json", include={"classes", "define", "spectators"}, by_alias=True),
        "inputs": {name: _raw(section) for name, section in config.inputs.items()},
        "event": config.weights.event,
        **config.data.model_dump(mode="json", include={"selection", "group_by", "tree"}),
    }
    # Order matters: it decides the order of columns and rows.
    return hashlib.sha256(json.dumps(matters).encode()).hexdigest()[:16]


def _raw(section: JetSection | CollectionSection) -> dict[str, Any]:
    """An input without what the model's first layer does with it: that leaves the prepared data as they are."""
    features: dict[str, list[Any]] = {
        name: [x.value, x.sentinels] if isinstance(x, FeatureSection) else [x, []]
        for name, x in section.features.items()
    }
    return section.model_dump(mode="json", by_alias=True, exclude={"features"}) | {"features": features}


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


def _open_shard(path: Path) -> Shard:
    """Where everything lies in a shard."""

    def block(dataset: h5py.Dataset) -> Block:
        return Block(path, dataset.dtype, dataset.id.get_offset() or 0, dataset.shape)

    with h5py.File(path, "r") as file:
        columns = {name: block(file[name]) for name in ("entry", "labels", "weights", "group")}
        for kind in ("spectators", "extras"):
            columns |= {f"{kind}/{name}": block(dataset) for name, dataset in file.get(kind, {}).items()}
        collections = {
            name: CollectionBlocks(
                block(group["values"]),
                block(group["lengths"]),
                block(group["coordinates"]) if "coordinates" in group else None,
            )
            for name, group in file.get("collections", {}).items()
        }
        return Shard(columns, block(file["jet"]) if "jet" in file else None, collections)


def _column(shards: Sequence[Shard], name: str) -> NDArray[Any]:
    """One value a jet, of all shards."""
    return np.concatenate([shard.columns[name].mapped() for shard in shards])


def _offsets(lengths_J: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths_J, dtype=np.int64)])


Piece = tuple[RawInputs, Mapping[str, NDArray[np.int64]], NDArray[np.int64]]
"""Inputs, their offsets, and the rows that are wanted of them."""


def _copied(pieces: Iterable[Piece], like: RawInputs, jets: int, particles: Mapping[str, int]) -> RawInputs:
    """The wanted jets of all pieces, one after the other, in arrays that are made once."""
    jet_JF = None if like.jet_JF is None else _rows_like(like.jet_JF, jets)
    collections = {
        name: RawCollection(
            _rows_like(x.values_NF, particles[name]),
            np.empty(jets, np.int32),
            None if x.coordinates_NK is None else _rows_like(x.coordinates_NK, particles[name]),
        )
        for name, x in like.collections.items()
    }
    done, done_of = 0, dict.fromkeys(collections, 0)
    for raw, offsets, rows in pieces:
        if jet_JF is not None and raw.jet_JF is not None:
            _copy(raw.jet_JF, rows, jet_JF, done)
        for name, into in collections.items():
            source = raw.collections[name]
            lengths = source.lengths_J[rows]
            into.lengths_J[done : done + len(rows)] = lengths
            ends = np.cumsum(lengths, dtype=np.int64)
            # Row n of the result is row start_of_its_jet + (n - first_row_of_its_jet) of the source.
            particle_rows = np.repeat(offsets[name][rows] - (ends - lengths), lengths)
            particle_rows += np.arange(len(particle_rows))
            _copy(source.values_NF, particle_rows, into.values_NF, done_of[name])
            if source.coordinates_NK is not None and into.coordinates_NK is not None:
                _copy(source.coordinates_NK, particle_rows, into.coordinates_NK, done_of[name])
            done_of[name] += len(particle_rows)
        done += len(rows)
    return RawInputs(jet_JF, collections)


def _rows_like(array: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    return np.empty((rows, array.shape[1]), array.dtype)


def _copy(source: NDArray[Any], rows: NDArray[np.int64], into: NDArray[Any], at: int) -> None:
    # Rows are valid: "clip" only spares NumPy the second copy that it makes to be able to raise.
    np.take(source, rows, axis=0, out=into[at : at + len(rows)], mode="clip")
