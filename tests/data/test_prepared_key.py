"""The key changes with all that decides the numbers, and with nothing else: every field of the config is listed."""

import copy
import types
import typing

import pytest
from pydantic import BaseModel
from test_columns import config

from jettagger.baselines import BaselinesSection
from jettagger.data.plan import InputFile, key_of
from jettagger.data.schema import DataConfig
from jettagger.training.sides import extras_of

FILES = [InputFile(0, "a.root", "1:a", "QCD", 1.0), InputFile(1, "b.root", "1:b", "Top", 1.0)]
COORDINATES = {"eta": "part_deta", "phi": "part_dphi", "pt": "pt"}

FLAT = {"weights": {"training": {"flatten": {"jet_pt": [0, 1]}}}}
MATCH = {"weights": {"training": {"match": {"to": "QCD", "spectrum": {"jet_pt": [0, 1]}}}}}
NESTED = {"data__jets": "FatJet_*"}
"""What links of particles to jets need."""

IN_KEY: dict[str, dict[str, object]] = {
    "data.tree": {"data__tree": "other"},
    "data.jets": {"data__jets": "Jet_*"},
    "data.columns": {"data__columns": {"X": ["pt", "eta"]}},
    "data.slots": {"data__slots": {"part_*": "part_energy > 0"}},
    "data.units": {"data__units": "MeV"},
    "data.selection": {"data__selection": "jet_pt > 1"},
    "data.group_by": {"data__group_by": "run"},
    "data.storage": {"data__storage": "float16"},
    "classes.sample": {"classes": {"QCD": {"sample": "QCD"}, "Top": {"sample": "Top"}}},
    "classes.one_hot": {"classes": ["label_QCD", "label_Tbqq"]},
    "define": {"define__more": "pt + 1"},
    "spectators": {"spectators": ["jet_eta"]},
    "targets.value": {"targets": {"mass": {"value": "gen_mass"}}},
    "weights.event": {"weights": {"event": "gen_weight"}},
    "inputs.from": {"inputs__particles__from": "part_p*"},
    "inputs.index.jet": {**NESTED, "inputs__particles__index": {"jet": "a"}},
    "inputs.index.particle": {**NESTED, "inputs__particles__index": {"particle": "a"}},
    "inputs.index.id": {**NESTED, "inputs__particles__index": {"particle": "a", "id": "b"}},
    "inputs.select": {"inputs__particles__select": "pt > 1"},
    "inputs.sort_by": {"inputs__particles__sort_by": "pt"},
    "inputs.length": {"inputs__particles__length": 5},
    "inputs.features.value": {"inputs__jet__features__mass": {"value": "2 * jet_sdmass"}},
    "inputs.features.sentinels": {
        "inputs__jet__features__mass": {"value": "jet_sdmass", "sentinels": [-999]}
    },
    "inputs.coordinates.eta": {"inputs__particles__coordinates": {**COORDINATES, "eta": "-part_deta"}},
    "inputs.coordinates.phi": {"inputs__particles__coordinates": {**COORDINATES, "phi": "-part_dphi"}},
    "inputs.coordinates.pt": {"inputs__particles__coordinates": {**COORDINATES, "pt": "2 * pt"}},
    "data.validation, a condition": {"data__validation": "event_number % 5 == 0"},
    "data.test, a condition": {"data__test": "event_number % 5 == 0"},
    "data.folds.k": {"data__folds": {"k": 3}},
    "data.folds.by": {"data__folds": {"k": 3, "by": "jet_pt"}},
    "weights.training.flatten": FLAT,
    "weights.training.match.spectrum": MATCH,
}
"""Fields that are in the key, with a change of each."""

