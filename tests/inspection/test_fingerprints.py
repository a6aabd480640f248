"""Equal jets have equal fingerprints, others do not; the sample that is kept is random and bounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.data.rows import RawCollection, RawInputs, copied, offsets_of
from jettagger.inspection.fingerprints import fingerprints, with_event
from jettagger.inspection.kept import Part, Reservoir
from jettagger.inspection.statistics import Running


def inputs(lengths, seed=0):
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int32)
    values = rng.normal(size=(int(lengths.sum()), 3)).astype(np.float32)
    jets = rng.normal(size=(len(lengths), 2)).astype(np.float32)
    return RawInputs(jets, {"particles": RawCollection(values, lengths, None)})


def hashes(raw):
    return fingerprints(raw, {}, len(raw.jet_JF))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(0, 1000))
def test_a_fingerprint_depends_on_its_jet_alone(lengths, seed):
    raw = inputs(lengths, seed)
    order = np.random.default_rng(seed).permutation(len(lengths))
    particles = {"particles": int(sum(lengths))}
    shuffled = copied([(raw, offsets_of(raw), order)], raw, len(order), particles)
    assert hashes(shuffled).tolist() == hashes(raw)[order].tolist()
    assert len(set(hashes(raw).tolist())) == len(lengths)


def test_any_change_changes_it():
    raw = inputs([3, 3, 0, 0])
    before = hashes(raw)
    assert before[2] != before[3]
    raw.collections["particles"].values_NF[4, 1] = np.float32(
        np.nextafter(raw.collections["particles"].values_NF[4, 1], np.float32(9))
    )
    raw.jet_JF[2, 0] += 1
    assert (hashes(raw) != before).tolist() == [False, True, True, False]
    swapped = inputs([3])
    first = hashes(swapped)
    swapped.collections["particles"].values_NF[[0, 1]] = swapped.collections["particles"].values_NF[[1, 0]]
    assert hashes(swapped) != first


def test_nan_and_zero_have_one_fingerprint_each():
    raw = RawInputs(np.array([[np.nan, 0.0], [-np.nan, -0.0]], np.float32), {})
    assert len(set(hashes(raw).tolist())) == 1
    events = with_event(hashes(raw), np.array([1, 2]))
    assert events[0] != events[1]


def test_the_kept_jets_are_a_random_part_with_their_particles():
    reservoir = Reservoir("train", "QCD", 200)
    for start in range(0, 5000, 500):
        number = np.arange(start, start + 500)
        lengths = number % 4
        raw = RawInputs(
            None,
            {
                "p": RawCollection(
                    np.repeat(number, lengths)[:, None].astype(np.float32), lengths.astype(np.int32), None
                )
            },
        )
        side, extras = np.zeros(500, np.int8), number[:, None].astype(float)
        values = number[:, None].astype(np.float32)
        part = Part(reservoir.wanted(500), values, number % 2, np.ones(500), number, side, extras, values)
        reservoir.add(part, raw)
    kept = reservoir.kept(("x",), {"p": ("x",)}, ("extra",), ("y",))
    assert (kept.jets, kept.read, kept.particle_jets) == (200, 5000, 200)
    chosen = kept.values_JV[:, 0].astype(int)
    assert len(set(chosen)) == 200
    assert chosen.mean() == pytest.approx(2500, abs=400)
    assert np.array_equal(kept.group_J, chosen)
    assert np.array_equal(kept.extras["extra"], chosen)
    assert np.array_equal(kept.targets["y"], chosen)
    assert np.array_equal(kept.particles[0].values_NF[:, 0].astype(int), np.repeat(chosen, chosen % 4))
    assert np.array_equal(chosen[kept.particles[0].jet_N], kept.particles[0].values_NF[:, 0].astype(int))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.floats(-2000, 2000, width=32) | st.sampled_from([-999.0, 1e32, np.nan, np.inf]), max_size=20
        ),
        min_size=1,
        max_size=5,
    )
)
def test_running_statistics_are_those_of_the_whole(parts):
    running = Running("x")
    for part in parts:
        running.add(np.array(part, np.float32))
    found, x = running.summary(), np.array([v for part in parts for v in part], np.float32)
    finite = x[np.isfinite(x)].astype(np.float64)
    assert (found.values, found.nan, found.infinite) == (len(x), np.isnan(x).sum(), np.isinf(x).sum())
    assert found.sentinels.get("-999", 0) == (finite == -999).sum()
    assert found.sentinels.get("1e+32", 0) == (finite > 1e31).sum()
    assert found.large == 0
    if len(finite):
        assert (found.minimum, found.maximum) == (finite.min(), finite.max())
        assert (found.at_minimum, found.at_maximum) == (
            (finite == finite.min()).sum(),
            (finite == finite.max()).sum(),
        )
        assert found.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-9)
        assert found.std == pytest.approx(finite.std(), rel=1e-6, abs=1e-6)
