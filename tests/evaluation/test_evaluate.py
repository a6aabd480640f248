"""One run and several: figures against scikit-learn, edge cases, the text of errors."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics as sklearn_metrics

from jettagger.errors import JettaggerError
from jettagger.evaluation.comparison import compare
from jettagger.evaluation.evaluate import evaluate
from jettagger.evaluation.schema import EvaluationSection
from jettagger.uncertainty.regression import TargetPrediction

QUICK = EvaluationSection(bootstrap=40)


def test_two_classes_against_scikit_learn(make_predictions):
    weights_N = np.random.default_rng(1).exponential(size=3000)
    run = make_predictions(weights=weights_N)
    result = evaluate(run)
    p_NC = run.decomposition.probabilities_NC
    auc = sklearn_metrics.roc_auc_score(run.labels_N, p_NC[:, 1], sample_weight=weights_N)
    assert result.auc.value == pytest.approx(auc)
    assert result.nll.value == pytest.approx(
        sklearn_metrics.log_loss(run.labels_N, p_NC, sample_weight=weights_N)
    )
    assert [pair.name for pair in result.pairs] == ["Top_vs_QCD"]
    assert list(result.pairs[0].rejections) == [0.3, 0.5, 0.8]
    assert result.samples == 3
    assert result.n_jets_of_class == (np.sum(run.labels_N == 0), np.sum(run.labels_N == 1))


def test_more_classes_are_averaged_and_paired(make_predictions):
    run = make_predictions(classes=("QCD", "W", "Top"))
    result = evaluate(run)
    p_NC = run.decomposition.probabilities_NC
    expected = sklearn_metrics.roc_auc_score(run.labels_N, p_NC, multi_class="ovr")
    assert result.auc.value == pytest.approx(expected)
    names = [pair.name for pair in result.pairs]
    assert names == ["QCD_vs_W", "QCD_vs_Top", "W_vs_QCD", "W_vs_Top", "Top_vs_QCD", "Top_vs_W"]
    assert result.pairs[5].auc == pytest.approx(result.pairs[3].auc)
    kept_N = run.labels_N != 0
    d_N = p_NC[kept_N, 2] / (p_NC[kept_N, 2] + p_NC[kept_N, 1])
    assert result.pairs[5].auc.value == pytest.approx(
        sklearn_metrics.roc_auc_score(run.labels_N[kept_N] == 2, d_N)
    )
    chosen = evaluate(run, EvaluationSection(signal="W", background="QCD"))
    assert [pair.name for pair in chosen.pairs] == ["W_vs_QCD"]
    assert [pair.name for pair in evaluate(run, EvaluationSection(background="QCD")).pairs] == [
        "W_vs_QCD",
        "Top_vs_QCD",
    ]


def test_two_classes_can_be_turned_round(make_predictions):
    run = make_predictions()
    assert [p.name for p in evaluate(run, EvaluationSection(signal="QCD")).pairs] == ["QCD_vs_Top"]
    assert [p.name for p in evaluate(run, EvaluationSection(background="Top")).pairs] == ["QCD_vs_Top"]


def test_scores_that_round_to_one_are_still_ranked(make_predictions):
    run = make_predictions(members=1)
    odds_N = np.linspace(-80, 80, 3000)[np.argsort(np.argsort(run.decomposition.probabilities_NC[:, 1]))]
    p_NC = np.column_stack([1 / (1 + np.exp(odds_N)), 1 / (1 + np.exp(-odds_N))])
    saturated = replace(run, decomposition=run.decomposition._replace(probabilities_NC=p_NC))
    assert len(np.unique(p_NC[:, 1])) < 2500
    assert evaluate(saturated).auc.value == pytest.approx(evaluate(run).auc.value)


def test_a_cut_has_a_roc_and_no_likelihood(make_cut):
    result = evaluate(make_cut())
    assert (result.nll, result.accuracy, result.ece, result.confusion) == (None, None, None, None)
    assert 0.5 < result.auc.value < 1
    assert result.pairs[0].rejections[0.8].signal_efficiency == 1.0
    assert np.isfinite(result.pairs[0].signal_scores.edges).all()
    assert result.uncertainty == {}


def test_the_cut_against_pt_passes_what_it_says(make_predictions):
    run = make_predictions()
    pair = evaluate(run, EvaluationSection(pt_bins=1, working_point=0.5)).pairs[0]
    assert pair.pt.signal.value[0] == pytest.approx(pair.working_point.signal_efficiency)
    assert pair.pt.background.value[0] == pytest.approx(pair.working_point.background_efficiency)
    d_N = run.decomposition.probabilities_NC[:, 1]
    passing_N = d_N >= pair.working_point.threshold * (1 - 1e-12)
    assert passing_N[run.labels_N == 1].mean() == pytest.approx(pair.working_point.signal_efficiency)


def test_mass_sculpting_is_zero_for_a_blind_tagger_and_large_for_a_mass_cut(make_predictions):
    run = make_predictions(noise=0.1)
    blind = evaluate(run).pairs[0].mass
    assert blind.divergence < 2 * blind.divergence_floor
    mass_N = run.spectators["jet_sdmass"]
    window_N = np.where(abs(mass_N - 80) < 20, 0.9, 0.1)
    p_NC = np.column_stack([1 - window_N, window_N])
    sculpting = replace(run, decomposition=run.decomposition._replace(probabilities_NC=p_NC))
    mass = evaluate(sculpting, EvaluationSection(working_point=0.1)).pairs[0].mass
    assert mass.divergence > 5 * mass.divergence_floor
    # Every jet is counted: overflow lies in the last bin.
    assert mass.before.sumw.sum() == (run.labels_N == 0).sum()


def test_spectators_that_are_missing_are_noted(make_predictions):
    result = evaluate(replace(make_predictions(), spectators={}))
    assert (result.pairs[0].pt, result.pairs[0].mass) == (None, None)
    assert "no mass spectrum: 'jet_sdmass' is not among the spectators" in result.notes


def test_uncertainty_identities(make_predictions):
    run = make_predictions(noise=1.0)
    p_MNC = run.members_MNC.astype(np.float64)
    y_NC = np.eye(2)[run.labels_N]
    mean_brier = np.mean([((p_NC - y_NC) ** 2).sum(1).mean() for p_NC in p_MNC])
    ambiguity = ((p_MNC - p_MNC.mean(0)) ** 2).sum(2).mean()
    result = evaluate(run)
    assert result.brier.value == pytest.approx(mean_brier - ambiguity, abs=1e-6)
    member_nll = [-np.log(p_NC[y_NC == 1]).mean() for p_NC in p_MNC]
    assert result.nll.value < np.mean(member_nll)
    wrong_N = run.decomposition.probabilities_NC.argmax(1) != run.labels_N
    expected = sklearn_metrics.roc_auc_score(wrong_N, run.decomposition.mutual_information_N)
    assert result.uncertainty["mutual_information"].misclassification_auc.value == pytest.approx(expected)
    assert result.uncertainty["total_entropy"].coverage.risk_G[-1] == pytest.approx(1 - result.accuracy.value)


def test_a_single_network_has_no_spread(make_predictions):
    result = evaluate(make_predictions(members=1))
    assert list(result.uncertainty) == ["total_entropy"]
    assert result.pairs[0].curve.member_low_G is None
    assert len(result.pairs[0].member_auc_M) == 0


def test_the_member_band_encloses_the_members(make_predictions):
    pair = evaluate(make_predictions(noise=1.0)).pairs[0]
    assert (pair.curve.member_low_G <= pair.curve.member_high_G).all()
    assert len(pair.member_auc_M) == 3
    assert len(pair.member_rejection[0.5]) == 3


def test_a_failed_member_is_named(make_predictions):
    run = make_predictions(members=5)
    members_MNC = run.members_MNC.copy()
    members_MNC[3] = members_MNC[3][:, ::-1]
    notes = evaluate(replace(run, members_MNC=members_MNC)).notes
    assert any("member 3 looks failed" in note for note in notes)
    names = [f"member {k}" for k in (0, 2, 3, 5, 6)]
    notes = evaluate(replace(run, members_MNC=members_MNC, member_names=names)).notes
    assert any("member 5 looks failed" in note for note in notes)


def test_a_prediction_that_is_no_number_is_no_pull_of_zero(make_predictions):
    run = make_predictions(jets=4)
    value_N, ones_N = np.array([1.0, np.nan, 2.0, 3.0]), np.ones(4)
    mass = TargetPrediction(value_N, ones_N, ones_N, ones_N, None, (), 2)
    with pytest.raises(JettaggerError, match="net: 1 of 4 predictions of mass are NaN or inf"):
        evaluate(replace(run, targets={"mass": mass}, truths={"mass": ones_N}))


def test_negative_weights_pass_with_a_note(make_predictions):
    weights_N = np.where(np.random.default_rng(0).random(3000) < 0.2, -1.0, 1.0)
    result = evaluate(make_predictions(weights=weights_N))
    assert any("event weights are negative" in note for note in result.notes)
    assert np.isfinite(result.auc.value)
    assert not any("not clipped" in note for note in result.notes)


def test_figures_that_negative_weights_bring_out_of_their_range_are_named(make_predictions):
    plain = make_predictions()
    mistaken_N = (plain.labels_N == 0) & (plain.decomposition.probabilities_NC[:, 1] > 0.5)
    result = evaluate(make_predictions(weights=np.where(mistaken_N, -1.0, 1.0)))
    assert result.auc.value > 1
    assert result.accuracy.value > 1
    assert [note.partition(" is ")[0] for note in result.notes if "not clipped" in note] == [
        *("AUC (Top_vs_QCD)", "accuracy")
    ]
    assert any(
        note.startswith(f"accuracy is {result.accuracy.value:.6g}, outside 0 to 1") for note in result.notes
    )


def test_one_jet_of_each_class(make_predictions):
    result = evaluate(make_predictions(jets=2))
    assert result.n_jets == 2
    assert np.isnan(result.auc.error)


def test_a_missing_class_is_named(make_predictions):
    run = make_predictions(classes=("QCD", "W", "Top"))
    with pytest.raises(JettaggerError, match="net: the test sample holds no jets of class 'W'"):
        evaluate(replace(run, labels_N=np.where(run.labels_N == 1, 0, run.labels_N)))


def test_errors_name_the_run_and_what_is_wrong(make_predictions, make_cut):
    run = make_predictions(jets=10)
    broken_NC = run.decomposition.probabilities_NC.copy()
    broken_NC[0, 0] = np.nan
    with pytest.raises(JettaggerError, match="net: 1 of 20 probabilities are NaN or inf"):
        evaluate(replace(run, decomposition=run.decomposition._replace(probabilities_NC=broken_NC)))
    doubled = run.decomposition._replace(probabilities_NC=2 * run.decomposition.probabilities_NC)
    with pytest.raises(JettaggerError, match="net: the outputs are no probabilities"):
        evaluate(replace(run, decomposition=doubled))
    with pytest.raises(JettaggerError, match="event weights of class 'Top' do not sum to more than 0"):
        evaluate(replace(run, weights_N=np.where(run.labels_N == 1, -1.0, 1.0)))
    with pytest.raises(JettaggerError, match="1 of 10 event weights are NaN"):
        evaluate(replace(run, weights_N=np.append(run.weights_N[1:], np.inf)))
    with pytest.raises(JettaggerError, match="a label lies outside the 2 classes"):
        evaluate(replace(run, labels_N=run.labels_N + 1))
    cut = make_cut(jets=10)
    with pytest.raises(JettaggerError, match="cut: 1 of 10 scores are NaN"):
        evaluate(replace(cut, scores_N=np.append(cut.scores_N[1:], np.nan)))


def test_class_names_in_the_settings_are_checked(make_predictions):
    run = make_predictions(jets=10)
    with pytest.raises(
        JettaggerError, match=r"evaluation.signal: unknown class 'Topp': did you mean 'Top'\?"
    ):
        evaluate(run, EvaluationSection(signal="Topp"))
    with pytest.raises(JettaggerError, match="signal and background are the same class 'Top'"):
        evaluate(run, EvaluationSection(signal="Top", background="Top"))
    with pytest.raises(ValidationError, match="must ascend"):
        EvaluationSection(signal_efficiencies=[0.5, 0.3])
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        EvaluationSection(signal_efficiencies=[1.2])


def test_differences_of_runs_on_the_same_jets(make_predictions):
    sharp, blunt = make_predictions("sharp", noise=0.1), make_predictions("blunt", noise=2.0)
    evaluation = compare([sharp, blunt], QUICK)
    (difference,) = evaluation.differences
    assert (difference.name, difference.reference) == ("blunt", "sharp")
    expected = evaluation.results[1].auc.value - evaluation.results[0].auc.value
    assert difference.figures["auc"].value == pytest.approx(expected)
    assert expected < -3 * difference.figures["auc"].error
    ratio = difference.log_rejection_ratio["Top_vs_QCD"][0.5]
    r = [one.pairs[0].rejections[0.5].value for one in evaluation.results]
    assert ratio.value == pytest.approx(np.log(r[1] / r[0]))
    (other,) = compare([sharp, blunt], EvaluationSection(bootstrap=40, reference="blunt")).differences
    assert other.name == "sharp"
    assert other.figures["auc"].value == pytest.approx(-expected)
    assert other.figures["auc"].error == pytest.approx(difference.figures["auc"].error)


def test_bootstrap_errors_agree_with_the_quoted_ones(make_predictions):
    evaluation = compare([make_predictions(classes=("QCD", "W", "Top"))], EvaluationSection(bootstrap=300))
    (result,) = evaluation.results
    errors = evaluation.bootstrap_errors["net"]
    for name in ("auc", "accuracy", "nll", "brier"):
        assert errors[name] == pytest.approx(getattr(result, name).error, rel=0.2)


def test_seeds_of_a_group_enter_with_their_mean(make_predictions):
    runs = [make_predictions(f"net {k}", noise=1.0, group="net", seed=0) for k in range(3)]
    runs = [make_predictions("alone", noise=1.0), *runs]
    evaluation = compare(runs, QUICK)
    (difference,), (spread,) = evaluation.differences, evaluation.seeds
    assert (difference.name, difference.reference) == ("net", "alone")
    auc = [result.auc.value for result in evaluation.results]
    assert difference.figures["auc"].value == pytest.approx(np.mean(auc[1:]) - auc[0])
    assert difference.seed_errors["auc"] == pytest.approx(np.std(auc[1:], ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(spread.figures["auc"], auc[1:])
    assert spread.runs == ("net 0", "net 1", "net 2")
    rejections = [result.pairs[0].rejections[0.5].value for result in evaluation.results[1:]]
    np.testing.assert_allclose(spread.figures["rejection Top_vs_QCD 0.5"], rejections)


def test_a_cut_is_compared_in_what_it_has(make_predictions, make_cut):
    (difference,) = compare([make_cut(), make_predictions()], QUICK).differences
    assert list(difference.figures) == ["auc"]


def test_runs_on_other_jets_get_no_differences(make_predictions):
    evaluation = compare([make_predictions("a"), make_predictions("b", seed=5)], QUICK)
    assert evaluation.differences == ()
    assert evaluation.notes == ("b was tested on other jets than a: no differences are given",)


def test_comparison_errors(make_predictions):
    run = make_predictions(jets=10)
    with pytest.raises(JettaggerError, match="nothing to evaluate"):
        compare([], QUICK)
    with pytest.raises(JettaggerError, match="two runs are called 'net'"):
        compare([run, run], QUICK)
    with pytest.raises(
        JettaggerError, match=r"evaluation.reference: unknown run 'nett': did you mean 'net'\?"
    ):
        compare([run], EvaluationSection(reference="nett"))
