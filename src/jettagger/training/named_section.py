"""Sections that are a name with settings, such as an optimiser; and the numbers that occur in them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from jettagger.errors import unknown_name
from jettagger.schema import Section

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Named(Section):
    """A section of which the name alone may be written: `schedule: cosine` is `schedule: {name: cosine}`."""

    BY_NAME: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Defaults that differ from those of the fields for a name; what is written goes before."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        section = {"name": given} if isinstance(given, str) else given
        if isinstance(section, dict) and isinstance(section.get("name"), str):
            allowed = get_args(cls.model_fields["name"].annotation)
            if section["name"] not in allowed:
                kind = cls.__name__.removesuffix("Section").lower()
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
