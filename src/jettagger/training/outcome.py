"""How the training of each network of a run ended: with `result.json`, with `failed.json`, or not yet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jettagger.advice import Advice
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.tagger import Network
from jettagger.training import checkpoints
from jettagger.training.recipe import Recipe, member_folder
from jettagger.training.training import MemberResult

RESULT, FAILED = "result.json", "failed.json"


class Piece(NamedTuple):
    """One training of a run."""

    fold: int | None
    member: int

    def __str__(self) -> str:
        return piece_name(self.fold, self.member)


class MemberFailure(NamedTuple):
    """Why a member has no network."""

    member: int
    fold: int | None
    """Which fold it holds out, where there are folds."""
    reason: str
    """One message for the user, such as that of the error that ended the training."""
    step: int | None = None
    """Steps done before, where it is known."""

    def __str__(self) -> str:
        after = "" if self.step is None else f" after step {self.step}"
        return f"{piece_name(self.fold, self.member)} failed{after}: {self.reason}"


def piece_name(fold: int | None, member: int) -> str:
    """`member 1`, or `fold 2, member 1`."""
    return Network(member, fold).words


class Standing(NamedTuple):
    """How far a run is; each piece is in one of three."""

    ended: tuple[Piece, ...]
    failed: tuple[MemberFailure, ...]
    missing: tuple[Piece, ...]
    """Not begun, or not at its end."""

    def lines(self) -> list[str]:
        """What there is to say of the pieces that have no network."""
        waiting = f"not trained yet, or not to the end: {listed(self.missing)}"
        return [*map(str, self.failed), *([waiting] if self.missing else [])]

    def check_complete(self, folds: Sequence[int | None]) -> None:
        """Raises JettaggerError unless there is a network, and one for each fold."""
        having = {piece.fold for piece in self.ended}
        lacking = [fold for fold in folds if fold not in having]
        if not lacking:
            return
        reasons = "; ".join(self.lines())
        if not self.ended:
            raise JettaggerError(f"no training of this run has ended, so there is no tagger: {reasons}")
        number = "fold " if len(lacking) == 1 else "folds "
        raise JettaggerError(
            f"{number}{', '.join(map(str, lacking))} of {len(folds)} without a network: a tagger needs one for each "
            f"fold, or there would be jets that it cannot score. {reasons}"
        )


def all_pieces(recipe: Recipe) -> list[Piece]:
    """The trainings that make up the run of a recipe, whatever its own fold."""
    folds = recipe.data.data.folds
    numbers: Sequence[int | None] = [None] if folds is None else range(folds.k)
    return [Piece(fold, member) for fold in numbers for member in range(recipe.ensemble.members)]


def folds_of(pieces: Sequence[Piece]) -> list[int | None]:
    """Each once, in their order."""
    return list(dict.fromkeys(piece.fold for piece in pieces))


def survey(output: Path, pieces: Sequence[Piece]) -> Standing:
    """Looks at the folders of a run."""
    ended, failed, missing = [], [], []
    for piece in pieces:
        folder = member_folder(output, piece.member, piece.fold)
        failure = read_failure(folder)
        if has_ended(folder):
            ended.append(piece)
        elif failure is not None:
            failed.append(failure)
        else:
            missing.append(piece)
    return Standing(tuple(ended), tuple(failed), tuple(missing))


def listed(pieces: Sequence[Piece]) -> str:
    """`members 0, 2`, or `fold 1 (member 0), fold 2 (members 0, 1)`."""
    by_fold: dict[int | None, list[int]] = {}
    for piece in pieces:
        by_fold.setdefault(piece.fold, []).append(piece.member)
    parts = []
    for fold, members in by_fold.items():
        text = f"member{'s' if len(members) > 1 else ''} {', '.join(map(str, members))}"
        parts.append(text if fold is None else f"fold {fold} ({text})")
    return ", ".join(parts)


def has_ended(folder: Path) -> bool:
    """Whether the member's training has come to its end."""
    return (folder / RESULT).exists()


def write_result(folder: Path, result: MemberResult) -> None:
    """Leaves `result.json` in a member's folder."""
    document = {
        "member": result.member,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "jets": result.jets,
        "mean_loss": result.mean_loss,
        "mean_auc": result.mean_auc,
        "mean_accuracy": result.mean_accuracy,
        "advice": [one._asdict() for one in result.advice],
    }
    write_json(folder / RESULT, document)


def read_result(folder: Path) -> MemberResult:
    """What `write_result` left, with the epochs and weights beside it."""
    stored = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    stored["advice"] = tuple(Advice(**one) for one in stored["advice"])
    return MemberResult(**stored, weights=folder / checkpoints.BEST, history=checkpoints.load_history(folder))


def write_failure(folder: Path, failure: MemberFailure) -> None:
    """Leaves `failed.json` in a member's folder."""
    write_json(folder / FAILED, failure._asdict())


def read_failure(folder: Path) -> MemberFailure | None:
    """What `write_failure` left; None where the member has not failed, or has ended since."""
    path = folder / FAILED
    if has_ended(folder) or not path.exists():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return MemberFailure(**stored)
    except (OSError, TypeError, ValueError) as error:
        raise JettaggerError(f"{path} cannot be read: {error}") from error
