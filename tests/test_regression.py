"""Regression from the YAML to predictions and a report: alone, beside classes, with what is unknown."""

import json
import math
import re

import numpy as np
import pytest
import yaml

import jettagger
from jettagger import configuration, metrics
from jettagger.errors import JettaggerError
from jettagger.report.run import evaluate_runs
from jettagger.training import checkpoints, run

TARGETS = {
    "mass": {"value": "jet_sdmass", "loss": "gaussian_nll"},
    "root": {"value": "sqrt(jet_pt - 520)", "loss": {"name": "quantile", "quantiles": [0.16, 0.5, 0.84]}},
    "pt": {"value": "jet_pt", "loss": "mse"},
}
QUICK = ("training.threads=1", "training.precision=float32", "evaluation.bootstrap=10")


def config_of(toy_folder, folder, *, classes: bool, **changes):
    content = yaml.safe_load((toy_folder / "config.yaml").read_text())
    content["targets"] = TARGETS
    content |= changes
    if not classes:
        del content["classes"]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize("classes", [False, True])
def test_from_the_config_to_the_report(toy_folder, tmp_path, classes) -> None:
    config = configuration.load(
        config_of(toy_folder, tmp_path, classes=classes), [*QUICK, "training.epochs=8", "ensemble.members=2"]
    )
    said: list[str] = []
    run.train(configuration.recipe(config), tmp_path / "run", say=said.append)
    assert any("targets.root:" in line and "values are NaN" in line for line in said)
    tagger = jettagger.load(tmp_path / "run")
    scores = tagger.predict(str(toy_folder / "Top_test.root"))
    expected = {"mass", "mass_error", "mass_std", "root", "root_std", "root_q16", "root_q50", "root_q84"}
    expected |= {"pt", "pt_std", "passes_selection"}
    more = {"QCD", "Top", "std", "mutual_information", "expected_entropy", "total_entropy"}
    assert set(scores.fields) == expected | (more if classes else set())
    assert np.all(scores.root_q16 <= scores.root_q84)
    assert np.all(scores.mass_error > scores.mass_std / math.sqrt(2) - 1e-9)
    assert 450 < np.median(scores.pt) < 700
    page = evaluate_runs([tmp_path / "run"], tmp_path / "report", mc_dropout=3, say=lambda line: None)
    document = json.loads((page.parent / "report.json").read_text())
    last = next(one for one in document["runs"] if "ensemble" in one["name"])
    assert list(last["targets"]) == ["mass", "root", "pt"]
    mass, root, pt = last["targets"].values()
    assert mass["error"] == "learned"
    assert 0 < mass["pull_width"] < 5
    assert root["n_jets"] < mass["n_jets"] == last["n_jets"]
    assert set(root["quantile_coverage"]) == {
        f"{q}{e}" for q in ("0.16", "0.5", "0.84") for e in ("", "_error")
    }
    assert pt["error"] == "spread"
    assert (last["auc"] is not None) == classes
    assert (page.parent / "figures" / "residuals_mass.png").exists()
    assert (page.parent / "figures" / "pulls_mass.pdf").exists()


