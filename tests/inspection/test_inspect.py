"""Whole inspections of small files with planted faults: every one is found, and counted right."""

import awkward as ak
import numpy as np
import pytest

from jettagger import configuration
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.inspection.findings import Findings
from jettagger.inspection.judgement import judge_layout
from jettagger.randomness import uniform_of
from jettagger.report.inspection_page import to_html
from jettagger.training.sides import prepare_sides
from toy_jets import toy_jets, write_jets


def told(found, severity):
    """The findings of a severity as text."""
    return "\n".join(
        f"{f.where}: {f.message} [{f.advice}] {len(f.files)}"
        for f in found.findings
        if f.severity == severity
    )


def summary(found, name):
    [one] = [variable for variable in found.variables if variable.summary.name == name]
    return one


def test_clean_files_have_no_findings(toy):
    found = toy.inspect()
    assert told(found, "error") == ""
    assert found.status == 0
    assert [one.summary.name for one in found.variables][:2] == ["jet.log_pt", "jet.mass"]


def test_the_cut_flow_counts_each_cut(toy):
    found = toy.inspect()
    assert found.cuts == ("jet_pt > 500", "abs(jet_eta) < 2")
    assert [(f.role, f.sample) for f in found.files] == [
        ("train", "QCD"), ("train", "Top"), ("test", "QCD"), ("test", "Top"),
    ]  # fmt: skip
    for flow, branches in zip(found.files, toy.branches.values(), strict=True):
        pt, eta = branches["jet_pt"] > 500, np.abs(branches["jet_eta"]) < 2
        assert (flow.entries, flow.read) == (400, 400)
        assert flow.alone == (pt.sum(), eta.sum())
        assert flow.after == (pt.sum(), (pt & eta).sum())
        assert flow.selected == (pt & eta).sum()
        assert flow.complete
        assert flow.of_class[flow.sample] == (400, pt.sum(), (pt & eta).sum())
        assert flow.of_class["QCD" if flow.sample == "Top" else "Top"] == (0, 0, 0)


def test_yields_of_sides_and_weights(toy):
    for branches in toy.branches.values():
        branches["gen_weight"] = np.where(np.arange(400) % 4 == 0, -1.0, 2.0)
    found = toy.inspect("weights.event=gen_weight")
    sides = {(one.side, one.name): one for one in found.yields}
    for name in ("QCD", "Top"):
        b = toy.branches[f"{name}_test"]
        kept = (b["jet_pt"] > 500) & (np.abs(b["jet_eta"]) < 2)
        w = b["gen_weight"][kept]
        one = sides["test", name]
        assert (one.jets, one.sum_of_weights) == (kept.sum(), w.sum())
        assert one.effective == pytest.approx(w.sum() ** 2 / (w**2).sum())
        assert one.negative == pytest.approx((w < 0).mean())
        assert (one.smallest, one.largest) == (-1.0, 2.0)
    trained = sides["train", "all"].jets + sides["validation", "all"].jets
    assert trained == sum(f.selected for f in found.files if f.role == "train")
    assert sides["validation", "all"].jets == pytest.approx(0.25 * trained, rel=0.3)


def test_sides_are_those_of_a_training(toy):
    found = toy.inspect()
    recipe = configuration.recipe(configuration.load(toy.config))
    sides = prepare_sides(recipe.data, recipe.baselines, lambda line: None)
    jets = {one.side: one.jets for one in found.yields if one.name == "all"}
    assert (jets["train"], jets["validation"]) == (len(sides.train_rows), len(sides.validation_rows))


def test_sides_are_those_of_a_training_without_event_numbers(toy):
    from jettagger import configuration
    from jettagger.data.prepared import prepare

    for branches in toy.branches.values():
        del branches["event_number"]
    found = toy.inspect()
    recipe = configuration.recipe(configuration.load(toy.config))
    prepared = prepare(recipe.data, recipe.data.data.train, role="data.train")
    held_out = int((uniform_of(prepared.groups, 0, "validation") < 0.25).sum())
    jets = {one.side: one.jets for one in found.yields if one.name == "all"}
    assert jets.get("validation", 0) == held_out
    assert jets["train"] == len(prepared) - held_out


