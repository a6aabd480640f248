"""The prepared dataset: columns of all files on disk, packed, memory-mapped, keyed by content.

A dataset is a folder `<key>/` of immutable shards, one for each (file, entry range), and a manifest with their
checksums. The key is made of the files' identities, of the parts of the config that decide the numbers, and of
FORMAT: neither dates nor the package's version enter. Values are raw; normalisation lives in the model.

Shapes: J jets, N particles, F features, K coordinates.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import InputSpec
from jettagger.data.asides import tidy
from jettagger.data.columns import Columns
from jettagger.data.executors import local_processes, usable_processors
from jettagger.data.filling import Filled, Job, fill_all, writing
from jettagger.data.filling_progress import shown
from jettagger.data.locations import is_remote
from jettagger.data.manifest import (
    MANIFEST,
    Manifest,
    ShardRecord,
    Skipped,
    Stamp,
    faults,
    read_manifest,
    read_stamps,
    write_manifest,
    write_stamps,
)
from jettagger.data.plan import Files, Task, find, key_of, plan, plan_files
from jettagger.data.rows import RawInputs, copied, offsets_of
from jettagger.data.sample_schema import Samples
from jettagger.data.schema import DataConfig
from jettagger.data.shards import Rounding, Shard, column, shard_at
from jettagger.errors import JettaggerError

__all__ = ["Prepared", "Skipped", "find", "is_filled", "open_prepared", "plan", "prepare"]

LITTLE = 200 * 2**20
"""Bytes of input files below which starting other processes takes longer than it saves."""


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, opened: labels and weights are in memory, all else is read when it is asked for."""

    directory: Path
    key: str
    classes: tuple[str, ...]
    spec: InputSpec
    records: tuple[ShardRecord, ...]
    skipped: tuple[Skipped, ...]
    """Files that data.on_error left out."""
    labels_J: NDArray[np.signedinteger[Any]]
    """The smallest type that holds the number of classes."""
    weights_J: NDArray[np.floating[Any]]
    """Event weights: float32, or float64 where one is beyond it."""
    target_names: tuple[str, ...]
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
    def rounding(self) -> dict[str, Rounding]:
        """What float16 did to each particle feature, at worst; empty in float32."""
        worst: dict[str, Rounding] = {}
        for record in self.records:
            for name, errors in record.rounding.items():
                worst[name] = Rounding(*map(max, errors, worst.get(name, errors)))
        return worst

    @property
    def groups(self) -> NDArray[np.int64]:
        """Jets of one group never lie on two sides of a split."""
        return column(self.shards, "group")

    @property
    def targets(self) -> dict[str, NDArray[np.float32]]:
        """What is regressed; NaN where it is unknown."""
        return {name: column(self.shards, f"targets/{name}") for name in self.target_names}

    @property
    def spectators(self) -> dict[str, NDArray[np.float64]]:
        """What is kept beside the scores."""
        return {name: column(self.shards, f"spectators/{name}") for name in self.spectator_names}

    @property
    def extras(self) -> dict[str, NDArray[np.float64]]:
        """What the baselines look at."""
        return {name: column(self.shards, f"extras/{name}") for name in self.extra_names}

    def origin(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where each jet comes from: a number that names its file by its content, its entry there, and its number
        in the entry."""
        names = [randomness.key(0, record.identity) for record in self.records]
        file_J = np.repeat(np.array(names, np.int64), [record.jets for record in self.records])
        return file_J, column(self.shards, "entry"), column(self.shards, "index")

    def read(self, rows_J: NDArray[np.int64], inputs: InputSpec) -> RawInputs:
        """What a model that looks at `inputs` needs of jets `rows_J`, which ascend, copied into memory."""
        found = self._shards_of(rows_J)
        particles = {
            wanted.name: sum(int(s.collections[wanted.name].lengths.mapped()[r].sum()) for s, r in found)
            for wanted in inputs.collections
        }
        mapped = ((shard.mapped(inputs), rows) for shard, rows in found)
        pieces = ((raw, offsets_of(raw), rows) for raw, rows in mapped)
        return copied(pieces, self.shards[0].mapped(inputs), len(rows_J), particles)

    def lengths(self, rows_J: NDArray[np.int64], inputs: InputSpec) -> dict[str, NDArray[np.int32]]:
        """How many particles jets `rows_J`, which ascend, have in each collection."""
        found = self._shards_of(rows_J)
        return {
            wanted.name: np.concatenate(
                [np.zeros(0, np.int32), *(s.collections[wanted.name].lengths.mapped()[r] for s, r in found)]
            ).astype(np.int32)
            for wanted in inputs.collections
        }

    def _shards_of(self, rows_J: NDArray[np.int64]) -> list[tuple[Shard, NDArray[np.int64]]]:
        """The shards that hold jets `rows_J`, which ascend, and their rows in each."""
        found: list[tuple[Shard, NDArray[np.int64]]] = []
        for shard, low, high in zip(self.shards, self.first_S[:-1], self.first_S[1:], strict=True):
            begin, end = np.searchsorted(rows_J, [low, high])
            if end > begin:
                found.append((shard, rows_J[begin:end] - low))
        return found


class _Request(NamedTuple):
    """What `prepare` was asked for."""

    config: DataConfig
    samples: Samples
    role: str
    extras: dict[str, str | int | float]
    executor: Executor | None
    workers: int | None
    say: Callable[[str], None] | None


def prepare(
    config: DataConfig,
    samples: Samples,
    *,
    role: str,
    extras: Mapping[str, str | int | float] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    verify: bool = False,
    say: Callable[[str], None] | None = None,
) -> Prepared:
    """The prepared dataset of `samples`, filled as far as it is not there yet.

    `role` names the samples in errors (`data.train`); `extras` are expressions of the baselines. Shards are
    filled by `executor` (anything with the `concurrent.futures` interface), or by `workers` processes of this
    machine (default: one a processor, and none where there is little to do); the bytes are the same. `verify`
    reads all shards that are there and compares their checksums; damaged ones are filled again. Raises
    JettaggerError for files, branches, classes and selections that do not fit, and for a disk that takes no more.
    """
    request = _Request(config, samples, role, dict(extras or {}), executor, workers, say)
    files = find(config, samples, role=role)
    _check_left(request, files, files.skipped)
    directory = Path(config.data.prepared) / key_of(config, files.found, request.extras)
    manifest, stamps = read_manifest(directory), read_stamps(directory)
    lacking = faults(directory, manifest.records, stamps, verify=verify) if manifest else {}
    if manifest is None or manifest.skipped or files.skipped or lacking:
        for fault in lacking.values():
            if say is not None:
                say(f"  {fault}: it is prepared again")
        manifest = _filled(request, files, directory, manifest, lacking, stamps)
    write_stamps(directory, stamps)
    # The same files may have lain elsewhere when the dataset was filled.
    paths = {file.identity: file.path for file in files.found}
    records = tuple(record._replace(path=paths[record.identity]) for record in manifest.records)
    return _opened(config, directory, manifest._replace(records=records), request.extras)


def is_filled(
    config: DataConfig, samples: Samples, *, role: str, extras: Mapping[str, str | int | float] | None = None
) -> bool:
    """Whether `prepare` would find the dataset; what it holds is not looked at."""
    files = find(config, samples, role=role)
    return (Path(config.data.prepared) / key_of(config, files.found, extras or {}) / MANIFEST).is_file()


def _filled(
    request: _Request,
    files: Files,
    directory: Path,
    manifest: Manifest | None,
    lacking: Mapping[str, str],
    stamps: dict[str, Stamp],
) -> Manifest:
    """The manifest, once what it lacks has been filled; files that were skipped before are tried again."""
    config, extras = request.config, request.extras
    before = manifest.records if manifest else ()
    kept = {record.name: record for record in before if record.name not in lacking}
    complete = {r.identity for r in before} - {r.identity for r in before if r.name in lacking}
    lacks = [file for file in files.found if file.identity not in complete]
    like = next((file for file in files.found if file.identity in complete), None)
    tasks, left_out = plan_files(config, lacks, extras, like=like)
    tasks = [task for task in tasks if task.shard not in kept]
    skipped = {one.path: one for one in (*files.skipped, *left_out)}
    tidy(directory)
    with _pool(request, tasks) as executor:
        job = Job(directory.absolute(), Path.cwd(), config, extras)
        for task, outcome in shown(fill_all(job, tasks, executor), tasks, request.say):
            if isinstance(outcome, Filled):
                kept[task.shard], stamps[task.shard] = outcome
            else:
                skipped.setdefault(task.path, Skipped(task.path, task.sample, outcome.reason))
    in_order = [path for path in dict.fromkeys([*(f.path for f in files.found), *skipped]) if path in skipped]
    _check_left(request, files, [skipped[path] for path in in_order])
    used = [file for file in files.found if file.path not in skipped]
    identities = {file.identity for file in used}
    for name in [name for name in kept if kept[name].identity not in identities]:
        (directory / name).unlink(missing_ok=True)  # the beginning of a file that fails later on
        del kept[name], stamps[name]
    records = tuple(kept[name] for name in sorted(kept))
    _check_yields(config, records, request.role)
    found = Manifest(key_of(config, used, extras), records, tuple(skipped[path] for path in in_order))
    if found != manifest:
        with writing(directory / MANIFEST):
            write_manifest(directory, found)
    return found


def _pool(request: _Request, tasks: Sequence[Task]) -> AbstractContextManager[Executor | None]:
    """Who fills the shards; None: this process."""
    if request.executor is not None:
        return nullcontext(request.executor)
    workers = request.workers
    if workers is None:
        paths = {task.path for task in tasks}
        much = sum(Path(path).stat().st_size for path in paths if not is_remote(path)) > LITTLE
        workers = usable_processors() if much or any(map(is_remote, paths)) else 1
    workers = min(workers, len(tasks))
    return local_processes(workers) if workers > 1 else nullcontext(None)


def _check_left(request: _Request, files: Files, skipped: Sequence[Skipped]) -> None:
    """Raises JettaggerError where no file of a sample is left."""
    out = {one.path for one in skipped}
    for sample in request.samples:
        reasons = [one.reason for one in skipped if one.sample == sample]
        if reasons and not any(file.sample == sample and file.path not in out for file in files.found):
            raise JettaggerError(
                f"{request.role}.{sample}: data.on_error: skip leaves none of {len(reasons)} files; "
                f"the first: {reasons[0]}"
            )


def open_prepared(
    config: DataConfig, directory: Path, extras: Mapping[str, str | int | float] | None = None
) -> Prepared:
    """A dataset that was filled before. Raises JettaggerError for one that is not whole."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise JettaggerError(f"{directory} holds no prepared dataset: there is no {MANIFEST}")
    stamps = read_stamps(directory)
    for fault in faults(directory, manifest.records, stamps).values():
        raise JettaggerError(f"{fault}: delete it if it is there, and prepare again: only it is made anew")
    write_stamps(directory, stamps)
    return _opened(config, directory, manifest, extras or {})


def _opened(
    config: DataConfig, directory: Path, manifest: Manifest, extras: Mapping[str, str | int | float]
) -> Prepared:
    shards = tuple(shard_at(directory / record.name, record.places) for record in manifest.records)
    return Prepared(
        directory=directory,
        key=manifest.key,
        classes=config.class_names,
        spec=Columns(config).spec,
        records=manifest.records,
        skipped=manifest.skipped,
        labels_J=column(shards, "labels"),
        weights_J=_weights(shards),
        target_names=tuple(config.targets),
        spectator_names=tuple(config.spectators),
        extra_names=tuple(extras),
        first_S=np.concatenate([[0], np.cumsum([record.jets for record in manifest.records])]),
        shards=shards,
    )


def _weights(shards: Sequence[Shard]) -> NDArray[np.floating[Any]]:
    """The event weights, in half the memory where that loses none of them."""
    parts = []
    for shard in shards:
        exact_J = shard.columns["weights"].mapped()
        with np.errstate(over="ignore"):
            part_J = exact_J.astype(np.float32)
        if (~np.isfinite(part_J) | ((part_J == 0) & (exact_J != 0))).any():
            return column(shards, "weights")
        parts.append(part_J)
    return np.concatenate(parts)


def _check_yields(config: DataConfig, records: Sequence[ShardRecord], role: str) -> None:
    read = sum(record.counts["read"] for record in records)
    selected = sum(record.counts["selected"] for record in records)
    if not read:
        raise JettaggerError(f"{role}: the files hold no jets")
    if not selected:
        raise JettaggerError(f"{role}: data.selection '{config.data.selection}' leaves none of {read} jets")
    for name in config.class_names:
        if not sum(record.counts[f"class {name}"] for record in records):
            raise JettaggerError(
                f"classes.{name}: none of the {selected} selected jets of {role} belongs to it"
            )
