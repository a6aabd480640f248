"""Seeds, workers, containers, accounts, and what is left by a simulation that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from jettagger.errors import JettaggerError
from jettagger.simulation import SimulationOptions, SimulationSummary, run, simulate
from jettagger.simulation.generator import Generator
from jettagger.simulation.workers import in_order

Sample = Callable[[str], SimulationSummary]


def read(path: Path) -> Any:
    with uproot.open(path) as file:
        return file["tree"].arrays()


def same(one: Any, other: Any) -> bool:
    return set(one.fields) == set(other.fields) and all(
        ak.array_equal(one[name], other[name]) for name in one.fields
    )


def test_the_number_of_workers_changes_no_jet(sample: Sample, tmp_path: Path) -> None:
    options = SimulationOptions(process="QCD", jets=sample("QCD").jets, seed=1, workers=2)
    summary = simulate(options, tmp_path / "two.root", progress=False)
    assert same(read(summary.output), read(sample("QCD").output))
    assert summary.rejected == sample("QCD").rejected
    assert summary.cross_section == sample("QCD").cross_section
    assert summary.events >= 200  # or there would be nothing to share out


def test_a_block_does_not_depend_on_the_blocks_before_it() -> None:
    options = SimulationOptions(process="Tbqq", jets=1, seed=5)
    generator = Generator(options)
    generator.block(0)
    later, alone = generator.block(1), Generator(options).block(1)
    assert np.array_equal(later.visible.px, alone.visible.px)
    assert (later.tried, later.cross_section) == (alone.tried, alone.cross_section)


def test_another_seed_gives_other_jets(sample: Sample, tmp_path: Path) -> None:
    other = simulate(
        SimulationOptions(process="QCD", jets=20, seed=2), tmp_path / "other.root", progress=False
    )
    mine, theirs = read(sample("QCD").output), read(other.output)
    assert not set(mine.event_number.to_list()) & set(theirs.event_number.to_list())
    assert not set(mine.jet_pt.to_list()) & set(theirs.jet_pt.to_list())


def test_detector_scales_change_the_jets_and_not_the_events(sample: Sample, tmp_path: Path) -> None:
    options = SimulationOptions(process="QCD", jets=40, seed=1, scale={"d0": 2.0})
    scaled = read(simulate(options, tmp_path / "d0.root", progress=False).output)
    nominal = read(sample("QCD").output)[:40]
    assert ak.array_equal(scaled.event_number, nominal.event_number)
    assert ak.array_equal(scaled.jet_pt, nominal.jet_pt)
    assert np.allclose(ak.flatten(scaled.part_d0err), 2 * ak.flatten(nominal.part_d0err))


def test_rntuple_and_ttree_hold_the_same_jets(sample: Sample, tmp_path: Path) -> None:
    jets = 30
    options = SimulationOptions(process="QCD", jets=jets, seed=1, container="rntuple")
    with uproot.open(simulate(options, tmp_path / "r.root", progress=False).output) as file:
        assert file.classnames()["tree;1"] == "ROOT::RNTuple"
        ntuple = file["tree"].arrays()
    with uproot.open(sample("QCD").output) as file:
        assert file.classnames()["tree;1"] == "TTree"
        ttree = file["tree"].arrays()[:jets]
        assert set(ttree.fields) - set(ntuple.fields) == {"npart"}
        assert file["tree"]["part_px"].typename == "float[]"
        assert file["tree"]["event_number"].typename == "int64_t"
    assert all(ak.array_equal(ntuple[name], ttree[name]) for name in ntuple.fields)


def test_exactly_the_jets_asked_for_and_every_jet_accounted_for(sample: Sample) -> None:
    summary = sample("Tbqq")
    assert len(read(summary.output)) == summary.jets == 120
    assert summary.rejected["decay not inside the jet"] > 10
    assert summary.events % 100 == 0
    assert summary.seconds > 0
    with uproot.open(summary.output) as file:
        told = json.loads(file["provenance"])
    assert told["options"]["process"] == "Tbqq"
    assert told["summary"]["cross_section"] == summary.cross_section
    assert set(told["versions"]) == {"jettagger", "pythia8mc", "fastjet"}


def test_cross_sections_are_of_the_known_size(sample: Sample) -> None:
    """Jets above 500 GeV, |eta| < 2, 13 TeV: 1.4 nb at leading order; contained hadronic tops 0.8 pb."""
    assert 900 < sample("QCD").cross_section < 2000
    assert 0.4 < sample("Tbqq").cross_section < 1.3
    assert 0 < sample("QCD").cross_section_error < 0.5 * sample("QCD").cross_section


def test_clusters_are_cut_at_the_same_jets_wherever_blocks_end(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jettagger.simulation.output.FLUSH_JETS", 7)
    options = SimulationOptions(process="QCD", jets=30, seed=1)
    path = simulate(options, tmp_path / "small.root", progress=False).output
    assert same(read(path), read(sample("QCD").output)[:30])
    with uproot.open(path) as file:
        assert file["tree"]["jet_pt"].num_baskets == -(-options.jets // 7)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("pythia8mc", "fastjet"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(JettaggerError, match=r'pip install "jettagger\[sim\]"'):
                simulate(SimulationOptions(process="QCD", jets=1), tmp_path / "x.root", progress=False)
    assert not list(tmp_path.iterdir())


def test_options_that_no_event_can_meet_end_with_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jettagger.simulation.veto.PATIENCE", 100)
    options = SimulationOptions(process="Tbqq", jets=1, pt=(500, 600), radius=0.05)
    with pytest.raises(JettaggerError, match=r"no Tbqq event of 100 can give a jet .* radius 0\.05"):
        simulate(options, tmp_path / "x.root", progress=False)
    assert not list(tmp_path.iterdir())


def test_blocks_without_a_jet_end_with_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "BARREN_BLOCKS", 1)
    monkeypatch.setattr("jettagger.simulation.selection.JETS_AN_EVENT", 0)
    with pytest.raises(JettaggerError, match=r"no Tbqq jet among 100 events .* widen pt .* radius 0\.8"):
        simulate(SimulationOptions(process="Tbqq", jets=1), tmp_path / "x.root", progress=False)
    assert not list(tmp_path.iterdir())


def _exit(number: int) -> int:
    os._exit(number)


def _mistake(number: int) -> int:
    raise JettaggerError(f"wrong from the start: {number}")


def _double(number: int) -> int:
    return 2 * number


def test_a_dead_worker_and_a_mistake_in_a_worker_reach_the_parent() -> None:
    with pytest.raises(JettaggerError, match="a simulation worker died"):
        list(in_order(partial(partial, _exit), 1))
    with pytest.raises(JettaggerError, match="wrong from the start: 0"):
        list(in_order(partial(partial, _mistake), 1))


def test_results_come_in_order() -> None:
    results = in_order(partial(partial, _double), 2)
    assert [next(results) for _ in range(20)] == list(range(0, 40, 2))
    results.close()


PROGRAM = """
import signal
from pathlib import Path
from jettagger.simulation import SimulationOptions, output, simulate
output.FLUSH_JETS = 10  # so that clusters reach the disk before the end
if __name__ == "__main__":
    # Where a shell has put the tests into the background, SIGINT is ignored in all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    simulate(SimulationOptions(process="QCD", jets=100000, workers=2), Path({path!r}), progress=False)