def test_planted_missing_values_and_sentinels_are_counted(toy):
    for name in ("QCD_train", "Top_train"):
        branches = toy.branches[name]
        branches["jet_pt"][:] = 600
        branches["jet_eta"][:] = 0
        branches["jet_sdmass"][:40] = -999
        branches["jet_tau3"][:100] = np.nan
        branches["jet_tau2"][:10] = 0
    found = toy.without_test().inspect()
    mass, tau32 = summary(found, "jet.mass").summary, summary(found, "jet.tau32").summary
    assert (mass.values, mass.sentinels, mass.minimum, mass.at_minimum) == (800, {"-999": 80}, -999, 80)
    assert (tau32.nan, tau32.infinite) == (200, 0)
    warnings = told(found, "warning")
    assert "jet.features.mass: 80 of 800 values (10.00%) equal -999 [sentinels: [-999]]" in warnings
    assert "branch jet_sdmass: 80 of 800 values (10.00%) equal -999 [inputs.jet.features.mass: " in warnings
    assert "inputs.jet.features.tau32: 25.0% of the values are missing (200 NaN" in warnings
    assert "inputs.jet.features.log_pt: 'log(jet_pt)' is 6.39693 for every jet" in warnings
    assert "branch jet_eta: is 0 wherever it has a value" in warnings
    assert found.status == 0
    again = toy.inspect("inputs.jet.features.mass={value: jet_sdmass, sentinels: [-999]}", write=False)
    assert summary(again, "jet.mass").summary.nan == 80
    assert "jet.features.mass: 10.0% of the values are missing" in told(again, "warning")


def test_sentinels_of_particles_and_unusual_ones(toy):
    for branches in toy.branches.values():
        d0 = ak.to_numpy(ak.flatten(branches["part_d0val"])).copy()
        d0[::50] = 1e32
        d0[1::50] = -77.0
        branches["part_d0val"] = ak.unflatten(d0, ak.num(branches["part_d0val"]))
    found = toy.inspect("inputs.particles.features.d0=tanh(part_d0val)")
    warnings = told(found, "warning")
    assert (
        'equal 1e+32 [inputs.particles.features.d0: {value: "where(part_d0val == 1e+32, nan, tanh(part_d0val))"}]'
        in warnings
    )
    assert "equal -77, far from all others: a sentinel?" in warnings


def test_clipped_values_are_counted(toy):
    found = toy.inspect("inputs.jet.features.mass={value: jet_sdmass, normalise: {shift: 100, scale: 1}}")
    treated = summary(found, "jet.mass").treated
    b = [toy.branches[name] for name in ("QCD_train", "Top_train")]
    mass = np.concatenate([x["jet_sdmass"][(x["jet_pt"] > 500) & (np.abs(x["jet_eta"]) < 2)] for x in b])
    assert treated.clipped == pytest.approx((np.abs(mass - 100) > 5).mean(), abs=0.02)
    assert "clip [-5.0, 5.0] cuts" in told(found, "warning")


def test_planted_duplicates_and_leaks(toy):
    for branches in toy.branches.values():
        branches["jet_pt"] = np.linspace(510, 690, 400).astype(np.float32)
        branches["jet_eta"][:] = np.linspace(-1, 1, 400)
    train, test = toy.branches["QCD_train"], toy.branches["QCD_test"]
    for name in train:
        train[name] = _with(train[name], train[name], slice(0, 30), slice(100, 130))
        test[name] = _with(test[name], train[name], slice(200, 220), slice(0, 20))
    test["event_number"][200:205] = 5_000_000 + np.arange(5)
    found = toy.inspect()
    repeats = {one.side: one for one in found.overlaps.repeats}
    # Copies keep their event number, so they are on the side of the jet that they are copies of.
    assert repeats["train"].repeated + repeats["validation"].repeated == 30
    assert repeats["train"].same_event + repeats["validation"].same_event == 30
    assert repeats["test"].repeated == 0
    leaks = {(one.first, one.second): one for one in found.overlaps.leaks}
    assert leaks["train", "validation"].jets == 0
    assert leaks["train", "test"].jets + leaks["validation", "test"].jets == 20
    assert leaks["train", "test"].same_event + leaks["validation", "test"].same_event == 15
    assert "they leak" in told(found, "warning")
    assert found.status == 0


