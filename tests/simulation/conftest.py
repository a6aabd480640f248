"""One small sample of QCD and one of top for all tests of the simulation."""

from pathlib import Path

import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from jettagger.simulation import SimulationOptions, SimulationSummary, simulate


def make(folder: Path, process: str, jets: int, **options: object) -> SimulationSummary:
    """A sample in `folder`, named by its process."""
    asked = SimulationOptions(process=process, jets=jets, **options)  # type: ignore[arg-type]
    return simulate(asked, folder / f"{process}.root", progress=False)


@pytest.fixture(scope="session")
def qcd(tmp_path_factory: pytest.TempPathFactory) -> SimulationSummary:
    return make(tmp_path_factory.mktemp("qcd"), "QCD", 150, seed=1)


@pytest.fixture(scope="session")
def top(tmp_path_factory: pytest.TempPathFactory) -> SimulationSummary:
    return make(tmp_path_factory.mktemp("top"), "Tbqq", 150, seed=1)
