"""What the benchmarks measure with: fresh processes, the peak of their memory, ratios of one round."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toy_jets import jetclass_jets, write_jets

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from measuring import inputs
from measuring.fresh_process import BENCHMARKS, Measured, Outcome, ScriptError, run
from measuring.page_cache import files_below, forget
from measuring.rows import Line, Row
from measuring.same_numbers import Sums, compare
from measuring.table import Ratio, Table

MEGABYTE = 2**20

SCRIPT = """
import json, subprocess, sys, time
from measuring.stopwatch import measured, phase
told = json.loads(sys.argv[1])
with measured("own") as figures:
    held = bytearray(b"x") * told["bytes"]
    time.sleep(0.15)
    figures["jets"] = 7
del held
with measured("child") as figures:
    code = f"import time; held = bytearray(b'x') * {told['bytes']}; time.sleep(0.5)"
    subprocess.run([sys.executable, "-c", code], check=True)
    figures["jets"] = 8
with measured("busy") as figures:
    subprocess.run([sys.executable, "-c", "sum(range(4_000_000))"], check=True)
    figures["jets"] = 9
print("a library's words")
print(json.dumps({"first batch": 0.5}))
"""


def test_peaks_and_times_of_each_phase(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    outcome = run(script, {"bytes": 64 * MEGABYTE})
    assert outcome.told == {"first batch": 0.5}
    assert [outcome.results[name].jets for name in ("own", "child", "busy")] == [7, 8, 9]
    assert outcome.results["own"].wall > 0.15 > outcome.results["own"].processor
    assert outcome.results["busy"].processor > 0.03
    for name in ("own", "child"):
        assert 64 * MEGABYTE < outcome.results[name].peak < 120 * MEGABYTE
    assert outcome.results["busy"].peak < 60 * MEGABYTE


def test_a_script_that_fails(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('no jets here')")
    with pytest.raises(ScriptError, match=r"script\.py: no jets here"):
        run(script, {})


def test_forgotten_files_are_as_they_were(tmp_path):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "file"
    path.write_bytes(b"jets" * 5000)
    assert files_below(tmp_path) == [path]
    forget([path])
    assert path.read_bytes() == b"jets" * 5000


def test_weaver_gets_the_same_features():
    config = inputs.weaver_config(standardise=True)
    assert [name for name, *_ in config["inputs"]["pf_features"]["vars"]] == list(inputs.FEATURES)
    assert config["new_variables"]["log_pt"] == "np.log(np.hypot(part_px, part_py))"
    assert config["new_variables"]["d0"] == "np.tanh(part_d0val)"
    assert ["d0_error", 0, 1, 0, 1] in config["inputs"]["pf_features"]["vars"]
    raw = inputs.weaver_config(standardise=False)["inputs"]["pf_features"]["vars"]
    assert all(variable == [name, None] for variable, name in zip(raw, inputs.FEATURES, strict=True))


def test_ratios_are_of_one_round():
    table = Table()
    lines = [Line(who, "read", "TTree", 1, "warm") for who in ("uproot", "jettagger")]
    for slow in (1, 10, 100):
        for line, wall in zip(lines, (1.0, 2.0), strict=True):
            measured = Measured(100, wall * slow, wall * slow / 4, 10)
            table.add(Row(line, Path(), {}, (), {"read": "read"}), Outcome({"read": measured}, {}, {}))
    wall, processor = table.ratio(Ratio(lines[1], lines[0], None))
    assert (wall, processor) == (0.5, 0.5)
    assert table.figures(lines[0])["jets_per_second"] == 10
    assert table.figures(lines[0])["jets_per_processor_second"] == 40


def test_other_numbers_end_the_benchmark():
    ours = Sums(np.linspace(-5, 5, len(inputs.FEATURES)), 100)
    compare(ours, ours, "weaver")
    with pytest.raises(SystemExit, match="weaver keeps 99 particles, jettagger 100"):
        compare(ours, ours._replace(particles=99), "weaver")
    sums_F = ours.sums_F.copy()
    sums_F[5] += 0.01
    with pytest.raises(SystemExit, match="salt computes another charge: its sum differs by"):
        compare(ours, ours._replace(sums_F=sums_F), "salt")
    sums_F[5] = np.nan
    with pytest.raises(SystemExit, match="another charge"):
        compare(ours, ours._replace(sums_F=sums_F), "salt")


@pytest.fixture
def jets_folder(tmp_path):
    """A TTree file of each class with the branches of the 17 features."""
    for name in inputs.CLASSES:
        write_jets(tmp_path / "jets" / f"{name}.root", jetclass_jets(name, 300))
    return tmp_path / "jets"


@pytest.mark.slow
def test_loader_without_peers(jets_folder, tmp_path):
    figures = tmp_path / "figures.json"
    only = r"'(uproot|jettagger)'.*'TTree', processes=1, cache='warm'"
    script = str(BENCHMARKS / "loader.py")
    command = [
        sys.executable,
        script,
        str(jets_folder),
        "--repeats",
        "1",
        "--json",
        str(figures),
        "--rows",
        only,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert [(row["who"], row["what"]) for row in found["rows"]] == [
        ("uproot", "read the branches"),
        ("uproot", "read the branches, second pass"),
        ("jettagger", "TTree → prepared"),
        ("jettagger", "TTree → prepared, second pass"),
        ("jettagger", "prepared → batches, first epoch"),
        ("jettagger", "prepared → batches, later epoch"),
    ]
    assert all(row["rounds"][0]["jets"] == 600 and row["peak_bytes"] > 1e8 for row in found["rows"])
    assert [ratio["at_least"] for ratio in found["ratios"]] == [0.6, 0.6]
    assert "weaver-core: not installed: pip install weaver-core" in "\n".join(found["notes"])


@pytest.mark.slow
def test_training_without_peers(jets_folder, tmp_path):
    figures = tmp_path / "figures.json"
    words = f"{BENCHMARKS / 'training.py'} {jets_folder} --networks pfn --threads 1 --steps 3 --batch-size 50"
    more = ["--repeats", "1", "--json", str(figures)]
    command = [sys.executable, *words.split(), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert [(row["network"], row["who"]) for row in found["rows"]] == [
        ("pfn", "jettagger"),
        ("pfn", "bare loop"),
    ]
    assert all(row["rounds"][0]["jets"] == 150 and row["rounds"][0]["wall"] > 0 for row in found["rows"])
    assert [ratio["over"] for ratio in found["ratios"]] == ["bare loop"]
