"""The sections of the YAML that say what is read and what is made of it.

`data`, `classes`, `inputs`, `define`, `spectators`, `weights`. Expressions are parsed here, so that a typo is
found before a file is opened; names are checked against the files' branches later.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from jettagger.errors import JettaggerError
from jettagger.expressions import parse
from jettagger.schema import Section

NOT_YET: dict[str, str] = {
    "targets": "regression targets",
    "data.on_error": "skipping unreadable files",
    "data.units": "unit conversion: write GeV into the expressions, for example pt / 1000",
    "weights.training.flatten": "flattening of spectra",
}
"""Keys that are settled but not implemented: path, and what they will do."""


def _parsed(text: str | int | float) -> str | int | float:
    try:
        parse(text)
    except JettaggerError as error:
        raise ValueError(str(error)) from error
    return text


ExpressionText = Annotated[str | int | float, AfterValidator(_parsed)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class SampleSection(Section):
    """Files that belong together, and what is known of them."""

    files: str | list[str]
    """Paths or globs, relative to the folder that jettagger is started in."""
    weight: ExpressionText = 1.0
    """Multiplies `weights.event` for these files: a number or an expression."""


Samples = dict[Name, str | list[str] | SampleSection]


class DataSection(Section):
    """Which files, which jets, and how they are split."""

    train: Samples
    """Samples to train on: name -> files. A sample is not a class."""
    test: Samples = {}
    """Samples that are evaluated, never trained on."""
    validation: Annotated[float, Field(gt=0, lt=1)] | Samples = 0.1
    """Fraction of the training samples' events, or samples of its own."""
    group_by: str | None = None
    """Branch whose equal values stay on one side of a split; default: `event_number` where it exists, else
    blocks of neighbouring entries."""
    tree: str | None = None
    """Name of the TTree or RNTuple; default: the only one in the file."""
    selection: ExpressionText | None = None
    """Jets that fulfil it are used."""
    prepared: str = "prepared"
    """Folder of the prepared datasets, which are keyed by content and can be shared by configs."""


class SampleClass(Section):
    """All selected jets of a sample."""

    sample: Name
    """Name of a sample in `data`."""


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


class CollectionSection(Section):
    """Particles (or vertices, …) of a jet."""

    from_: Annotated[str, Field(alias="from")]
    """Glob of the branches that hold the collection, such as part_*."""
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


def _kind_of_input(value: Any) -> str:
    if isinstance(value, JetSection):
        return "jet"
    return "collection" if not isinstance(value, dict) or set(value) != {"features"} else "jet"


InputSection = Annotated[
    Annotated[JetSection, Tag("jet")] | Annotated[CollectionSection, Tag("collection")],
    Discriminator(_kind_of_input),
]


class TrainingWeights(Section):
    """Weights that help the training and never touch a metric."""

    balance: Literal["classes", "none"] = "none"
    """`classes`: every class has the same sum of weights in the loss."""


class WeightsSection(Section):
    """What each jet counts."""

    event: ExpressionText = 1.0
    """Physics: cross-section, generator weight; may be negative; enters the loss and every metric."""
    training: TrainingWeights = TrainingWeights()
    """Enters the training loss only."""


RESERVED = ("std", "mutual_information", "total_entropy", "expected_entropy", "passes_selection")
"""Fields of a prediction; no class can be called so."""


class DataConfig(Section):
    """All that decides which numbers reach the network: the prepared dataset is keyed by it."""

    data: DataSection
    """Files and splits."""
    classes: Annotated[dict[Name, ExpressionText | SampleClass], Field(min_length=2)]
    """Name -> condition, in the order of the outputs; each selected jet is in exactly one."""
    inputs: Annotated[dict[Name, InputSection], Field(min_length=1)]
    """`jet` for jet-level variables; any other name is a collection of particles."""
    define: dict[Name, ExpressionText] = {}
    """Names for expressions, used by others in any order."""
    spectators: list[str] = []
    """Branches or definitions of the jet that are kept beside the scores: never inputs."""
    weights: WeightsSection = WeightsSection()
    """What each jet counts, in physics and in training."""

    @model_validator(mode="after")
    def _inputs_are_what_their_names_say(self) -> "DataConfig":
        for name, section in self.inputs.items():
            if (name == "jet") != isinstance(section, JetSection):
                kind = "jet-level variables take the name 'jet'" if name != "jet" else "'jet' has no particles"
                raise ValueError(f"inputs.{name}: {kind}; a collection has `from` and `features`")
        return self

    @field_validator("classes")
    @classmethod
    def _free_names(cls, classes: dict[str, Any]) -> dict[str, Any]:
        for name in classes:
            if name in RESERVED:
                raise ValueError(f"a class cannot be called {name}: a prediction has a field of that name")
        return classes

    @model_validator(mode="after")
    def _classes_name_samples(self) -> "DataConfig":
        for name, condition in self.classes.items():
            if isinstance(condition, SampleClass) and condition.sample not in self.data.train:
                allowed = ", ".join(self.data.train)
                raise ValueError(
                    f"classes.{name}: sample '{condition.sample}' is not in data.train (allowed: {allowed})"
                )
        return self
