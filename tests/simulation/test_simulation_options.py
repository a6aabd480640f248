import re

import pytest

from jettagger.errors import JettaggerError
from jettagger.simulation import PROCESSES, SimulationOptions
from jettagger.simulation.generator import configured
from jettagger.simulation.processes import LABELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": "Tbq"}, "unknown process 'Tbq': did you mean 'Tbqq'?"),
        ({"container": "tree"}, "unknown container 'tree': did you mean 'ttree'?"),
        ({"scale": {"ecal": 2.0}}, "unknown detector scale 'ecal'"),
        ({"scale": {"hcal_energi": 2.0}}, "did you mean 'hcal_energy'?"),
        ({"scale": {"d0": -1.0}}, "scale: d0 is -1.0, allowed: a finite number, at least 0"),
        ({"scale": {"d0": float("nan")}}, "scale: d0 is nan"),
        ({"jets": 0}, "jets: 0 is not allowed (allowed: an integer, at least 1)"),
        ({"workers": 0}, "workers: 0 is not allowed"),
        ({"seed": 0.5}, "seed: 0.5 is not allowed (allowed: an integer)"),
        ({"pt": (700.0, 500.0)}, "pt: (700.0, 500.0) is not allowed"),
        ({"pt": (5.0, 500.0)}, "20 <= low < high <= half of beam_energy"),
        ({"radius": 2.0}, "radius: 2.0 is not allowed (allowed: above 0, at most 1.5)"),
        ({"eta_max": 3.0}, "eta_max: 3.0 is not allowed"),
        ({"beam_energy": 13.0}, "beam_energy: 13.0 is not allowed (allowed: 1000 to 100000 GeV)"),
        ({"pythia": ("HardQCD:all",)}, "pythia: 'HardQCD:all' is not of the form 'Key = value'"),
        ({"pythia": ("Random:seed = 3",)}, "pythia: 'Random:seed' is set by jettagger: use --seed"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(change: dict[str, object], message: str) -> None:
    with pytest.raises(JettaggerError, match=re.escape(message)):
        SimulationOptions(**({"process": "QCD", "jets": 10} | change))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "PhaseSpace:pTHatMn = 3",
            "unknown Pythia setting 'PhaseSpace:pTHatMn': did you mean 'PhaseSpace:pTHatMin'?",
        ),
        ("PhaseSpace:pTHatMin = abc", "Pythia refuses the value in 'PhaseSpace:pTHatMin = abc'"),
    ],
)
def test_a_wrong_pythia_setting_is_named(line: str, message: str) -> None:
    with pytest.raises(JettaggerError, match=re.escape(message)):
        configured(SimulationOptions(process="QCD", jets=1, pythia=(line,)))


def test_the_users_setting_wins_over_the_process() -> None:
    options = SimulationOptions(process="QCD", jets=1, pythia=("PhaseSpace:pTHatMin = 123",))
    assert configured(options).settings.parm("PhaseSpace:pTHatMin") == 123


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_has_a_label_and_settings_that_pythia_takes(process: str) -> None:
    assert PROCESSES[process].label in LABELS
    configured(SimulationOptions(process=process, jets=1))


def test_the_generator_key_ignores_what_does_not_touch_the_events() -> None:
    base = SimulationOptions(process="QCD", jets=10)
    same = SimulationOptions(process="QCD", jets=99, workers=4, scale={"d0": 2.0}, container="rntuple")
    assert same.generator_key == base.generator_key
    changes = (
        {"seed": 1},
        {"process": "Tbqq"},
        {"mpi": False},
        {"pythia": ("a:b = 1",)},
        {"pt": (400.0, 900.0)},
    )
    keys = {
        SimulationOptions(**({"process": "QCD", "jets": 10} | change)).generator_key for change in changes
    }
    assert len(keys | {base.generator_key}) == 1 + len(changes)
