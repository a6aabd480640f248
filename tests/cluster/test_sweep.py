"""Sweeps: their points, their trainings one after the other, and the table."""

import json
import math
import os
import re
import signal
import statistics
import threading
import time

import pytest

from jettagger import configuration
from jettagger.cluster import sweep_run
from jettagger.cluster.sweep import checked_points, points, write_sweep
from jettagger.cluster.sweep_schema import SweepSection
from jettagger.cluster.sweep_table import as_text, make_table
from jettagger.errors import JettaggerError
from jettagger.training import run as training_run


def sweep(**section):
    return points(SweepSection.model_validate(section))


def test_a_grid_has_every_combination_and_seeds_repeat_it():
    found = sweep(grid={"a": [1, 2], "b": ["x", "y"]}, seeds=[7, 8])
    assert [point.name for point in found.points][:2] == ["point_000", "point_001"]
    assert [(*point.values.values(), point.seed) for point in found.points] == [
        (a, b, seed) for a in (1, 2) for b in ("x", "y") for seed in (7, 8)
    ]
    assert found.points[-1].overrides == ["a=2", 'b="y"', "training.seed=8"]


def test_random_points_are_within_bounds_and_stay_when_there_are_more():
    values = {
        "lr": {"log": [1.0e-4, 1.0e-1]},
        "n": {"integer": [3, 5]},
        "d": {"uniform": [0, 1]},
        "k": ["p", "q"],
    }
    few = sweep(random={"points": 5, "seed": 3, "values": values}).points
    many = sweep(random={"points": 400, "seed": 3, "values": values}).points
    assert [point.values for point in many[:5]] == [point.values for point in few]
    other = sweep(random={"points": 5, "seed": 4, "values": values}).points
    assert [point.values for point in other] != [point.values for point in few]
    assert {point.values["n"] for point in many} == {3, 4, 5}
    assert {point.values["k"] for point in many} == {"p", "q"}
    logs = [math.log10(point.values["lr"]) for point in many]
    assert -4 <= min(logs) < -3.9
    assert -1.1 < max(logs) <= -1
    # Evenly in the logarithm: mean -2.5, standard deviation 3 / √12; five standard errors.
    assert statistics.fmean(logs) == pytest.approx(-2.5, abs=5 * 3 / math.sqrt(12 * 400))
    assert statistics.fmean(point.values["d"] for point in many) == pytest.approx(
        0.5, abs=5 / math.sqrt(12 * 400)
    )


def test_each_point_is_checked_before_anything_runs(command, toy_folder, tmp_path):
    section = "sweep={grid: {model.dropout: [0.1, 2.0], training.optimiser.rl: [1]}}"
    path = toy_folder / "config.yaml"
    with pytest.raises(JettaggerError, match=r"2 of 2 points of the sweep are not valid:\n") as caught:
        checked_points(configuration.resolver(path, [section]))
    assert "training.optimiser.rl: unknown key (allowed: name, lr, " in str(caught.value)
    assert "model.dropout: 2.0 is out of range" in str(caught.value)
    output = tmp_path / "sweep"
    assert command("sweep", path, "--set", section, "--output", output).status == 2
    assert not output.exists()


@pytest.mark.slow
def test_a_sweep_on_this_machine(command, toy_folder, tmp_path):
    output = tmp_path / "sweep"
    arguments = (
        *("sweep", toy_folder / "config.yaml", "--output", output),
        *("--set", "training.epochs=1", "--set", "training.threads=1", "--set", "training.precision=float32"),
        *("--set", "sweep={grid: {training.optimiser.lr: [1.0e-8, 1.0e-2]}, seeds: [1, 2]}"),
    )
    done = command(*arguments)
    assert (done.status, done.error) == (0, "")
    table = json.loads((output / "table.json").read_text())
    assert [row["values"] for row in table["rows"]] == [
        {"training.optimiser.lr": 1.0e-2},
        {"training.optimiser.lr": 1.0e-8},
    ]
    best = table["rows"][0]
    losses = [
        json.loads((output / name / "member_0" / "result.json").read_text())["best_loss"]
        for name in ("point_002", "point_003")
    ]
    assert best["points"] == ["point_002", "point_003"]
    assert best["metric"] == pytest.approx(statistics.fmean(losses))
    assert best["spread"] == pytest.approx(statistics.stdev(losses))
    assert "validation_loss of the validation jets" in done.out
    # Done once, it is only read.
    assert command(*arguments).out == as_text(make_table(output)) + "\n"
    assert command(*arguments, "--table").out == as_text(make_table(output)) + "\n"
    status = command("status", output).out
    assert "point_003: training.optimiser.lr=0.01, training.seed=2" in status
    assert "point_003: 1 done; its tagger is there" in status
    other = command(*arguments[:-1], "sweep={grid: {model.dropout: [0.5]}}")
    assert f"{output} holds another sweep: choose another --output" in other.error


