"""Small random jets, and models of every architecture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models.parts.model import JetModel

torch.set_num_threads(1)

SPEC = InputSpec(
    jet=tuple(Feature(f"jet{i}", clip=(-5.0, 5.0)) for i in range(5)),
    collections=(
        CollectionInput(
            "particles", tuple(Feature(f"p{i}", clip=(-5.0, 5.0)) for i in range(4)), 20, coordinates=True
        ),
        CollectionInput("vertices", (Feature("v0"), Feature("v1"), Feature("v2")), 4),
    ),
)

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"widths": [16, 16]},
    "particle_cnn": {"widths": [16, 16], "dense": [16]},
    "image_cnn": {
        "pixels": 13,
        "convolutions": [{"channels": 4, "kernel": 3, "pool": 2}, {"channels": 6}],
        "channels": ["pt", "count", "pt * p1"],
        "dense": [16],
    },
    "p_cnn": {"first": 8, "stages": [[8], [8, 8], [12]], "dense": [16]},
    "particle_net": {"neighbours": 5, "edges": [[8, 8], [12, 12]], "dense": [16]},
}
"""Settings that make a known architecture quick; others are tested with their defaults."""

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "mlp": [{"norm": "batch"}, {"norm": "layer", "activation": "selu"}],
    "particle_cnn": [
        {"norm": "batch", "input_batch_norm": True, "residual": True, "context": ["mean"]},
        {"norm": "layer", "summary": ["sum", "attention"], "context": ["max", "attention"]},
        {"summary": {"lstm": 7}, "norm": "batch", "collections": {"vertices": {"summary": ["max"]}}},
        {"jet_features": False, "activation": "gelu", "collections": {"particles": {"summary": ["pt"]}}},
        {"collections": {"particles": {"subjets": {"number": 2, "signed": ["p1"]}}}, "norm": "batch"},
    ],
    "image_cnn": [
        {"norm": "none", "centre": False, "rotate": False, "flip": False, "normalise": False},
        {"padding": "valid", "pixel_bias": 0.2, "jet_features": False, "pixels": 12},
    ],
    "p_cnn": [{"collection": "vertices", "stages": [[8], [8]]}],
    "particle_net": [{"neighbours": 16, "edges": [[12], [12, 12]]}],
}

CASES = [
    pytest.param((name, SMALL.get(name, {}) | variant), id=f"{name}-{i}")
    for name in models.architectures()
    for i, variant in enumerate([{}, *VARIANTS.get(name, [])])
]


def jets(number: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    """Random jets, packed; the second has no particles, the third one."""
    generator = torch.Generator().manual_seed(seed)
    collections = {}
    for collection in SPEC.collections:
        lengths_B = torch.randint(1, collection.length + 1, (number,), generator=generator)
        lengths_B[1:2], lengths_B[2:3] = 0, 1
        rows = int(lengths_B.sum())
        coordinates_NK = torch.randn(rows, 3, generator=generator, dtype=dtype) * 0.3
        coordinates_NK[:, 2] = torch.exp(2 + 3 * coordinates_NK[:, 2])
        features_NF = torch.randn(rows, len(collection.features), generator=generator, dtype=dtype)
        collections[collection.name] = Packed(
            2 + features_NF, lengths_B, coordinates_NK if collection.coordinates else None
        )
    return Inputs(3 * torch.randn(number, len(SPEC.jet), generator=generator, dtype=dtype), collections)


def build(case: tuple[str, dict[str, Any]], spec: InputSpec = SPEC, seed: int = 0, **more: Any) -> JetModel:
    """A fitted model in evaluation mode, with three outputs."""
    name, settings = case
    config = models.config_class(name).model_validate({"architecture": name, **settings, **more})
    model = models.build(config, spec, 3, torch.Generator().manual_seed(seed))
    model.fit_inputs(jets(60, seed=99))
    return model.eval()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """An architecture's name and settings."""
    value: tuple[str, dict[str, Any]] = request.param
    return value


@pytest.fixture
def make_jets() -> Callable[..., Inputs]:
    """`jets`."""
    return jets


@pytest.fixture
def make_model() -> Callable[..., JetModel]:
    """`build`."""
    return build


@pytest.fixture
def spec() -> InputSpec:
    """What the random jets hold."""
    return SPEC
