"""The sections `training` and `ensemble`."""

from typing import Any

import pytest
from pydantic import ValidationError

from jettagger.training.optimiser_schema import LookaheadSection, OptimiserSection, ScheduleSection
from jettagger.training.schema import ChunkSection, EnsembleSection, TrainingSection


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
        {"optimiser": "ranger", "schedule": "flat_then_decay", "swa": {"start": 0.5}, "l1": 1e-4},
        {"optimiser": {"name": "lion", "lookahead": {}}, "schedule": {"name": "step", "milestones": [0.3]}},
        {"optimiser": {"name": "adadelta", "rho": 0.95}},
    ],
)
def test_what_is_written_can_be_read(given: dict[str, Any]) -> None:
    section = TrainingSection.model_validate(given)
    assert TrainingSection.model_validate(section.model_dump()) == section
    assert TrainingSection.model_validate_json(section.model_dump_json()) == section


def test_a_name_brings_its_defaults() -> None:
    def optimiser(**given: Any) -> OptimiserSection:
        return OptimiserSection.model_validate(given)

    ranger = optimiser(name="ranger")
    assert (ranger.betas, ranger.epsilon) == ([0.95, 0.999], 1e-5)
    assert ranger.lookahead == LookaheadSection(steps=6, share=0.5)
    assert optimiser(name="ranger", betas=[0.9, 0.99]).betas == [0.9, 0.99]
    assert (optimiser(name="lion").lr, optimiser(name="lion").betas) == (1e-4, [0.9, 0.99])
    assert (optimiser(name="adadelta").lr, optimiser(name="adadelta").epsilon) == (1.0, 1e-6)
    assert optimiser(name="adamw").lookahead is None
    assert ScheduleSection.model_validate("flat_then_decay").final == 0.01
    assert ScheduleSection.model_validate("step").factor == 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimiser": "adan"}, r"unknown optimiser 'adan': did you mean 'adam'\?"),
        ({"schedule": {"name": "onecycle"}}, r"unknown schedule 'onecycle': did you mean 'one_cycle'\?"),
        ({"optimiser": "sgd"}, "sgd has no default learning rate"),
        (
            {"optimiser": {"name": "sgd", "lr": 0.1, "betas": [0.5, 0.9]}},
            r"betas is used by adam, adamw, lion, radam and ranger only, not by sgd",
        ),
        ({"optimiser": {"momentum": 0.5}}, "momentum is used by sgd only, not by adamw"),
        (
            {"optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": True}},
            "nesterov needs momentum",
        ),
        ({"schedule": {"name": "cosine", "patience": 1}}, "patience is used by plateau only, not by cosine"),
        (
            {"schedule": {"name": "constant", "final": 0.1}},
            "final is used by cosine, flat_then_decay, one_cycle and plateau only",
        ),
        (
            {"optimiser": {"name": "lion", "epsilon": 1e-6}},
            "epsilon is used by adadelta, adam, adamw, radam and",
        ),
        ({"optimiser": {"rho": 0.5}}, "rho is used by adadelta only, not by adamw"),
        (
            {"optimiser": {"name": "adadelta", "betas": [0.5, 0.9]}},
            "betas is used by .* only, not by adadelta",
        ),
        ({"optimiser": {"name": "ranger", "lookahead": None}}, "ranger is radam with lookahead: write radam"),
        ({"optimiser": {"lookahead": {"steps": 0}}}, "greater than or equal to 1"),
        ({"optimiser": {"lookahead": {"share": 1.0}}}, "less than 1"),
        ({"schedule": {"milestones": [0.1]}}, "milestones is used by step only, not by one_cycle"),
        ({"schedule": {"name": "step", "milestones": [0.5, 0.2]}}, r"milestones must rise, got \[0.5, 0.2\]"),
        ({"schedule": {"name": "step", "milestones": [0.5, 1.0]}}, "less than 1"),
        (
            {"schedule": {"name": "step", "warm_up": 0.6}},
            r"warm-up \(0.6\) must end before the first milestone",
        ),
        (
            {"schedule": {"name": "cosine", "flat": 0.5}},
            "flat is used by flat_then_decay only, not by cosine",
        ),
        ({"schedule": {"name": "flat_then_decay", "final": 0.0}}, "never reaches 0: final must be above it"),
        (
            {"schedule": {"name": "flat_then_decay", "flat": 0.2, "warm_up": 0.3}},
            r"warm-up \(0.3\) must end before the decay begins \(flat: 0.2\)",
        ),
        ({"schedule": {"min_delta": 0.1}}, "min_delta is used by plateau only, not by one_cycle"),
        ({"swa": {}, "ema": 0.9}, "swa and ema exclude each other: each is a mean of the weights"),
        (
            {"swa": {}, "early_stopping": {}},
            "swa and early_stopping exclude each other: the mean is taken over",
        ),
        ({"swa": {"start": 1.0}}, "less than 1"),
        ({"l1": -0.1}, "greater than or equal to 0"),
        ({"device": "gpu"}, r"unknown device 'gpu': did you mean 'cuda'\?"),
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
    assert name["enum"] == ["one_cycle", "cosine", "flat_then_decay", "step", "plateau", "constant"]
    assert section["properties"]["patience"]["description"].startswith("plateau: epochs")


def test_ensemble() -> None:
    assert EnsembleSection().vary == ["initialisation", "batches"]
    assert EnsembleSection.model_validate({"vary": ["split", "sample"]}).execution == "auto"
    assert EnsembleSection.model_validate({"execution": {"chunk": 4}}).execution == ChunkSection(chunk=4)
    with pytest.raises(ValidationError):
        EnsembleSection.model_validate({"vary": []})
