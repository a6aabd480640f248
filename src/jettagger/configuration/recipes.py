"""What the commands need of a whole config."""

from typing import TYPE_CHECKING

from jettagger.configuration.config import Config

if TYPE_CHECKING:
    from jettagger.training.run import Recipe


def recipe(config: Config) -> "Recipe":
    """The parts that a training needs."""
    from jettagger.training.run import Recipe

    return Recipe(
        data=config,
        model=config.model,
        training=config.training,
        ensemble=config.ensemble,
        baselines=config.baselines,
        document=config.model_dump(mode="json", by_alias=True),
    )