MASS = {"value": "jet_sdmass"}
TARGET = {"value": "gen_mass"}
WITHOUT_EFFECT: dict[str, dict[str, object]] = {
    "data.prepared": {"data__prepared": "elsewhere"},
    "data.validation": {"data__validation": 0.5},
    "data.test": {"data__test": {}},
    "data.on_error": {"data__on_error": "skip"},
    "targets.loss.name": {"targets": {"mass": {**TARGET, "loss": "mse"}}},
    "targets.loss.quantiles": {
        "targets": {"mass": {**TARGET, "loss": {"name": "quantile", "quantiles": [0.5]}}}
    },
    "targets.weight": {"targets": {"mass": {**TARGET, "weight": 2}}},
    "inputs.features.normalise": {"inputs__jet__features__mass": {**MASS, "normalise": "none"}},
    "inputs.features.normalise.shift": {
        "inputs__jet__features__mass": {**MASS, "normalise": {"shift": 1, "scale": 1}}
    },
    "inputs.features.normalise.scale": {
        "inputs__jet__features__mass": {**MASS, "normalise": {"shift": 0, "scale": 2}}
    },
    "inputs.features.clip": {"inputs__jet__features__mass": {**MASS, "clip": [0, 1]}},
    "inputs.features.missing": {"inputs__jet__features__mass": {**MASS, "missing": 3}},
    "weights.training.balance": {"weights": {"training": {"balance": "classes"}}},
    "weights.training.match.to": MATCH | {"weights__training__match__to": "Top"},
    "weights.training.flatten, its edges": FLAT | {"weights__training__flatten__jet_pt": [0, 1, 2]},
    "weights.training.match.spectrum, its edges": MATCH
    | {"weights__training__match__spectrum__jet_pt": [0, 1, 2]},
    "weights.training.method": {"weights": {"training": {"method": "sampling", "balance": "classes"}}},
    "weights.training.cap": FLAT | {"weights__training__cap": 5.0},
}
"""Fields that are not, with a change of each."""

OF_FILES = (
    "train.files",
    "train.weight",
    "test.files",
    "test.weight",
    "validation.files",
    "validation.weight",
)
"""They enter as the files that are prepared, whichever part they are of."""


def sections(annotation: object) -> list[type[BaseModel]]:
    """The sections that a field may hold, however deep in its type."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for argument in typing.get_args(annotation) for found in sections(argument)]


def fields(section: type[BaseModel], prefix: str = "") -> set[str]:
    """All fields, `outer.inner`: those that hold sections by the fields of these."""
    found = set()
    for name, field in section.model_fields.items():
        path = prefix + (field.alias or name)
        inside = {deeper for one in sections(field.annotation) for deeper in fields(one, f"{path}.")}
        found |= inside or {path}
    return found


def test_every_field_is_listed():
    listed = {*IN_KEY, *WITHOUT_EFFECT, *(f"data.{name}" for name in OF_FILES)}
    walked = fields(DataConfig)
    assert walked - listed == set(), "say whether it decides the numbers, in plan.key_of and here"
    # A field that may hold a section or something plain is listed by both, and by kind where this matters.
    plain = {"data.validation", "data.test", "inputs.features.normalise"}
    assert {name for name in listed - walked if ", " not in name} <= plain


def key(**changes):
    """The key of the training samples' dataset, as a training makes it."""
    settings = config(**copy.deepcopy(changes))
    return key_of(settings, FILES, extras_of(settings, BaselinesSection()))


@pytest.mark.parametrize("field", IN_KEY)
def test_a_field_that_matters(field):
    assert key(**IN_KEY[field]) != key(**(NESTED if "index" in field else {}))


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_a_field_that_does_not(field):
    change = WITHOUT_EFFECT[field]
    before = {"weights": change["weights"]} if len(change) > 1 else {}
    if "targets" in change:
        before = {"targets": {"mass": TARGET}}
    assert key(**change) == key(**before)


def test_files_weights_order_and_extras_matter_and_paths_do_not():
    first, second = FILES
    keys = [
        key_of(config(), files, extras)
        for files, extras in (
            (FILES, {}),
            ([second, first], {}),
            ([first, second._replace(identity="2:b")], {}),
            ([first, second._replace(weight=2.0)], {}),
            ([first, second._replace(sample="other")], {}),
            ([first], {}),
            (FILES, {"tau": "jet_tau2"}),
        )
    ]
    assert len(set(keys)) == len(keys)
    moved = [file._replace(path=f"elsewhere/{file.path}") for file in FILES]
    assert key_of(config(), moved, {}) == keys[0]
