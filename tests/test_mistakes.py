"""Each likely mistake ends in one readable message and exit status 2, with nothing written."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import uproot

from toy_jets import CONFIG, toy_jets, write_jets

JETS = 40


@pytest.fixture(scope="module")
def jets_folder(tmp_path_factory):
    """Small files to spoil copies of."""
    folder = tmp_path_factory.mktemp("jets")
    for number, part in enumerate(("train", "test")):
        for name in ("QCD", "Top"):
            write_jets(folder / f"{name}_{part}.root", toy_jets(name, JETS, number + 1))
    return folder


@pytest.fixture
def place(jets_folder, run_copy, tmp_path, monkeypatch):
    """A working folder with `data/`, `config.yaml` (of `data/`) and `run/`, a finished run of other jets."""
    folder = tmp_path / "place"
    shutil.copytree(jets_folder, folder / "data")
    (folder / "config.yaml").write_text(CONFIG.format(folder="data"), encoding="utf-8")
    run_copy.rename(folder / "run")
    monkeypatch.chdir(folder)
    return folder


def edited(old, new):
    """Changes `config.yaml`."""

    def change(place):
        text = (place / "config.yaml").read_text(encoding="utf-8")
        assert text.count(old) == 1
        (place / "config.yaml").write_text(text.replace(old, new), encoding="utf-8")

    return change


def rewritten(name="QCD_train", drop=(), **branches):
    """Writes one of the data files anew with other branches."""

    def change(place):
        jets = toy_jets(name.partition("_")[0], JETS, 1) | branches
        write_jets(
            place / "data" / f"{name}.root", {key: values for key, values in jets.items() if key not in drop}
        )

    return change


def cut_short(name):
    def change(place):
        path = place / "data" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def text_file(name):
    return lambda place: (place / "data" / name).write_text("jet_pt,jet_eta\n500,0.1\n" * 50)


def no_tree(place):
    with uproot.recreate(place / "data" / "QCD_train.root") as file:
        file["text"] = "no jets here"


def flipped(place):
    path = place / "run" / "tagger" / "weights.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)


def unfinished(place):
    shutil.rmtree(place / "run" / "tagger")


def a_file(name):
    return lambda place: (place / name).write_text("a regular file")


def nothing(place):
    pass


NEW = ("--output", "new")
TRAIN = ("train", "config.yaml", *NEW)
PREDICT = ("predict", "run", "data/QCD_test.root", "--output", "scores.root")
EVALUATE = ("evaluate", "run", *NEW)

MISTAKES = {
    # config
    "unknown key": (
        edited("epochs: 2", "epoch: 2"),
        TRAIN,
        ["config.yaml:31: training.epoch: unknown key", "did you mean 'epochs'?"],
    ),
    "architecture with a typo": (
        edited("mlp", "mpl"),
        TRAIN,
        ["config.yaml:30: model: unknown architecture 'mpl': did you mean 'mlp'?"],
    ),
    "expression with a typo in its syntax": (
        edited("log_pt: log(jet_pt)", "log_pt: log(jet_pt"),
        TRAIN,
        ["config.yaml:25: inputs.jet.features.log_pt", "log(jet_pt"],
    ),
    "function with a typo": (
        edited("log_pt: log(jet_pt)", "log_pt: lgo(jet_pt)"),
        TRAIN,
        ["config.yaml:25: inputs.jet.features.log_pt", "'lgo'", "did you mean 'log'?"],
    ),
    "no config": (nothing, ("train", "confg.yaml"), ["confg.yaml"]),
    "config that is a folder": (nothing, ("train", "data"), ["data"]),
    "--set with a typo": (
        nothing,
        (*TRAIN, "--set", "training.epoch=1"),
        ["--set training.epoch=1", "training.epoch: unknown key", "did you mean 'epochs'?"],
    ),
    "--set without a value": (nothing, (*TRAIN, "--set", "training.epochs"), ["--set training.epochs"]),
    "reflection of an unknown variable": (
        edited("epochs: 2,", "epochs: 2, reflections: {phi: [particles.dphi]},"),
        TRAIN,
        ["config.yaml:31: training.reflections.phi: unknown variable 'particles.dphi'", "particles.deta"],
    ),
    "reflection of a momentum": (
        nothing,
        (*TRAIN, "--set", "training.reflections={{x: [particles.coordinates.pt]}}"),
        ["training.reflections.x: unknown variable 'particles.coordinates.pt'"],
    ),
    "cut for another class": (
        nothing,
        (*TRAIN, "--set", "baselines.cut={{signal: QCD, discriminant: jet_tau2}}"),
        ["baselines.cut.signal: the cut selects 'QCD'", "set evaluation.signal"],
    ),
    # data
    "missing file": (
        edited("data/QCD_train.root", "data/QCD_trian.root"),
        TRAIN,
        ["data.train.QCD: no such file: 'data/QCD_trian.root'", "did you mean data/QCD_train.root?"],
    ),
    "glob that matches nothing": (
        edited("data/QCD_train.root", "'data/QDC_*.root'"),
        TRAIN,
        ["data.train.QCD: no file matches 'data/QDC_*.root'"],
    ),
    "missing branch": (
        rewritten(drop=["jet_tau3"]),
        TRAIN,
        ["data/QCD_train.root", "unknown branch or definition 'jet_tau3'", "did you mean 'jet_tau2'?"],
    ),
    "missing branch of a class": (
        rewritten("Top_train", drop=["label_Tbqq"]),
        TRAIN,
        ["data/Top_train.root", "'label_Tbqq'"],
    ),
    "class that no jet belongs to": (
        edited("Top: label_Tbqq == 1\n", "Top: label_Tbqq == 1\n  W: label_QCD == 2\n"),
        TRAIN,
        ["classes.W: none of the", "selected jets of data.train belongs to it"],
    ),
    "jet in two classes": (
        rewritten(label_Tbqq=np.arange(JETS) % 5 == 0),
        TRAIN,
        ["data/QCD_train.root", "do not belong to exactly one class", "in 2 classes (QCD, Top)"],
    ),
    "jet in no class": (
        rewritten(label_QCD=np.arange(JETS) % 5 == 0),
        TRAIN,
        ["data/QCD_train.root", "is in no class"],
    ),
    "truncated file": (cut_short("QCD_train.root"), TRAIN, ["data/QCD_train.root is truncated"]),
    "file that is no ROOT file": (
        text_file("Top_train.root"),
        TRAIN,
        ["data/Top_train.root is of no known container", "begins with"],
    ),
    "file without a tree": (no_tree, TRAIN, ["data/QCD_train.root holds no TTree"]),
    "another tree": (
        nothing,
        (*TRAIN, "--set", "data.tree=tee"),
        ["unknown tree 'tee': did you mean 'tree'?"],
    ),
    "selection that leaves nothing": (
        edited("jet_pt > 500", "jet_pt > 5000"),
        TRAIN,
        ["data.train: data.selection '(jet_pt > 5000)", f"leaves none of {2 * JETS} jets"],
    ),
    "one file to train on and to test": (
        edited("data/Top_test.root", "data/Top_train.root"),
        TRAIN,
        ["data/Top_train.root (data.test) is the same file as data/Top_train.root (data.train)"],
    ),
    "negative weights for trees": (
        rewritten(gen_weight=np.full(JETS, -1.0)),
        (*TRAIN, "--set", "weights={{event: gen_weight}}", "--set", "baselines={{boosted_trees: {{}}}}"),
        ["baselines.boosted_trees: trees cannot be fitted to negative event weights"],
    ),
    "weights that cannot be balanced": (
        rewritten(gen_weight=np.full(JETS, -1.0)),
        (*TRAIN, "--set", "weights={{event: gen_weight, training: {{balance: classes}}}}"),
        ["balance: the event weights of class QCD add up to -"],
    ),
    "prepare: missing file": (
        edited("data/QCD_train.root", "data/QCD_trian.root"),
        ("prepare", "config.yaml"),
        ["data.train.QCD: no such file"],
    ),
    "summary: unknown key": (
        edited("epochs: 2", "epoch: 2"),
        ("summary", "config.yaml"),
        ["training.epoch: unknown key"],
    ),
    # outputs
    "train below a file": (
        a_file("file"),
        ("train", "config.yaml", "--output", "file/run"),
        ["cannot write file/run/run.json"],
    ),
    "train into a file": (
        a_file("file"),
        ("train", "config.yaml", "--output", "file"),
        ["--output file is a file; a run is a folder"],
    ),
    "prepared data below a file": (
        a_file("file"),
        (*TRAIN, "--set", "data.prepared=file/prepared"),
        ["cannot write file/prepared"],
    ),
    "evaluate below a file": (
        a_file("file"),
        ("evaluate", "run", "--output", "file/report"),
        ["cannot write file/report/report.html"],
    ),
    "evaluate into a file": (a_file("file"), ("evaluate", "run", "-o", "file"), ["--output file is a file"]),
    "predict below a file": (
        a_file("file"),
        (*PREDICT[:-1], "file/scores.root"),
        ["cannot write file/scores.root"],
    ),
    "predict into a folder": (nothing, (*PREDICT[:-1], "data"), ["data: unknown suffix ''"]),
    "predict to an unknown suffix": (
        nothing,
        (*PREDICT[:-1], "new/scores.rot"),
        [
            "new/scores.rot: unknown suffix '.rot': did you mean '.root'? (allowed: .root, .h5, .hdf5, .parquet)"
        ],
    ),
    "evaluate into an unknown container": (
        nothing,
        ("evaluate", "run", "-o", "new", "--predictions", "parket"),
        ["new/predictions.parket: unknown suffix '.parket': did you mean '.parquet'?"],
    ),
    "predict over its input": (
        nothing,
        (*PREDICT[:-1], "data/QCD_test.root"),
        ["--output data/QCD_test.root is one of the files to be scored"],
    ),
    # runs and bundles
    "train into a run": (
        nothing,
        ("train", "config.yaml", "--output", "run"),
        ["run holds a run already: --resume goes on with it, --overwrite replaces it"],
    ),
    "resume with another config": (
        nothing,
        ("train", "config.yaml", "--output", "run", "--resume"),
        ["run/member_0/last.pt belongs to another config"],
    ),
    "member of another config": (
        lambda place: shutil.rmtree(place / "run" / "member_1"),
        ("train", "config.yaml", "-o", "run", "--member", "1", "--set", "ensemble.members=2"),
        ["run/member_0/last.pt belongs to another config"],
    ),
    "overwrite with a missing file": (
        edited("data/QCD_train.root", "data/QCD_trian.root"),
        ("train", "config.yaml", "--output", "run", "--overwrite"),
        ["data.train.QCD: no such file"],
    ),
    "member out of range": (
        nothing,
        (*TRAIN, "--member", "7"),
        ["--member 7: ensemble.members is 1; members are counted from 0"],
    ),
    "negative member": (nothing, (*TRAIN, "--member", "-1"), ["--member -1: ensemble.members is 1"]),
    "no such device to train on": (
        nothing,
        (*TRAIN, "--set", "training.device=cuda:99"),
        ["training.device: cuda:99 asked for"],
    ),
    "bundle with a changed weight file": (
        flipped,
        PREDICT,
        ["run/tagger/weights.safetensors was changed after the bundle was written"],
    ),
    "evaluate a bundle with a changed weight file": (flipped, EVALUATE, ["weights.safetensors was changed"]),
    "no such bundle": (nothing, ("predict", "rum", *PREDICT[2:]), ["no such bundle or run: rum"]),
    "unfinished run": (
        unfinished,
        EVALUATE,
        ["run holds no tagger: there is no card.json in it (its training has not ended)"],
    ),
    "run given twice": (nothing, ("evaluate", "run", "./run", *NEW), ["run is given twice"]),
    "evaluate what was trained on": (
        nothing,
        (*EVALUATE, "--data", "{toy}/QCD_train.root", "--data", "{toy}/Top_train.root"),
        ["QCD_train.root: toy was trained or validated on this file"],
    ),
    "evaluate a missing file": (nothing, (*EVALUATE, "--data", "none.root"), ["--data.data: no such file"]),
    "evaluate one class only": (
        nothing,
        (*EVALUATE, "--data", "data/QCD_test.root"),
        ["classes.Top: none of the", "--data"],
    ),
    "predict a missing branch": (
        rewritten("QCD_test", drop=["jet_tau3"]),
        PREDICT,
        ["data/QCD_test.root", "'jet_tau3'"],
    ),
    "predict a truncated file": (cut_short("QCD_test.root"), PREDICT, ["data/QCD_test.root is truncated"]),
    "predict what is no ROOT file": (text_file("QCD_test.root"), PREDICT, ["is of no known container"]),
    "predict a glob that matches nothing": (
        nothing,
        ("predict", "run", "data/W*.root", "-o", "scores.root"),
        ["predict: no file matches 'data/W*.root'"],
    ),
    "no such device to predict on": (nothing, (*PREDICT, "--device", "cpo"), ["unknown device 'cpo'"]),
    # simulation
    "unknown process": (
        nothing,
        ("simulate", "Tbq", "--jets", "1", "-o", "new.root"),
        ["unknown process 'Tbq': did you mean 'Tbqq'?"],
    ),
    "simulate below a file": (
        a_file("file"),
        ("simulate", "QCD", "--jets", "1", "-o", "file/new.root"),
        ["cannot write file/new.root"],
    ),
}


def contents(folder):
    """Every file and folder but the cache of prepared data, with a digest of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
        if "prepared" not in path.relative_to(folder).parts
    }


