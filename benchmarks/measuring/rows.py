"""The rows of `loader.py`: what is run, on which files, in how many processes, from a warm or a cold cache."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from measuring import inputs
from measuring.fresh_process import BENCHMARKS, Outcome, run
from measuring.page_cache import files_below, forget

OURS = BENCHMARKS / "measuring/jettagger_rows.py"
WEAVER = BENCHMARKS / "peers/weaver_loader.py"
SALT = BENCHMARKS / "peers/salt_loader.py"
BATCH_SIZE = 512
PASSES = ("first pass", "second pass")
"""Of the same files in the same process. The first also touches memory that is new to the process."""


class Line(NamedTuple):
    """A line of the table."""

    who: str
    what: str
    container: str
    processes: int
    cache: str


class Row(NamedTuple):
    """One fresh process, which may give several lines."""

    line: Line
    """Its `what` is followed by the result's name, as `names` has it."""
    script: Path
    arguments: dict[str, Any]
    reads: tuple[Path, ...]
    """Files and folders that a cold row finds out of the cache."""
    names: dict[str, str]
    """Result -> what the table calls it."""
    python: str = sys.executable

    def measure(self) -> Outcome:
        """Runs it once."""
        if self.line.cache == "cold":
            forget(file for path in self.reads for file in files_below(path))
        return run(self.script, self.arguments, python=self.python, cores=self.line.processes)

    def lines(self) -> Iterator[tuple[str, Line]]:
        """Each result's name and its line."""
        for result, name in self.names.items():
            yield result, self.line._replace(what=name)


class Files(NamedTuple):
    """The same kind of jets in one container."""

    container: str
    samples: dict[str, list[str]]
    jets: int

    @property
    def paths(self) -> list[str]:
        return [path for files in self.samples.values() for path in files]


class Place(NamedTuple):
    """Where a benchmark writes."""

    folder: Path

    def kept(self, container: str) -> str:
        """Where the prepared data lie that are read again and again."""
        return str(self.folder / "prepared" / container)

    def weaver_config(self, *, standardise: bool) -> str:
        path = self.folder / f"weaver_{'standardised' if standardise else 'raw'}.yaml"
        path.write_text(yaml.safe_dump(inputs.weaver_config(standardise=standardise)), encoding="utf-8")
        return str(path)


def config_of(files: Files, prepared: str) -> dict[str, Any]:
    """jettagger's config for files of any container."""
    make = inputs.atlas_config if files.container == "HDF5" else inputs.jettagger_config
    return make(files.samples, prepared)


def uproot_rows(files: Files) -> Iterator[Row]:
    """What can be had at most."""
    branches = [*inputs.BRANCHES, *inputs.CLASSES.values(), inputs.EVENT]
    for processes, cache in _ways():
        yield Row(
            Line("uproot", "read the branches", files.container, processes, cache),
            OURS,
            {"kind": "uproot", "files": files.paths, "branches": branches, "processes": processes}
            | {"passes": _passes(cache)},
            tuple(map(Path, files.paths)),
            _named("read the branches", cache),
        )


def jettagger_rows(files: Files, place: Place) -> Iterator[Row]:
    """Files to prepared data, each time anew; prepared data to batches."""
    for processes, cache in _ways():
        told = {"processes": processes, "batch_size": BATCH_SIZE, "passes": _passes(cache)}
        filling = f"{files.container} → prepared"
        yield Row(
            Line("jettagger", filling, files.container, processes, cache),
            OURS,
            told | {"kind": "prepare", "config": config_of(files, ""), "scratch": str(place.folder)},
            tuple(map(Path, files.paths)),
            _named(filling, cache),
        )
        if files.container == "RNTuple":
            continue  # its prepared data are the same
        kept = place.kept(files.container)
        names = {"first epoch": "prepared → batches, first epoch"}
        if cache == "warm":
            names["later epoch"] = "prepared → batches, later epoch"
        yield Row(
            Line("jettagger", "prepared → batches", files.container, processes, cache),
            OURS,
            told | {"kind": "batches", "config": config_of(files, kept)},
            (Path(kept),),
            names,
        )


def weaver_rows(files: Files, place: Place, python: str) -> Iterator[Row]:
    """Streaming as by default, streaming file by file (faster, but a batch is of one file), and in memory.

    The default, a hundredth of each file at a time, is made for files of 100k jets: small ones it treats badly.
    """
    streaming = {"in_memory": False, "check": False, "config": place.weaver_config(standardise=True)}
    modes = {
        "streaming, fetch_step 0.01": streaming | {"fetch_by_files": False, "fetch_step": 0.01},
        "streaming, fetch_by_files": streaming | {"fetch_by_files": True, "fetch_step": 1},
        "in memory": streaming | {"fetch_by_files": False, "fetch_step": 1, "in_memory": True},
    }
    for processes, cache in _ways():
        for mode, told in modes.items():
            if cache == "cold" and told["fetch_step"] < 1:
                continue  # it goes through each file a hundred times
            names = _named(f"ROOT → batches, {mode}", cache)
            told["passes"] = _passes(cache)
            if told["in_memory"]:
                names = {"first epoch": "ROOT → batches, in memory, first epoch"}
                if cache == "warm":
                    names["later epoch"] = "batches, in memory, later epoch"
            yield Row(
                Line("weaver", f"ROOT → batches, {mode}", files.container, processes, cache),
                WEAVER,
                told | _told_to_peer(files, processes) | {"files": {"jets": files.paths}},
                tuple(map(Path, files.paths)),
                names,
                python,
            )


def salt_rows(files: Files, python: str) -> Iterator[Row]:
    """Batches of neighbours in a random order; values are not standardised (salt's models do that)."""
    for processes, cache in _ways():
        names = {"first epoch": "HDF5 → batches, first epoch"}
        if cache == "warm":
            names["later epoch"] = "HDF5 → batches, later epoch"
        yield Row(
            Line("salt", "HDF5 → batches", files.container, processes, cache),
            SALT,
            _told_to_peer(files, processes)
            | {"file": files.paths[0], "features": list(inputs.FEATURES), "check": False},
            tuple(map(Path, files.paths)),
            names,
            python,
        )


def _ways() -> Iterator[tuple[int, str]]:
    for processes in (1, 2):
        for cache in ("warm", "cold"):
            yield processes, cache


def _passes(cache: str) -> list[str]:
    return list(PASSES[: 2 if cache == "warm" else 1])


def _named(what: str, cache: str) -> dict[str, str]:
    """What the table calls the passes."""
    return dict(zip(_passes(cache), (what, f"{what}, {PASSES[1]}"), strict=False))


def _told_to_peer(files: Files, processes: int) -> dict[str, Any]:
    workers = 0 if processes == 1 else processes
    return {"jets": files.jets, "batch_size": BATCH_SIZE, "workers": workers}


def version_of(python: str | None, package: str, module: str) -> str | None:
    """The installed version of a peer; None where it cannot be imported."""
    if python is None:
        return None
    code = f"import {module}; from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.split()[-1] if done.returncode == 0 else None