def _with(array, source, into, of):
    """`array` with `array[into] = source[of]`, for jagged arrays too."""
    if isinstance(array, np.ndarray):
        result = array.copy()
        result[into] = source[of]
        return result
    return ak.concatenate([array[: into.start], source[of], array[into.stop :]])


def test_equal_event_numbers_alone_are_no_fault(toy):
    for branches in toy.branches.values():
        branches["event_number"] = np.arange(400, dtype=np.int64) // 2
    found = toy.inspect()
    assert any(leak.events for leak in found.overlaps.leaks)
    assert "leak" not in told(found, "warning")


def test_every_typo_is_found_at_once(toy):
    found = toy.inspect(
        "classes.QCD=label_QCDD == 1",
        "data.selection=(jet_ptt > 500) & (abs(jet_eta) < 2)",
        "inputs.jet.features.mass=jet_sdmas",
        "inputs.particles.features.deta=jet_eta2",
        "spectators=[jet_phii]",
        "weights.event=gen_wait",
    )
    assert found.status == 2
    errors = told(found, "error")
    for name, hint in (
        ("label_QCDD", "label_QCD"), ("jet_ptt", "jet_pt"), ("jet_sdmas", "jet_sdmass"), ("jet_eta2", "jet_eta"),
        ("gen_wait", "gen_weight"), ("jet_phii", None),
    ):  # fmt: skip
        assert f"'{name}'" in errors
        assert hint is None or f"did you mean '{hint}'?" in errors
    assert all(len(f.files) == 4 for f in found.findings if f.severity == "error")
    assert all(flow.read == 0 and not flow.complete for flow in found.files)


def test_expressions_of_the_wrong_kind_are_found_together(toy):
    found = toy.inspect("classes.QCD=label_QCD", "data.selection=jet_pt", "inputs.jet.features.mass=part_px")
    errors = told(found, "error")
    assert "data.selection: a condition is expected, 'jet_pt' has values of type float32" in errors
    assert "inputs.jet.features.mass: one value a jet is expected" in errors
    assert found.status == 2


def test_faults_of_single_files_are_all_named(toy):
    toy.write()
    del toy.branches["QCD_test"]["jet_tau2"]
    write_jets(toy.path("QCD_test"), toy.branches["QCD_test"])
    toy.path("Top_test").write_bytes(toy.path("Top_test").read_bytes()[:3000])
    toy.path("empty").with_suffix(".root").write_bytes(b"")
    found = toy.inspect(
        f"data.train.QCD=[{toy.path('QCD_train')}, {toy.path('empty')}]",
        f"data.train.Top=[{toy.path('Top_train')}, {toy.folder}/nothing_*.root]",
        write=False,
    )
    errors = told(found, "error")
    assert "inputs.jet.features.tau32: unknown branch or definition 'jet_tau2'" in errors
    assert "Top_test.root is truncated" in errors
    assert "is empty (0 bytes)" in errors
    assert "\ndata.train.Top: no file matches" in f"\n{errors}"  # the place is said once
    assert found.status == 2
    assert sum(flow.selected for flow in found.files) > 0
    skipped = toy.without_test().inspect(
        f"data.train.QCD=[{toy.path('QCD_train')}, {toy.path('empty')}]", "data.on_error=skip",
        write=False,
    )  # fmt: skip
    assert skipped.status == 0
    assert "is empty (0 bytes)" in told(skipped, "warning")
    nothing = toy.inspect("data.on_error=skip", "inputs.jet.features.mass=jet_sdmas", write=False)
    assert nothing.status == 2
    assert "data.train.QCD: data.on_error: skip leaves none of 1 files" in told(nothing, "error")


