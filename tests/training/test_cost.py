"""What a training cost, and whether it was measured."""

import json
import shutil
import time

import pytest
import torch

from jettagger import configuration
from jettagger.models.parts.summary import summarise
from jettagger.training import checkpoints, cost, outcome, run
from jettagger.training.cost import Cost, Measured, Meter, Power
from jettagger.training.recipe import new_model
from jettagger.training.schema import WattsSection
from jettagger.training.sides import prepare_sides

CPU = torch.device("cpu")
FOUR_CORES = Power(40.0, "4 cores at 10 W, training.watts")


def powercap(folder, **microjoules):
    """A folder like Linux' /sys/class/powercap."""
    for number, (name, value) in enumerate(microjoules.items()):
        zone = folder / f"intel-rapl:{number}"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(name.replace("_", "-") + "\n")
        (zone / "energy_uj").write_text(f"{value}\n")
        (zone / "max_energy_range_uj").write_text("1000000000\n")
    return folder


def test_rapl_counts_packages_and_begins_anew_at_its_range(tmp_path):
    powercap(tmp_path, package_0=900_000_000, package_1=0, dram=5)
    meter = cost.meter_of(CPU, tmp_path)
    assert "RAPL" in meter.how
    assert meter.joules() == 0
    powercap(tmp_path, package_0=100_000_000, package_1=50_000_000, dram=999_000_000)
    assert meter.joules() == pytest.approx(200 + 50)
    assert meter.joules() == pytest.approx(200 + 50)


def test_a_counter_is_read_before_it_begins_anew_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "READ_EVERY", 0.001)
    folder, reads = tmp_path / "member_0", []
    epochs(folder, 1.0)
    meter = cost.meter_of(CPU, powercap(tmp_path / "powercap", package_0=0))
    counted = Meter([lambda: reads.append(meter.joules()) or reads[-1]], meter.how)

    def spend(joules):
        """The counter, whose range is 1000 J, moves on; a reader must notice while the training runs."""
        (tmp_path / "aside").write_text(f"{joules * 10**6 % 10**9}\n")
        (tmp_path / "aside").replace(tmp_path / "powercap" / "intel-rapl:0" / "energy_uj")
        deadline, seen = time.monotonic() + 20, len(reads)
        while len(reads) < seen + 2 and time.monotonic() < deadline:
            time.sleep(0.001)

    with cost.metered([folder], counted):
        for joules in range(600, 3601, 600):
            spend(joules)
        epochs(folder, 1.0, 2.0)
    assert cost.read_measured(folder).joules == pytest.approx(3600)


def test_without_counters_nothing_is_measured(tmp_path):
    assert not cost.meter_of(CPU, tmp_path).counters
    zone = powercap(tmp_path, package_0=1) / "intel-rapl:0"
    (zone / "energy_uj").unlink()  # as for a user who may not read it
    assert not cost.meter_of(CPU, tmp_path).counters


def test_an_estimate_is_called_one():
    found = cost.cost_of(3600.0, 1000, 2e9, Measured(), FOUR_CORES)
    assert found == Cost(3600.0, 1000, 2e9, 40.0, "estimated", "4 cores at 10 W, training.watts", "")
    assert str(found) == "3600 s, 1,000 jets, 2e+09 FLOPs, 40 Wh (estimated: 4 cores at 10 W, training.watts)"


def test_what_was_measured_is_taken_as_it_is():
    found = cost.cost_of(100.0, 10, 1.0, Measured(7200.0, 101.0, "by RAPL"), FOUR_CORES)
    assert (found.watt_hours, found.energy, found.how) == (2.0, "measured", "by RAPL")


def test_a_run_that_no_counter_was_read_for():
    found = cost.cost_of(190.0, 10, 1.0, Measured(7200.0, 100.0, "by RAPL", lost=1), FOUR_CORES)
    assert found.watt_hours == pytest.approx(2.0 + 90 * 40 / 3600)
    assert found.energy == "partly measured"
    assert "90 s of 1 run that no counter was read for by 4 cores at 10 W" in found.how


def test_powers_that_are_assumed():
    torch.set_num_threads(1)
    watts = WattsSection(core=7, gpu=250)
    assert cost.assumed_power(CPU, watts) == Power(7, "1 core at 7 W, training.watts")
    assert cost.assumed_power(CPU, watts, ranks=3).watts == 21
    assert cost.assumed_power(torch.device("cuda:0"), watts).watts == 257


