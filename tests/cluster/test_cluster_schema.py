"""The sections `cluster` and `sweep`: what they refuse, and that they change no result."""

import pytest

from jettagger import configuration
from jettagger.cluster.schema import FLAVOURS, ClusterSection
from jettagger.errors import JettaggerError


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{time: 8h}", "cluster.time: '8h' is no wall time: write 08:00:00, or 2-12:00:00 for"),
        ("{time: 00:00:00}", "cluster.time: '00:00:00' is no wall time"),
        ("{time: 1:99:00}", "cluster.time: '1:99:00' is no wall time"),
        ("{memory: 8GiB}", "cluster.memory: '8GiB' is no memory: write 8G or 4000M"),
        ("{memory: 8}", "cluster.memory: 8 is a whole number; one line of text is expected"),
        ("{cpu: 3}", r"cluster.cpu: unknown key \(did you mean 'cpus'\?"),
        ("{jobs: [fold]}", r"cluster.jobs.0: 'fold' is not known \(did you mean 'folds'\?"),
        ("{jobs: [folds, folds]}", "cluster.jobs: an entry stands twice: folds, folds"),
        ("{time: 00:02:00}", "cluster.warning: 180 s is no less than the wall time, 120 s"),
        ('{setup: ["a\\nb"]}', "is not one line of text"),
        ("{setup: ['']}", "cluster.setup.0: '' is not one line of text"),
        ("{slurm: {partition: a b}}", "cluster.slurm.partition: 'a b' holds spaces, quotes or backslashes"),
        ("{slurm: {partition: 'a\"b'}}", "holds spaces, quotes or backslashes"),
        ("{slurm: {lines: ['#SBATCH --qos=long']}}", "lines.0: '#SBATCH --qos=long' is no option of sbatch"),
        ("{htcondor: {flavour: workdey}}", r"'workdey' is not known \(did you mean 'workday'\?"),
        (
            "{time: '10:00:00', htcondor: {flavour: workday}}",
            r"cluster.htcondor.flavour: 'workday' ends after 28800 s, before cluster.time \(36000 s\)",
        ),
        (
            "{warning: 2000, htcondor: {flavour: espresso}}",
            "cluster.htcondor.flavour: 'espresso' ends after 1200 s, before cluster.warning",
        ),
        ("{htcondor: {lines: [queue]}}", "cluster.htcondor.lines.0: 'queue' is not: name = value"),
        ("{gpus: 2, processes: 3}", "cluster.processes: 3 processes cannot share 2 GPUs: at most one a GPU"),
    ],
)
def test_mistakes_in_cluster(toy_folder, section, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.load(toy_folder / "config.yaml", [f"cluster={section}"])


@pytest.mark.parametrize(
    ("gpus", "device", "message"),
    [
        (
            1,
            "cpu",
            "cluster.gpus: 1 for a training whose training.device is cpu: write auto there, or 0 here",
        ),
        (0, "cuda", "cluster.gpus: 0 for a training whose training.device is cuda"),
    ],
)
def test_gpus_and_device_go_together(toy_folder, gpus, device, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.load(
            toy_folder / "config.yaml", [f"cluster={{gpus: {gpus}}}", f"training.device={device}"]
        )
    configuration.load(toy_folder / "config.yaml", [f"training.device={device}"])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{}", "sweep: neither grid nor random gives a point"),
        ("{grid: {model.dropout: []}}", "sweep.grid.model.dropout: 0 given, at least 1 expected"),
        ("{grid: {cluster.cpus: [1]}}", "'cluster.cpus' changes no result: it cannot be swept"),
        ("{grid: {a: [1]}, random: {points: 2, values: {a: [1]}}}", "values.a: stands in sweep.grid as well"),
        ("{random: {points: 2, values: {a: {}}}}", "exactly one of log, uniform, integer is expected, not 0"),
        ("{random: {points: 2, values: {a: {log: [0, 1]}}}}", r"log: \[0.0, 1.0\] must be above 0"),
        ("{random: {points: 2, values: {a: {uniform: [2, 1]}}}}", r"uniform: \[2.0, 1.0\] does not ascend"),
        ("{random: {points: 0, values: {a: [1]}}}", "sweep.random.points: 0 is out of range"),
        ("{grid: {training.seed: [1]}, seeds: [1]}", "sweep.seeds gives the seeds already"),
        ("{grid: {a: [1]}, seeds: [1, 1]}", r"sweep.seeds: a seed stands twice: \[1, 1\]"),
        (
            "{grid: {a: [1, 2]}, random: {points: 9999, values: {b: [1]}}}",
            "sweep: 19998 points are too many",
        ),
        ("{grid: {a: [1]}, metric: loss}", "sweep.metric: 'loss' is not known"),
    ],
)
def test_mistakes_in_sweep(toy_folder, section, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.load(toy_folder / "config.yaml", [f"sweep={section}"])


@pytest.mark.parametrize(
    ("time", "seconds", "flavour"),
    [
        ("00:20:00", 1200, "espresso"),
        ("0:21", 1260, "microcentury"),
        ("1-00:00:00", 86400, "tomorrow"),
        ("1-00:00:01", 86401, "testmatch"),
    ],
)
def test_the_shortest_flavour_that_holds_the_time(time, seconds, flavour):
    section = ClusterSection(time=time)
    assert (section.seconds, section.flavour) == (seconds, flavour)


def test_wall_times_of_the_flavours():
    """CERN's: batchdocs, 'Job flavours'."""
    minutes = {name: seconds // 60 for name, seconds in FLAVOURS.items()}
    assert minutes == {
        **{"espresso": 20, "microcentury": 60, "longlunch": 120, "workday": 480},
        **{"tomorrow": 1440, "testmatch": 4320, "nextweek": 10080},
    }


def test_neither_section_is_part_of_what_is_trained(toy_folder):
    path = toy_folder / "config.yaml"
    plain = configuration.recipe(configuration.load(path))
    asked = configuration.recipe(
        configuration.load(path, ["cluster={cpus: 9}", "sweep={grid: {model.dropout: [0.2]}}"])
    )
    assert asked.document == plain.document
    assert not {"cluster", "sweep"} & plain.document.keys()