def test_a_changed_type_is_found(toy):
    toy.branches["Top_train"]["jet_sdmass"] = toy.branches["Top_train"]["jet_sdmass"].astype(np.float64)
    counts = np.full(400, 2)
    toy.branches["Top_test"]["jet_eta"] = ak.unflatten(np.zeros(800, np.float32), counts)
    nested = toy.branches.pop("Top_test")
    toy.write()
    write_jets(toy.path("Top_test"), nested, rntuple=True)
    found = toy.inspect(write=False)
    assert "'jet_sdmass' holds one float64 a jet here, and one float32 a jet in" in told(found, "warning")
    assert "'jet_eta' holds a list of float32 a jet here, and one float32 a jet in" in told(found, "error")


def test_unlabelled_jets_of_other_entries_are_in_groups_of_their_own(toy, monkeypatch):
    monkeypatch.setattr("jettagger.data.containers.base.CHUNK_BYTES", 20_000)
    groups = []
    monkeypatch.setattr(
        "jettagger.inspection.comparison.classifier_test",
        lambda names, values, weights, given: groups.append(given),
    )
    toy.inspect("data.selection=null", against=[f"data={toy.path('Top_test')}"])
    [(reference, other)] = groups
    assert len(np.unique(reference)) == 400
    assert len(np.unique(other)) == 400


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("test=event_number % 5",), "data.test: a condition is expected, 'event_number % 5' is a number"),
        (
            ("test=event_number % 10 == 0", "validation=event_number % 5 == 0"),
            "data: jets fulfil both data.test ('event_number % 10 == 0') and data.validation ('event_number % 5",
        ),
        (("test=event_number < 0",), "data.test: no selected jet of data.train is on this side"),
        (("validation=event_number >= 0",), "data.train: no selected jet of data.train is on this side"),
        (("folds={k: 3, by: event_number / 2}",), "data.folds.by: 'event_number / 2' is no whole number"),
    ],
)
def test_a_split_that_a_training_refuses(toy, overrides, message):
    """The message of the training is another one; that there is one is checked beside it."""
    overrides = [f"data.{override}" for override in overrides]
    found = toy.without_test().inspect(*overrides)
    assert message in told(found, "error")
    assert found.status == 2
    recipe = configuration.recipe(configuration.load(toy.config, overrides))
    fold = 0 if recipe.data.data.folds else None
    with pytest.raises(JettaggerError):
        prepare_sides(recipe.data, recipe.baselines, lambda line: None, fold=fold)


def test_a_tree_without_entries_stops_nothing(toy):
    write_jets(toy.folder / "none.root", {name: x[:0] for name, x in toy_jets("QCD", 5, 1).items()})
    files = f"[{toy.path('QCD_train')}, {toy.folder}/none.root]"
    found = toy.inspect(f"data.train.QCD={files}")
    assert "the file holds no entries" in told(found, "warning")
    assert found.status == 0


def test_classes_without_jets_and_selections_that_leave_nothing(toy):
    found = toy.inspect("classes.Other=label_QCD > 5")
    assert "classes.Other: no selected jet of 'train' belongs to it" in told(found, "error")
    found = toy.inspect("data.selection=jet_pt > 5000", write=False)
    assert "'jet_pt > 5000' leaves none of 800 jets of data.train" in told(found, "error")
    assert found.spectra == ()
    found = toy.inspect("classes.Top=label_Tbqq + label_QCD >= 1", write=False)
    assert "do not belong to exactly one class" in told(found, "error")
    assert found.status == 2