@pytest.mark.slow
def test_a_point_that_fails_leaves_the_others(command, toy_folder, tmp_path):
    output = tmp_path / "sweep"
    done = command(
        *("sweep", toy_folder / "config.yaml", "--output", output, "--set", "training.epochs=1"),
        *("--set", "sweep={grid: {data.selection: [jet_pt > 5000, jet_pt > 500]}}"),
    )
    assert done.status == 1
    assert "point_000 failed with exit status 2; the others go on" in done.out
    assert done.out.endswith("failed: point_000\n")
    assert "data.selection: the points may not be validated on the same jets" in done.out
    assert [row["metric"] is None for row in json.loads((output / "table.json").read_text())["rows"]] == [
        False,
        True,
    ]


def test_a_table_says_what_its_figures_are_not(toy_folder, tmp_path):
    section = "sweep={grid: {training.swa: [null, {}]}}"
    resolve = configuration.resolver(toy_folder / "config.yaml", [section])
    sweep, configs = checked_points(resolve)
    write_sweep(tmp_path, sweep, resolve([]), configs)
    table = make_table(tmp_path)
    assert [row.metric for row in table.rows] == [None, None]
    assert "training.swa: a best epoch was chosen among all by these jets" in table.notes[1]


def test_points_are_ranked_by_the_weights_that_they_keep(command, toy_folder, tmp_path):
    section = "sweep={grid: {training.swa: [null, {}]}, metric: %s}"
    resolve = configuration.resolver(toy_folder / "config.yaml", [section % "validation_loss"])
    sweep, configs = checked_points(resolve)
    write_sweep(tmp_path, sweep, resolve([]), configs)
    for name, config in configs.items():
        training_run.train(
            configuration.recipe(configuration.loads(config.yaml)), tmp_path / name, say=lambda line: None
        )
    (single, mean) = (tmp_path / f"point_00{number}" / "member_0" for number in (0, 1))
    result = json.loads((mean / "result.json").read_text())
    assert result["mean_auc"] > 0.5
    assert result["mean_accuracy"] > 0.5
    # As if the mean were better than the other point, whose best epoch is better than any of its own.
    best = json.loads((single / "result.json").read_text())["best_loss"]
    (mean / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "validation_loss": best + 1}) + "\n")
    (mean / "result.json").write_text(json.dumps(result | {"mean_loss": best - 0.01}))
    table = make_table(tmp_path)
    assert [(row.values["training.swa"], row.kept) for row in table.rows] == [
        *(({}, "mean of weights"), (None, "best epoch"))
    ]
    assert [row.metric for row in table.rows] == pytest.approx([best - 0.01, best])
    head, first, second = as_text(table).splitlines()[:3]
    assert re.split(r"  +", head) == [
        "training.swa",
        "validation_loss",
        "spread",
        "of",
        "trainings",
        "points",
    ]
    assert "  mean of weights  1 of 1" in first
    assert "  best epoch       1 of 1" in second
    shown = command("status", tmp_path).out
    assert f"; the mean of the weights, which is kept, {best - 0.01:.4f}" in shown
    assert shown.count("the mean of the weights") == 1


def test_a_table_needs_a_sweep(command, toy_folder, tmp_path):
    shown = command("sweep", toy_folder / "config.yaml", "--output", tmp_path, "--table")
    assert (shown.status, shown.error) == (2, f"jettagger: error: {tmp_path} holds no sweep\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_sweep_hands_signals_on_and_stops(command, toy_folder, tmp_path, monkeypatch, number):
    program = tmp_path / "python"
    begun = tmp_path / "begun"
    program.write_text(
        f"#!/bin/bash\ntrap 'exit 75' {number.name[3:]}\ntouch {begun}\nwhile :; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sweep_run.sys, "executable", str(program))

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    section = "sweep={grid: {model.dropout: [0.1, 0.2]}}"
    done = command("sweep", toy_folder / "config.yaml", "--output", tmp_path / "s", "--set", section)
    thread.join()
    assert done.status == 75
    assert done.out.endswith("interrupted: the same command goes on\n")
    assert "point_001" not in done.out
    assert signal.getsignal(number) is before
