"""What can be asked of a simulation, checked before anything is generated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jettagger import randomness
from jettagger.errors import JettaggerError, unknown_name
from jettagger.simulation.processes import PROCESSES

SCALES = {
    "track_momentum": "transverse-momentum resolution of tracks",
    "track_efficiency": "tracking efficiency (the product is cut off at 1)",
    "d0": "transverse impact-parameter resolution",
    "dz": "longitudinal impact-parameter resolution",
    "ecal_energy": "energy resolution of the electromagnetic calorimeter",
    "hcal_energy": "energy resolution of the hadronic calorimeter",
}
"""Names that `SimulationOptions.scale` knows, and what each multiplies."""

CONTAINERS = ("ttree", "rntuple")
RESERVED_SETTINGS = ("Random:", "Main:", "Beams:eCM", "PartonLevel:MPI")


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """One simulated sample. Equal options give equal files, but for `workers`, which changes no jet."""

    process: str
    """QCD, Tbqq, Wqq, Zqq or Hbb."""
    jets: int
    """Jets to write, at least 1; exactly so many are written."""
    seed: int = 0
    """Any integer. Samples of different seeds are statistically independent."""
    workers: int = 1
    """Processes that generate, at least 1; more than 1 need a script guarded by `__name__ == "__main__"`."""
    pt: tuple[float, float] = (500.0, 1000.0)
    """Range of the reconstructed jet pT in GeV: 20 <= low < high <= half of `beam_energy`."""
    radius: float = 0.8
    """Radius of the anti-kT jets, and of the matching; above 0, at most 1.5."""
    eta_max: float = 2.0
    """Largest |eta| of a jet; above 0, at most 2.5, where the tracker ends."""
    beam_energy: float = 13000.0
    """Centre-of-mass energy of the two proton beams in GeV, 1000 to 100000."""
    mpi: bool = True
    """Whether Pythia's multiparton interactions are on."""
    pythia: tuple[str, ...] = ()
    """Further Pythia settings, each `Key = value`; they win over the process's own."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """Factors, each above 0 (at least 0 for a resolution), on the detector's parameters named in `SCALES`."""
    container: str = "ttree"
    """`ttree` or `rntuple`."""

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise unknown_name("process", self.process, PROCESSES)
        if self.container not in CONTAINERS:
            raise unknown_name("container", self.container, CONTAINERS)
        self._check_numbers()
        self._check_scales()
        for line in self.pythia:
            _check_setting(line)

    def _check_numbers(self) -> None:
        for name in ("jets", "workers"):
            value = getattr(self, name)
            _require(isinstance(value, int) and value >= 1, self, name, "an integer, at least 1")
        _require(isinstance(self.seed, int), self, "seed", "an integer")
        _require(1000 <= self.beam_energy <= 100_000, self, "beam_energy", "1000 to 100000 GeV")
        _require(0 < self.radius <= 1.5, self, "radius", "above 0, at most 1.5")
        _require(0 < self.eta_max <= 2.5, self, "eta_max", "above 0, at most 2.5, where the tracker ends")
        in_range = len(self.pt) == 2 and 20 <= self.pt[0] < self.pt[1] <= self.beam_energy / 2
        _require(in_range, self, "pt", "two values in GeV, 20 <= low < high <= half of beam_energy")

    def _check_scales(self) -> None:
        for name, factor in self.scale.items():
            if name not in SCALES:
                raise unknown_name("detector scale", name, SCALES)
            if not (math.isfinite(factor) and factor >= 0):
                raise JettaggerError(f"scale: {name} is {factor}, allowed: a finite number, at least 0")

    def factor(self, name: str) -> float:
        """The factor on the detector parameter `name` (one of `SCALES`), 1 where none was given."""
        if name not in SCALES:
            raise unknown_name("detector scale", name, SCALES)
        return float(self.scale.get(name, 1.0))

    @property
    def generator_key(self) -> int:
        """63 bits that name the generated events: all that decides them, and nothing of the detector.

        Two samples that differ in `scale` alone hold the same events, seen by two detectors.
        """
        parts = (self.process, *map(repr, (self.pt, self.radius, self.eta_max, self.beam_energy, self.mpi)))
        return randomness.key(self.seed, "simulation", *parts, *self.pythia)


def scales_from(texts: Sequence[str]) -> dict[str, float]:
    """`NAME=FACTOR` from the command line as what `SimulationOptions.scale` takes."""
    scales = {}
    for text in texts:
        name, _, factor = text.partition("=")
        try:
            scales[name.strip()] = float(factor)
        except ValueError:
            raise JettaggerError(f"scale: '{text}' is not of the form NAME=FACTOR, such as d0=1.2") from None
    return scales


def setting_key(line: str) -> str:
    """The key of a Pythia setting line: `PhaseSpace:pTHatMin` of `PhaseSpace:pTHatMin = 400`."""
    return line.partition("=")[0].strip()


def _check_setting(line: str) -> None:
    key, equals, value = line.partition("=")
    if not (key.strip() and equals and value.strip()):
        raise JettaggerError(f"pythia: '{line}' is not of the form 'Key = value'")
    for reserved in RESERVED_SETTINGS:
        if key.strip().lower().startswith(reserved.lower()):
            raise JettaggerError(
                f"pythia: '{key.strip()}' is set by jettagger: use --seed, --beam-energy, --jets, --no-mpi"
            )


def _require(condition: bool, options: SimulationOptions, name: str, allowed: str) -> None:
    if not condition:
        raise JettaggerError(f"{name}: {getattr(options, name)!r} is not allowed (allowed: {allowed})")
