"""Streams are named by every part of their key, and by nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettagger import randomness

parts = st.lists(st.integers(-5, 2**40) | st.text(alphabet="ab:\x1f", max_size=4), max_size=4)


def test_golden_values() -> None:
    """A change here changes every split and every run: it must be meant."""
    assert randomness.key(1, "split") == 8654212843892269039
    assert randomness.key(0) == 3581690635855307741
    assert randomness.numpy_generator(1, "dropout", 2, 3).integers(2**63) == 2392000952522349177
    uniform = randomness.uniform_of(np.array([0, 1, -1, 2**62]), 1, "split")
    np.testing.assert_array_equal(
        uniform, [0.822727754955742, 0.9832454894112334, 0.9870583974880384, 0.3667576573223098]
    )


@given(parts, parts)
def test_different_parts_name_different_streams(one: list[int | str], other: list[int | str]) -> None:
    assert (randomness.key(7, *one) == randomness.key(7, *other)) == (one == other)


def test_seed_type_order_and_number_of_parts_all_matter() -> None:
    streams = [
        (1,),
        (2,),
        (1, "a"),
        (1, "b"),
        (1, 1),
        (1, "1"),
        (1, "a", 2),
        (1, 2, "a"),
        (1, "a:2"),
        (1, ""),
    ]
    assert len({randomness.key(*stream) for stream in streams}) == len(streams)


def test_numpy_integers_count_as_pythons() -> None:
    assert randomness.key(np.int64(3), "epoch", np.int32(4)) == randomness.key(3, "epoch", 4)
    assert randomness.key(3, np.str_("epoch")) == randomness.key(3, "epoch")


def test_other_parts_are_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        randomness.key(1, 0.5)  # type: ignore[arg-type]


@given(parts)
def test_keys_suit_both_libraries(some: list[int | str]) -> None:
    assert 0 <= randomness.key(1, *some) < 2**63


def test_numpy_streams_repeat_and_differ() -> None:
    first = randomness.numpy_generator(1, "a").random(4)
    np.testing.assert_array_equal(first, randomness.numpy_generator(1, "a").random(4))
    assert not np.array_equal(first, randomness.numpy_generator(1, "b").random(4))


def test_global_state_neither_matters_nor_changes() -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    randomness.numpy_generator(1, "a").random(4)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_torch_streams_repeat_and_differ() -> None:
    torch = pytest.importorskip("torch")
    draw = [torch.rand(3, generator=randomness.torch_generator(1, name)).tolist() for name in "aab"]
    assert draw[0] == draw[1] != draw[2]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(0, 3))
def test_a_jet_keeps_its_number_whatever_stands_beside_it(identities: list[int], seed: int) -> None:
    array = np.array(identities, dtype=np.int64)
    together = randomness.uniform_of(array, seed, "split")
    assert together.dtype == np.float64
    assert np.all((together >= 0) & (together < 1))
    for index in range(len(array)):
        assert randomness.uniform_of(array[index : index + 1], seed, "split")[0] == together[index]


def test_numbers_of_neighbouring_jets_are_uniform_and_independent() -> None:
    uniform = randomness.uniform_of(np.arange(100_000), 3, "split")
    counts, _ = np.histogram(uniform, bins=20, range=(0, 1))
    chi2 = np.sum((counts - 5000.0) ** 2 / 5000.0)
    assert chi2 < 45, "19 degrees of freedom, p = 7e-4"
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 0.015
    other = randomness.uniform_of(np.arange(100_000), 3, "sample")
    assert abs(np.corrcoef(uniform, other)[0, 1]) < 0.015
    assert len(np.unique(uniform)) == len(uniform)


def test_unsigned_and_narrow_identities_are_taken_as_int64() -> None:
    wide = randomness.uniform_of(np.array([1, 2]), 1, "split")
    np.testing.assert_array_equal(randomness.uniform_of(np.array([1, 2], dtype=np.uint32), 1, "split"), wide)
    assert len(randomness.uniform_of(np.array([2**63 + 5], dtype=np.uint64), 1)) == 1
