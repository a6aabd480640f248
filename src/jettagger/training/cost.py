"""What a training cost: time, jets, operations, energy; measured where the machine measures it, else estimated, and
which of the two is part of the record, `cost.json` in the member's folder.

Energy counters: Linux' RAPL (`/sys/class/powercap`, processor packages; whatever else runs on the machine is in it)
and NVML (the whole board of a GPU; needs the package nvidia-ml-py).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from jettagger.files import write_json
from jettagger.models.parts.model import JetModel
from jettagger.models.parts.summary import summarise
from jettagger.training import checkpoints, outcome
from jettagger.training.device import Hardware
from jettagger.training.recipe import Recipe, member_folder, new_model
from jettagger.training.schema import WattsSection
from jettagger.training.sides import Sides
from jettagger.training.training import MemberResult

POWERCAP = Path("/sys/class/powercap")
READ_EVERY = 30.0
"""Seconds. RAPL's counters begin anew after some 260 kJ, which a busy server spends in minutes: what passes unread
would be missing from an energy that is called measured."""
PASSES = 3
"""Operations of a training step over those of a forward pass: the backward pass takes about two more."""
COST, ENERGY = "cost.json", "energy.json"

Energy = Literal["measured", "estimated", "partly measured"]


class Cost(NamedTuple):
    """Of one training, or of several together; over all the runs that worked on it."""

    seconds: float
    """In epochs, validation included."""
    jets: int
    """Trained on, over all epochs."""
    flops: float
    """3 × the operations of a forward pass (`jettagger summary`: weight layers, jets with all their particles) ×
    jets; validation is not counted."""
    watt_hours: float
    energy: Energy
    how: str
    """What was measured, or what the estimate is made of."""
    hardware: str
    """Where it ended."""

    def __str__(self) -> str:
        return (
            f"{self.seconds:.4g} s, {self.jets:,} jets, {self.flops:.3g} FLOPs, {self.watt_hours:.3g} Wh "
            f"({self.energy}: {self.how})"
        )


@dataclass(frozen=True)
class Meter:
    """Counters of joules that together see a training; none where the greater part of it would go unseen."""

    counters: Sequence[Callable[[], float]] = ()
    how: str = ""
    """What is measured."""

    def joules(self) -> float:
        """Of all counters, since they were opened."""
        return sum(counter() for counter in self.counters)


class Measured(NamedTuple):
    """What counters said of a training so far: `energy.json`."""

    joules: float = 0.0
    seconds: float = 0.0
    """For which the counters were read."""
    how: str = ""
    lost: int = 0
    """Runs that worked on it without counters, or were killed before these could be read."""
    running: bool = False
    """A run began to measure, and has not come to its end."""


def meter_of(device: torch.device, powercap: Path = POWERCAP) -> Meter:
    """What can be measured of a training on the device: where the greater part of it cannot, nothing is."""
    packages = rapl_counters(powercap)
    if device.type == "cpu":
        return Meter(packages, "processor packages by RAPL, other processes included" if packages else "")
    board = _nvml_counter(device)
    if board is None:
        return Meter()
    beside = "processor packages by RAPL" if packages else "processors not included"
    return Meter([board, *packages], f"GPU board by NVML, {beside}, other processes included")


def rapl_counters(powercap: Path = POWERCAP) -> list[Callable[[], float]]:
    """A counter of joules for each processor package; none where they cannot be read (often root alone can)."""
    counters = []
    for folder in sorted(powercap.glob("*-rapl:*")):
        try:
            package = (folder / "name").read_text(encoding="ascii").startswith("package")
            if package:
                counters.append(_Rapl(folder))
        except OSError:
            return []
    return [counter.joules for counter in counters]


class _Rapl:
    """A counter of microjoules that begins anew at its range."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        self._last, self._total = self._now(), 0
        self._lock = threading.Lock()

    def _now(self) -> int:
        return int(self._file.read_text(encoding="ascii"))

    def joules(self) -> float:
        """All that was spent since the counter was opened. It has to be asked more often than it begins anew."""
        with self._lock:
            now = self._now()
            self._total += now - self._last if now >= self._last else now + self._range - self._last
            self._last = now
            return self._total * 1e-6


def _nvml_counter(device: torch.device) -> Callable[[], float] | None:
    """Joules of a GPU's board since its driver was loaded; None without NVML or its counter (before Volta)."""
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1e-3


@contextmanager
def metered(folders: Sequence[Path], meter: Meter) -> Iterator[None]:
    """Reads the counters around the trainings of some members, one after the other or at once, however they end.

    What was spent is shared out by the time that each member took, and added to what earlier runs spent.
    """
    folders = [folder for folder in folders if not outcome.has_ended(folder)]
    before = [_seconds(folder) for folder in folders]
    for folder in folders:
        if folder.exists():
            _open(folder, bool(meter.counters))
    began, at_first = time.monotonic(), meter.joules()
    try:
        with _read_often(meter):
            yield
    finally:
        spent, passed = meter.joules() - at_first, time.monotonic() - began
        taken = [max(_seconds(folder) - x, 0.0) for folder, x in zip(folders, before, strict=True)]
        for folder, seconds in zip(folders, taken, strict=True):
            if meter.counters and folder.exists():
                share = seconds / sum(taken) if sum(taken) else 1 / len(folders)
                found = read_measured(folder)
                joules, time_read = found.joules + share * spent, found.seconds + share * passed
                write_json(folder / ENERGY, Measured(joules, time_read, meter.how, found.lost)._asdict())