"""


def _wait(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_simulation_leaves_nothing_that_looks_whole(tmp_path: Path, how: signal.Signals) -> None:
    path, script = tmp_path / "out" / "killed.root", tmp_path / "program.py"
    script.write_text(PROGRAM.format(path=str(path)))
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        _wait(
            lambda: (
                path.parent.is_dir() and any(file.stat().st_size > 30_000 for file in path.parent.iterdir())
            )
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        process.send_signal(how)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert not path.exists()
    left = list(path.parent.iterdir())
    assert len(left) == (1 if how == signal.SIGKILL else 0)
    for file in left:
        assert file.stat().st_size > 30_000
        with pytest.raises(ValueError, match="not a ROOT file"):
            uproot.open(file)
    _wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 30)


@pytest.mark.slow
def test_biased_phase_space_is_undone_by_the_weights(tmp_path: Path) -> None:
    plain = SimulationOptions(process="QCD", jets=1000, workers=2)
    bias = ("PhaseSpace:bias2Selection = on", "PhaseSpace:bias2SelectionPow = 2")
    biased = SimulationOptions(process="QCD", jets=1000, workers=2, pythia=bias)
    means, errors, sections = [], [], []
    for name, options in (("plain", plain), ("biased", biased)):
        summary = simulate(options, tmp_path / f"{name}.root", progress=False)
        jets = read(summary.output)
        weight, pt = np.asarray(jets.gen_weight, float), np.asarray(jets.jet_pt, float)
        means.append(np.average(pt, weights=weight))
        variance = np.average((pt - means[-1]) ** 2, weights=weight)
        errors.append(np.sqrt(variance * (weight**2).sum()) / weight.sum())
        sections.append((summary.cross_section, summary.cross_section_error))
        assert (weight.std() > 0) == (name == "biased")
    assert abs(means[0] - means[1]) < 4 * np.hypot(*errors)
    assert abs(sections[0][0] - sections[1][0]) < 4 * np.hypot(sections[0][1], sections[1][1])


@pytest.mark.slow
def test_the_veto_and_the_pt_hat_threshold_lose_few_jets(tmp_path: Path) -> None:
    """A sample generated from far below must have the same cross-section and mean pT."""
    narrow = SimulationOptions(process="QCD", jets=1500, workers=2, pt=(500, 1000))
    wide = SimulationOptions(process="QCD", jets=1500, workers=2, pt=(420, 1000), seed=3)
    near, far = (
        simulate(options, tmp_path / f"{options.seed}.root", progress=False) for options in (narrow, wide)
    )
    pt = np.asarray(read(far.output).jet_pt, float)
    expected = far.cross_section * (pt > 500).mean()
    assert near.cross_section == pytest.approx(expected, rel=0.15)
    mine = np.asarray(read(near.output).jet_pt, float)
    assert mine.mean() == pytest.approx(pt[pt > 500].mean(), rel=0.02)
