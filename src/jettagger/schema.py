"""The base of every section of the YAML: strict, frozen, unknown keys refused; and how a section refuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Section(BaseModel):
    """A section of the config. Each field has a docstring line; cross-checks stand beside the fields.

    `int` is accepted where `float` is asked for; nothing else is converted. NaN and infinity are refused.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class Words:
    """In an `Annotated` type: what to call it where it is expected, such as 'an expression'."""

    text: str


class Problem(NamedTuple):
    """Values that are each valid and do not go together."""

    location: tuple[str | int, ...]
    """Keys from the section that finds it down to the one to blame."""
    message: str
    """What is wrong, and what was allowed."""
    relies_on: tuple[tuple[str | int, ...], ...] = ()
    """Other places, from the top of the YAML: where one of their entries is wrong, this is not reported."""


def refuse(problems: Sequence[Problem]) -> None:
    """Ends the validation of a section with all its problems at once; does nothing when there are none."""
    if problems:
        raise ValidationError.from_exception_data(
            "problems",
            [
                InitErrorDetails(
                    type=PydanticCustomError("problem", "{message}", problem._asdict()),
                    loc=problem.location,
                    input=None,
                )
                for problem in problems
            ],
        )
