"""The commands that are not training, and the module behind `python -m jettagger`."""

import json
import subprocess
import sys

import pytest
import uproot

import jettagger


def test_help_names_every_command(command):
    outcome = command("--help")
    assert outcome.status == 0
    for name in (
        *("train", "evaluate", "predict", "prepare", "inspect", "summary", "simulate", "schema"),
        *("submit", "status", "sweep"),
    ):
        assert f"\n  {name} " in outcome.out
    assert "--debug" in outcome.out


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "jettagger", "schema"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["properties"]["classes"]


def test_schema_is_json(command):
    outcome = command("schema")
    assert outcome.status == 0
    document = json.loads(outcome.out)
    assert {"data", "classes", "inputs", "model", "training"} <= document["properties"].keys()


def test_summary(command, toy_folder):
    config = toy_folder / "config.yaml"
    outcome = command("summary", config)
    assert outcome.status == 0
    # 4 features -> 16 -> 2 classes, with biases.
    parameters = 4 * 16 + 16 + 16 * 2 + 2
    assert str(parameters) in outcome.out
    document = json.loads(command("summary", config, "--json").out)
    assert document["parameters"] == parameters
    assert document["layers"]
    assert document["receptive_field"] == []
    wide = json.loads(command("summary", config, "--json", "--set", "model.widths=[32]").out)
    assert wide["parameters"] == 4 * 32 + 32 + 32 * 2 + 2


def test_prepare_says_what_it_read_and_where_it_is(command, toy_folder, tmp_path):
    arguments = ("prepare", toy_folder / "config.yaml", "--set", f"data.prepared={tmp_path / 'prepared'}")
    outcome = command(*arguments)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("  prepared 2 shards, 0 MB: 600 entries in ")
    assert lines[1].startswith("data.train: 600 jets read, ")
    [directory] = (tmp_path / "prepared").iterdir()
    assert lines[-1] == f"prepared: {directory}"
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert "manifest.json" in before
    assert command(*arguments).out.splitlines() == lines[1:]
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


@pytest.mark.parametrize("suffix", ["root", "h5", "parquet"])
def test_predict_writes_a_row_for_each_jet(command, trained_run, toy_folder, tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / "new" / f"scores.{suffix}"
    files = [toy_folder / "Top_test.root", toy_folder / "QCD_test.root"]
    outcome = command("predict", trained_run, *files, "--output", output)
    assert (outcome.status, outcome.error) == (0, "")
    assert outcome.out == f"600 jets scored: {output}\n"
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    if suffix != "root":
        return
    with uproot.open(output) as file:
        rows = file["tree"].arrays(library="np")
        attributes = json.loads(file["attributes"])
    assert attributes == {"files": ", ".join(map(str, files)), "tagger": "toy"}
    assert set(rows) == {
        *("file", "entry", "QCD", "Top", "std_QCD", "std_Top", "mutual_information"),
        *("expected_entropy", "total_entropy", "passes_selection", "jet_pt", "jet_sdmass"),
    }
    assert rows["file"].tolist() == [0] * 300 + [1] * 300
    assert rows["entry"].tolist() == [*range(300), *range(300)]
    scores = jettagger.load(trained_run).predict(files)
    for name in ("QCD", "Top", "mutual_information", "passes_selection"):
        assert rows[name].tolist() == scores[name].to_list()
    with uproot.open(files[0]) as file:
        assert rows["jet_pt"][:300].tolist() == file["tree"]["jet_pt"].array().to_list()


def test_predict_with_mc_dropout(command, trained_run, toy_folder, tmp_path):
    output = tmp_path / "scores.root"
    file = toy_folder / "Top_test.root"
    assert command("predict", trained_run, file, "-o", output, "--mc-dropout", 3).status == 0
    with uproot.open(output) as opened:
        written = opened["tree"]["Top"].array().to_list()
    assert written == jettagger.load(trained_run).predict(file, mc_dropout=3).Top.to_list()