def test_one_file_on_two_sides_is_an_error(toy):
    found = toy.inspect(f"data.test.QCD={toy.path('QCD_train')}")
    assert "is the same file as" in told(found, "error")


def test_a_kept_part_is_bounded_and_does_not_change_the_yields(toy):
    whole, part = toy.inspect(), toy.inspect(write=False, jets=50)
    assert [used.jets for used in part.used] == [50] * 4
    assert [used.selected for used in part.used] == [used.jets for used in whole.used]
    assert part.yields == whole.yields
    assert summary(part, "jet.mass").summary == summary(whole, "jet.mass").summary
    assert part.used[0].particle_jets == 50
    [a, b] = [next(s for s in one.spectra if s.name == "jet.mass") for one in (whole, part)]
    assert float((b.density["Top"] * np.diff(b.edges)).sum()) == pytest.approx(1, abs=0.1)
    assert a.density.keys() == b.density.keys() == {"QCD", "Top"}


def test_spectra_integrate_to_one_and_follow_the_weights(toy):
    found = toy.inspect("weights.event=where(jet_sdmass > 100, 3, 1)")
    [mass] = [s for s in found.spectra if s.name == "jet.mass"]
    for name in ("QCD", "Top"):
        inside = float((mass.density[name] * np.diff(mass.edges)).sum())
        assert inside + mass.outside[name] == pytest.approx(1)
        assert mass.outside[name] < 0.02
        assert (mass.error[name][mass.density[name] > 0] > 0).all()
    assert {s.name for s in found.spectra if s.level == "particle"} == {
        "particles.log_pt", "particles.deta", "particles.charge",
    }  # fmt: skip


def test_samples_of_a_class_keep_their_share_among_particles(toy, monkeypatch):
    """Of a large sample fewer particles are kept than of its jets, of a small one all."""
    monkeypatch.setattr("jettagger.inspection.kept.PARTICLE_JETS", 50)
    toy.branches["QCD_more"] = more = toy_jets("QCD", 40, 5)
    more["part_charge"] = ak.full_like(more["part_charge"], 3)
    qcd = toy.branches["QCD_train"]
    found = toy.inspect(
        "data.selection=null", "data.validation=0.001", f"data.train.More={toy.path('QCD_more')}"
    )
    [spectrum] = [one for one in found.spectra if one.name == "particles.charge"]
    part = spectrum.density["QCD"] * np.diff(spectrum.edges)
    counts = [ak.sum(np.minimum(ak.num(jets["part_charge"]), 16)) for jets in (more, qcd)]
    assert part[spectrum.edges[:-1] > 1.5].sum() == pytest.approx(counts[0] / sum(counts), rel=0.2)


def test_training_weights_flatten_the_spectrum(toy):
    edges = [500, 550, 600, 650, 700]
    found = toy.inspect(f"weights.training={{flatten: {{jet_pt: {edges}}}, balance: classes}}")
    [pt] = found.weights.reshaped
    for name in ("QCD", "Top"):
        assert pt.after[name] == pytest.approx(np.full(4, 0.25))
        assert np.ptp(pt.before[name]) > 0.01
        assert found.weights.class_share[name][1] == pytest.approx(0.5)
    none = toy.inspect(write=False).weights
    assert (none.asked, none.reshaped) == (False, ())


