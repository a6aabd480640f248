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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import InputSpec
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Opening
from jettagger.data.input_schema import CollectionSection, FeatureSection, JetSection
from jettagger.data.locations import find_files
from jettagger.data.reader import opened, opening_of
from jettagger.data.rows import RawInputs, copied, offsets_of
from jettagger.data.sample_schema import Samples, SampleSection
from jettagger.data.schema import DataConfig
from jettagger.data.shards import FORMAT, Shard, column, open_shard, write_shard
from jettagger.errors import JettaggerError
from jettagger.files import sha256, write_json, written_aside


@dataclass(frozen=True)
class Task:
    """One shard to fill: what a worker needs, and nothing that cannot be sent to another process."""

    path: str
    opening: Opening
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
        return column(self.shards, "group")

    @property
    def spectators(self) -> dict[str, NDArray[np.float64]]:
        """What is kept beside the scores."""
        return {name: column(self.shards, f"spectators/{name}") for name in self.spectator_names}

    @property
    def extras(self) -> dict[str, NDArray[np.float64]]:
        """What the baselines look at."""
        return {name: column(self.shards, f"extras/{name}") for name in self.extra_names}

    def origin(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each jet comes from: a number that names its file by its content, and its entry there."""
        names = [randomness.key(0, record.identity) for record in self.records]
        file_J = np.repeat(np.array(names, np.int64), [record.jets for record in self.records])
        return file_J, column(self.shards, "entry")

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
        return copied(pieces, self.shards[0].mapped(inputs), len(rows_J), particles)


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
    seen: dict[str, str] = {}
    opening = opening_of(config)
    for sample, section in samples.items():
        if not isinstance(section, SampleSection):
            section = SampleSection(files=section)
        for path in find_files(section.files, where=f"{role}.{sample}"):
            source = opened(path, opening)
            if source.identity in seen:
                raise JettaggerError(f"{role}: {path} and {seen[source.identity]} are the same file")
            seen[source.identity] = path
            branches = columns.branches(source.branches, where=path, sample_weight=section.weight)
            for start, stop in source.ranges(branches):
                tasks.append(
                    Task(
                        path=path,
                        opening=opening,
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
        chunk = opened(task.path, task.opening).read(task.branches, task.start, task.stop)
        table = Columns(config, extras).table(
            chunk.branches,
            start=task.start,
            sample=task.sample,
            sample_weight=task.sample_weight,
            where=task.path,
            file_key=randomness.key(0, task.identity) >> 1,
        )
        with written_aside(path) as aside:
            write_shard(aside, table)
    with h5py.File(path, "r") as file:
        counts = json.loads(file.attrs["counts"])
    return ShardRecord(
        task.shard, sha256(path), task.path, task.identity, task.sample, counts["selected"], counts
    )


def open_prepared(
    config: DataConfig, directory: Path, extras: Mapping[str, str | int | float] | None = None
) -> Prepared:
    """A dataset that was filled before."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JettaggerError(
            f"{directory / 'manifest.json'} is damaged: delete {directory} and prepare again"
        ) from error
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
            shards.append(open_shard(path))
        except (OSError, KeyError) as error:
            raise JettaggerError(f"{path} is damaged: delete {directory} and prepare again") from error
    return Prepared(
        directory=directory,
        key=manifest["key"],
        classes=tuple(config.classes),
        spec=Columns(config).spec,
        records=records,
        labels_J=column(shards, "labels"),
        weights_J=column(shards, "weights"),
        spectator_names=tuple(config.spectators),
        extra_names=tuple(extras or {}),
        first_S=np.concatenate([[0], np.cumsum([record.jets for record in records])]),
        shards=tuple(shards),
    )


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
