"""The bundle: whatever the jets come in, one entry each, with exactly the training's preprocessing."""

import json
import shutil

import awkward as ak
import numpy as np
import pytest
from numpy.lib import recfunctions

import jettagger
from jettagger import configuration
from jettagger.data.batches import Batches
from jettagger.data.containers import base
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from jettagger.files import sha256
from jettagger.tagger import BATCH, Tagger, load
from jettagger.training import bundle as training_bundle
from jettagger.training import run as training_run
from jettagger.uncertainty.decomposition import decompose
from toy_jets import CONFIG, ENSEMBLE, JAGGED, toy_jets, write_jets

FIGURES = ("mutual_information", "expected_entropy", "total_entropy")


@pytest.fixture(scope="module")
def tagger(trained_run):
    return jettagger.load(trained_run)


@pytest.fixture(scope="module")
def branches():
    return toy_jets("Top", 60, 9)


@pytest.fixture(scope="module")
def records(branches):
    return ak.zip(branches, depth_limit=1)


@pytest.fixture(scope="module")
def expected(tagger, records):
    return tagger.predict(records)


def assert_equal(one, other):
    assert one.fields == other.fields
    assert ak.array_equal(one, other, equal_nan=True)


def test_jets_outside_the_selection_may_have_particles_without_a_place(tagger, branches, expected):
    """No training looks at their coordinates; a row for each jet is due nevertheless."""
    outside = ~expected.passes_selection & (ak.num(branches["part_deta"]) > 0)
    assert ak.any(outside)

    def lost_of(jets):
        return branches | {
            "part_deta": branches["part_deta"] + np.where(np.asarray(jets), np.float32(np.nan), np.float32(0))
        }

    scores = tagger.predict(lost_of(outside))
    assert len(scores) == 60
    assert np.isfinite(ak.to_numpy(scores.Top)).all()
    kept = expected.passes_selection
    assert ak.array_equal(scores.Top[kept], expected.Top[kept])
    with pytest.raises(JettaggerError, match=r"coordinates\.eta: \d+ values are not finite"):
        tagger.predict(lost_of(kept))


def test_one_entry_a_jet(expected, branches):
    assert len(expected) == 60
    assert expected.fields == ["QCD", "Top", "std", *FIGURES, "passes_selection"]
    assert expected.std.fields == ["QCD", "Top"]
    for name in ("QCD", "Top", *FIGURES):
        assert np.isfinite(ak.to_numpy(expected[name])).all()
    assert np.allclose(expected.QCD + expected.Top, 1)
    assert np.allclose(expected.std.QCD, expected.std.Top)
    assert (expected.std.Top > 0).to_numpy().all()
    assert (expected.mutual_information > 0).to_numpy().any()
    selected = (branches["jet_pt"] > 500) & (np.abs(branches["jet_eta"]) < 2)
    assert 0 < selected.sum() < 60
    assert np.array_equal(expected.passes_selection, selected)


def test_dicts_of_arrays(tagger, branches, expected):
    assert_equal(tagger.predict(branches), expected)
    lists = {name: ak.to_list(values) for name, values in branches.items()}
    assert np.allclose(tagger.predict(lists).Top, expected.Top, atol=1e-6)


def test_order_of_branches_and_those_not_asked_for_play_no_role(tagger, branches, expected):
    needed = ("jet_sdmass", "jet_tau3", "jet_tau2", "jet_eta", "jet_pt", "part_deta", "part_dphi")
    few = {name: branches[name] for name in (*needed, "part_charge", "part_py", "part_px")}
    assert_equal(tagger.predict(few), expected)


