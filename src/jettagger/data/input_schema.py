"""The section `inputs` of the YAML: jet-level variables and collections of particles."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from jettagger.data.expression_text import ExpressionText, Name
from jettagger.schema import Section, Words

Bounds = Annotated[list[float], Field(min_length=2, max_length=2), Words("[lower, upper]")]


class Normalisation(Section):
    """(x - shift) / scale."""

    shift: float
    """Subtracted first."""
    scale: Annotated[float, Field(gt=0)]
    """Divided by then."""


class FeatureSection(Section):
    """An input variable with its treatment."""

    value: ExpressionText
    """What is computed."""
    normalise: Literal["auto", "none"] | Normalisation = "auto"
    """`auto`: median and half the central 68 % of the training split; `none`; or {shift, scale}."""
    clip: Bounds | None = [-5.0, 5.0]
    """Bounds after shift and scale; null for none."""
    missing: float | None = None
    """Raw value in place of NaN, ±inf and sentinels; default: the shift, so that the network sees 0."""
    sentinels: list[float] = []
    """Values that mean 'not there', such as -999."""

    @field_validator("clip")
    @classmethod
    def _ordered(cls, clip: list[float] | None) -> list[float] | None:
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError(f"clip takes [lower, upper] with lower < upper, not {clip}")
        return clip


Features = Annotated[dict[Name, ExpressionText | FeatureSection], Field(min_length=1)]


class CoordinatesSection(Section):
    """Where a particle lies in the jet: images are drawn on these. Never normalised."""

    eta: ExpressionText
    """Relative to the jet axis."""
    phi: ExpressionText
    """Relative to the jet axis, rad."""
    pt: ExpressionText
    """GeV."""


class JetSection(Section):
    """Variables of the jet as a whole."""

    features: Features
    """Name -> expression, or {value, normalise, clip, missing, sentinels}."""

    @model_validator(mode="before")
    @classmethod
    def _no_collection(cls, given: Any) -> Any:
        if isinstance(given, dict) and "from" in given:
            raise ValueError(
                "'jet' is for variables of the whole jet, without 'from'; a collection takes another name, "
                "such as 'particles'"
            )
        return given


class IndexSection(Section):
    """How the particles of a jet are found where jets and particles lie side by side in an event.

    A cross-index (CMS PFNano) has `jet` and `particle`, two branches of one table; particles that carry the
    number of their jet have `jet` alone; jets that list their particles (ATLAS PHYSLITE) have `particle` alone.
    """

    jet: str | None = None
    """Branch with the number of the jet in its event, one value a row of the table."""
    particle: str | None = None
    """Branch with the number of the particle in its event; in a list for each jet where `jet` is not given."""
    id: str | None = None
    """Branch of the particles that `particle` refers to by value; default: their position in the event."""

    @model_validator(mode="after")
    def _one_at_least(self) -> "IndexSection":
        if self.jet is None and self.particle is None:
            raise ValueError("'jet', 'particle' or both are expected: see docs/layout.md")
        if self.id is not None and self.particle is None:
            raise ValueError(
                "'id' says what 'particle' refers to, and there is no 'particle': see docs/layout.md"
            )
        return self


class CollectionSection(Section):
    """Particles (or vertices, …) of a jet."""

    from_: Annotated[str, Field(alias="from")]
    """Glob of the branches that hold the collection, such as part_*."""
    index: IndexSection | None = None
    """Which particles of an event are those of a jet, where `data.jets` says that jets are nested in events."""
    select: ExpressionText | None = None
    """Particles that fulfil it are inputs; reductions in other expressions see all of them."""
    sort_by: ExpressionText | None = None
    """Ascending, so -pt puts the hardest first; default: the files' order."""
    length: Annotated[int, Field(gt=0)] = 128
    """The most particles kept, after sorting; jets that had more are counted."""
    features: Features
    """Name -> expression, or {value, normalise, clip, missing, sentinels}."""
    coordinates: CoordinatesSection | None = None
    """For architectures that draw or connect particles."""


class _Named(NamedTuple):
    """An input with its name, which decides what it may hold."""

    name: str
    given: Any


def with_names(inputs: Any) -> Any:
    """Each input with its name, which decides what it may hold."""
    if not isinstance(inputs, dict):
        return inputs
    return {name: _Named(name, given) for name, given in inputs.items()}


def _kind_of_input(value: Any) -> str:
    is_jet = value.name == "jet" if isinstance(value, _Named) else isinstance(value, JetSection)
    return "jet" if is_jet else "collection"


_WithoutName = BeforeValidator(lambda value: value.given if isinstance(value, _Named) else value)
InputSection = Annotated[
    Annotated[JetSection, _WithoutName, Tag("jet")]
    | Annotated[CollectionSection, _WithoutName, Tag("collection")],
    Discriminator(_kind_of_input),
]
