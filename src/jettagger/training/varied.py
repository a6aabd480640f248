"""What is drawn anew for each member of an ensemble: `ensemble.vary`.

Shapes: R training jets.
"""

from jettagger import randomness
from jettagger.data import splits
from jettagger.training.recipe import Recipe
from jettagger.training.sides import Sides


def member_sides(recipe: Recipe, sides: Sides, member: int) -> Sides:
    """The jets that a member is trained on and validated with; test jets are common to all.

    Member 0 has the split of a single training. Every member has a bootstrap sample of its own, 0 as well: without
    one it would be of another kind.
    """
    vary = recipe.ensemble.vary
    if "split" in vary:
        found = splits.split(sides.train, recipe.data.data, recipe.fold, member)
        sides = sides._replace(train_rows=found.train, validation_rows=found.validation)
    if "sample" in vary:
        generator = randomness.numpy_generator(recipe.training.seed, "sample", member)
        drawn_R = splits.bootstrap(sides.train.groups[sides.train_rows], generator)
        sides = sides._replace(train_rows=sides.train_rows[drawn_R])
    return sides


def jets_differ(recipe: Recipe) -> bool:
    """Whether members have training jets of their own."""
    return bool({"split", "sample"} & set(recipe.ensemble.vary))