def test_spectators_are_needed_for_files_of_scores_only(toy_folder, tmp_path, branches):
    config = configuration.load(
        toy_folder / "config.yaml", ["spectators=[jet_pt, gen_weight]", "training.epochs=1"]
    )
    found = training_run.train(configuration.recipe(config), tmp_path / "run", say=lambda line: None)
    tagger = jettagger.load(found.tagger)
    without = {name: x for name, x in branches.items() if name not in ("gen_weight", "label_QCD")}
    assert len(tagger.predict(without)) == 60
    with pytest.raises(JettaggerError, match="spectators: unknown branch or definition 'gen_weight'"):
        tagger.score(without, where="jets")
    assert np.array_equal(tagger.score(branches, where="jets")["gen_weight"], branches["gen_weight"])


def test_nested_events_keep_their_nesting(tagger, records, expected):
    counts = [5, 0, 30, 1, 24]
    events = ak.unflatten(records, counts)
    scores = tagger.predict(events)
    assert ak.num(scores).to_list() == counts
    assert_equal(ak.flatten(scores), expected)
    twice = tagger.predict(ak.unflatten(events, [2, 3]))
    assert ak.num(twice, axis=2).to_list() == [[5, 0], [30, 1, 24]]
    assert_equal(ak.flatten(ak.flatten(twice)), expected)


def test_events_without_jets(tagger, records):
    scores = tagger.predict(ak.unflatten(records, [20, 40])[:0])
    assert len(scores) == 0
    assert "Top" in ak.flatten(scores).fields
    assert ak.num(tagger.predict(ak.unflatten(records[:0], [0, 0]))).to_list() == [0, 0]


def test_masked_events_stay_masked(tagger, records, expected):
    events = ak.mask(ak.unflatten(records, [20, 30, 10]), [True, False, True])
    scores = tagger.predict(events)
    assert ak.is_none(scores).to_list() == [False, True, False]
    assert ak.array_equal(ak.flatten(scores).Top, expected.Top[[*range(20), *range(50, 60)]])


def test_no_jets_at_all(tagger, branches):
    scores = tagger.predict({name: values[:0] for name, values in branches.items()})
    assert len(scores) == 0
    assert scores.std.fields == ["QCD", "Top"]


def test_structured_numpy_arrays(toy_folder, tmp_path, branches):
    config = CONFIG.format(folder=toy_folder)
    start, end = config.index("  particles:"), config.index("  jet:\n")
    jet_only = (config[:start] + config[end:]).replace("      leading: max(pt)\n", "")
    loaded = configuration.loads(jet_only, overrides=["training.epochs=1"])
    found = training_run.train(configuration.recipe(loaded), tmp_path / "run", say=lambda line: None)
    tagger = jettagger.load(found.tagger)
    flat = {name: np.asarray(x) for name, x in branches.items() if not name.startswith("part_")}
    structured = recfunctions.merge_arrays(
        [x.astype([(name, x.dtype)]) for name, x in flat.items()], flatten=True
    )
    scores = tagger.predict(structured)
    assert len(scores) == 60
    assert_equal(scores, tagger.predict(flat))
    assert_equal(tagger.predict(structured.astype(structured.dtype.newbyteorder(">"))), scores)


def test_each_jet_is_scored_alone(tagger, records, expected):
    order = np.random.default_rng(0).permutation(60)
    assert np.allclose(tagger.predict(records[order]).Top, expected.Top[order], atol=1e-6)
    one = tagger.predict(records[7:8])
    assert one.Top[0] == pytest.approx(expected.Top[7], abs=1e-6)


