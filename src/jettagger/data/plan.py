"""Which shards a dataset has: its files, known by their content, and its key.

Finding the files reads a few bytes of each; planning opens them and looks for every branch.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jettagger.data.columns import Columns
from jettagger.data.containers.base import Opening, same_kinds
from jettagger.data.input_schema import CollectionSection, FeatureSection, JetSection
from jettagger.data.locations import find_files
from jettagger.data.manifest import Skipped
from jettagger.data.reader import opened, opening_of
from jettagger.data.sample_schema import Samples, SampleSection
from jettagger.data.schema import DataConfig
from jettagger.data.shards import FORMAT
from jettagger.errors import JettaggerError

KEY_OF_DATA = ("selection", "group_by", "tree", "jets", "columns", "slots", "units", "storage")
"""What of the section `data` decides the numbers, beside the files."""


class InputFile(NamedTuple):
    """A file of a sample."""

    number: int
    """Its place among those whose content is known."""
    path: str
    identity: str
    """Changes with the content, not with the name."""
    sample: str
    weight: str | float


class Files(NamedTuple):
    """The files of all samples, in their order, and those that cannot be read."""

    found: tuple[InputFile, ...]
    skipped: tuple[Skipped, ...]


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


def find(config: DataConfig, samples: Samples, *, role: str) -> Files:
    """The files, each known by its content.

    Raises JettaggerError for one that is not there, or given twice, or cannot be read (unless it is skipped).
    """
    opening = opening_of(config)
    found: list[InputFile] = []
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for sample, section in samples.items():
        if not isinstance(section, SampleSection):
            section = SampleSection(files=section)
        for path in find_files(section.files, where=f"{role}.{sample}"):
            try:
                identity = opened(path, opening).identity
            except JettaggerError as error:
                skip(config, skipped, path, sample, error)
                continue
            if identity in seen:
                raise JettaggerError(f"{role}: {path} and {seen[identity]} are the same file")
            seen[identity] = path
            found.append(InputFile(len(found), path, identity, sample, section.weight))
    return Files(tuple(found), tuple(skipped))


def skip(config: DataConfig, skipped: list[Skipped], path: str, sample: str, error: JettaggerError) -> None:
    """Notes a file that is left out; raises the error where data.on_error says so."""
    if config.data.on_error == "stop":
        raise error
    skipped.append(Skipped(path, sample, str(error)))


def plan(
    config: DataConfig,
    samples: Samples,
    *,
    role: str,
    extras: Mapping[str, str | int | float] | None = None,
) -> list[Task]:
    """The shards of some samples: opens every file and finds every missing branch."""
    tasks, _ = plan_files(config, find(config, samples, role=role).found, extras or {})
    return tasks


def plan_files(
    config: DataConfig,
    files: Collection[InputFile],
    extras: Mapping[str, str | int | float],
    *,
    like: InputFile | None = None,
) -> tuple[list[Task], list[Skipped]]:
    """The shards of some files, and the files that are left out.

    `like` is a file of the dataset that is prepared already: branches have to be of the kinds that they are there.
    """
    columns, opening = Columns(config, extras), opening_of(config)
    tasks: list[Task] = []
    skipped: list[Skipped] = []
    kinds: dict[str, tuple[str, str]] = {}
    if like is not None:
        _tasks(columns, opening, like, kinds)
    for file in files:
        try:
            tasks += _tasks(columns, opening, file, kinds)
        except JettaggerError as error:
            skip(config, skipped, file.path, file.sample, error)
    return tasks, skipped


def _tasks(
    columns: Columns, opening: Opening, file: InputFile, kinds: dict[str, tuple[str, str]]
) -> list[Task]:
    """The shards of a file, whose branches are of the `kinds` that they are in the files before it."""
    source = opened(file.path, opening)
    branches = columns.branches(source.branches, where=file.path, sample_weight=file.weight)
    same_kinds(kinds, source, branches)
    return [
        Task(
            path=file.path,
            opening=opening,
            start=start,
            stop=stop,
            branches=tuple(sorted(branches)),
            sample=file.sample,
            sample_weight=file.weight,
            identity=file.identity,
            shard=f"shard-{file.number:05d}-{piece:04d}.h5",
        )
        for piece, (start, stop) in enumerate(source.ranges(branches))
    ]


def key_of(config: DataConfig, files: Sequence[InputFile], extras: Mapping[str, str | int | float]) -> str:
    """Hash of all that decides the numbers, such as which file belongs to which sample."""
    of_sample: dict[str, tuple[str | float, list[str]]] = {}
    for file in files:
        of_sample.setdefault(file.sample, (file.weight, []))[1].append(file.identity)
    matters = {
        "format": FORMAT,
        "samples": [[name, weight, identities] for name, (weight, identities) in of_sample.items()],
        "extras": dict(extras),
        **config.model_dump(mode="json", include={"classes", "define", "spectators"}, by_alias=True),
        "inputs": {name: _raw(section) for name, section in config.inputs.items()},
        **({"targets": {name: x.value for name, x in config.targets.items()}} if config.targets else {}),
        "event": config.weights.event,
        **config.data.model_dump(mode="json", include=set(KEY_OF_DATA)),
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
