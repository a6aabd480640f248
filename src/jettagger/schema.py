"""The base of every section of the YAML: strict, frozen, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the config. Each field has a docstring line; cross-checks stand beside the fields.

    `int` is accepted where `float` is asked for; nothing else is converted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
