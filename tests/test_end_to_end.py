"""From the generator to scores on disk, on real jets, by the command line alone."""

import json

import numpy as np
import pytest
import uproot

pytestmark = pytest.mark.slow

JETS = 400
CONFIG = """\
format: 1
data:
  train: {QCD: QCD_train.root, Top: Tbqq_train.root}
  test: {QCD: QCD_test.root, Top: Tbqq_test.root}
  validation: 0.2
  selection: (jet_pt > 500) & (abs(jet_eta) < 2)
classes:
  QCD: label_QCD == 1
  Top: label_Tbqq == 1
define:
  pt: hypot(part_px, part_py)
  dr: hypot(part_deta, part_dphi)
inputs:
  jet:
    features:
      log_pt: log(jet_pt)
      mass: jet_mass
      soft_drop_mass: jet_sdmass
      multiplicity: jet_nparticles
      tau21: {value: jet_tau2 / jet_tau1, missing: 0}
      tau32: {value: jet_tau3 / jet_tau2, missing: 0}
      girth: sum(pt * dr) / sum(pt)
spectators: [jet_pt, jet_sdmass]
model: {architecture: mlp, widths: [32, 32], dropout: 0.1}
training: {epochs: 3, batch_size: 32, optimiser: {name: adamw, lr: 1.0e-2}}
baselines:
  cut: {signal: Top, discriminant: -jet_tau3 / jet_tau2, window: (jet_sdmass > 105) & (jet_sdmass < 210)}
  boosted_trees: {iterations: 40}
evaluation: {bootstrap: 50}
"""


def test_from_the_generator_to_scores(command, tmp_path, monkeypatch):
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tops.yaml").write_text(CONFIG, encoding="utf-8")

    def run(*arguments):
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.error
        return outcome.out

    for seed, part in enumerate(("train", "test")):
        for process in ("QCD", "Tbqq"):
            run("simulate", process, "--jets", JETS, "--seed", seed + 1, "-o", f"{process}_{part}.root")
    run("train", "tops.yaml")
    run("evaluate", "runs/tops", "--mc-dropout", 10)
    run("predict", "runs/tops", "*_test.root", "--output", "scores.root")

    document = json.loads((tmp_path / "runs/tops/report/report.json").read_text())
    found = {one["name"]: one for one in document["runs"]}
    assert list(found) == ["tops", "tops (MC dropout)", "cut", "boosted trees"]
    for name, one in found.items():
        assert (0.7 if name == "cut" else 0.9) < one["auc"] < 1, name
        for figure in ("auc", "accuracy", "nll", "brier", "ece", "rejection"):
            assert figure in one
            assert f"{figure}_error" in one
        assert set(one["rejection"]["Top_vs_QCD"]) == {"0.3", "0.5", "0.8"}
    n_jets = found["tops"]["n_jets"]
    assert 0.8 * 2 * JETS < n_jets <= 2 * JETS

    with uproot.open("scores.root") as file:
        scores = file["tree"].arrays(library="np")
    with uproot.open("runs/tops/report/predictions.root") as file:
        judged = file["tree"].arrays(library="np")
    assert len(scores["Top"]) == 2 * JETS
    assert len(judged["label"]) == n_jets == scores["passes_selection"].sum()
    assert np.allclose(scores["Top"][scores["passes_selection"]], judged["tops_Top"], atol=1e-6)
    assert scores["Top"][scores["file"] == 1].mean() > 0.6 > 0.4 > scores["Top"][scores["file"] == 0].mean()
