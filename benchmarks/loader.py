"""How fast jets come from files to batches: uproot alone, jettagger, weaver-core and salt, on the same files.

    python benchmarks/loader.py [FOLDER] [--repeats 5] [--json FILE]
        [--weaver-python ENV/bin/python] [--salt-python ENV/bin/python] [--rows REGEX]

FOLDER (default: data/top) holds QCD*.root and Top*.root with JetClass branch names, TTree or RNTuple. weaver
reads TTree alone, so all is measured on the TTree files first; what RNTuple changes follows. salt reads HDF5
alone: the TTree files' jets are written into one such file, and jettagger reads that too. The two peers need
other versions of their libraries than jettagger, so each has an environment of its own:

    python3.11 -m venv weaver && weaver/bin/pip install --prefer-binary torch weaver-core
    python3.11 -m venv salt && salt/bin/pip install --prefer-binary salt-ml

Without them their rows say so. Everybody makes the same 17 features of at most 128 particles; before anything
is timed, their sums over all jets are compared.

Each row is measured in a fresh process, all rows in turn, `repeats` times; the table gives medians, and ratios
are medians of the ratios of one round. Each process has one thread for PyTorch, BLAS, OpenMP and Numba, and one
core for one process, two for two: what runs beside (weaver reads ahead in a thread) shares them. "2" is two
processes of jettagger or uproot, and two workers of a PyTorch DataLoader beside its main process for the peers.
Libraries are imported before the clock starts, and jettagger's processes are there; a PyTorch DataLoader starts
its workers inside the first epoch. The second pass over the files, in the same process, finds its memory touched
already: on a virtual machine new pages cost as much as the work. Cold means that the files that are read have
left the system's page cache (posix_fadvise); a disk may keep them in a cache of its own.

Branches: the 17 that the features need and 2 labels, for everybody; uproot and jettagger also read
event_number, by which jettagger keeps the jets of an event on one side of a split. weaver's default, to fetch a
hundredth of each file at a time, is made for files of 100k jets; fetch_by_files reads one file after the other.

Columns: jets/s by the wall clock and by the processors' time, of which a busy machine disturbs the second least;
peak of RssAnon + RssShmem of all processes together while the row was timed; seconds to the first batch.
"""

import argparse
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uproot

from jettagger.data.locations import find_files
from jettagger.errors import JettaggerError
from measuring import atlas_file, same_numbers
from measuring.fresh_process import ScriptError
from measuring.inputs import CLASSES
from measuring.rows import (
    Files,
    Place,
    Row,
    jettagger_rows,
    salt_rows,
    uproot_rows,
    version_of,
    weaver_rows,
)
from measuring.table import Table, ratios_of

CONTAINERS = {"TTree": "TTree", "ROOT::RNTuple": "RNTuple"}


def root_files(folder: Path) -> dict[str, Files]:
    """Container -> the files of the folder that are of it."""
    found = {name: Files(name, {sample: [] for sample in CLASSES}, 0) for name in CONTAINERS.values()}
    for sample in CLASSES:
        for path in find_files(str(folder / f"{sample}*.root"), where="FOLDER"):
            with uproot.open(path) as file:
                kinds = file.classnames(cycle=False)
                name = next(name for name, kind in kinds.items() if kind in CONTAINERS)
                kind = CONTAINERS[kinds[name]]
                found[kind].samples[sample].append(path)
                found[kind] = found[kind]._replace(jets=found[kind].jets + file[name].num_entries)
    return {name: files for name, files in found.items() if all(files.samples.values())}


class Peers:
    """The interpreters of those that are installed; what is not is noted in the table."""

    def __init__(self, options: argparse.Namespace, table: Table) -> None:
        self.weaver = self._found(options.weaver_python, "weaver-core", "weaver.utils.dataset", table)
        self.salt = self._found(options.salt_python, "salt-ml", "salt.data", table)

    def _found(self, python: str | None, package: str, module: str, table: Table) -> str | None:
        installed = version_of(python, package, module)
        if installed is None:
            option = f"--{package.split('-')[0]}-python"
            table.notes.append(f"{package}: not installed: pip install {package} (see --help; {option})")
            return None
        table.notes.append(f"{package} {installed}")
        return python


def all_rows(found: dict[str, Files], peers: Peers, place: Place) -> Iterator[Row]:
    """Every row of those that are installed."""
    for files in found.values():
        if files.container != "HDF5":
            yield from uproot_rows(files)
        yield from jettagger_rows(files, place)
        if files.container == "TTree" and peers.weaver:
            yield from weaver_rows(files, place, peers.weaver)
        if files.container == "HDF5" and peers.salt:
            yield from salt_rows(files, peers.salt)


def make_ready(files: Files, tree: Files, peers: Peers, place: Place) -> None:
    """Writes the HDF5 file, fills the prepared data that are kept, and compares everybody's numbers."""
    if files.container == "HDF5":
        atlas_file.write(Path(files.paths[0]), tree.paths)
    ours = same_numbers.of_jettagger(files, place)
    if files.container == "TTree" and peers.weaver:
        same_numbers.compare(ours, same_numbers.of_weaver(files, place, peers.weaver), "weaver")
    if files.container == "HDF5" and peers.salt:
        same_numbers.compare(ours, same_numbers.of_salt(files, peers.salt), "salt")


def rows_ready(options: argparse.Namespace, peers: Peers, place: Place, table: Table) -> list[Row]:
    """The rows that are asked for, with all that they need."""
    found = root_files(options.folder)
    if "TTree" in found:
        jets = found["TTree"].jets
        found["HDF5"] = Files("HDF5", {"jets": [str(place.folder / "jets.h5")]}, jets)
    else:
        table.notes.append("no TTree files: weaver reads no others, and salt's HDF5 file is made of them")
    rows = [row for row in all_rows(found, peers, place) if re.search(options.rows, str(row.line))]
    for name, files in found.items():
        if not any(row.line.container == name for row in rows):
            continue
        table.notes.append(f"{name}: {files.jets} jets in {len(files.paths)} files")
        try:
            make_ready(files, found.get("TTree", files), peers, place)
        except ScriptError as error:
            table.failures.append(f"{name}: {error}")
            rows = [row for row in rows if row.line.container != name]
    return rows


def measure(rows: list[Row], repeats: int, table: Table) -> None:
    """All rows in turn. One that fails is left out from then on, and told of."""
    for number in range(repeats):
        for row in list(rows):
            print(f"round {number + 1} of {repeats}: {', '.join(map(str, row.line))}", flush=True)
            try:
                table.add(row, row.measure())
            except ScriptError as error:
                table.failures.append(f"{', '.join(map(str, row.line))}: {error}")
                table.leave_out(row)
                rows.remove(row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/top"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weaver-python")
    parser.add_argument("--salt-python")
    parser.add_argument(
        "--rows", default="", help="only rows whose description this regular expression finds"
    )
    options = parser.parse_args()
    table = Table()
    peers = Peers(options, table)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            rows = rows_ready(options, peers, Place(Path(temporary)), table)
        except JettaggerError as error:
            raise SystemExit(str(error)) from error
        measure(rows, options.repeats, table)
    ratios = ratios_of(table)
    if table.measured:
        table.show(ratios)
    if options.json:
        document = {"machine": machine(), **table.as_json(ratios)}
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    if table.failures:
        raise SystemExit("\n".join(["FAILED", *table.failures]))


def machine() -> dict[str, Any]:
    packages = ("awkward", "h5py", "numpy", "torch", "uproot")
    versions = {name: version(name) for name in packages}
    return {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor(), "versions": versions}


if __name__ == "__main__":
    main()
