"""Sides of the training samples: every jet on one, events whole, and folds that hold each jet out once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_columns import config

from jettagger import configuration
from jettagger.data import splits
from jettagger.data.prepared import prepare
from jettagger.data.sample_schema import DataSection
from jettagger.errors import JettaggerError
from toy_jets import CONFIG, toy_jets, write_jets

JETS = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """2 x 600 jets, two to an event, with a branch that parts events; and 2 x 100 more."""
    folder = tmp_path_factory.mktemp("splits")
    for number, name in enumerate(("QCD", "Top")):
        jets = toy_jets(name, JETS, number + 1) | {"jet_index": np.arange(JETS) % 2}
        write_jets(folder / f"{name}.root", jets)
        write_jets(folder / f"{name}_more.root", toy_jets(name, 100, number + 5))
    return folder


@pytest.fixture
def prepared(folder):
    """`prepared(test=…, validation=…)`: the dataset with what its split is made by, and the section `data`."""

    def make(**changes):
        given = {name: changes.pop(name) for name in ("train",) if name in changes}
        samples = given.get("train", {name: str(folder / f"{name}.root") for name in ("QCD", "Top")})
        document = {"prepared": str(folder / "prepared"), "train": samples, "selection": None, "test": {}}
        keys = {f"data__{name}": value for name, value in (document | changes).items()}
        settings = config(**keys)
        return prepare(settings, samples, role="data.train", extras=splits.columns(settings)), settings.data

    return make


def sides_of(found, jets):
    side_J = np.full(jets, -1)
    for number, rows in enumerate(found):
        assert (side_J[rows] == -1).all()
        assert (np.diff(rows) > 0).all()
        side_J[rows] = number
    return side_J


def check_whole(dataset, side_J):
    """Every jet on a side, and every group on one."""
    assert (side_J >= 0).all()
    for side in range(3):
        assert not set(dataset.groups[side_J == side]) & set(dataset.groups[side_J != side])


@pytest.mark.parametrize(
    ("validation", "test"),
    [
        (0.2, {}),
        (0.2, 0.3),
        ("event_number % 5 == 0", {}),
        ("event_number % 5 == 0", 0.3),
        (0.2, "event_number % 5 == 1"),
        ("event_number % 5 == 0", "event_number % 5 == 1"),
    ],
)
def test_each_jet_is_on_one_side_with_its_event(prepared, validation, test):
    dataset, section = prepared(validation=validation, test=test)
    found = splits.split(dataset, section)
    check_whole(dataset, sides_of(found, len(dataset)))
    assert (len(found.test) > 0) == (test != {})


def test_conditions_take_the_jets_that_fulfil_them(prepared):
    dataset, section = prepared(validation="event_number % 5 == 0", test="event_number % 5 == 1")
    found = splits.split(dataset, section)
    assert set(dataset.groups[found.validation] % 5) == {0}
    assert set(dataset.groups[found.test] % 5) == {1}
    assert set(dataset.groups[found.train] % 5) == {2, 3, 4}


def test_fractions_are_fractions_and_independent(prepared):
    dataset, section = prepared(validation=0.25, test=0.5)
    found = splits.split(dataset, section)
    assert len(found.test) / len(dataset) == pytest.approx(0.5, abs=0.05)
    # The validation is a quarter of what the test leaves, not of the same hash's lower end.
    assert len(found.validation) / (len(dataset) - len(found.test)) == pytest.approx(0.25, abs=0.05)
    alone = splits.split(*prepared(validation=0.25))
    assert set(found.validation) <= set(alone.validation)


@pytest.mark.parametrize("sides", [{"validation": 0.2, "test": 0.3}, {"validation": 0.2, "group_by": None}])
def test_no_jet_changes_sides_when_files_are_added(prepared, folder, sides):
    few, section = prepared(**sides)
    more, _ = prepared(
        **sides,
        train={
            name: [str(folder / f"{name}_more.root"), str(folder / f"{name}.root")] for name in ("QCD", "Top")
        },
    )

    def by_origin(dataset):
        side_J = sides_of(splits.split(dataset, section), len(dataset))
        return dict(zip(zip(*(x.tolist() for x in dataset.origin()), strict=True), side_J, strict=True))

    before, after = by_origin(few), by_origin(more)
    assert len(after) == len(before) + 200
    assert all(after[jet] == side for jet, side in before.items())


@pytest.mark.parametrize("side", ["test", "validation"])
def test_a_condition_that_parts_events_is_refused(prepared, side):
    dataset, section = prepared(**{side: "jet_index == 0"})
    message = (
        rf"data\.{side}: 'jet_index == 0' parts jets that stay together: \d+ groups, .*set data\.group_by"
    )
    with pytest.raises(JettaggerError, match=message):
        splits.split(dataset, section)


def test_a_number_is_no_condition(prepared):
    dataset, section = prepared(validation="event_number % 10")
    with pytest.raises(
        JettaggerError, match=r"data\.validation: a condition is expected, 'event_number % 10' is"
    ):
        splits.split(dataset, section)


def test_a_jet_on_two_sides_is_refused(prepared):
    dataset, section = prepared(validation="event_number % 5 == 0", test="event_number % 10 == 0")
    with pytest.raises(JettaggerError, match=r"\d+ jets fulfil both data\.test .* and data\.validation"):
        splits.split(dataset, section)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (
            {"validation": 1e-6},
            r"classes\.\w+: no jet on the validation side of the split \(data\.validation: 1e-06",
        ),
        ({"test": 1e-6}, r"classes\.\w+: no jet on the test side of the split \(.*data\.test: 1e-06"),
        ({"test": "event_number >= 2000"}, r"classes\.Top: no jet on the training side of the split"),
    ],
)
def test_a_side_without_a_class_is_refused(prepared, sides, message):
    with pytest.raises(JettaggerError, match=message):
        splits.split(*prepared(**sides))


def test_jets_without_a_class_are_refused(prepared):
    dataset, section = prepared(validation=0.2)
    labels_J = dataset.labels_J.copy()
    labels_J[:3] = -1
    with pytest.raises(
        JettaggerError, match=r"data\.train: 3 of 1200 jets have no class; training needs labelled"
    ):
        splits.split(replace(dataset, labels_J=labels_J), section)


@pytest.mark.parametrize("validation", [0.2, "event_number % 7 == 0"])
def test_every_jet_is_held_out_once_and_never_seen_by_its_fold(prepared, validation):
    dataset, section = prepared(folds={"k": 4}, validation=validation)
    held_out = []
    for fold in range(4):
        found = splits.split(dataset, section, fold)
        check_whole(dataset, sides_of(found, len(dataset)))
        assert set(dataset.groups[found.test] % 4) == {fold}
        held_out.append(found.test)
    assert sorted(np.concatenate(held_out)) == list(range(len(dataset)))


def test_a_test_side_is_in_no_fold_s_training(prepared):
    dataset, section = prepared(folds={"k": 3}, test=0.3, validation=0.2)
    test = splits.split(dataset, section).test
    for fold in range(3):
        found = splits.split(dataset, section, fold)
        assert set(test) <= set(found.test)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_folds_of_any_whole_numbers(prepared_once, data):
    dataset, section = prepared_once
    k = data.draw(st.integers(2, 9))
    events_J = np.array(
        data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=len(dataset), max_size=len(dataset)))
    )
    section = section.model_copy(update={"folds": section.folds.model_copy(update={"k": k})})
    dataset = _Remainders(dataset, events_J, k)
    fold_J = splits.folds_of(dataset, section)
    assert fold_J.tolist() == [event % k for event in events_J.tolist()]


class _Remainders:
    """A dataset of other events."""

    def __init__(self, dataset, events_J, k):
        self.groups, self.extras = events_J, {splits.FOLD: (events_J % k).astype(float)}

    def __len__(self):
        return len(self.groups)


@pytest.fixture(scope="module")
def prepared_once():
    return range(20), DataSection.model_validate({"train": {"A": "a.root"}, "folds": {"k": 3}})


def test_folds_by_something_else_than_whole_numbers_are_refused(prepared):
    dataset, section = prepared(folds={"k": 3, "by": "event_number / 2"})
    message = r"data\.folds\.by: 'event_number / 2' is no whole number for 600 of 1200 jets"
    with pytest.raises(JettaggerError, match=message):
        splits.split(dataset, section, 0)


def test_folds_that_part_events_are_refused(prepared):
    dataset, section = prepared(folds={"k": 2, "by": "jet_index"})
    with pytest.raises(JettaggerError, match=r"data\.folds\.by: 'jet_index' parts jets that stay together"):
        splits.split(dataset, section, 1)


def test_any_integer_labels_are_taken(prepared):
    dataset, section = prepared(validation=0.2)
    small = replace(dataset, labels_J=dataset.labels_J.astype(np.uint8))
    for one, other in zip(splits.split(small, section), splits.split(dataset, section), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("section", "fold", "message"),
    [
        ({}, 1, r"--fold 1: the config has no data\.folds"),
        ({"folds": {"k": 3}}, 3, r"--fold 3: data\.folds\.k is 3; folds are counted from 0"),
        ({"folds": {"k": 3}}, -1, r"--fold -1: data\.folds\.k is 3"),
    ],
)
def test_fold_and_folds_go_together(section, fold, message):
    with pytest.raises(JettaggerError, match=message):
        splits.chosen_folds(DataSection.model_validate({"train": {"A": "a.root"}, **section}), fold)


def test_which_folds_are_trained():
    without = DataSection.model_validate({"train": {"A": "a.root"}})
    section = DataSection.model_validate({"train": {"A": "a.root"}, "folds": {"k": 3}})
    assert splits.chosen_folds(without) == [None]
    assert splits.chosen_folds(section) == [0, 1, 2]
    assert splits.chosen_folds(section, 2) == [2]


@pytest.mark.parametrize("key", ["test", "validation"])
@pytest.mark.parametrize(
    "text",
    ["data/test/*.root", "test.root", "/data/test", "root://host/file", "data/*/x.h5", "[a.root, b.root]"],
)
def test_files_are_no_condition(tmp_path, key, text):
    with pytest.raises(
        JettaggerError, match=rf"data\.{key}: .* looks like files, and samples are written {{name: f"
    ):
        configuration.loads(CONFIG.format(folder=tmp_path), overrides=[f"data.{key}={text}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event_number %% 10", r"data\.validation: "),
        ("1 == 1", r"data\.validation: '1 == 1' is the same for all jets; a condition looks at a branch"),
        ("1.5", r"data\.validation: 1\.5 is out of range"),
    ],
)
def test_what_is_neither_fraction_nor_condition_is_refused(tmp_path, text, message):
    with pytest.raises(JettaggerError, match=message):
        configuration.loads(CONFIG.format(folder=tmp_path), overrides=[f"data.validation={text}"])


def test_conditions_and_fractions_are_accepted(tmp_path):
    overrides = ["data.validation=event_number % 10 == 0", "data.test=0.25"]
    section = configuration.loads(CONFIG.format(folder=tmp_path), overrides=overrides).data
    assert (section.validation, section.test) == ("event_number % 10 == 0", 0.25)