def assert_one_message(outcome, words):
    assert outcome.status == 2, outcome
    assert "Traceback" not in outcome.out + outcome.error
    lines = outcome.error.splitlines()
    assert [line.startswith("jettagger: error: ") for line in lines].count(True) == 1
    message = outcome.error[outcome.error.index("jettagger: error: ") :]
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_message_and_nothing_else(place, toy_folder, command, mistake):
    prepare, arguments, words = MISTAKES[mistake]
    if "simulate" in arguments:
        pytest.importorskip("pythia8mc")
    prepare(place)
    before = contents(place)
    outcome = command(*(argument.format(toy=toy_folder) for argument in arguments))
    assert_one_message(outcome, words)
    assert contents(place) == before


def test_evaluate_without_test_samples(place, command):
    edited("  test: {QCD: data/QCD_test.root, Top: data/Top_test.root}\n", "")(place)
    assert command(*TRAIN, "--set", "training.epochs=1").status == 0
    before = contents(place)
    assert_one_message(
        command("evaluate", "new", "--output", "report"),
        ["new: no test jets: its config has no data.test, and --data is not given"],
    )
    assert contents(place) == before


def test_mc_dropout_without_dropout(place, command):
    assert command(*TRAIN, "--set", "training.epochs=1", "--set", "model.dropout=0").status == 0
    before = contents(place)
    assert_one_message(
        command("predict", "new", *PREDICT[2:], "--mc-dropout", "5"),
        ["MC dropout needs dropout > 0: set model.dropout and train again"],
    )
    assert contents(place) == before