@contextmanager
def _read_often(meter: Meter) -> Iterator[None]:
    """Reads the counters now and then beside a training, so that none begins anew twice between two readings."""
    if not meter.counters:
        yield
        return
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(READ_EVERY):
            with suppress(OSError):  # the reading at the end raises it
                meter.joules()

    reader = threading.Thread(target=read, name="energy counters", daemon=True)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def _open(folder: Path, measuring: bool) -> None:
    """Notes that a run begins which is measured, or not; and whether the one before came to read its counters."""
    known, found = (folder / ENERGY).exists(), read_measured(folder)
    unread = found.running or (not known and (folder / checkpoints.LAST).exists())
    if measuring:
        write_json(folder / ENERGY, found._replace(running=True, lost=found.lost + unread)._asdict())
    elif known:
        write_json(folder / ENERGY, found._replace(running=False, lost=found.lost + unread + 1)._asdict())


def read_measured(folder: Path) -> Measured:
    """What counters said of a member's training so far."""
    path = folder / ENERGY
    return Measured(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Measured()


def _seconds(folder: Path) -> float:
    """Of the epochs that are complete; what a killed process was just writing is none."""
    path = folder / checkpoints.METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return float(sum(json.loads(line)["seconds"] for line in lines if line.endswith("\n")))


def flops_of(model: JetModel, jets: int) -> float:
    """Operations of a training on so many jets: see `Cost.flops`."""
    return float(PASSES * summarise(model).flops) * jets


class Power(NamedTuple):
    """What is assumed where nothing is measured."""

    watts: float
    words: str


def assumed_power(device: torch.device, watts: WattsSection, ranks: int = 1) -> Power:
    """Of all cores, or of a GPU and the core that feeds it, times the ranks that share a training."""
    threads = torch.get_num_threads()
    several = f"{ranks} ranks of " if ranks > 1 else ""
    if device.type == "cpu":
        cores = f"{threads} core{'s' if threads > 1 else ''}"
        return Power(ranks * threads * watts.core, f"{several}{cores} at {watts.core:g} W, training.watts")
    gpu = f"a GPU at {watts.gpu:g} W and a core at {watts.core:g} W"
    return Power(ranks * (watts.gpu + watts.core), f"{several}{gpu}, training.watts")


def cost_of(
    seconds: float, jets: int, flops: float, measured: Measured, power: Power, hardware: str = ""
) -> Cost:
    """The cost of one training: by what was measured, and by an assumed power where nothing was."""
    unseen = max(seconds - measured.seconds, 0.0) if measured.lost or not measured.seconds else 0.0
    energy: Energy = "measured" if measured.seconds else "estimated"
    how = measured.how if measured.seconds else power.words
    if measured.seconds and measured.lost:
        energy = "partly measured"
        runs = f"{measured.lost} run{'s' if measured.lost > 1 else ''}"
        how = f"{measured.how}; {unseen:.3g} s of {runs} that no counter was read for by {power.words}"
    watt_hours = (measured.joules + unseen * power.watts) / 3600
    return Cost(seconds, jets, flops, watt_hours, energy, how, hardware)


def record_costs(
    recipe: Recipe,
    sides: Sides,
    output: Path,
    results: Sequence[MemberResult],
    hardware: Hardware,
    ranks: int = 1,
) -> None:
    """Leaves `cost.json` in the folder of each member that has ended, unless it is there."""
    folders = [member_folder(output, result.member, recipe.fold) for result in results]
    if all((folder / COST).exists() for folder in folders):
        return
    model = new_model(recipe, sides, 0)
    power = assumed_power(hardware.device, recipe.training.watts, ranks)
    for folder, result in zip(folders, results, strict=True):
        if not (folder / COST).exists():
            flops, measured = flops_of(model, result.jets), read_measured(folder)
            cost = cost_of(result.seconds, result.jets, flops, measured, power, hardware.description)
            write_json(folder / COST, cost._asdict())


def recorded(folder: Path) -> Cost | None:
    """What `record_costs` left; None for a training without a record."""
    path = folder / COST
    return Cost(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def total(costs: Sequence[Cost]) -> Cost:
    """Of several trainings together."""
    kinds = {cost.energy for cost in costs}
    return Cost(
        seconds=sum(cost.seconds for cost in costs),
        jets=sum(cost.jets for cost in costs),
        flops=sum(cost.flops for cost in costs),
        watt_hours=sum(cost.watt_hours for cost in costs),
        energy=kinds.pop() if len(kinds) == 1 else "partly measured",
        how="; ".join(dict.fromkeys(cost.how for cost in costs)),
        hardware="; ".join(dict.fromkeys(cost.hardware for cost in costs)),
    )
