"""The memory does not follow the dataset's size, as `benchmarks/memory.py` measures it on large ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toy_jets import jetclass_jets, write_jets

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from measuring.fresh_process import BENCHMARKS
from measuring.inputs import CLASSES

FILES, JETS = 24, 3000
SLOPE = 1000
"""Bytes a jet that the peak may grow by: 4000 where all jets are held. A file leaves uproot's objects behind until
Python's collector comes, 0.2 MB a file, which its jets share here."""


@pytest.fixture
def jets_folder(tmp_path):
    """A file of each class with the branches of the 17 features, about 60 particles a jet."""
    folder = tmp_path / "source"
    for name in CLASSES:
        write_jets(folder / f"{name}.root", jetclass_jets(name, 400, particles=60))
    return folder


@pytest.mark.slow
def test_peak_does_not_follow_the_number_of_jets(jets_folder, tmp_path):
    figures = tmp_path / "figures.json"
    options = {"--files": FILES, "--jets": JETS, "--processes": 1, "--pool-bytes": 2**24, "--work": tmp_path}
    command = [sys.executable, BENCHMARKS / "memory.py", jets_folder, "--json", figures]
    command += [text for pair in options.items() for text in pair]
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["whole"]["jets"] == FILES * JETS == 4 * found["quarter"]["jets"]
    assert found["prepared_bytes_a_jet"] > 3500
    assert found["bytes_a_jet"] < SLOPE, done.stdout
    assert not list(tmp_path.glob("jettagger-memory-*"))