def test_runs_of_different_classes_cannot_be_compared(place, command):
    edited("  Top: label_Tbqq == 1\n", "  T: label_Tbqq == 1\n")(place)
    assert command(*TRAIN, "--set", "training.epochs=1").status == 0
    assert_one_message(
        command("evaluate", "run", "new", "--output", "report"),
        ["new has the classes QCD, T, run has QCD, Top: they cannot be compared"],
    )
    assert not (place / "report").exists()


def test_runs_of_different_test_jets_cannot_be_compared(place, command):
    assert command(*TRAIN, "--set", "training.epochs=1").status == 0
    assert_one_message(
        command("evaluate", "run", "new", "--output", "report"), ["were given different test jets", "--data"]
    )
    assert not (place / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "Missing argument 'CONFIG'"),
        (("train", "config.yaml", "--outptu", "x"), "No such option: --outptu"),
        (("train", "config.yaml", "--member", "first"), "Invalid value for '--member'"),
        (("trian", "config.yaml"), "No such command 'trian'"),
        (("predict", "run", "data/QCD_test.root"), "Missing option '--output'"),
        (("predict", "run", "-o", "scores.root"), "Missing argument 'FILES...'"),
        ((*PREDICT, "--mc-dropout", "-1"), "Invalid value for '--mc-dropout'"),
        (("evaluate",), "Missing argument 'RUN_OR_BUNDLE...'"),
        (("simulate", "QCD", "-o", "new.root"), "Missing option '--jets'"),
    ],
)
def test_commands_that_are_not_understood(place, command, arguments, message):
    before = contents(place)
    outcome = command(*arguments)
    assert outcome.status == 2
    assert message in outcome.error
    assert "Traceback" not in outcome.error
    assert contents(place) == before


def test_a_true_process(place):
    edited("jet_pt > 500", "jet_pt > 5000")(place)
    before = contents(place)
    started = [sys.executable, "-m", "jettagger", *TRAIN]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("jettagger: error: data.train: data.selection '(jet_pt > 5000)")
    assert contents(place) == before


def test_debug_shows_the_traceback(place, command, monkeypatch):
    from jettagger import JettaggerError, cli

    monkeypatch.setattr(sys, "argv", ["jettagger", "--debug", "train", "confg.yaml"])
    with pytest.raises(JettaggerError, match=r"confg\.yaml"):
        cli.main()
