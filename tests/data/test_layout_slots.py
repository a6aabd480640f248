"""Only filled slots are particles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.data.columns import Columns
from jettagger.data.layout import Layout, described
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError


def config(slots, **more) -> DataConfig:
    document = {
        "data": {"train": {"A": "a.root"}, "slots": slots},
        "classes": {"A": {"sample": "A"}, "B": "1 < 0"},
        "inputs": {"particles": {"from": "[EP]*", "features": {"E": "E", "x": "PX / E"}}},
    }
    return DataConfig.model_validate(document | more)


def numbered(**arrays):
    return {f"{name}_{k}": np.array(x)[:, k] for name, x in arrays.items() for k in range(len(x[0]))}


def test_numbered_branches_of_which_few_slots_are_filled():
    branches = numbered(E=[[5.0, 0.0, 3.0], [0.0, 0.0, 0.0]], PX=[[1.0, np.nan, 2.0], [9.0, 9.0, 9.0]])
    columns = Columns(config({"[EP]*": "E > 0"}))
    assert columns.input_branches(branches, where="a") == branches.keys()
    table = columns.table(branches, start=0, sample="A", sample_weight=1.0, where="a")
    particles = table.inputs.collections["particles"]
    assert particles.lengths_J.tolist() == [2, 0]
    assert np.allclose(particles.values_NF, [[5, 0.2], [3, 2 / 3]])
    assert table.counts["missing particles.x"] == 0


def test_conditions_are_read_though_nothing_else_asks_for_them():
    settings = config(
        {"X.*": "X.mask > 0.5"},
        inputs={"particles": {"from": "X.*", "features": {"pt": "X.pt", "n": "sum(X.pt)"}}},
    )
    columns = Columns(settings)
    branches = {"X.pt": np.array([[3.0, 1e30, 2.0]]), "X.mask": np.array([[1.0, 0.0, 1.0]]), "y": np.zeros(1)}
    assert columns.input_branches(branches, where="a") == {"X.pt", "X.mask"}
    table = columns.table(branches, start=0, sample="A", sample_weight=1.0, where="a")
    assert table.inputs.collections["particles"].values_NF.tolist() == [[3, 5], [2, 5]]


def test_the_number_of_filled_slots():
    layout = Layout(config({"track_*": "n"}))
    branches = {
        "track_a": np.array([[1.0, 2.0, -1e37], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
        **numbered(track_b=[[1, 2], [3, 4], [5, 6]]),
        "track_jet": np.array([1.0, 2.0, 3.0]),
        "n": np.array([2, 0, 3], np.uint8),
    }
    assert layout.stored(["track_a"], branches, where="a") == {"track_a", "n"}
    jets = layout.jets(branches, where="a")
    assert jets.branches["track_a"].to_awkward().tolist() == [[1, 2], [], [7, 8, 9]]
    assert jets.branches["track_b"].to_awkward().tolist() == [[1, 2], [], [5, 6]]
    assert jets.branches["track_jet"].tolist() == [1, 2, 3]
    assert jets.counts == {"overfull track_*": 1}
    assert described(jets.counts) == ["data.slots.track_*: 1 jets have more particles than there are slots"]


def test_numbered_branches_are_missing_where_their_slot_is_empty():
    layout = Layout(config({"x": "n", "E": "E > 0"}))
    branches = {
        **numbered(x=np.array([[1, 2], [3, 4]], np.float32), E=[[5, 0], [0, 7]]),
        "n": np.array([1, 2]),
    }
    assert layout.stored(["x_1"], branches, where="a") == {"x_0", "x_1", "n"}
    found = layout.jets(branches, where="a").branches
    assert np.array_equal(found["x_1"], [np.nan, 4], equal_nan=True)
    assert found["x_1"].dtype == np.float32
    assert found["x_0"].tolist() == [1, 3]
    assert np.array_equal(found["E_0"], [5, np.nan], equal_nan=True)
    assert found["E"].to_awkward().tolist() == [[5], [7]]


@pytest.mark.parametrize("number", [-1, 1.5, np.nan])
def test_what_is_no_number_of_slots(number):
    jets = Layout(config({"x": "n"})).jets(
        {"x": np.zeros((3, 2)), "n": np.array([1, 2, number])}, where="a.root"
    )
    with pytest.raises(
        JettaggerError,
        match=rf"a\.root: data\.slots\.x: 'n' is {number} for jet 2 of this chunk, which is no number",
    ):
        _ = jets.branches["x"]


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            {"x": "y"},
            r"a: data\.slots\.x: a condition for each slot is expected, 'y' has values of type float64",
        ),
        ({"x": "n > 1"}, r"data\.slots\.x: 'n > 1' is a condition for the whole jet"),
        ({"x": "z > 1"}, r"data\.slots\.x: 'x' has 2 slots in jet 0 of this chunk, 'z > 1' has 3"),
    ],
)
def test_conditions_that_do_not_fit(slots, message):
    branches = {"x": np.zeros((3, 2)), "y": np.zeros((3, 2)), "z": np.zeros((3, 3)), "n": np.zeros(3)}
    with pytest.raises(JettaggerError, match=message):
        _ = Layout(config(slots)).jets(branches, where="a").branches["x"]


def test_globs_that_do_not_fit():
    layout = Layout(config({"tracks*": "n"}))
    with pytest.raises(
        JettaggerError, match=r"a: data\.slots: no branch matches 'tracks\*': did you mean 'track'"
    ):
        layout.stored(["n"], ["track", "n"], where="a")
    layout = Layout(config({"t*": "n", "*k": "n"}))
    with pytest.raises(JettaggerError, match=r"a: data\.slots: 'track' is matched by both 't\*' and '\*k'"):
        layout.stored(["n"], ["track", "n"], where="a")
    with pytest.raises(JettaggerError, match=r"data\.slots\.t: unknown branch or definition 'm'"):
        Layout(config({"t": "m"})).stored(["t"], ["t", "n"], where="a")


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5), st.integers(0, 6), st.randoms(use_true_random=False))
def test_slots_are_what_a_loop_says(slots, jets, random):
    values = [[random.randint(-3, 3) for _ in range(slots)] for _ in range(jets)]
    branches = {"x": np.array(values, np.int32).reshape(jets, slots), "y": np.zeros((jets, slots))}
    found = Layout(config({"[xy]": "x > 0"})).jets(branches, where="a").branches
    assert found["x"].to_awkward().tolist() == [[v for v in row if v > 0] for row in values]
    assert found["y"].offsets is found["x"].offsets