def test_data_without_labels_are_compared(toy):
    data = toy_jets("QCD", 2000, 77)
    for name in ("label_QCD", "label_Tbqq", "gen_weight"):
        del data[name]
    write_jets(toy.folder / "data.root", data)
    shifted = toy_jets("QCD", 2000, 78)
    shifted["jet_sdmass"] += 25
    write_jets(toy.folder / "shifted.root", shifted)
    toy.branches["QCD_train"] = toy_jets("QCD", 2000, 79)
    found = toy.inspect(
        "weights.event=gen_weight",
        against=[f"data={toy.folder}/data.root", f"shifted={toy.folder}/shifted.root"],
        reference="QCD",
    )
    alike, different = found.comparisons
    assert (alike.reference, alike.other) == ("QCD", "data")
    assert min(gap.ks_p for gap in alike.variables) > 1e-3
    assert alike.classifier.p_value > 0.01
    assert different.variables[0].name == "jet.mass"
    assert different.variables[0].ks_p < 1e-15
    assert different.variables[0].ks == pytest.approx(0.32, abs=0.05)  # 2 Φ(25/60) − 1
    assert different.classifier.variables[0].name == "jet.mass"
    assert alike.copies == {"jet_sdmass": "jet.mass"}
    assert "no branch for weights.event 'gen_weight': every jet counts 1" in told(found, "warning")
    assert found.status == 0
    assert all(flow.of_class == {} for flow in found.files if flow.role == "against")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": ["data.root"]}, r"--against data.root: NAME=FILES is expected"),
        ({"reference": "Topp"}, r"--reference: unknown sample 'Topp': did you mean 'Top'\?"),
    ],
)
def test_arguments_that_make_no_sense(toy, options, message):
    with pytest.raises(JettaggerError, match=message):
        toy.inspect(**options)


def test_a_dataset_split_by_a_condition(toy):
    found = toy.inspect("data.validation=event_number % 4 == 0", "data.test=event_number % 4 == 1")
    jets = {one.side: one.jets for one in found.yields if one.name == "all"}
    assert jets["test"] == pytest.approx(jets["train"] / 2, rel=0.15)
    parted = toy.inspect("data.validation=jet_pt > 600", write=False)
    assert "event numbers are on both sides, 'train' and 'validation'" in told(parted, "error")


def test_energies_in_mev_are_suspected(toy):
    for branches in toy.branches.values():
        branches["jet_pt"] = branches["jet_pt"] * 1000
    found = toy.inspect("data.selection=jet_pt > 0")
    assert "data.units: the mean of 'jet_pt' is 5.88e+05, which is too much for GeV [units: MeV] 0" in told(
        found, "warning"
    )
    assert "data.units" not in told(toy.inspect("data.selection=jet_pt > 0", "data.units=MeV"), "warning")


@pytest.mark.parametrize(
    ("particles", "warned"),
    [
        ({"from": "PFCands_*"}, True),
        ({"from": "PFCands_*", "index": {"jet": "PFCands_jetIdx"}}, False),
        ({"from": "FatJet_tracks*"}, False),
    ],
)
def test_collections_without_links_are_noticed(particles, warned):
    config = DataConfig.model_validate(
        {
            "data": {"train": {"A": "a.root"}, "jets": "FatJet_*"},
            "classes": {"QCD": "FatJet_top == 0", "Top": "FatJet_top == 1"},
            "inputs": {"particles": {**particles, "features": {"pt": "PFCands_pt"}}},
        }
    )
    findings = Findings()
    judge_layout(config, (), findings)
    said = [(one.severity, one.where, one.message) for one in findings]
    message = "without an index each jet sees all of 'PFCands_*' in its event"
    assert said == ([("warning", "inputs.particles", message)] if warned else [])


TARGETS = "targets={mass: {value: jet_sdmass / 2, loss: mse}, root: {value: sqrt(jet_pt - 600)}}"


