"""data.on_error: files that do not fit stop the run, or are left out whole, counted and listed."""

import json

import numpy as np
import pytest
import uproot
from test_columns import config

from jettagger.baselines import BaselinesSection
from jettagger.data import filling
from jettagger.data.manifest import read_manifest
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from jettagger.training.sides import prepare_sides
from toy_jets import toy_jets, write_jets, write_toy_data


@pytest.fixture
def folder(tmp_path):
    """Three files a sample, all of them good."""
    for number in range(3):
        for name in ("QCD", "Top"):
            write_jets(tmp_path / f"{name}-{number}.root", toy_jets(name, 40, number))
    return tmp_path


def settings(folder, on_error="skip", **more):
    samples = {name: f"{folder}/{name}-*.root" for name in ("QCD", "Top")}
    same = {"data__prepared": str(folder / "prepared"), "data__train": samples, "data__test": {}}
    return config(data__on_error=on_error, **(same | more))


def no_bytes(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-2000])


def no_root_file(path):
    path.write_bytes(b"what is this?" * 100)


def without_a_branch(path):
    branches = toy_jets("QCD", 40, 7)
    del branches["jet_sdmass"]
    write_jets(path, branches)


def of_another_type(path):
    branches = toy_jets("QCD", 40, 7)
    branches["jet_sdmass"] = branches["part_px"]
    with uproot.recreate(path) as file:
        file["tree"] = branches


def torn_in_the_middle(path):
    """One basket of many does not decompress."""
    with uproot.open(path) as file:
        at = file["tree"]["part_deta"].member("fBasketSeek")[0]
    content = bytearray(path.read_bytes())
    content[at + 100 : at + 400] = bytes(300)
    path.write_bytes(content)


FAULTS = {
    no_bytes: r"is empty \(0 bytes\)",
    cut_short: "is truncated",
    no_root_file: "is of no known container",
    without_a_branch: "unknown branch or definition 'jet_sdmass'",
    of_another_type: "holds a list of numbers an entry",
    torn_in_the_middle: "QCD-1.root",
}


@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_a_file_that_does_not_fit(folder, damage):
    bad = folder / "QCD-1.root"
    damage(bad)
    one = settings(folder, "stop")
    with pytest.raises(JettaggerError, match=FAULTS[damage]) as stopped:
        prepare(one, one.data.train, role="data.train")
    assert str(bad) in str(stopped.value)
    one = settings(folder)
    found = prepare(one, one.data.train, role="data.train")
    assert [(skipped.path, skipped.sample) for skipped in found.skipped] == [(str(bad), "QCD")]
    assert found.skipped[0].reason == str(stopped.value)
    assert found.counts["read"] == 5 * 40
    assert str(bad) not in {record.path for record in found.records}
    # Without that file the same dataset would have been made.
    samples = {"QCD": [f"{folder}/QCD-0.root", f"{folder}/QCD-2.root"], "Top": f"{folder}/Top-*.root"}
    alone = config(
        data__train=samples, data__test={}, data__prepared=str(folder / "alone"), data__on_error="stop"
    )
    expected = prepare(alone, samples, role="data.train")
    assert found.key == expected.key
    assert np.array_equal(found.labels_J, expected.labels_J)
    assert np.array_equal(found.spectators["jet_pt"], expected.spectators["jet_pt"])


def test_a_file_is_left_out_whole_and_tried_again(folder, monkeypatch):
    """The second half of a file fails; later it can be read."""
    monkeypatch.setattr("jettagger.data.containers.base.CHUNK_BYTES", 4000)
    one = settings(folder)
    original = filling._read

    def failing(job, task):
        if task.path.endswith("Top-2.root") and task.start > 0:
            raise JettaggerError(f"{task.path}: gone")
        return original(job, task)

    monkeypatch.setattr(filling, "_read", failing)
    some = prepare(one, one.data.train, role="data.train")
    assert [skipped.reason for skipped in some.skipped] == [f"{folder}/Top-2.root: gone"]
    names = {path.name for path in some.directory.glob("shard-*")}
    assert names == {record.name for record in some.records}
    assert prepare(one, one.data.train, role="data.train").skipped == some.skipped
    stop = settings(folder, "stop")
    with pytest.raises(JettaggerError, match=r"Top-2\.root: gone"):
        prepare(stop, stop.data.train, role="data.train")
    monkeypatch.setattr(filling, "_read", original)
    kept = {name: (some.directory / name).stat().st_ino for name in names}
    every = prepare(one, one.data.train, role="data.train")
    assert every.skipped == read_manifest(every.directory).skipped == ()
    assert every.directory == some.directory
    assert every.key != some.key
    assert every.counts["read"] == 240
    assert kept == {name: (every.directory / name).stat().st_ino for name in names}


