"""Jets from Pythia 8 through FastJet and a parametrised detector into a ROOT file, JetClass branch names.

    from pathlib import Path
    from jettagger.simulation import SimulationOptions, simulate
    summary = simulate(SimulationOptions(process="Tbqq", jets=1000, workers=2), Path("top.root"))

Pythia, FastJet and uproot are imported when `simulate` runs, not before.
"""

from jettagger.simulation.options import SimulationOptions, scales_from
from jettagger.simulation.processes import PROCESSES
from jettagger.simulation.run import SimulationSummary, simulate

__all__ = ["PROCESSES", "SimulationOptions", "SimulationSummary", "scales_from", "simulate"]
