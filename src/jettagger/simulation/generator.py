"""Pythia 8: blocks of events as flat arrays, the same for the same seed and block whatever came before.

A block is a fixed number of accepted events. Pythia is initialised once a process with a seed of the
sample, so that its cross-section maxima agree in all workers; before each block its generator is re-seeded
and its counters are reset.
Events that can give no jet are dropped early (`veto`), so that pT-hat can start well below the threshold.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError, unknown_name
from jettagger.simulation.options import SimulationOptions, setting_key
from jettagger.simulation.processes import PROCESSES
from jettagger.simulation.veto import veto

BLOCK_EVENTS = 100
"""Events a block. A change of this number changes all samples."""

PT_HAT_FACTOR = 0.6
"""pT-hat starts at this factor times the lower limit of the jets' pT; below lie less than 1 % of the jets."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Particles:
    """Rows of Pythia's event record, all events of a block in one array each; `event` is ascending."""

    event: Integers
    """Index of the event within its block."""
    pdg: Integers
    """PDG code."""
    charge: Floats
    """Electric charge in units of e."""
    px: Floats
    """Momentum in GeV, as are `py`, `pz` and `energy`."""
    py: Floats
    pz: Floats
    energy: Floats
    x: Floats
    """Production vertex in mm, as are `y` and `z`; the proton collision is at the origin."""
    y: Floats
    z: Floats

    def select(self, keep: NDArray[Any]) -> "Particles":
        """The rows that a mask or an index array picks."""
        return Particles(**{name: values[keep] for name, values in vars(self).items()})

    def __len__(self) -> int:
        return len(self.event)


@dataclass(frozen=True)
class Quarks:
    """The decay quarks of the matched resonances, before the shower, `daughters` in a row.

    R resonances, D daughters each.
    """

    event: Integers
    """Index of the resonance's event within the block."""
    eta: Floats
    phi: Floats
    """Pseudorapidity and azimuth as (R, D)."""


@dataclass(frozen=True)
class Block:
    """One generated block."""

    visible: Particles
    """Final particles but neutrinos."""
    quarks: Quarks | None
    """None where nothing is matched (QCD)."""
    weight: Floats
    """Pythia's weight of each event: 1 unless the phase space is biased."""
    tried: int
    """Phase-space points tried."""
    cross_section: float
    """Cross-section in pb of the generated events, those that passed the veto, from this block alone."""


class Generator:
    """A Pythia instance for one sample."""

    def __init__(self, options: SimulationOptions) -> None:
        self._process = PROCESSES[options.process]
        self._key = options.generator_key
        self._pythia = configured(options)
        self._veto = veto(self._pythia, options)  # Pythia keeps no reference of its own
        self._pythia.setUserHooksPtr(self._veto)
        if not self._pythia.init():
            raise JettaggerError(
                f"Pythia could not be initialised for {options.process} with pT {options.pt} GeV, "
                f"beam energy {options.beam_energy} GeV and settings {list(options.pythia)}"
            )

    def block(self, number: int) -> Block:
        """Generates block `number`, counted from 0."""
        import awkward as ak

        self._pythia.rndm.init(_pythia_seed(self._key, number))
        self._pythia.stat()  # quiet, and resets the counters: see `configured`
        self._veto.start_block()
        batch = self._pythia.nextBatch(BLOCK_EVENTS)
        info = self._pythia.infoPython()
        # Pythia scales its cross-section by the fraction of events that pass, unweighted: biased samples need
        # the fraction by weight.
        counted, passing = info.nAccepted() / info.nSelected(), self._veto.passed / self._veto.judged
        rows = _rows(batch)
        final = rows.status > 0
        neutrino = np.isin(np.abs(rows.pdg), (12, 14, 16))
        return Block(
            visible=self._particles(rows, final & ~neutrino),
            quarks=_decay_quarks(rows, self._process.resonance, self._process.daughters),
            weight=ak.to_numpy(batch.info.weights[:, 0]).astype(np.float64),
            tried=int(info.nTried()),
            cross_section=float(info.sigmaGen() * 1e9 * passing / counted),  # mb to pb
        )

    def _particles(self, rows: "_Rows", keep: NDArray[np.bool_]) -> Particles:
        pdg = rows.pdg[keep].astype(np.int64)
        codes, inverse = np.unique(pdg, return_inverse=True)
        charges = np.array([self._pythia.particleData.charge(int(code)) for code in codes])
        momenta = (column[keep] for column in rows.momentum)
        vertices = (column[keep] for column in rows.vertex)
        return Particles(rows.event[keep], pdg, charges[inverse], *momenta, *vertices)