def test_more_jets_than_fit_into_a_batch(tagger, records, expected):
    many = ak.concatenate([records] * (BATCH // 60 + 1))
    scores = tagger.predict(many)
    assert len(scores) == len(many) > BATCH
    assert np.allclose(scores.Top[-60:], expected.Top, atol=1e-6)


def test_jets_without_particles_and_missing_values_get_a_score(tagger, branches):
    empty = branches["part_px"][:5].to_list()
    empty[2] = []
    jets = {name: values[:5] for name, values in branches.items()}
    lengths = [len(x) for x in empty]
    for name in [name for name in jets if name.startswith("part_")]:
        jets[name] = ak.Array([x[:n] for x, n in zip(jets[name].to_list(), lengths, strict=True)])
    jets["jet_sdmass"] = np.array([np.nan, np.inf, 100, -np.inf, 100], np.float32)
    jets["jet_tau2"] = np.array([0, 0, 0, 0.1, np.nan], np.float32)
    scores = tagger.predict(jets)
    assert len(scores) == 5
    for name in ("Top", *FIGURES):
        assert np.isfinite(ak.to_numpy(scores[name])).all()


def test_files_globs_and_lists(tagger, toy_folder, tmp_path, branches, expected):
    path = write_jets(tmp_path / "one.root", branches)
    assert_equal(tagger.predict(path), expected)
    assert_equal(tagger.predict(str(path)), expected)
    both = tagger.predict([path, toy_folder / "QCD_test.root"])
    assert len(both) == 60 + 300
    assert ak.array_equal(both.Top[:60], expected.Top)
    assert ak.array_equal(tagger.predict(str(toy_folder / "*_test.root")).Top[:300], both.Top[60:])
    rntuple = write_jets(tmp_path / "two.root", branches, rntuple=True)
    assert_equal(tagger.predict(rntuple), expected)
    with pytest.raises(JettaggerError, match=r"predict: no such file: .*none\.root"):
        tagger.predict(tmp_path / "none.root")


def test_chunks_change_nothing(tagger, tmp_path, branches, expected, monkeypatch):
    path = write_jets(tmp_path / "one.root", branches)
    monkeypatch.setattr(base, "CHUNK_BYTES", 4000)
    starts = [part.first for part in tagger.predict_file(path)]
    assert len(starts) > 3
    assert starts[0] == 0
    assert np.allclose(tagger.predict(path).Top, expected.Top, atol=1e-6)


def test_an_empty_file_has_no_scores(tagger, tmp_path, branches):
    path = write_jets(tmp_path / "none.root", {name: values[:0] for name, values in branches.items()})
    assert len(tagger.predict(path)) == 0


def test_scores_are_those_of_the_prepared_dataset(tagger, toy_folder):
    """What evaluation reads from the prepared data is what `predict` computes from the files."""
    prepared = prepare(tagger.config, tagger.config.data.test, role="data.test")
    batches = Batches(prepared, np.arange(len(prepared)), BATCH, inputs=tagger.members[0].inputs)
    found = tagger.run(batch.inputs for batch in batches.epoch(0)).decomposition
    scores = tagger.predict([toy_folder / "QCD_test.root", toy_folder / "Top_test.root"])
    scores = scores[scores.passes_selection]
    assert len(scores) == len(prepared)
    assert np.allclose(scores.Top, found.probabilities_NC[:, 1], atol=1e-6)
    assert np.allclose(scores.std.Top, found.std_NC[:, 1], atol=1e-6)
    assert np.allclose(scores.mutual_information, found.mutual_information_N, atol=1e-6)


def test_an_ensemble_is_its_members_trained_one_by_one(
    tagger, trained_run, toy_folder, tmp_path, branches, expected
):
    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml", ENSEMBLE))
    said: list[str] = []
    first = training_run.train(recipe, tmp_path / "run", member=1, say=said.append)
    assert first.tagger is None
    assert said[-1] == "the tagger waits for member 0"
    assert training_run.train(recipe, tmp_path / "run", member=0, say=said.append).tagger is not None
    weights = [path / "tagger" / "weights.safetensors" for path in (trained_run, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    probabilities = []
    for member in range(2):
        single = Tagger(tagger.config, (jettagger.load(tmp_path / "run").members[member],), {})
        scores = single.predict(branches)
        assert (scores.std.Top == 0).to_numpy().all()
        assert (scores.mutual_information == 0).to_numpy().all()
        probabilities.append(np.stack([scores.QCD, scores.Top], axis=1))
    assert not np.allclose(*probabilities)
    together = decompose(np.stack(probabilities))
    assert np.allclose(expected.Top, together.probabilities_NC[:, 1])
    assert np.allclose(expected.Top, (probabilities[0][:, 1] + probabilities[1][:, 1]) / 2)
    difference = np.abs(probabilities[0][:, 1] - probabilities[1][:, 1])
    assert np.allclose(expected.std.Top, difference / np.sqrt(2))
    for name in FIGURES:
        assert np.allclose(expected[name], getattr(together, f"{name}_N"))


def test_mc_dropout(tagger, branches, expected):
    scores = tagger.predict(branches, mc_dropout=20)
    assert (scores.std.Top > 0).to_numpy().all()
    assert not ak.array_equal(scores.Top, expected.Top)
    assert np.allclose(scores.Top, expected.Top, atol=0.2)
    assert_equal(tagger.predict(branches, mc_dropout=20), scores)
    assert not ak.array_equal(tagger.predict(branches, mc_dropout=20, seed=1).Top, scores.Top)
    few = tagger.predict({name: values[10:13] for name, values in branches.items()}, mc_dropout=20)
    assert np.allclose(few.Top, scores.Top[10:13], atol=1e-6)
    with pytest.raises(JettaggerError, match="mc_dropout is -1; it is a number of passes"):
        tagger.predict(branches, mc_dropout=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {k: v for k, v in b.items() if k != "jet_tau3"}, r"'jet_tau3': did you mean 'jet_tau2'\?"),
        (lambda b: b | {"jet_pt": b["jet_pt"][:9]}, r"different numbers of jets: .*'jet_pt': 9"),
        (lambda b: b | {"jet_pt": 600.0}, "predict: jet_pt is a float, not an array"),
        (lambda b: b | {"jet_pt": ["high"] * 60}, "branch 'jet_pt' holds text"),
        (lambda b: b | {"jet_pt": b["part_px"]}, "one value a jet is expected"),
        (lambda b: {k: v for k, v in b.items() if not k.startswith("part")}, "branch"),
        (lambda b: list(b), "no such file"),
        (lambda b: ak.Array([1.0, 2.0]), "cannot take jets from Array: give an awkward record array"),
        (lambda b: np.ones(3), "cannot take jets from ndarray"),
        (lambda b: None, "cannot take jets from NoneType"),
        (lambda b: {}, "cannot take jets from dict"),
        (lambda b: [], "cannot take jets from list"),
    ],
)
def test_what_cannot_be_scored(tagger, branches, change, message):
    with pytest.raises(JettaggerError, match=message):
        tagger.predict(change(branches))


def test_loading_the_run_or_its_bundle(tagger, trained_run, branches, expected):
    assert_equal(jettagger.load(trained_run / "tagger").predict(branches), expected)
    assert_equal(jettagger.load(str(trained_run)).predict(branches), expected)
    assert tagger.classes == ("QCD", "Top")
    assert len(tagger.members) == tagger.card["members"] == 2
    assert tagger.card["name"] == "toy"
    assert not any(member.training for member in tagger.members)


def test_a_bundle_needs_nothing_around_it(trained_run, tmp_path, branches, expected, monkeypatch):
    bundle = shutil.copytree(trained_run / "tagger", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert_equal(jettagger.load("elsewhere").predict(branches), expected)
    assert sorted(path.name for path in bundle.iterdir()) == [
        "card.json",
        "check_jets.npz",
        "config.yaml",
        "weights.safetensors",
    ]


def rewrite_card(bundle, **changes):
    """With checksums that agree with the files again."""
    card = json.loads((bundle / "card.json").read_text())
    card["sha256"] = {name: sha256(bundle / name) for name in card["sha256"]}
    (bundle / "card.json").write_text(json.dumps(card | changes))


def test_loading_replays_the_check_jets(run_copy):
    bundle = run_copy / "tagger"
    with np.load(bundle / "check_jets.npz") as stored:
        arrays = dict(stored)
    assert len(arrays["scores"]) == 16
    arrays["scores"] = arrays["scores"] + np.array([0.01, -0.01])
    np.savez(bundle / "check_jets.npz", **arrays)
    with pytest.raises(JettaggerError, match=r"check_jets\.npz was changed after the bundle was written"):
        jettagger.load(bundle)
    rewrite_card(bundle)
    with pytest.raises(JettaggerError, match=r"stored check jets score differently here, by up to 0\.01"):
        jettagger.load(bundle)
    assert len(load(bundle, replay=False).members) == 2


@pytest.mark.parametrize("name", ["weights.safetensors", "config.yaml", "check_jets.npz"])
def test_a_changed_or_missing_file_is_noticed(run_copy, name):
    path = run_copy / "tagger" / name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(JettaggerError, match=rf"{name} was changed after the bundle was written"):
        jettagger.load(run_copy)
    path.unlink()
    with pytest.raises(JettaggerError, match=rf"{name} is missing from the bundle"):
        jettagger.load(run_copy)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", r"card\.json is damaged"),
        ("[]", r"card\.json is damaged"),
        ('{"format": 99}', "a bundle of format 99, this version reads 1 and 2"),
        ('{"format": 1, "members": 1, "sha256": {}}', r"card\.json is damaged"),
        ('{"format": 1}', r"card\.json is damaged"),
    ],
)
def test_a_damaged_card(run_copy, card, message):
    (run_copy / "tagger" / "card.json").write_text(card)
    with pytest.raises(JettaggerError, match=message):
        jettagger.load(run_copy)


def test_places_without_a_bundle(tmp_path, run_copy):
    with pytest.raises(JettaggerError, match=r"no such bundle or run: .*nowhere"):
        jettagger.load(tmp_path / "nowhere")
    with pytest.raises(JettaggerError, match=r"holds no tagger: there is no card\.json in it$"):
        jettagger.load(tmp_path)
    shutil.rmtree(run_copy / "tagger")
    with pytest.raises(JettaggerError, match=r"its training has not ended"):
        jettagger.load(run_copy)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "unknown device 'nonsense'"),
        ("meta", r"unknown device 'meta'.*allowed: cpu, cuda, cuda:N"),
        ("cuda:99", r"device cuda:99 asked for, but PyTorch sees \d+ CUDA devices"),
    ],
)
def test_devices_that_are_not_there(trained_run, device, message):
    with pytest.raises(JettaggerError, match=message):
        jettagger.load(trained_run, device=device)


