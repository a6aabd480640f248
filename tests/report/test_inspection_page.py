"""The page and the JSON of an inspection, and the command that writes them."""

import json

import numpy as np
import pytest
from test_page import Page

from toy_jets import toy_jets, write_jets, write_toy_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy files with a sentinel, and data without labels."""
    folder = tmp_path_factory.mktemp("inspected")
    write_toy_data(folder)
    spoiled = toy_jets("Top", 300, 1)
    spoiled["jet_sdmass"][:30] = -999
    write_jets(folder / "Top_train.root", spoiled)
    data = toy_jets("QCD", 300, 9)
    del data["label_QCD"], data["label_Tbqq"]
    write_jets(folder / "data.root", data)
    return folder


def test_the_command_writes_page_numbers_and_figures(command, folder, tmp_path):
    output = tmp_path / "new" / "look"
    weights = "weights.training={flatten: {jet_pt: [500, 600, 700]}, balance: classes}"
    done = command(
        *("inspect", folder / "config.yaml", "--output", output, "--set", weights),
        *("--set", "targets={width: {value: jet_tau2, loss: mse}}"),
        *("--against", f"data={folder}/data.root", "--reference", "QCD", "--jets", 200),
    )
    assert (done.status, done.error) == (0, "")
    assert f"inspection: {output / 'inspection.html'}" in done.out
    assert "write: sentinels: [-999]" in done.out
    assert "0 errors that would stop a training" in done.out
    assert "data (" in done.out
    assert "Classifier test: AUC 0." in done.out
    text = (output / "inspection.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith("data:image/png") for address in page.addresses)
    assert {anchor[1:] for anchor in page.anchors} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    words = "".join(page.words)
    for heading in (
        "Findings",
        "Cut flow",
        "Inputs",
        "Targets",
        "Duplicates and leakage",
        "Weights",
        "Correlations",
    ):
        assert heading in words
    assert "data and QCD" in words
    assert "width = jet_tau2 (mse). A jet for which one is NaN or infinite does not enter its loss." in words
    figures = {path.name for path in (output / "figures").iterdir()}
    stems = {name.partition(".")[0] for name in figures}
    assert {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")} == figures
    assert stems == {
        *("inputs_jet_1", "inputs_particle_1", "correlations_QCD", "correlations_Top", "weights_event"),
        *("weights_training_1", "compared_data", "compared_correlations_data", "targets_1"),
    }
    assert page.tags.count("img") == len(stems)


def test_the_numbers_have_stable_keys(command, folder, tmp_path):
    assert (
        command("inspect", folder / "config.yaml", "-o", tmp_path, "--set", "data.selection=null").status == 0
    )
    document = json.loads((tmp_path / "inspection.json").read_text(encoding="utf-8"))
    assert set(document) == {
        *(
            "format",
            "jettagger",
            "status",
            "name",
            "cuts",
            "findings",
            "files",
            "yields",
            "used",
            "variables",
        ),
        *("targets", "branches", "overlaps", "spectra", "correlations", "weights", "comparisons"),
    }
    assert document["status"] == 0
    assert document["cuts"] == []
    [mass] = [one for one in document["variables"] if one["summary"]["name"] == "jet.mass"]
    assert mass["summary"]["sentinels"] == {"-999": 30}
    matrix = np.array(document["correlations"]["QCD"]["matrix"], float)
    assert np.allclose(np.diag(matrix)[np.isfinite(np.diag(matrix))], 1)
    assert document["files"][0]["selected"] == 300
    assert [finding["severity"] for finding in document["findings"]].count("error") == 0


def test_errors_are_said_drawn_and_end_with_status_2(command, folder, tmp_path):
    done = command(
        *("inspect", folder / "config.yaml", "-o", tmp_path, "--set", "classes.Top=label_Tbq == 1"),
        *("--set", "inputs.jet.features.mass=jet_sdmas"),
    )
    assert done.status == 2
    assert "did you mean 'label_Tbqq'?" in done.out
    assert "did you mean 'jet_sdmass'?" in done.out
    assert "2 errors that would stop a training" in done.out
    page = Page((tmp_path / "inspection.html").read_text(encoding="utf-8"))
    assert "did you mean 'jet_sdmass'?" in "".join(page.words)


def test_an_output_that_is_a_file_is_refused(command, folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    done = command("inspect", folder / "config.yaml", "--output", file)
    assert done.status == 2
    assert "is a file; an inspection is a folder" in done.error