def configured(options: SimulationOptions) -> Any:
    """A Pythia instance with all settings read and checked, not yet initialised."""
    try:
        import pythia8mc
    except ImportError as error:
        raise JettaggerError(f'Pythia 8 is not installed: pip install "jettagger[sim]" ({error})') from error
    pythia = pythia8mc.Pythia("", False)
    ours = (
        "Print:quiet = on",
        "Stat:showProcessLevel = off",
        "Stat:showErrors = off",
        "Stat:reset = on",
        "Random:setSeed = on",
        f"Random:seed = {_pythia_seed(options.generator_key, -1)}",
        f"Beams:eCM = {options.beam_energy}",
        f"PartonLevel:MPI = {'on' if options.mpi else 'off'}",
        f"PhaseSpace:pTHatMin = {PT_HAT_FACTOR * options.pt[0]}",
    )
    for line in (*ours, *PROCESSES[options.process].settings):
        if not pythia.readString(line):
            raise JettaggerError(f"this version of Pythia refuses the setting '{line}'")
    for line in options.pythia:
        if not pythia.readString(line, False):
            raise _refused(pythia, line)
    return pythia


def _refused(pythia: Any, line: str) -> JettaggerError:
    """Says whether it is the key or the value that Pythia does not take."""
    key, settings = setting_key(line), pythia.settings
    tables = (settings.getFlagMap, settings.getModeMap, settings.getParmMap, settings.getWordMap)
    names = {entry.name for table in tables for entry in table("").values()}
    if key.lower() in {name.lower() for name in names} or key[:1].isdigit():
        return JettaggerError(f"pythia: Pythia refuses the value in '{line}'")
    return unknown_name("Pythia setting", key, names)


def _pythia_seed(key: int, number: int) -> int:
    """A seed in 1 … 900,000,000, Pythia's range, different for all blocks of one sample."""
    # 7_919 has no factor in common with 9e8, so 9e8 blocks pass before a seed returns.
    return 1 + (key + (number + 1) * 7_919) % 900_000_000


@dataclass(frozen=True)
class _Rows:
    """The whole event record of a block, flat."""

    event: Integers
    pdg: NDArray[np.int32]
    status: NDArray[np.int32]
    mother: Integers
    momentum: tuple[Floats, ...]
    vertex: tuple[Floats, ...]


def _rows(batch: Any) -> _Rows:
    import awkward as ak

    counts = ak.to_numpy(ak.num(batch.prt))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    event = np.repeat(np.arange(len(counts)), counts)
    flat = ak.flatten(batch.prt)
    vertex = flat.vProd
    return _Rows(
        event=event,
        pdg=ak.to_numpy(flat.id),
        status=ak.to_numpy(flat.status),
        mother=ak.to_numpy(flat.mother1) + starts[event],
        momentum=tuple(ak.to_numpy(flat.p[name]) for name in ("px", "py", "pz", "e")),
        vertex=tuple(ak.to_numpy(ak.fill_none(vertex[name], 0.0)) for name in ("px", "py", "pz")),
    )


def _decay_quarks(rows: _Rows, resonance: int | None, daughters: int) -> Quarks | None:
    """Outgoing quarks of the hard decays (status 23), grouped by the resonance they stem from.

    A top's b hangs on the top and its light quarks on the W of the same sign of PDG code.
    """
    if resonance is None:
        return None
    parent = rows.pdg[rows.mother]
    from_decay = np.isin(np.abs(parent), (6, 24) if resonance == 6 else (resonance,))
    index = np.flatnonzero((np.abs(rows.status) == 23) & (np.abs(rows.pdg) <= 5) & from_decay)
    group = np.sign(parent[index]) if resonance == 6 else rows.mother[index]
    order = np.lexsort((group, rows.event[index]))
    index_RD, group_RD = index[order].reshape(-1, daughters), group[order].reshape(-1, daughters)
    assert (group_RD == group_RD[:, :1]).all(), "decay quarks do not come in groups"
    px, py, pz = (column[index_RD] for column in rows.momentum[:3])
    return Quarks(rows.event[index_RD[:, 0]], np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px))