def test_check_jets_of_files_with_different_numbers_of_slots():
    joined = training_bundle._concatenated([np.ones((2, 3)), np.zeros((1, 5))])
    assert joined.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0, 0, 0]]
    assert isinstance(training_bundle._concatenated([np.ones((2, 3)), np.zeros((1, 3))]), np.ndarray)


def test_check_jets_of_files_with_different_orders_of_branches(tmp_path, monkeypatch):
    """Where no feature names a branch itself, another branch tells how many particles there are in each file."""
    config = CONFIG.format(folder=tmp_path)
    for old, new in (("part_deta, norm", "deta, norm"), ("part_charge, norm", "charge, norm")):
        assert old in config
        config = config.replace(old, new)
    config = config.replace("{eta: part_deta, phi: part_dphi, pt: pt}", "{eta: deta, phi: dphi, pt: pt}")
    config = config.replace(
        "define:\n", "define:\n  deta: part_deta\n  dphi: part_dphi\n  charge: part_charge\n"
    )
    for name in ("QCD", "Top"):
        write_jets(tmp_path / f"{name}_train.root", toy_jets(name, 80, 1))
        write_jets(tmp_path / f"{name}_test.root", toy_jets(name, 10, 2))
        monkeypatch.setattr("toy_jets.JAGGED", tuple(reversed(JAGGED)))
    loaded = configuration.loads(config, overrides=["training.epochs=1"])
    found = training_run.train(configuration.recipe(loaded), tmp_path / "run", say=lambda line: None)
    assert len(jettagger.load(found.tagger).predict(tmp_path / "Top_test.root")) == 10
