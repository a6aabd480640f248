"""`jettagger train` as a whole: the same again, resumed, overwritten, member by member."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jettagger import configuration
from jettagger.baselines import load_trees
from jettagger.errors import JettaggerError
from jettagger.files import sha256
from jettagger.training import run

WEIGHTS = Path("tagger") / "weights.safetensors"


def train(toy_folder, output, *overrides, say=lambda line: None, **arguments):
    config = configuration.load(toy_folder / "config.yaml", ["training.precision=float32", *overrides])
    return run.train(configuration.recipe(config), output, say=say, **arguments)


def weights(output):
    return (output / WEIGHTS).read_bytes()


@pytest.mark.parametrize("architecture", ["mlp", "particle_cnn"])
def test_the_same_yaml_and_seed_give_the_same_network(toy_folder, tmp_path, architecture):
    model = "model={architecture: mlp, widths: [16], dropout: 0.1}"
    if architecture == "particle_cnn":
        model = "model={architecture: particle_cnn, widths: [8], dense: [8], dropout: 0.1, norm: batch}"
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        train(toy_folder, tmp_path / name, model, "training.epochs=1", f"training.seed={seed}")
    assert weights(tmp_path / "one") == weights(tmp_path / "again")
    assert weights(tmp_path / "one") != weights(tmp_path / "other")


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_network(toy_folder, tmp_path):
    overrides = ["training.epochs=1", "training.threads=1", "training.precision=float32"]
    train(toy_folder, tmp_path / "here", *overrides)
    options = [word for override in overrides for word in ("--set", override)]
    started = [sys.executable, "-m", "jettagger", "train", str(toy_folder / "config.yaml"), *options]
    subprocess.run([*started, "--output", str(tmp_path / "there")], check=True, capture_output=True)
    assert weights(tmp_path / "here") == weights(tmp_path / "there")


def test_what_a_run_leaves(trained_run):
    assert sorted(path.name for path in trained_run.iterdir()) == [
        *("baselines", "config.yaml", "ensemble.json", "member_0", "member_1", "run.json", "tagger")
    ]
    document = json.loads((trained_run / "run.json").read_text())
    card = json.loads((trained_run / "tagger" / "card.json").read_text())
    assert document.items() >= {key: value for key, value in card.items() if key != "versions"}.items()
    assert document["seconds"] > 0
    for member in (0, 1):
        advice = json.loads((trained_run / f"member_{member}" / "result.json").read_text())["advice"]
        assert advice == document["trainings"][member]["advice"]
        assert [set(one) for one in advice] == [{"verdict", "sentence"}] * len(advice) != []
    assert document["hardware"].startswith("cpu, ")
    assert document["classes"] == ["QCD", "Top"]
    assert [feature["name"] for feature in document["inputs"]["particles"]] == ["log_pt", "deta", "charge"]
    assert (
        document["data"]["training_jets"] + document["data"]["validation_jets"]
        == (document["data"]["counts"]["selected"])
    )
    assert sorted(document["data"]["files"].values()) == ["QCD_train.root", "Top_train.root"]
    assert {"jettagger", "python", "torch", "numpy", "awkward", "uproot"} == set(document["versions"])
    assert document["sha256"]["weights.safetensors"] == sha256(trained_run / WEIGHTS)
    assert 0.5 < document["validation"]["auc Top against the rest"] <= 1
    thresholds = list(document["working_points"]["Top"].values())
    assert thresholds == sorted(thresholds, reverse=True)
    for member in range(2):
        folder = trained_run / f"member_{member}"
        result = json.loads((folder / "result.json").read_text())
        spent = json.loads((folder / "cost.json").read_text())
        jets = {name: document["data"][name] for name in ("training_jets", "validation_jets")}
        assert {**result, **jets, "cost": spent} == document["trainings"][member]
        assert result["member"] == member
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [record["epoch"] for record in history] == [1, 2]
        assert result["best_loss"] == min(record["validation_loss"] for record in history)
        assert result["jets"] == 2 * document["data"]["training_jets"]


def test_the_config_of_a_run_trains_it_again(trained_run, tmp_path):
    assert yaml.safe_load((trained_run / "config.yaml").read_text()) == (
        yaml.safe_load((trained_run / "tagger" / "config.yaml").read_text())
    )
    recipe = configuration.recipe(configuration.load(trained_run / "config.yaml"))
    run.train(recipe, tmp_path / "again", say=lambda line: None)
    assert weights(tmp_path / "again") == weights(trained_run)


def test_baselines_are_fitted(trained_run, toy_folder, tmp_path):
    trees = load_trees(trained_run / "baselines" / "boosted_trees.npz")
    assert trees.features == ("log_pt", "mass", "tau32", "leading")
    assert trees.classes == ("QCD", "Top")
    assert len(trees.first) == 5
    said: list[str] = []
    output = tmp_path / "run"
    overrides = ("baselines={boosted_trees: {iterations: 3}}", "training.epochs=1")
    train(toy_folder, output, *overrides, say=said.append)
    (advice,) = json.loads((output / "member_0" / "result.json").read_text())["advice"]
    assert advice["sentence"] in said
    assert any(line.startswith("boosted trees: fitted in ") for line in said)
    assert len(load_trees(output / "baselines" / "boosted_trees.npz").first) == 3


def test_a_finished_run_can_be_resumed(run_copy, toy_folder):
    from toy_jets import ENSEMBLE

    before = weights(run_copy)
    result = train(toy_folder, run_copy, *ENSEMBLE, resume=True)
    assert weights(run_copy) == before
    assert [member.best_epoch for member in result.members] == [
        training["best_epoch"] for training in json.loads((run_copy / "run.json").read_text())["trainings"]
    ]
    assert len(result.members[0].history) == 2


@pytest.mark.parametrize("lost", ["member_1", "member_0", "tagger"])
def test_resuming_makes_what_is_missing(run_copy, toy_folder, lost):
    from toy_jets import ENSEMBLE

    before = weights(run_copy)
    shutil.rmtree(run_copy / "tagger")
    (run_copy / "run.json").unlink()
    if lost != "tagger":
        shutil.rmtree(run_copy / lost)
    train(toy_folder, run_copy, *ENSEMBLE, resume=True)
    assert weights(run_copy) == before
    assert (run_copy / "run.json").exists()


def test_members_can_be_added(run_copy, toy_folder):
    from toy_jets import ENSEMBLE

    first = (run_copy / "member_0" / "best.pt").read_bytes()
    result = train(toy_folder, run_copy, *ENSEMBLE, "ensemble.members=3", resume=True)
    assert len(result.members) == 3
    assert (run_copy / "member_0" / "best.pt").read_bytes() == first
    assert json.loads((run_copy / "tagger" / "card.json").read_text())["members"] == 3


def test_members_of_two_configs_are_not_mixed(run_copy, toy_folder):
    from toy_jets import ENSEMBLE

    before = weights(run_copy)
    changed = (*ENSEMBLE, "training.epochs=1")
    message = r"member_0/last\.pt belongs to another config \(training\.epochs: 2 → 1\)"
    with pytest.raises(JettaggerError, match=message):
        train(toy_folder, run_copy, *changed, resume=True)
    with pytest.raises(JettaggerError, match=message):
        train(toy_folder, run_copy, *changed, member=1, overwrite=True)
    assert weights(run_copy) == before
    assert (run_copy / "member_1" / "best.pt").exists()


def test_overwriting_leaves_nothing_of_the_old_run(run_copy, toy_folder, tmp_path):
    train(toy_folder, tmp_path / "new", "training.epochs=1")
    train(toy_folder, run_copy, "training.epochs=1", overwrite=True)
    assert weights(run_copy) == weights(tmp_path / "new")
    assert sorted(path.name for path in run_copy.iterdir()) == sorted(
        path.name for path in (tmp_path / "new").iterdir()
    )
    assert configuration.load(run_copy / "config.yaml").training.epochs == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weights.training.balance=classes", "balance: the event weights of class QCD add up to -"),
        ("baselines.boosted_trees.iterations=2", "trees cannot be fitted to negative event weights"),
    ],
)
def test_wrong_weights_remove_nothing_of_the_old_run(run_copy, toy_folder, override, message):
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    with pytest.raises(JettaggerError, match=message):
        train(toy_folder, run_copy, "weights.event=-1.0", override, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before


def test_overwriting_one_member(run_copy, toy_folder):
    from toy_jets import ENSEMBLE

    before, first = weights(run_copy), (run_copy / "member_0" / "best.pt").read_bytes()
    train(toy_folder, run_copy, *ENSEMBLE, member=1, overwrite=True)
    assert weights(run_copy) == before
    assert (run_copy / "member_0" / "best.pt").read_bytes() == first


def test_reflections_change_the_training(toy_folder, tmp_path):
    model = "model={architecture: particle_cnn, widths: [8], dense: [8]}"
    eta = "training.reflections={eta: [particles.deta, particles.coordinates.eta]}"
    for name, more in (("plain", []), ("mirrored", [eta]), ("again", [eta])):
        train(toy_folder, tmp_path / name, model, "training.epochs=1", *more)
    assert weights(tmp_path / "mirrored") == weights(tmp_path / "again") != weights(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_a_random_time_and_resumed(toy_folder, tmp_path, seed):
    """The command is killed again and again, anywhere; in the end its weights are those of one left alone."""
    options = "training.epochs=12 training.threads=1 training.precision=float32 ensemble.members=2"
    overrides = [*options.split(), "training.checkpoint_seconds=0.01", "baselines={boosted_trees: {}}"]
    command = [sys.executable, "-m", "jettagger", "train", str(toy_folder / "config.yaml")]
    command += [word for override in overrides for word in ("--set", override)]
    began = time.monotonic()
    subprocess.run([*command, "-o", str(tmp_path / "alone")], check=True, capture_output=True)
    seconds = time.monotonic() - began
    killed = tmp_path / "killed"
    moments = random.Random(seed)
    kills = 0
    for attempt in range(4):
        process = subprocess.Popen(
            [*command, "-o", str(killed), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if attempt == 0:  # surely before the end, however fast the machine is just now
            while process.poll() is None and not (killed / "member_0" / "last.pt").exists():
                time.sleep(0.01)
        else:
            time.sleep(seconds * moments.uniform(0.4, 0.8))
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error
        kills += process.returncode == -signal.SIGKILL
    subprocess.run([*command, "-o", str(killed), "--resume"], check=True, capture_output=True)
    assert kills
    assert weights(killed) == weights(tmp_path / "alone")
    left = [path.name for path in killed.rglob(".*")]
    assert left == []
