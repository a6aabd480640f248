"""Splits and batches: nothing lost, nothing twice, the same order again."""

import numpy as np
import pytest
import torch
from test_columns import config

from jettagger.batch import InputSpec
from jettagger.data.batches import Batches, bytes_per_jet
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets


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


def test_events_stay_on_one_side(prepared):
    train, validation = split(prepared, 0.25)
    assert len(train) + len(validation) == len(prepared)
    assert not set(prepared.groups[train]) & set(prepared.groups[validation])
    assert 0.2 < len(validation) / len(prepared) < 0.3


def test_split_that_empties_a_class_is_refused(prepared):
    with pytest.raises(JettaggerError, match=r"classes\.\w+: no jet on the validation side of the split"):
        split(prepared, 1e-6)


@pytest.mark.parametrize("pool_bytes", [10**9, 40_000])
def test_an_epoch_holds_every_jet_once(prepared, pool_bytes):
    rows = np.arange(0, len(prepared), 3)
    batches = Batches(prepared, rows, 64, shuffle=(1, 0), pool_bytes=pool_bytes)
    for epoch in (0, 1):
        seen = [batch.index_B for batch in batches.epoch(epoch)]
        assert len(seen) == batches.steps
        assert sorted(torch.cat(seen).tolist()) == rows.tolist()
        sizes = {len(index) for index in seen}
        assert max(sizes) <= 64
        assert max(sizes) - min(sizes) <= (1 if pool_bytes == 10**9 else 40)


@pytest.mark.parametrize("pool_bytes", [10**9, 40_000])
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
    weights = training_weights(prepared, rows, balance=True)
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


@pytest.mark.parametrize("pools", [1, 4])
def test_class_fraction_of_batches_has_binomial_spread(prepared, pools):
    rows = np.arange(len(prepared))
    size = bytes_per_jet(prepared, prepared.spec) * len(prepared) / pools + 1
    batches = Batches(prepared, rows, 50, shuffle=(1, 0), pool_bytes=int(size))
    fractions = [b.labels_B.float().mean().item() for epoch in range(5) for b in batches.epoch(epoch)]
    binomial = (0.25 / 50) ** 0.5
    # With 2000 jets a quarter holds eight pieces, so pools differ as well; real pools hold thousands.
    assert 0.8 * binomial < np.std(fractions) < (1.2 if pools == 1 else 2.5) * binomial


def test_only_what_the_model_looks_at_is_carried(prepared):
    rows = np.arange(100)
    batch = next(iter(Batches(prepared, rows, 50, inputs=InputSpec(jet=prepared.spec.jet)).epoch(0)))
    assert not batch.inputs.collections
    particles = InputSpec(collections=prepared.spec.collections)
    assert next(iter(Batches(prepared, rows, 50, inputs=particles).epoch(0))).inputs.jet_BF is None


def test_balance_gives_classes_equal_sums(prepared):
    rows = np.flatnonzero((prepared.labels_J == 1) | (np.arange(len(prepared)) % 10 == 0))
    plain = training_weights(prepared, rows, balance=False)
    assert np.allclose(plain, prepared.weights_J[rows])
    balanced = training_weights(prepared, rows, balance=True)
    sums = np.bincount(prepared.labels_J[rows], balanced)
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert sums.sum() == pytest.approx(plain.sum(), rel=1e-5)


def test_balance_of_a_class_without_weight_is_refused(prepared):
    from dataclasses import replace

    negative = replace(prepared, weights_J=np.where(prepared.labels_J == 1, -1.0, 1.0))
    with pytest.raises(JettaggerError, match=r"balance: the event weights of class Top add up to -1000"):
        training_weights(negative, np.arange(len(negative)), balance=True)


@pytest.mark.parametrize("weight", [1e60, 1e-60])
def test_weights_beyond_float32_are_refused(prepared, weight):
    from dataclasses import replace

    extreme = replace(prepared, weights_J=np.where(prepared.labels_J == 1, weight, 1.0))
    with pytest.raises(JettaggerError, match=r"weights\.event: a weight of 1e[+-]60 is beyond float32"):
        training_weights(extreme, np.arange(len(extreme)), balance=False)


def test_normalisation_sample_is_a_keyed_subset(prepared):
    batches = Batches(prepared, np.arange(len(prepared)), 64)
    few, again, other = batches.sample(100, 1), batches.sample(100, 1), batches.sample(100, 2)
    assert len(few) == 100
    assert torch.equal(few.jet_BF.nan_to_num(), again.jet_BF.nan_to_num())
    assert not torch.equal(few.jet_BF.nan_to_num(), other.jet_BF.nan_to_num())
    assert len(batches.sample(10**6, 1)) == len(prepared)