@pytest.mark.parametrize("vary", ["initialisation", "split"])
def test_members_that_have_not_learned_a_target_are_named(toy_folder, tmp_path, vary) -> None:
    more = [
        "training.epochs=12",
        "training.optimiser.lr=0.02",
        "ensemble.members=4",
        "ensemble.execution=loop",
        f"ensemble.vary=[{vary}]",
    ]
    config = configuration.load(config_of(toy_folder, tmp_path, classes=False), [*QUICK, *more])
    recipe, output = configuration.recipe(config), tmp_path / "run"
    said: list[str] = []
    run.train(recipe, output, say=said.append)
    assert [line for line in said if "constant; it is part of the tagger" in line] == []
    said.clear()

    def spoil(member: int, factor: float) -> None:
        folder = output / f"member_{member}"
        weights = checkpoints.load_weights(folder / checkpoints.BEST)
        kept = {name: factor * x if name.endswith(("weight", "bias")) else x for name, x in weights.items()}
        checkpoints.save_best(folder, 1, kept)

    spoil(1, 0.0)
    spoil(3, 3.0)
    run.merge(recipe, output, say=said.append)
    problems = jettagger.load(output).card["problems"]
    assert [line for line in said if "looks failed" in line] == problems
    constant = "member 1 looks failed on the validation jets: its {} is constant; it is part of the tagger"
    worse = "member 3 looks failed on the validation jets: its {} is no better than a constant; it is part of"
    for name in TARGETS:
        assert constant.format(name) in problems
        assert any(line.startswith(worse.format(name)) for line in problems)
    far = r"member 3 looks failed .*: the mean \|prediction - truth\| of its mass, [\d.e+]+, is far above the median of"
    assert any(re.match(far, line) for line in problems)
    spoil(0, math.nan)
    with pytest.raises(
        JettaggerError, match="member 0: its predictions of mass for the validation jets are not"
    ):
        run.merge(recipe, output, say=said.append)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": {"mass": {"value": "jet_sdmass + 0 * jet_pt - jet_sdmass"}}},
            "it is 0 for all training jets",
        ),
        ({"targets": {"mass": {"value": "log(jet_pt - 5000)"}}}, "training jets has a finite value"),
    ],
)
def test_a_target_that_says_nothing(toy_folder, tmp_path, changes, message) -> None:
    config = configuration.load(config_of(toy_folder, tmp_path, classes=False, **changes), QUICK)
    with pytest.raises(JettaggerError, match=message):
        run.train(configuration.recipe(config), tmp_path / "run", say=lambda line: None)


@pytest.mark.parametrize(
    ("classes", "overrides", "message"),
    [
        (True, ["training.loss=hinge"], "training.loss: unknown loss 'hinge'"),
        (True, ["training={loss: focal, label_smoothing: 0.1}"], "focal has no use for it"),
        (False, ["training.loss=mse"], "training.loss: is for classes, and there are none"),
        (False, ["training.label_smoothing=0.1"], "there are no labels to smooth"),
        (True, ["training={loss: {name: mse, gamma: 1.0}}"], "gamma is used by focal only, not by mse"),
        (True, ["targets={mass: {value: jet_pt, loss: {name: quantile, quantiles: [0.2]}}}"], "hold 0.5"),
        (True, ["targets={QCD: {value: jet_pt}}"], "the name is taken: 'QCD' is a class"),
        (True, ["targets={jet_pt: {value: jet_pt}}"], "'jet_pt' is a column of a target"),
        (
            True,
            ["training.decorrelate={variable: jet_sdmas, background: QCD, strength: 1}"],
            "unknown spectator 'jet_sdmas': did you mean 'jet_sdmass'",
        ),
        (
            True,
            ["training.decorrelate={variable: jet_pt, background: QDC, strength: 1}"],
            "unknown class 'QDC': did you mean 'QCD'",
        ),
        (
            True,
            ["training={mixup: 0.2, decorrelate: {variable: jet_pt, background: QCD, strength: 1}}"],
            "mixup and decorrelate exclude each other",
        ),
        (
            True,
            ["training.mixup=0.2", "model={architecture: particle_cnn, widths: [8], dense: [8]}"],
            "particle_cnn looks at particles, and those of two jets cannot be mixed",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(toy_folder, tmp_path, classes, overrides, message) -> None:
    with pytest.raises(JettaggerError, match=message):
        configuration.load(config_of(toy_folder, tmp_path, classes=classes), overrides)


def test_figures_of_residuals_against_known_truth() -> None:
    rng = np.random.default_rng(3)
    error_N = rng.uniform(0.5, 2, 40_000)
    residual_N = 0.3 + error_N * rng.standard_normal(40_000)
    found, pulls = metrics.residuals(residual_N), metrics.pulls((residual_N - 0.3) / error_N)
    assert found.bias.value == pytest.approx(0.3, abs=4 * found.bias.error)
    assert found.rmse.value == pytest.approx(np.sqrt(np.mean(residual_N**2)))
    for measured, truth in zip(pulls, (0, 1, 0.6827, 0.95), strict=True):
        assert measured.value == pytest.approx(truth, abs=4 * measured.error)
    gauss = metrics.central_width(rng.standard_normal((400, 500)).ravel()[:20_000])
    assert gauss.value == pytest.approx(0.9945, abs=4 * gauss.error)
    spread = np.std([metrics.central_width(x).value for x in rng.standard_normal((300, 400))])
    typical = metrics.central_width(rng.standard_normal(400)).error
    assert typical == pytest.approx(spread, rel=0.4)
