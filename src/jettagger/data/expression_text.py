"""Types of the YAML's values that several sections of the data share."""

from typing import Annotated

from pydantic import AfterValidator, Field

from jettagger.errors import JettaggerError
from jettagger.expressions import parse
from jettagger.schema import Words


def parsed(text: str | int | float) -> str | int | float:
    try:
        parse(text)
    except JettaggerError as error:
        raise ValueError(str(error)) from error
    return text


ExpressionText = Annotated[str | int | float, AfterValidator(parsed), Words("an expression such as log(pt)")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
