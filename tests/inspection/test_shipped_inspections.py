"""Every shipped config is inspected on files of its schema, nested and flat: no faults, and a training's yields."""

import pytest

from jettagger import configuration
from jettagger.data.prepared import prepare
from jettagger.inspection.inspect import inspect
from test_shipped_configs import CONFIGS, SCHEMAS, SPLIT


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_has_no_errors(path, tmp_path, monkeypatch):
    SCHEMAS[path.stem](tmp_path)
    monkeypatch.chdir(tmp_path)
    changes = filter(None, [SPLIT.get(path.stem), f"data.prepared={tmp_path / 'prepared'}"])
    recipe = configuration.recipe(configuration.load(path, list(changes)))
    found = inspect(recipe.data, recipe.baselines, name=path.stem, say=lambda line: None)
    assert [f for f in found.findings if f.severity == "error"] == []
    prepared = prepare(recipe.data, recipe.data.data.train, role="data.train")
    mine = [flow for flow in found.files if flow.role == "train"]
    assert sum(flow.read for flow in mine) == prepared.counts["read"]
    assert sum(flow.selected for flow in mine) == prepared.counts["selected"]
    features = sum(len(section.features) for section in recipe.data.inputs.values())
    multiplicities = sum(name != "jet" for name in recipe.data.inputs)
    others = len(recipe.data.spectators) + len(recipe.data.targets)
    assert len(found.spectra) == features + multiplicities + others
