"""Small samples for all tests of the simulation, generated once."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from jettagger.simulation import SimulationOptions, SimulationSummary, simulate

Sample = Callable[[str], SimulationSummary]
JETS = 120


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """`sample(process)`: the summary of `JETS` jets, whose `output` is the file."""
    made: dict[str, SimulationSummary] = {}

    def get(process: str) -> SimulationSummary:
        if process not in made:
            options = SimulationOptions(process=process, jets=JETS, seed=1)
            path = tmp_path_factory.mktemp(process) / f"{process}.root"
            made[process] = simulate(options, path, progress=False)
        return made[process]

    return get


@pytest.fixture(scope="session")
def jets(sample: Sample) -> Callable[[str], Any]:
    """`jets(process)`: the awkward array of the sample's file."""
    import uproot

    def get(process: str) -> Any:
        with uproot.open(sample(process).output) as file:
            return file["tree"].arrays()

    return get