def test_a_branch_of_another_kind_is_left_out_at_every_run(folder):
    """A number a jet would be given to each of its particles, without an error."""
    branches = toy_jets("QCD", 40, 7)
    branches["part_charge"] = np.ones(40, np.float32)
    with uproot.recreate(folder / "QCD-1.root") as file:
        file["tree"] = branches
    one = settings(folder)
    first = prepare(one, one.data.train, role="data.train")
    assert "branch 'part_charge' holds a number an entry" in first.skipped[0].reason
    again = prepare(one, one.data.train, role="data.train")
    assert (again.skipped, again.key) == (first.skipped, first.key)


def test_what_is_skipped_is_said(folder):
    without_a_branch(folder / "QCD-0.root")
    no_bytes(folder / "QCD-2.root")
    said: list[str] = []
    prepare_sides(settings(folder, data__validation=0.5), BaselinesSection(), said.append)
    assert "  2 files skipped (data.on_error: skip):" in said
    assert any(f"    QCD: {folder}/QCD-0.root: " in line and "jet_sdmass" in line for line in said)


def test_the_tagger_and_the_report_carry_the_list(tmp_path, command):
    """A training file lacks a branch, a test file is cut short."""
    path = write_toy_data(tmp_path, 120)
    text = (
        path.read_text()
        .replace("QCD_train.root", "QCD_train*.root")
        .replace("Top_test.root", "Top_test*.root")
    )
    path.write_text(text.replace("  validation:", "  on_error: skip\n  validation:"))
    without_a_branch(tmp_path / "QCD_train_2.root")
    cut_short(write_jets(tmp_path / "Top_test_2.root", toy_jets("Top", 40, 9)))
    run = tmp_path / "run"
    trained = command("train", path, "-o", run, "--workers", 1, "--set", "training.epochs=1")
    assert trained.status == 0, trained.error
    assert "1 files skipped" in trained.out
    card = json.loads((run / "tagger" / "card.json").read_text())
    assert [one["path"] for one in card["data"]["skipped"]] == [f"{tmp_path}/QCD_train_2.root"]
    evaluated = command("evaluate", run, "-o", tmp_path / "report")
    assert evaluated.status == 0, evaluated.error
    notes = json.loads((tmp_path / "report" / "report.json").read_text())["notes"]
    assert any(
        note.startswith(f"run was trained without {tmp_path}/QCD_train_2.root (QCD): ") for note in notes
    )
    assert any(
        note.startswith(f"{tmp_path}/Top_test_2.root (Top) is not among the test jets: ")
        and "truncated" in note
        for note in notes
    )
    assert "is not among the test jets" in (tmp_path / "report" / "report.html").read_text()


def test_a_mistake_in_the_config_is_no_fault_of_the_files(folder):
    one = settings(folder, inputs__jet__features__mass="jet_sdmas")
    with pytest.raises(
        JettaggerError,
        match=r"data\.train\.QCD: data\.on_error: skip leaves none of 3 files; the first: (.|\n)*'jet_sdmas'",
    ):
        prepare(one, one.data.train, role="data.train")
    for number in range(3):
        no_bytes(folder / f"Top-{number}.root")
    one = settings(folder)
    with pytest.raises(JettaggerError, match=r"data\.train\.Top: .* leaves none of 3 files; .* \(0 bytes\)"):
        prepare(one, one.data.train, role="data.train")


def test_a_file_that_vanishes_or_changes_meanwhile(folder, monkeypatch):
    one = settings(folder, "stop")
    original = filling.fill_all
    target = folder / "Top-2.root"

    def after(work):
        def fill_all(*arguments):
            work()
            return original(*arguments)

        monkeypatch.setattr("jettagger.data.prepared.fill_all", fill_all)

    after(lambda: write_jets(target, toy_jets("Top", 41, 8)))
    with pytest.raises(
        JettaggerError, match=r"Top-2\.root was changed while it was being prepared: run again"
    ):
        prepare(one, one.data.train, role="data.train")
    after(target.unlink)
    with pytest.raises(JettaggerError, match=r"no such file: .*Top-2\.root"):
        prepare(one, one.data.train, role="data.train")


def test_an_empty_tree_is_counted_and_fine(folder):
    write_jets(folder / "QCD-1.root", {key: value[:0] for key, value in toy_jets("QCD", 5, 1).items()})
    one = settings(folder, "stop")
    found = prepare(one, one.data.train, role="data.train")
    assert found.skipped == ()
    assert found.counts["read"] == 200
    assert len(found.read(np.arange(len(found)), found.spec).jet_JF) == len(found)


def test_jets_that_do_not_fit_the_config_are_no_fault_of_their_file(folder):
    branches = toy_jets("QCD", 40, 7)
    branches["label_QCD"][:] = False
    write_jets(folder / "QCD-1.root", branches)
    one = settings(folder)
    with pytest.raises(JettaggerError, match=r"QCD-1\.root: .* do not belong to exactly one class"):
        prepare(one, one.data.train, role="data.train")
