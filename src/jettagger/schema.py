"""The base of every section of the YAML: strict, frozen, unknown keys refused; and how a section refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from jettagger.errors import unknown_name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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


class Named(Section):
    """A section of which the name alone may be written: `schedule: cosine` is `schedule: {name: cosine}`."""

    KIND: ClassVar[str] = ""
    """What errors call it; default: the class's name without "Section"."""
    BY_NAME: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Defaults that differ from those of the fields for a name; what is written goes before."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        section = {"name": given} if isinstance(given, str) else given
        if isinstance(section, dict) and isinstance(section.get("name"), str):
            allowed = get_args(cls.model_fields["name"].annotation)
            if section["name"] not in allowed:
                kind = cls.KIND or cls.__name__.removesuffix("Section").lower()
                raise ValueError(str(unknown_name(kind, section["name"], allowed)))
            return {**cls.BY_NAME.get(section["name"], {}), **section}
        return section

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        section = handler.resolve_ref_schema(handler(core_schema))
        names = {key: value for key, value in section["properties"]["name"].items() if key != "default"}
        return {"anyOf": [names, section]}

    def _only_for(self, names: set[str], *fields: str) -> None:
        """Raises ValueError when one of `fields` was changed for a name that does not use it."""
        name: str = self.name  # type: ignore[attr-defined]
        *first, last = sorted(names)
        users = f"{', '.join(first)} and {last}" if first else last
        for field in fields:
            if name not in names and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is used by {users} only, not by {name}")


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
