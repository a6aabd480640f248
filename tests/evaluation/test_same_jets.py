"""Which jets runs are compared on."""

from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml

from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.evaluation import runs
from jettagger.evaluation.held_out import Run, samples_from
from jettagger.evaluation.runs import predict_all
from jettagger.report.run import _prefixes
from toy_jets import CONFIG, toy_jets, write_jets


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Runs on three test files, whose networks say nothing."""
    monkeypatch.setattr(runs, "_predictions", lambda *_: [])
    for name, kind, seed in (("a", "QCD", 1), ("b", "QCD", 2), ("c", "Top", 1)):
        write_jets(tmp_path / f"{name}.root", toy_jets(kind, 50, seed))

    def make(name, qcd, **changes):
        document = yaml.safe_load(CONFIG.format(folder=tmp_path))
        document["data"]["test"] = {"QCD": [f"{tmp_path}/{x}.root" for x in qcd], "Top": f"{tmp_path}/c.root"}
        document["data"] |= changes.pop("data", {})
        parts = {k: v for k, v in (document | changes).items() if k in DataConfig.model_fields}
        tagger = SimpleNamespace(
            config=DataConfig.model_validate(parts), card={"data": {"files": {}}}, folds=None
        )
        return Run(name, Path(name), tagger, {})

    return make


def test_jets_in_another_order_are_not_compared(make_run):
    one = make_run("one", "ab", data={"selection": None})
    assert predict_all([one, make_run("same", "ab", data={"selection": None}, spectators=[])]) == []
    with pytest.raises(
        JettaggerError, match=r"other and one were given different test jets \(150 and 150\), in"
    ):
        predict_all([one, make_run("other", "ba", data={"selection": None})])
    with pytest.raises(JettaggerError, match=r"cut and one were given different test jets"):
        predict_all([one, make_run("cut", "ab")])


def test_other_labels_are_not_compared(make_run):
    swapped = {"QCD": "label_Tbqq == 1", "Top": "label_QCD == 1"}
    with pytest.raises(JettaggerError, match=r"or with other labels: compare runs whose classes"):
        predict_all([make_run("one", "a"), make_run("other", "a", classes=swapped)])


def test_other_jets_of_the_same_events_are_not_compared(make_run, tmp_path):
    """Each event has a soft and a hard jet of one class; a run selects the soft ones, the other the hard ones."""
    with uproot.recreate(tmp_path / "events.root") as file:
        top = np.repeat(np.arange(20) % 2, 2).reshape(20, 2)
        pt = np.tile([300.0, 400.0], (20, 1))
        file["tree"] = {name: ak.from_regular(x) for name, x in (("FatJet_pt", pt), ("FatJet_top", top))}

    def selecting(name, cut):
        one = make_run(name, "a")
        document = yaml.safe_load(CONFIG.format(folder=tmp_path))
        document["data"] |= {"test": {"Mix": f"{tmp_path}/events.root"}, "jets": "FatJet_*", "selection": cut}
        parts = {"data": document["data"], "inputs": {"jet": {"features": {"pt": "FatJet_pt"}}}}
        parts["classes"] = {"QCD": "FatJet_top == 0", "Top": "FatJet_top == 1"}
        one.tagger.config = DataConfig.model_validate(parts)
        return one

    soft = selecting("soft", "FatJet_pt < 350")
    assert predict_all([soft, selecting("same", "FatJet_pt < 360")]) == []
    with pytest.raises(JettaggerError, match=r"hard and soft were given different test jets \(20 and 20\)"):
        predict_all([soft, selecting("hard", "FatJet_pt > 350")])


def test_files_of_classes_that_are_samples_need_a_sample(make_run, tmp_path):
    classes = {name: {"sample": name} for name in ("QCD", "Top")}
    run = make_run("one", "a", classes=classes)
    with pytest.raises(
        JettaggerError, match=r"say which files are which: --data QCD=FILES and --data Top=FILES"
    ):
        predict_all([run], [f"{tmp_path}/*.root"])
    assert predict_all([run], [f"QCD={tmp_path}/[ab].root", f"Top={tmp_path}/c.root"]) == []


def test_a_path_may_hold_an_equals_sign():
    assert samples_from(["run=1/a.root", "data/run=2/b.root", "QCD=c.root"]).keys() == {"run", "data", "QCD"}
    assert samples_from(["data/run=2/b.root"])["data"].files == ["data/run=2/b.root"]


def test_columns_of_runs_with_similar_names_stay_apart():
    assert _prefixes(["a-b", "a_b", "a b", "c"]) == ["a_b", "a_b_2", "a_b_3", "c"]
