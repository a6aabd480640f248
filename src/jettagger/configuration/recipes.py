"""What the commands need of a whole config."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jettagger.cluster.resolved import Resolve, Resolved
from jettagger.configuration.config import Config
from jettagger.configuration.identity import digest, plain
from jettagger.configuration.loading import dump, load

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
        document=config.model_dump(mode="json", by_alias=True, exclude={"cluster", "sweep"}),
    )


def resolver(path: Path, overrides: Sequence[str] = ()) -> Resolve:
    """What reads the config at `path` for the batch jobs, with further overrides each time."""
    return lambda further: _resolved(load(path, [*overrides, *further]))


def _resolved(config: Config) -> Resolved:
    elsewhere = ("model", "training", "ensemble", "evaluation", "cluster", "sweep")
    return Resolved(
        yaml=dump(config),
        cluster=config.cluster,
        sweep=config.sweep,
        members=config.ensemble.members,
        folds=config.data.folds.k if config.data.folds is not None else 0,
        prepared=digest({name: part for name, part in plain(config).items() if name not in elsewhere}),
        tested=bool(config.data.test) or config.data.folds is not None,
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
