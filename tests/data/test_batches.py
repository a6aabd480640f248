"""Batches: nothing lost, nothing twice, well shuffled, and the same order again, however they are made."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_columns import config

from jettagger.batch import InputSpec, Rows
from jettagger.data.batches import Batches
from jettagger.data.order import Order
from jettagger.data.prepared import prepare
from jettagger.data.resident import Resident, fits, needed
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets

WAYS = {
    "in memory": {"shuffle": (1, 0)},
    "in pools": {"shuffle": (1, 0), "pool_bytes": 300_000},
    "in order": {"pool_bytes": 300_000},
    "drawn": {"shuffle": (1, 0), "factor": True},
    "drawn in pools": {"shuffle": (1, 0), "factor": True, "pool_bytes": 300_000},
}
"""How batches can be made."""


def make(prepared, batch_size, *, factor=False, **options):
    """Batches of all jets, each counting something else; with `factor` Top is drawn four times as often."""
    jets = len(prepared)
    return Batches(
        prepared,
        np.arange(jets),
        batch_size,
        weights_R=np.linspace(0.5, 2, jets).astype(np.float32),
        factor_R=np.where(prepared.labels_J == 1, 4, 1).astype(np.float32) if factor else None,
        **options,
    )


def tensors(batch):
    """All tensors of a batch."""
    found = [batch.labels_B, batch.weights_B, batch.index_B]
    found += [] if batch.inputs.jet_BF is None else [batch.inputs.jet_BF]
    for x in batch.inputs.collections.values():
        found += [x.features_NF, x.lengths_B, x.jet_N]
        found += [] if x.coordinates_NK is None else [x.coordinates_NK]
    return found


def check_equal(first, second):
    """To the last bit, NaN included."""
    for one, other in zip(first, second, strict=True):
        for mine, its in zip(tensors(one), tensors(other), strict=True):
            assert mine.dtype == its.dtype
            assert np.array_equal(mine.numpy(), its.numpy(), equal_nan=mine.is_floating_point())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """2 x 1000 jets, two to an event."""
    folder = tmp_path_factory.mktemp("batches")
    samples = {}
    for number, name in enumerate(("QCD", "Top")):
        samples[name] = str(write_jets(folder / f"{name}.root", toy_jets(name, 1000, number + 1)))
    settings = config(data__prepared=str(folder / "prepared"), data__train=samples, data__selection=None)
    settings = type(settings).model_validate(
        {**settings.model_dump(by_alias=True), "weights": {"event": "gen_weight"}}
    )
    return prepare(settings, samples, role="data.train")


@pytest.mark.parametrize("pool_bytes", [10**9, 200_000])
def test_an_epoch_holds_every_jet_once(prepared, pool_bytes):
    rows = np.arange(0, len(prepared), 3)
    batches = Batches(prepared, rows, 64, shuffle=(1, 0), pool_bytes=pool_bytes)
    for epoch in (0, 1):
        seen = [batch.index_B for batch in batches.epoch(epoch)]
        assert len(seen) == batches.steps
        assert sorted(torch.cat(seen).tolist()) == rows.tolist()
        sizes = {len(index) for index in seen}
        assert max(sizes) <= 64
        assert max(sizes) - min(sizes) <= (1 if pool_bytes == 10**9 else 50)


@pytest.mark.parametrize("pool_bytes", [10**9, 200_000])
def test_an_epoch_can_be_entered_anywhere(prepared, pool_bytes):
    rows = np.arange(len(prepared))
    whole = list(Batches(prepared, rows, 64, shuffle=(1, 0), pool_bytes=pool_bytes).epoch(3))
    for start in (0, 1, 7, len(whole) - 1, len(whole)):
        rest = list(Batches(prepared, rows, 64, shuffle=(1, 0), pool_bytes=pool_bytes).epoch(3, start))
        assert len(rest) == len(whole) - start
        for one, other in zip(rest, whole[start:], strict=True):
            assert torch.equal(one.index_B, other.index_B)
            assert torch.equal(one.inputs.jet_BF.nan_to_num(), other.inputs.jet_BF.nan_to_num())


def test_batches_carry_their_jets(prepared):
    rows = np.arange(len(prepared))
    weights = np.linspace(0.5, 2, len(rows)).astype(np.float32)
    batch = next(iter(Batches(prepared, rows, 50, shuffle=(2, 1), weights_R=weights).epoch(0)))
    index = batch.index_B.numpy()
    expected = prepared.read(np.sort(index), prepared.spec)
    back = np.argsort(np.argsort(index))
    assert np.array_equal(batch.inputs.jet_BF.numpy(), expected.jet_JF[back], equal_nan=True)
    assert np.array_equal(batch.labels_B.numpy(), prepared.labels_J[index])
    assert np.array_equal(batch.weights_B.numpy(), weights[index])
    lengths = expected.collections["particles"].lengths_J[back]
    assert batch.inputs.collections["particles"].lengths_B.tolist() == lengths.tolist()


def test_orders_differ_by_seed_member_and_epoch(prepared):
    rows = np.arange(len(prepared))
    firsts = {
        tuple(next(iter(Batches(prepared, rows, 64, shuffle=shuffle).epoch(epoch))).index_B.tolist())
        for shuffle in ((1, 0), (1, 1), (2, 0))
        for epoch in (0, 1)
    }
    assert len(firsts) == 6
    in_order = torch.cat([batch.index_B for batch in Batches(prepared, rows, 64).epoch(5)])
    assert in_order.tolist() == rows.tolist()


def test_only_what_the_model_looks_at_is_carried(prepared):
    rows = np.arange(100)
    batch = next(iter(Batches(prepared, rows, 50, inputs=InputSpec(jet=prepared.spec.jet)).epoch(0)))
    assert not batch.inputs.collections
    particles = InputSpec(collections=prepared.spec.collections)
    assert next(iter(Batches(prepared, rows, 50, inputs=particles).epoch(0))).inputs.jet_BF is None


def test_normalisation_sample_is_a_keyed_subset(prepared):
    batches = Batches(prepared, np.arange(len(prepared)), 64)
    few, again, other = batches.sample(100, 1), batches.sample(100, 1), batches.sample(100, 2)
    assert len(few) == 100
    assert torch.equal(few.jet_BF.nan_to_num(), again.jet_BF.nan_to_num())
    assert not torch.equal(few.jet_BF.nan_to_num(), other.jet_BF.nan_to_num())
    assert len(batches.sample(10**6, 1)) == len(prepared)


@pytest.mark.parametrize("way", WAYS)
def test_any_way_can_be_entered_anywhere(prepared, way):
    whole = list(make(prepared, 64, **WAYS[way]).epoch(3))
    again = make(prepared, 64, **WAYS[way])
    assert again.steps == len(whole)
    for start in (0, 1, 9, len(whole) - 1, len(whole)):
        check_equal(again.epoch(3, start), whole[start:])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_share_each_batch(prepared, way, ranks):
    whole = list(make(prepared, 5 if ranks == 7 else 64, **WAYS[way]).epoch(1, 2))[:60]
    parts = [
        make(prepared, 5 if ranks == 7 else 64, **WAYS[way], rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    assert {(part.steps, part.jets) for part in parts} == {(parts[0].steps, len(prepared))}
    for batch, *shares in zip(whole, *(part.epoch(1, 2) for part in parts), strict=False):
        assert torch.equal(torch.cat([share.index_B for share in shares]), batch.index_B)
        assert torch.equal(torch.cat([share.weights_B for share in shares]), batch.weights_B)
        features = [share.inputs.collections["particles"].features_NF for share in shares]
        assert torch.equal(torch.cat(features), batch.inputs.collections["particles"].features_NF)
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        total = len(batch.inputs.collections["particles"].features_NF)
        for number, share in enumerate(shares):
            before = sum(map(len, features[:number]))
            assert share.part.jets == Rows(sum(sizes[:number]), len(share), len(batch))
            assert share.part.particles["particles"] == Rows(before, len(features[number]), total)


@settings(max_examples=60, deadline=None)
@given(
    jets=st.integers(1, 700),
    batch_size=st.integers(1, 90),
    pool_jets=st.integers(1, 800),
    shuffle=st.sampled_from([None, (1, 0), (5, 3)]),
    epoch=st.integers(0, 3),
)
def test_an_order_holds_each_jet_once(jets, batch_size, pool_jets, shuffle, epoch):
    order = Order(jets, batch_size, shuffle=shuffle, pool_jets=pool_jets)
    found = order.epoch(epoch)
    positions = np.concatenate([found.positions(pool) for pool in range(order.pools)])
    assert sorted(positions) == list(range(jets))
    assert sum(len(steps) for _, steps in order.steps_from(0)) == order.steps
    for start in range(order.steps + 1):
        assert sum(len(steps) for _, steps in order.steps_from(start)) == order.steps - start
    if shuffle is None:
        assert positions.tolist() == list(range(jets))


@pytest.mark.parametrize("pool_jets", [40_000, 20_000, 8_000])
@pytest.mark.parametrize("factor", [False, True])
def test_batches_of_sorted_files_have_binomial_class_fractions(pool_jets, factor):
    """Two classes, one after the other, a fifth and four fifths: as if each batch had been drawn at random."""
    jets, size = 40_000, 250
    label_R = (np.arange(jets) >= jets // 5).astype(int)
    factor_R = np.where(label_R == 1, 1, 3).astype(np.float32) if factor else None
    order = Order(jets, size, shuffle=(1, 0), pool_jets=pool_jets, factor_R=factor_R)
    p = 4 / 7 if factor else 4 / 5
    pulls = []
    for epoch in range(4):
        found, fractions = order.epoch(epoch), []
        for pool, edges in enumerate(order.batch_edges):
            positions_P = found.positions(pool)
            for low, high in pairwise(edges):
                fractions.append(
                    (label_R[positions_P[low:high]].mean() - p) / (p * (1 - p) / (high - low)) ** 0.5
                )
        pulls.append(fractions)
    pulls_ES = np.array(pulls)
    chi2, ndf = (pulls_ES**2).sum(), pulls_ES.size
    assert abs(chi2 - ndf) < 3 * (2 * ndf) ** 0.5
    following = (pulls_ES[:, 1:] * pulls_ES[:, :-1]).mean()
    assert abs(following) < 3 / ndf**0.5
    # Pools hold the same share of each class: their means spread less than those of batches drawn anew.
    if pool_jets == 8_000 and not factor:
        means_P = pulls_ES.reshape(4, len(order.batch_edges), -1).mean(2)
        assert means_P.std() < (len(order.batch_edges) / pulls_ES.shape[1]) ** 0.5


def test_neighbours_in_the_files_do_not_meet_more_often():
    order = Order(20_000, 100, shuffle=(2, 0), pool_jets=5_000)
    found = order.epoch(0)
    positions = np.concatenate([found.positions(pool) for pool in range(order.pools)])
    gaps = np.abs(np.diff(positions))
    assert abs(np.corrcoef(positions[1:], positions[:-1])[0, 1]) < 0.03
    assert (gaps < 64).mean() < 0.02


@pytest.mark.parametrize("way", ["drawn", "drawn in pools"])
def test_jets_are_drawn_in_proportion_and_keep_their_event_weight(prepared, way):
    batches = make(prepared, 64, **WAYS[way])
    index_J = torch.cat([batch.index_B for batch in batches.epoch(0)]).numpy()
    assert len(index_J) == len(prepared)
    times_J = np.bincount(index_J, minlength=len(prepared))
    # 2000 draws; Top's share is 4/5 of them: 1.6 each, and 0.4 for QCD.
    assert set(times_J[prepared.labels_J == 1]) == {1, 2}
    assert set(times_J[prepared.labels_J == 0]) == {0, 1}
    assert times_J[prepared.labels_J == 1].sum() == pytest.approx(1600, abs=2)
    weights = torch.cat([batch.weights_B for batch in batches.epoch(0)]).numpy()
    assert np.array_equal(weights, np.linspace(0.5, 2, 2000).astype(np.float32)[index_J])
    other = torch.cat([batch.index_B for batch in batches.epoch(1)]).numpy()
    assert not np.array_equal(times_J, np.bincount(other, minlength=len(prepared)))


@pytest.mark.parametrize("way", WAYS)
def test_jets_kept_on_a_device_give_the_same_batches(prepared, way, monkeypatch):
    monkeypatch.setattr("jettagger.data.resident.PART_BYTES", 100_000)
    batches = make(prepared, 64, **WAYS[way])
    resident = Resident(batches, torch.device("cpu"))
    assert (resident.steps, resident.jets) == (batches.steps, batches.jets)
    check_equal(resident.epoch(2, 3), batches.epoch(2, 3))
    assert torch.equal(resident.sample(50, 1).jet_BF.nan_to_num(), batches.sample(50, 1).jet_BF.nan_to_num())


def test_jets_of_one_kind_of_input_on_a_device(prepared):
    for spec in (InputSpec(jet=prepared.spec.jet), InputSpec(collections=prepared.spec.collections)):
        batches = make(prepared, 100, inputs=spec, shuffle=(1, 0))
        check_equal(Resident(batches, torch.device("cpu")).epoch(0), batches.epoch(0))


def test_jets_stay_on_a_device_where_they_fit(prepared, monkeypatch):
    batches = make(prepared, 64)
    size = needed(batches)
    held = sum(x.nbytes for batch in batches.epoch(0) for x in tensors(batch))
    # Which jet a particle belongs to is made for each batch.
    held -= sum(batch.inputs.collections["particles"].jet_N.nbytes for batch in batches.epoch(0))
    assert held <= size < 1.05 * held
    assert not fits(batches, torch.device("cpu"))
    for free, answer in ((int(size / 0.4) - 10, False), (int(size / 0.4) + 10, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert fits(batches, torch.device("cuda")) is answer


def test_little_is_held_for_each_jet(prepared):
    batches = make(prepared, 64)
    assert batches.rows_R.nbytes + batches.weights_R.nbytes == 8 * len(prepared)


def test_small_labels_become_what_a_loss_takes(prepared):
    from dataclasses import replace

    small = replace(prepared, labels_J=prepared.labels_J.astype(np.uint8))
    small = replace(small, weights_J=prepared.weights_J.astype(np.float32))
    check_equal(Batches(small, np.arange(100), 64).epoch(0), Batches(prepared, np.arange(100), 64).epoch(0))


def broken(prepared):
    """The dataset with its last shard gone."""
    from dataclasses import replace

    last = prepared.shards[-1]
    gone = {
        name: block._replace(path=block.path.with_name("gone.h5")) for name, block in last.columns.items()
    }
    collections = {
        name: blocks._replace(values=blocks.values._replace(path=blocks.values.path.with_name("gone.h5")))
        for name, blocks in last.collections.items()
    }
    return replace(
        prepared, shards=(*prepared.shards[:-1], last._replace(columns=gone, collections=collections))
    )


@pytest.mark.parametrize("way", ["in memory", "in pools"])
def test_a_shard_that_vanishes_is_named_where_the_batch_is_asked_for(prepared, way):
    with pytest.raises(JettaggerError, match=r"gone\.h5 cannot be read any more"):
        list(make(broken(prepared), 64, **WAYS[way]).epoch(0))


def test_an_epoch_that_is_left_leaves_no_thread(prepared):
    epoch = make(prepared, 64, **WAYS["in pools"]).epoch(0)
    next(epoch)
    assert [thread.name for thread in threading.enumerate()].count("jettagger ahead") == 1
    epoch.close()
    assert "jettagger ahead" not in [thread.name for thread in threading.enumerate()]
