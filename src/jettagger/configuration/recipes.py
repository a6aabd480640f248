"""What the commands need of a whole config."""

import json
from typing import TYPE_CHECKING

from jettagger.configuration.config import Config

if TYPE_CHECKING:
    from jettagger.training.recipe import Recipe


def recipe(config: Config) -> "Recipe":
    """The parts that a training needs."""
    from jettagger.training.recipe import Recipe

    return Recipe(
        data=config,
        model=config.model,
        training=config.training,
        ensemble=config.ensemble,
        baselines=config.baselines,
        document=config.model_dump(mode="json", by_alias=True),
    )


def summary(config: Config, *, as_json: bool = False) -> str:
    """The network of a config: layers, parameters, operations, receptive field; as a table or JSON."""
    import torch

    from jettagger import models
    from jettagger.data.columns import Columns
    from jettagger.models.parts.summary import summarise
    from jettagger.training.recipe import outputs_of

    outputs = outputs_of(config, config.training)
    found = summarise(models.build(config.model, Columns(config).spec, outputs, torch.Generator()))
    if not as_json:
        return str(found)
    document = found._asdict()
    document["layers"] = [layer._asdict() for layer in found.layers]
    document["receptive_field"] = [reach._asdict() for reach in found.receptive_field]
    return json.dumps(document, indent=2)
