"""How the ranks of a run divide its work, and what they say of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jettagger.errors import JettaggerError
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.outcome import Piece, listed, survey
from jettagger.training.recipe import Recipe
from jettagger.training.schema import TrainingSection
from jettagger.training.sides import Filling, Sides, prepare_folds

T = TypeVar("T")


def share_of(ranks: Ranks, section: TrainingSection, pieces: Sequence[T]) -> Sequence[T]:
    """The pieces (members, of folds) that a rank trains: all, together with the others, or every N-th by itself."""
    return pieces if section.ranks == "batch" else pieces[ranks.rank :: ranks.world]


def sharing(ranks: Ranks, section: TrainingSection) -> Ranks:
    """Who trains one member."""
    return ranks if section.ranks == "batch" else Ranks()


def describe_ranks(ranks: Ranks, section: TrainingSection, hardware: Hardware) -> list[str]:
    """Where the training runs, who shares its batches, and its learning rate where that follows the batch.

    Raises JettaggerError where the ranks would not compute the same.
    """
    lines = [f"training on {hardware.description}"]
    if ranks.world > 1:
        ranks.check_same("precision (write it into training.precision)", hardware.precision)
        devices = ranks.gathered_by_all(str(hardware.device))
        shared = "each trains members of its own"
        if section.ranks == "batch" and section.batch_size == "all":
            shared = "all jets in one batch, each rank a part of them"
        elif section.ranks == "batch":
            assert isinstance(section.batch_size, int)
            each = f"{section.batch_size / ranks.world:.4g}"
            shared = f"batches of {section.batch_size} jets, about {each} on each rank"
        lines.append(f"{ranks.world} ranks on {', '.join(dict.fromkeys(devices))}: {shared}")
    if section.lr_scaling.name != "none":
        lines.append(
            f"learning rate {section.peak_rate:.4g}: optimiser.lr {section.optimiser.lr:.4g}, scaled"
            f" ({section.lr_scaling.name}) from batches of {section.lr_scaling.reference} jets to {section.batch_size}"
        )
    return lines


def results_of_all(ranks: Ranks, found: list[T], output: Path, chosen: Sequence[Piece]) -> list[T]:
    """On rank 0 what all ranks have found, each by itself; on the others their own.

    Raises JettaggerError where ranks are gone, once the others are done: it says which of the trainings have ended.
    """
    values, gone = ranks.collected(found)
    if gone:
        standing = survey(output, chosen)
        usable = f"trained to the end: {listed(standing.ended)} (--merge makes a tagger of what has ended)"
        raise JettaggerError(
            "\n".join(
                [
                    *(one.words(ranks.world) for one in gone),
                    usable if standing.ended else "no training has come to its end",
                    *standing.lines(),
                ]
            )
        )
    return [one for value in values for one in value]


def common_sides(
    recipe: Recipe,
    folds: Sequence[int | None],
    ranks: Ranks,
    say: Callable[[str], None],
    filling: Filling,
) -> dict[int | None, Sides]:
    """The sides of some folds. Rank 0 prepares them; then the others find them prepared, or prepare them on their
    own disks."""
    sides: dict[int | None, Sides] = {}

    def prepare() -> None:
        sides.update(prepare_folds(recipe.data, recipe.baselines, folds, say, filling))

    ranks.first_does(prepare)
    if not sides:
        prepare()
    counts = [(one.keys, len(one.train_rows), len(one.validation_rows)) for one in sides.values()]
    ranks.check_same("the prepared jets", counts)
    return sides
