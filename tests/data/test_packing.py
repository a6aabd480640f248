"""Packing, padding and copying of jets, against loops."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.batch import Packed
from jettagger.data.rows import RawCollection, RawInputs, copied, offsets_of, take

lengths = st.lists(st.integers(0, 4), min_size=1, max_size=8)


def raw_of(counts, seed):
    rng = np.random.default_rng(seed)
    particles = sum(counts)
    return RawInputs(
        rng.random((len(counts), 2)).astype(np.float32),
        {
            "pf": RawCollection(
                rng.random((particles, 3)).astype(np.float32),
                np.array(counts, np.int32),
                rng.random((particles, 3)).astype(np.float32),
            )
        },
    )


def jets_of(raw):
    """Each jet's particles with their coordinates, as lists."""
    x = raw.collections["pf"]
    edges = np.concatenate([[0], np.cumsum(x.lengths_J)])
    rows = np.concatenate([x.values_NF, x.coordinates_NK], axis=1)
    return [rows[low:high].tolist() for low, high in pairwise(edges)]


@settings(max_examples=80, deadline=None)
@given(lengths, st.integers(0, 9), st.data())
def test_taken_jets_are_those_of_a_loop(counts, seed, data):
    raw = raw_of(counts, seed)
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10))
    found = take(raw, offsets_of(raw), np.array(rows, np.int64))
    assert found.jet_BF.tolist() == raw.jet_JF[rows].tolist()
    packed = found.collections["pf"]
    assert packed.lengths_B.tolist() == [counts[row] for row in rows]
    values = torch.cat([packed.features_NF, packed.coordinates_NK], 1).tolist()
    assert values == [particle for row in rows for particle in jets_of(raw)[row]]


@settings(max_examples=80, deadline=None)
@given(st.lists(lengths, min_size=1, max_size=3), st.data())
def test_copies_of_several_pieces_are_those_of_a_loop(several, data):
    raws = [raw_of(counts, seed) for seed, counts in enumerate(several)]
    chosen = [data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=6)) for counts in several]
    pieces = [
        (raw, offsets_of(raw), np.array(rows, np.int64)) for raw, rows in zip(raws, chosen, strict=True)
    ]
    expected = [jets_of(raw)[row] for raw, rows in zip(raws, chosen, strict=True) for row in rows]
    found = copied(pieces, raws[0], len(expected), {"pf": sum(map(len, expected))})
    assert jets_of(found) == expected
    assert found.jet_JF.tolist() == [
        raw.jet_JF[row].tolist() for raw, rows in zip(raws, chosen, strict=True) for row in rows
    ]


@settings(max_examples=80, deadline=None)
@given(lengths, st.integers(0, 9), st.integers(0, 3))
def test_padding_and_packing_again_is_the_identity(counts, seed, more):
    x = raw_of(counts, seed).collections["pf"]
    packed = Packed(
        *(torch.from_numpy(part) for part in (x.values_NF, x.lengths_J.astype(np.int64), x.coordinates_NK))
    )
    dense = packed.dense(max(*counts, 1, 1) + more)
    assert dense.mask_BP.sum(1).tolist() == counts
    assert not dense.features_BPF[~dense.mask_BP].any()
    again = dense.packed()
    for name in ("features_NF", "lengths_B", "coordinates_NK", "jet_N"):
        assert torch.equal(getattr(again, name), getattr(packed, name)), name


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 9), st.integers(1, 3))
def test_fewer_slots_keep_the_first_particles(counts, seed, slots):
    x = raw_of(counts, seed).collections["pf"]
    packed = Packed(torch.from_numpy(x.values_NF), torch.from_numpy(x.lengths_J.astype(np.int64)))
    again = packed.dense(slots).packed()
    edges = np.concatenate([[0], np.cumsum(counts)])
    expected = [
        row
        for low, n in zip(edges[:-1], counts, strict=True)
        for row in x.values_NF[low : low + min(n, slots)].tolist()
    ]
    assert again.features_NF.tolist() == expected
    assert again.lengths_B.tolist() == [min(n, slots) for n in counts]