class Clock:
    """A counter that is advanced by hand."""

    joules = 0.0

    def __call__(self):
        return self.joules


def epochs(folder, *seconds):
    folder.mkdir(exist_ok=True)
    (folder / checkpoints.LAST).touch()
    (folder / checkpoints.METRICS).write_text("".join(f'{{"seconds": {x}}}\n' for x in seconds))


def test_energy_adds_up_over_members_and_runs(tmp_path):
    one, two, done = (tmp_path / f"member_{k}" for k in range(3))
    epochs(done, 5.0)
    (done / outcome.RESULT).write_text("{}")
    clock = Clock()
    meter = Meter([clock], "a clock")

    def interrupted():
        with cost.metered([one, two, done], meter):
            epochs(one, 1.0, 2.0)
            epochs(two, 1.0)
            clock.joules += 8.0
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert cost.read_measured(one).joules == 6.0
    assert cost.read_measured(two).joules == 2.0
    assert cost.read_measured(done) == Measured()
    with cost.metered([one, two], meter):  # the one before came to its end: nothing is lost
        epochs(two, 1.0, 4.0)
        clock.joules += 10.0
    assert cost.read_measured(one).joules == 6.0
    assert cost.read_measured(two).joules == 12.0
    assert cost.read_measured(two).lost == 0
    with cost.metered([two], Meter()):  # on a machine without counters
        pass
    assert cost.read_measured(two).lost == 1
    assert cost.cost_of(10.0, 1, 1.0, cost.read_measured(two), FOUR_CORES).energy == "partly measured"


def test_a_killed_run_is_known_to_be_lost(tmp_path):
    folder = tmp_path / "member_0"
    epochs(folder, 1.0)  # killed in its first run: it left no word
    meter = Meter([Clock()], "a clock")
    with cost.metered([folder], meter):
        assert cost.read_measured(folder).lost == 1
        killed = shutil.copytree(folder, tmp_path / "killed")
    assert not cost.read_measured(folder).running
    with cost.metered([killed], meter):
        pass
    assert cost.read_measured(killed).lost == 2


def test_the_record_of_a_run(trained_run, toy_folder):
    from toy_jets import ENSEMBLE

    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml", ENSEMBLE))
    sides = prepare_sides(recipe.data, recipe.baselines, lambda line: None)
    operations = summarise(new_model(recipe, sides, 0)).flops
    document = json.loads((trained_run / "run.json").read_text())
    for training in document["trainings"]:
        spent = training["cost"]
        assert spent["jets"] == training["jets"]
        assert spent["seconds"] == training["seconds"]
        assert spent["flops"] == 3 * operations * training["jets"]
        assert spent["watt_hours"] > 0
        assert spent["energy"] in ("measured", "estimated")
    assert document["cost"]["jets"] == sum(one["jets"] for one in document["trainings"])
    assert document["cost"]["watt_hours"] == pytest.approx(
        sum(one["cost"]["watt_hours"] for one in document["trainings"])
    )


def test_flops_of_a_network_counted_by_hand(toy_folder):
    """The toy's mlp: 4 features, 16 and 2 units: 2·(4·16 + 16·2) operations forward, three times that in a step."""
    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml", ()))
    sides = prepare_sides(recipe.data, recipe.baselines, lambda line: None)
    assert cost.flops_of(new_model(recipe, sides, 0), 10) == 10 * 3 * 2 * (4 * 16 + 16 * 2)


def test_totals_do_not_mix_kinds():
    one = Cost(1.0, 2, 3.0, 4.0, "measured", "by RAPL", "here")
    other = Cost(1.0, 2, 3.0, 4.0, "estimated", "1 core at 10 W", "there")
    assert cost.total([one, one]) == Cost(2.0, 4, 6.0, 8.0, "measured", "by RAPL", "here")
    both = Cost(2.0, 4, 6.0, 8.0, "partly measured", "by RAPL; 1 core at 10 W", "here; there")
    assert cost.total([one, other]) == both


def test_watts_may_change_on_resuming_and_are_said(toy_folder, tmp_path):
    config = toy_folder / "config.yaml"
    said: list[str] = []
    common = ["training.epochs=1", "training.precision=float32"]
    run.train(configuration.recipe(configuration.load(config, common)), tmp_path / "run", say=said.append)
    assert sum(line.startswith("cost of all trainings: ") for line in said) == 1
    other = configuration.load(config, [*common, "training.watts={core: 20}"])
    run.train(configuration.recipe(other), tmp_path / "run", resume=True, say=said.append)
