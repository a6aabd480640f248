"""How the training of one network ended: `result.json`, `failed.json`, or neither."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jettagger.errors import JettaggerError
from jettagger.files import write_json

RESULT, FAILED = "result.json", "failed.json"


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
    return f"member {member}" if fold is None else f"fold {fold}, member {member}"


def has_ended(folder: Path) -> bool:
    """Whether the member's training has come to its end."""
    return (folder / RESULT).exists()


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


def clear_failure(folder: Path) -> None:
    """Forgets a failure, before the member is trained again."""
    (folder / FAILED).unlink(missing_ok=True)
