"""The sections `training` and `ensemble`."""

from typing import Any

import pytest
from pydantic import ValidationError

from jettagger.training.schema import EnsembleSection, OptimiserSection, ScheduleSection, TrainingSection


def test_a_name_stands_for_its_section() -> None:
    section = TrainingSection.model_validate({"optimiser": "adam", "schedule": "cosine"})
    assert section.optimiser == OptimiserSection(name="adam")
    assert section.schedule == ScheduleSection(name="cosine")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"optimiser": {"name": "sgd", "lr": 1, "momentum": 0.5}},
        {"schedule": {"name": "plateau", "patience": 1}, "early_stopping": {}},
    ],
)
def test_what_is_written_can_be_read(given: dict[str, Any]) -> None:
    section = TrainingSection.model_validate(given)
    assert TrainingSection.model_validate(section.model_dump()) == section
    assert TrainingSection.model_validate_json(section.model_dump_json()) == section


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimiser": "adan"}, r"unknown optimiser 'adan': did you mean 'adam'\?"),
        ({"schedule": {"name": "onecycle"}}, r"unknown schedule 'onecycle': did you mean 'one_cycle'\?"),
        ({"optimiser": "sgd"}, "sgd has no default learning rate"),
        (
            {"optimiser": {"name": "sgd", "lr": 0.1, "betas": [0.5, 0.9]}},
            "betas is used by adam and adamw only",
        ),
        ({"optimiser": {"momentum": 0.5}}, "momentum is used by sgd only, not by adamw"),
        (
            {"optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": True}},
            "nesterov needs momentum",
        ),
        ({"schedule": {"name": "cosine", "patience": 1}}, "patience is used by plateau only, not by cosine"),
        (
            {"schedule": {"name": "constant", "final": 0.1}},
            "final is used by cosine and one_cycle and plateau",
        ),
        ({"device": "gpu"}, r"unknown device 'gpu': did you mean 'cpu'\?"),
        ({"device": "cuda:"}, "unknown device 'cuda:'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"optimiser": {"lr": float("inf")}}, "finite number"),
        ({"epoch": 3}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSection.model_validate(given)


def test_devices() -> None:
    for device in ("auto", "cpu", "cuda", "cuda:3"):
        assert TrainingSection(device=device).device == device


def test_json_schema_allows_name_and_section() -> None:
    definitions = TrainingSection.model_json_schema()["$defs"]
    name, section = definitions["ScheduleSection"]["anyOf"]
    assert name["enum"] == ["one_cycle", "cosine", "plateau", "constant"]
    assert section["properties"]["patience"]["description"].startswith("plateau: epochs")


def test_ensemble() -> None:
    assert EnsembleSection().vary == ["initialisation", "batches"]
    with pytest.raises(ValidationError):
        EnsembleSection.model_validate({"vary": ["split"]})
    with pytest.raises(ValidationError):
        EnsembleSection.model_validate({"vary": []})
