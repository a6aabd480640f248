"""`jettagger spread`: what each source contributes, and with which error."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from jettagger import configuration
from jettagger.errors import JettaggerError
from jettagger.training.spread import SOURCES, TOGETHER, figures_of, measure_spread, spread_of


def test_the_error_of_a_standard_deviation() -> None:
    found = spread_of(np.array([1.0, 2.0, 3.0]))
    assert (found.mean, found.std, found.std_error) == pytest.approx((2.0, 1.0, 0.5))
    draws = np.random.default_rng(1).normal(size=(4000, 5)).std(1, ddof=1)
    assert draws.std() == pytest.approx(1 / math.sqrt(8), rel=0.06)


def test_equal_members_have_no_spread() -> None:
    p_J = np.linspace(0.1, 0.9, 40)
    one = np.stack([1 - p_J, p_J], 1)
    labels = (np.arange(40) % 3 > 0).astype(np.int64)
    found = figures_of(np.stack([one, one]), labels, np.ones(40))
    assert {name: spread.std for name, spread in found.items()} == dict.fromkeys(found, 0.0)
    other = np.stack([1 - p_J + 0.02, p_J - 0.02], 1)
    assert figures_of(np.stack([one, other]), labels, np.ones(40))["score"].std == pytest.approx(
        0.02 / math.sqrt(2)
    )


def test_all_sources_stand_in_the_table(toy_folder: Path, tmp_path: Path) -> None:
    overrides = ["training.epochs=1", "ensemble.members=2", "training.precision=float32"]
    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml", overrides))
    said: list[str] = []
    table = measure_spread(recipe, tmp_path / "spread", say=said.append)
    assert [row.source for row in table.rows] == [*SOURCES, TOGETHER]
    assert all(row.figures["score"].std > 0 for row in table.rows)
    stored = json.loads((tmp_path / "spread" / "spread.json").read_text())
    assert stored["sources"]["split"]["auc"]["std"] == table.rows[2].figures["auc"].std
    assert any(line.startswith("alone, in quadrature") for line in said)


def test_test_jets_that_cannot_be_ranked_are_refused_before_the_training(
    toy_folder: Path, tmp_path: Path
) -> None:
    event = "weights.event=where((label_QCD == 1) & (jet_sdmass > 20), -0.5, 1)"
    recipe = configuration.recipe(
        configuration.load(toy_folder / "config.yaml", [event, "ensemble.members=2"])
    )
    with pytest.raises(JettaggerError, match=r"data\.test: the event weights of class QCD, or of the others"):
        measure_spread(recipe, tmp_path / "spread", say=lambda line: None)
    assert not (tmp_path / "spread").exists()


def test_confident_jets_do_not_tie() -> None:
    """Of float32 probabilities that round to 1 the others still tell the order."""
    rest_J = np.geomspace(1e-12, 1e-8, 40).astype(np.float32)
    labels = (np.arange(40) < 20).astype(np.int64)
    p_JC = np.stack([rest_J, 1 - rest_J], 1).astype(np.float64)
    assert figures_of(np.stack([p_JC, p_JC]), labels, np.ones(40))["auc"].mean == 1.0


def test_a_regression_has_no_scores_to_spread(toy_folder: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((toy_folder / "config.yaml").read_text())
    del content["classes"]
    content["targets"] = {"pt": {"value": "jet_pt", "loss": "mse"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    recipe = configuration.recipe(configuration.load(path, ["ensemble.members=2"]))
    with pytest.raises(JettaggerError, match="measured on scores of classes, and the config has none"):
        measure_spread(recipe, tmp_path / "spread", say=lambda line: None)


def test_one_member_has_no_spread(toy_folder: Path, tmp_path: Path) -> None:
    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml"))
    with pytest.raises(JettaggerError, match=r"ensemble\.members: 1 network has no spread"):
        measure_spread(recipe, tmp_path)
