"""Whether the memory stays flat however large the dataset is: many files are prepared and read in random batches.

    python benchmarks/memory.py [FOLDER] [--files 200] [--jets 10000] [--work FOLDER] [--keep] [--json FILE]

`files` ROOT files of `jets` jets each are made from the jets of FOLDER (default: data/top): drawn at random,
turned by a random angle and reflected, so that each file has its own content and UUID. Then, each in a fresh
process: the data are prepared and pass one epoch of shuffled batches of 512; the prepared data are found again.
The same is done before with a quarter of the files: what the peak has grown by, over the jets that came on top,
is the slope, which is 0 for a flat memory and about 4000 bytes a jet where all of it is held.

The peak is that of RssAnon + RssShmem of all processes together, looked at every 20 ms. Limit: 2 GB. Inputs
are the 17 features of `loader.py`. The whole takes about 7 kB of disk a jet (14 GB) in `work` (default: the system's
folder for temporary files), which is freed at the end unless `--keep` is given.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from measuring.fresh_process import BENCHMARKS, Outcome, run
from measuring.inputs import jettagger_config
from measuring.many_files import make_files
from measuring.page_cache import files_below

LIMIT = 2e9
"""Bytes."""
DISK = 7000
"""Bytes a jet, of both the ROOT files and the prepared data."""
SCRIPT = BENCHMARKS / "measuring/memory_phases.py"


class Size(NamedTuple):
    """What a number of files takes."""

    files: int
    jets: int
    peaks: dict[str, int]
    """Phase -> bytes."""
    rates: dict[str, float]
    """Phase -> jets/s by the wall clock."""
    prepared_bytes: int
    reopened_seconds: float

    @property
    def peak(self) -> int:
        return max(self.peaks.values())


def measure(files: list[Path], prepared: Path, options: argparse.Namespace) -> Size:
    """Prepares the files, passes an epoch, and opens the prepared data again."""
    samples = {name: [str(x) for x in files if x.name.startswith(name)] for name in ("QCD", "Top")}
    told = {
        "config": jettagger_config(samples, prepared),
        "processes": options.processes,
        "pool_bytes": options.pool_bytes,
        "batch_size": options.batch_size,
    }
    cores = options.processes or 64
    filling: Outcome = run(SCRIPT, {**told, "phases": ["prepare", "epoch"]}, cores=cores)
    again: Outcome = run(SCRIPT, {**told, "phases": ["open"]}, cores=cores)
    results = filling.results | again.results
    return Size(
        len(files),
        int(results["prepare"].jets),
        filling.peaks | {"open": again.peaks["open"]},
        {name: result.jets / result.wall for name, result in results.items()},
        sum(path.stat().st_size for path in files_below(prepared)),
        again.results["open"].wall,
    )


def said(size: Size) -> str:
    peaks = ", ".join(
        f"{name} {size.peaks[name] / 1e6:.0f}" for name in ("start", "prepare", "epoch", "open")
    )
    return (
        f"{size.files} files, {size.jets} jets: peak {size.peak / 1e6:.0f} MB ({peaks});"
        f" prepared at {size.rates['prepare'] / 1000:.1f}k jets/s,"
        f" epoch at {size.rates['epoch'] / 1000:.1f}k jets/s,"
        f" {size.prepared_bytes / 1e9:.2f} GB on disk, found again in {size.reopened_seconds:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/top"))
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--jets", type=int, default=10_000, help="of each file")
    parser.add_argument("--processes", type=int, help="that prepare; default: as `jettagger prepare` chooses")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--pool-bytes", type=int, help="that are shuffled in memory; default: as in training")
    parser.add_argument("--work", type=Path, help="folder for the files and the prepared data")
    parser.add_argument("--keep", action="store_true", help="do not delete them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.files < 8:
        parser.error("--files: at least 8, so that a quarter has both classes")
    folder = Path(tempfile.mkdtemp(prefix="jettagger-memory-", dir=options.work))
    try:
        needed, free = DISK * options.files * options.jets, shutil.disk_usage(folder).free
        if free < needed:
            raise SystemExit(
                f"{needed / 1e9:.0f} GB are needed in {folder}, {free / 1e9:.0f} GB are free: see --work"
            )
        compare(folder, options)
    finally:
        if options.keep:
            print(f"kept in {folder}")
        else:
            shutil.rmtree(folder)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """A quarter of the files, then all."""
    files = make_files(options.folder, folder / "files", options.files, options.jets)
    print(f"{len(files)} files of {options.jets} jets: {sum(x.stat().st_size for x in files) / 1e9:.2f} GB")
    quarter = measure(files[: len(files) // 4], folder / "prepared quarter", options)
    print(said(quarter), flush=True)
    shutil.rmtree(folder / "prepared quarter")
    whole = measure(files, folder / "prepared", options)
    print(said(whole))
    slope = (whole.peak - quarter.peak) / (whole.jets - quarter.jets)
    print(f"slope: {slope:.0f} bytes a jet of {whole.prepared_bytes / whole.jets:.0f} on disk")
    print(f"peak {whole.peak / 1e9:.2f} GB, limit {LIMIT / 1e9:.0f} GB")
    if options.json:
        document: dict[str, Any] = {
            "quarter": quarter._asdict() | {"peak": quarter.peak},
            "whole": whole._asdict() | {"peak": whole.peak},
            "bytes_a_jet": slope,
            "prepared_bytes_a_jet": whole.prepared_bytes / whole.jets,
        }
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    if whole.peak > LIMIT:
        raise SystemExit("the limit is passed")


if __name__ == "__main__":
    main()