def test_targets_are_looked_at_class_by_class(toy):
    toy.branches["Top_train"]["jet_sdmass"][:4] = np.inf
    toy.branches["Top_train"]["jet_sdmass"][4:7] = np.nan
    found = toy.inspect(TARGETS, "data.selection=null", "data.validation=0.25")
    mass, root = found.targets
    assert (mass.name, mass.value, mass.loss) == ("mass", "jet_sdmass / 2", "mse")
    assert list(mass.of_class) == ["QCD", "Top"]
    for label in ("QCD", "Top"):
        every = (
            np.concatenate([toy.branches[f"{label}_{part}"]["jet_sdmass"] for part in ("train", "test")]) / 2
        )
        known = every[np.isfinite(every)]
        summary = mass.of_class[label].summary
        assert (summary.values, summary.nan, summary.infinite) == (
            800,
            *((3, 4) if label == "Top" else (0, 0)),
        )
        assert summary.mean == pytest.approx(known.mean())
        assert (summary.minimum, summary.maximum) == (known.min(), known.max())
        assert mass.of_class[label].quantiles["0.5"] == pytest.approx(np.median(known), abs=3)
        low = np.concatenate([toy.branches[f"{label}_{part}"]["jet_pt"] for part in ("train", "test")]) < 600
        assert root.of_class[label].summary.nan == low.sum()
    spectra = {one.name: one for one in found.spectra if one.level == "target"}
    assert list(spectra) == ["mass", "root"]
    for label, density in spectra["mass"].density.items():
        inside = (density * np.diff(spectra["mass"].edges)).sum()
        assert inside == pytest.approx(1 - spectra["mass"].outside[label])
    assert 0 < spectra["mass"].missing["Top"] <= 7 / 200
    assert spectra["mass"].missing["QCD"] == 0
    [warning] = [x for x in found.findings if x.where == "targets.root"]
    unknown = sum(one.summary.nan for one in root.of_class.values())
    assert warning.severity == "warning"
    assert warning.message == (
        f"{unknown} of 1600 jets ({unknown / 1600:.1%}) have no finite 'sqrt(jet_pt - 600)': they do not enter this"
        " target's loss"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0 * jet_pt + 3", "'0 * jet_pt + 3' is 3 for all selected jets: there is nothing to learn"),
        ("log(jet_pt - 5000)", "none of 1600 selected jets has a finite 'log(jet_pt - 5000)'"),
    ],
)
def test_targets_that_a_training_refuses(toy, value, message):
    found = toy.inspect(f"targets={{x: {{value: {value}}}}}", "data.selection=null")
    assert found.status == 2
    [error] = [x for x in found.findings if x.severity == "error"]
    assert (error.where, error.message) == ("targets.x", message)


def test_sentinels_and_typos_in_targets(toy):
    toy.branches["QCD_train"]["jet_sdmass"][:60] = -999
    found = toy.inspect("targets={mass: {value: jet_sdmass}}", "data.selection=null")
    [warning] = [x for x in found.findings if x.where == "targets.mass"]
    assert warning.message == "QCD: 60 of 800 values (7.50%) equal -999: not known?"
    assert warning.advice == 'value: "where(jet_sdmass == -999, nan, jet_sdmass)"'
    typo = toy.inspect("targets={mass: {value: jet_sdmas}}", write=False)
    assert "did you mean 'jet_sdmass'?" in told(typo, "error")
    assert {x.where for x in typo.findings if x.severity == "error"} == {"targets.mass.value"}


def test_targets_without_classes_and_data_without_truth(toy):
    text = toy.config.read_text(encoding="utf-8")
    alone = text.replace("classes:\n  QCD: label_QCD == 1\n  Top: label_Tbqq == 1\n", "")
    assert alone != text
    toy.config.write_text(alone + "targets: {tau: {value: jet_tau2}}\n", encoding="utf-8")
    data = toy_jets("QCD", 200, 9)
    data["jet_tau2"] = np.full(200, np.nan, np.float32)
    write_jets(toy.path("data"), data)
    found = toy.inspect(against=[f"data={toy.path('data')}"])
    [tau] = found.targets
    assert list(tau.of_class) == ["jets"]
    assert tau.of_class["jets"].summary.nan == 0, "data has no truth"
    assert {one.name for one in found.yields} == {"all"}
    assert not found.findings
    assert "Cut flow of the classes" not in to_html(found, [], {})
    negative = toy.inspect("weights={event: -1 + 0 * jet_pt}").findings
    [said] = [one.message for one in negative if one.where == "weights.event" and "'train'" in one.message]
    assert said.startswith("event weights of 'train' sum to -")
