"""What is said of the jets, and that no file plays two roles."""

import shutil

import numpy as np
import pytest

from jettagger import configuration
from jettagger.baselines import BaselinesSection
from jettagger.errors import JettaggerError
from jettagger.training.sides import check_apart, describe, prepare_sides
from toy_jets import CONFIG, toy_jets, write_jets


@pytest.fixture
def data(tmp_path):
    """`data()`: the config of small files of its own, with overrides."""
    for number, part in enumerate(("train", "test", "more")):
        for name in ("QCD", "Top"):
            write_jets(tmp_path / f"{name}_{part}.root", toy_jets(name, 80, number + 1))

    def load(*overrides):
        return configuration.loads(CONFIG.format(folder=tmp_path), overrides=overrides)

    return load


def test_a_fraction_is_held_out(data):
    said: list[str] = []
    sides = prepare_sides(data(), BaselinesSection(), said.append)
    assert sides.train is sides.validation
    rows = np.concatenate([sides.train_rows, sides.validation_rows])
    assert sorted(rows) == list(range(len(sides.train)))
    assert sides.keys == [sides.train.key]
    assert said[0].startswith("  prepared 2 shards, 0 MB: 160 entries in ")
    assert said[1] == (
        f"data.train: 160 jets read, {len(sides.train)} selected: "
        f"{(sides.train.labels_J == 0).sum()} QCD, {(sides.train.labels_J == 1).sum()} Top"
    )
    assert said[-1] == (
        f"  {len(sides.train_rows)} jets to train on, {len(sides.validation_rows)} to validate with"
    )


def test_validation_files_of_their_own(data, tmp_path):
    said: list[str] = []
    samples = f"data.validation={{QCD: {tmp_path}/QCD_more.root, Top: {tmp_path}/Top_more.root}}"
    sides = prepare_sides(data(samples), BaselinesSection(), said.append)
    assert sides.train is not sides.validation
    assert len(sides.train_rows) == len(sides.train)
    assert len(sides.validation_rows) == len(sides.validation)
    assert sides.keys == [sides.train.key, sides.validation.key]
    assert any(line.startswith("data.validation: 160 jets read") for line in said)


def test_everything_that_was_cut_or_is_missing_is_said(data, tmp_path):
    jets = toy_jets("QCD", 80, 1)
    jets["jet_sdmass"][:7] = np.nan
    write_jets(tmp_path / "QCD_train.root", jets)
    config = data("data.selection=jet_pt > 0", "inputs.particles.length=12")
    lines = describe(prepare_sides(config, BaselinesSection(), lambda line: None).train, "data.train")
    lengths = [len(x) for name in ("QCD", "Top") for x in toy_jets(name, 80, 1)["part_px"]]
    assert lines == [
        "data.train: 160 jets read, 160 selected: 80 QCD, 80 Top",
        "  jet.mass: 7 values are NaN, infinite or sentinels",
        f"  jet.leading: {lengths.count(0)} values are NaN, infinite or sentinels",
        f"  particles: {sum(n > 12 for n in lengths)} jets have more than inputs.particles.length; "
        "the last in order are left out",
        f"  particles: {lengths.count(0)} jets have none",
    ]


@pytest.mark.parametrize("same", ["path", "copy", "link"])
def test_a_file_in_two_roles_is_refused(data, tmp_path, same):
    first, second = tmp_path / "QCD_train.root", tmp_path / "QCD_test.root"
    second.unlink()
    if same == "copy":
        shutil.copy(first, second)
    elif same == "link":
        second.symlink_to(first)
    config = data(f"data.test.QCD={first}") if same == "path" else data()
    with pytest.raises(
        JettaggerError, match=r"\(data\.test\) is the same file as .*QCD_train\.root \(data\.train\)"
    ):
        check_apart(config)


def test_validation_files_are_apart_as_well(data, tmp_path):
    config = data(f"data.validation={{QCD: {tmp_path}/QCD_test.root, Top: {tmp_path}/Top_more.root}}")
    with pytest.raises(
        JettaggerError, match=r"\(data\.validation\) is the same file as .*QCD_test\.root \(data\.test\)"
    ):
        check_apart(config)


def test_one_file_twice_in_a_role_is_refused(data, tmp_path):
    with pytest.raises(JettaggerError, match=r"data\.train: .* are the same file"):
        check_apart(data(f"data.train.Top={tmp_path}/QCD_train.root"))


def test_files_that_differ_are_apart(data):
    check_apart(data())
    check_apart(data("data.test={}"))
