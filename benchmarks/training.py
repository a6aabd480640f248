"""How fast the same network is trained on the same jets: by jettagger's trainer, a bare loop, and weaver-core's.

    python benchmarks/training.py [FOLDER] [--weaver-python ENV/bin/python] [--threads 2] [--repeats 3]
        [--networks p_cnn particle_net pfn] [--steps 10] [--batch-size N] [--precision bfloat16] [--json FILE]

FOLDER (default: data/top) holds QCD*.root and Top*.root (TTree) with JetClass branch names. weaver needs other
versions of its libraries than jettagger, so it has an environment of its own, as for loader.py:

    python3.11 -m venv weaver && weaver/bin/pip install --prefer-binary torch weaver-core

Everybody trains on the 17 features of at most 128 particles that loader.py reads, with AdamW, in float32; with
`--precision bfloat16` jettagger and the bare loop use autocast, which weaver-core has for CUDA alone. Before
anything is timed, weights of a jettagger network are given to weaver's, and the logits of the same jets are
compared in double precision: they have to agree to 1e-5 in evaluation, and P-CNN's and PFN's in training as well.
(ParticleNet in training: weaver counts padding in batch normalisation, jettagger real particles alone. And a jet of
fewer than 17 particles, left out of the comparison, has no 16 neighbours: weaver takes slots without particles
for them, jettagger repeats particles.) weaver-core ships ParticleNet; P-CNN and PFN, which are examples beside
the package, are written down in peers/weaver_training.py with the same layers.

Each row is a fresh process with `--threads` threads on as many cores, all rows in turn, `repeats` times. Batches are in
memory on both sides: jettagger's prepared data and weaver's in-memory mode. An epoch to warm up is left out; then
`steps` steps are timed, the fetching of their batches included. The table gives medians, and ratios are medians of the
ratios of one round, by the wall clock and by the processors' time, of which a busy machine disturbs the second least.

The trainer's overhead on small networks is measured by trainer_overhead.py.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from measuring.fresh_process import BENCHMARKS, Measured, ScriptError, run
from measuring.networks import NETWORKS, samples_in
from measuring.rows import Place, version_of

OURS = BENCHMARKS / "measuring/training_rows.py"
WEAVER = BENCHMARKS / "peers/weaver_training.py"
TOLERANCE = 1e-5
WANTED = {
    ("p_cnn", "weaver", "float32"): 1.7,
    ("p_cnn", "weaver", "bfloat16"): 4.0,
    ("particle_net", "weaver", "float32"): 5.0,
}
"""jettagger's rate over weaver's, as the design asks for it."""
WANTED_OF_BARE_LOOP = 1 / 1.05


class Row(NamedTuple):
    """Who trains which network."""

    network: str
    who: str


class Bench(NamedTuple):
    """What all rows share."""

    told: dict[str, Any]
    threads: int
    weaver: str | None

    def row(self, row: Row, **more: Any) -> Any:
        """Runs it once in a fresh process."""
        network = NETWORKS[row.network]
        told = {"batch_size": network.batch_size, **self.told, "network": row.network, **more}
        script, python = (WEAVER, self.weaver) if row.who == "weaver" else (OURS, None)
        told["kind"] = told.get("kind", row.who)
        return run(script, told, cores=self.threads, **({"python": python} if python else {}))


def same_outputs(bench: Bench, network: str, place: Path) -> str:
    """Gives one network's weights to weaver's and compares the logits; a ScriptError if they differ."""
    print(f"comparing the logits of {network}", flush=True)
    path = str(place / f"{network}.npz")
    bench.row(Row(network, "jettagger"), kind="export", path=path)
    told = bench.row(Row(network, "weaver"), kind="check", path=path).told
    for mode, gap in told["gaps"].items():
        if not gap < TOLERANCE:
            raise ScriptError(f"{network} of weaver gives other logits in {mode}: they differ by {gap:.1e}")
    gaps = ", ".join(f"{gap:.0e} in {mode}" for mode, gap in told["gaps"].items())
    return f"{network}: logits of {told['jets']} jets with the same weights agree with weaver's to {gaps}"


def measure(bench: Bench, rows: list[Row], repeats: int, failures: list[str]) -> dict[Row, list[Measured]]:
    """All rows in turn. One that fails is left out from then on, and told of."""
    found: dict[Row, list[Measured]] = defaultdict(list)
    for number in range(repeats):
        for row in list(rows):
            print(f"round {number + 1} of {repeats}: {row.network}, {row.who}", flush=True)
            try:
                found[row].append(bench.row(row).results["steps"])
            except ScriptError as error:
                failures.append(f"{row.network}, {row.who}: {error}")
                rows.remove(row)
                found.pop(row, None)
    return found


class Ratio(NamedTuple):
    """jettagger's rate over another's on the same network, medians over rounds."""

    network: str
    over: str
    wall: float
    processor: float
    wanted: float | None


def ratios_of(found: dict[Row, list[Measured]], precision: str) -> list[Ratio]:
    ratios = []
    for row, theirs in found.items():
        ours = found.get(Row(row.network, "jettagger"))
        if row.who == "jettagger" or ours is None:
            continue
        pairs = list(zip(ours, theirs, strict=True))
        wall = statistics.median((a.jets / a.wall) / (b.jets / b.wall) for a, b in pairs)
        processor = statistics.median((a.jets / a.processor) / (b.jets / b.processor) for a, b in pairs)
        wanted = WANTED.get((row.network, row.who, precision))
        wanted = WANTED_OF_BARE_LOOP if row.who == "bare loop" else wanted
        ratios.append(Ratio(row.network, row.who, wall, processor, wanted))
    return ratios


def show(found: dict[Row, list[Measured]], ratios: list[Ratio], bench: Bench, notes: list[str]) -> None:
    """Prints the table."""
    print(f"\n{'network':14}{'who':12}{'batch':>6}{'jets/s':>10}{'steps/s':>10}{'peak GB':>9}")
    for row, figures in found.items():
        batch = bench.told.get("batch_size", NETWORKS[row.network].batch_size)
        rate = statistics.median(x.jets / x.wall for x in figures)
        peak = statistics.median(x.peak for x in figures) / 1e9
        print(f"{row.network:14}{row.who:12}{batch:6}{rate:10.1f}{rate / batch:10.3f}{peak:9.2f}")
    print("\njettagger over the others:")
    for ratio in ratios:
        wanted = "" if ratio.wanted is None else f"  wanted: {ratio.wanted:.2f}"
        print(
            f"{ratio.wall:6.2f} (wall) {ratio.processor:6.2f} (processor)  {ratio.network} / {ratio.over}{wanted}"
        )
    print("\n".join(["", *notes]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/top"))
    parser.add_argument("--weaver-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=[*NETWORKS])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, help="default: 512, and 128 for ParticleNet")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    installed = version_of(options.weaver_python, "weaver-core", "weaver.utils.dataset")
    notes = [f"{options.threads} threads, AdamW, {options.precision}"]
    notes.append(f"weaver-core {installed}" if installed else "weaver-core: not installed (see --help)")
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Place(Path(temporary))
        told = {
            "samples": samples_in(options.folder),
            "prepared": place.kept("TTree"),
            "steps": options.steps,
        }
        told |= {"threads": options.threads, "precision": options.precision}
        told |= {"weaver_config": place.weaver_config(standardise=True)}
        if options.batch_size:
            told["batch_size"] = options.batch_size
        bench = Bench(told, options.threads, options.weaver_python if installed else None)
        rows = []
        for network in options.networks:
            rows += [Row(network, "jettagger"), Row(network, "bare loop")]
            if bench.weaver:
                try:
                    notes.append(same_outputs(bench, network, place.folder))
                    rows.append(Row(network, "weaver"))
                except ScriptError as error:
                    failures.append(str(error))
        found = measure(bench, rows, options.repeats, failures)
    ratios = ratios_of(found, options.precision)
    show(found, ratios, bench, notes)
    if options.json:
        document = {
            "rows": [{**row._asdict(), "rounds": [x._asdict() for x in xs]} for row, xs in found.items()],
            "ratios": [ratio._asdict() for ratio in ratios],
            "notes": notes,
            "failures": failures,
        }
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    if failures:
        raise SystemExit("\n".join(["FAILED", *failures]))


if __name__ == "__main__":
    main()
