"""The sections of the YAML that say what is read and what is made of it.

`data`, `classes`, `inputs`, `define`, `spectators`, `weights`. Expressions are parsed here, so that a typo is
found before a file is opened; names are checked against the files' branches later.
"""

from collections import Counter
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from jettagger.errors import JettaggerError, nearest
from jettagger.expressions import parse
from jettagger.schema import Problem, Section, Words, refuse

NOT_YET: dict[str, str] = {
    "targets": "regression targets",
    "data.on_error": "skipping unreadable files",
    "data.validation.folds": "cross-validation",
    "data.units": "unit conversion: write GeV into the expressions, for example pt / 1000",
    "inputs.*.index": "collections that are nested in events and picked by index branches",
    "weights.training.flatten": "flattening of spectra",
}
"""Keys that are settled but not implemented: path (* is any name), and what they will do."""

RESERVED = (
    *("entry", "expected_entropy", "file", "jet_index"),
    *("mutual_information", "passes_selection", "std", "total_entropy"),
)
"""What stands beside the classes' scores in a prediction, so that no class can have its name."""


def _parsed(text: str | int | float) -> str | int | float:
    try:
        parse(text)
    except JettaggerError as error:
        raise ValueError(str(error)) from error
    return text


ExpressionText = Annotated[str | int | float, AfterValidator(_parsed), Words("an expression such as log(pt)")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2), Words("[lower, upper]")]
Files = Annotated[str | list[str], Words("a path or glob, a list of them")]


class SampleSection(Section):
    """Files that belong together, and what is known of them."""

    files: Files
    """Paths or globs, relative to the folder that jettagger is started in."""
    weight: ExpressionText = 1.0
    """Multiplies `weights.event` for these files: a number or an expression."""


Samples = Annotated[dict[Name, Files | SampleSection], Words("a map of sample names to files")]


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

    @model_validator(mode="before")
    @classmethod
    def _no_collection(cls, given: Any) -> Any:
        if isinstance(given, dict) and "from" in given:
            raise ValueError(
                "'jet' is for variables of the whole jet, without 'from'; a collection takes another name, "
                "such as 'particles'"
            )
        return given


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


class _Named(NamedTuple):
    """An input with its name, which decides what it may hold."""

    name: str
    given: Any


def _with_names(inputs: Any) -> Any:
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


class DataConfig(Section):
    """All that decides which numbers reach the network: the prepared dataset is keyed by it."""

    data: DataSection
    """Files and splits."""
    classes: Annotated[dict[Name, ExpressionText | SampleClass], Field(min_length=2)]
    """Name -> condition, in the order of the outputs; each selected jet is in exactly one."""
    inputs: Annotated[dict[Name, InputSection], BeforeValidator(_with_names), Field(min_length=1)]
    """`jet` for jet-level variables; any other name is a collection of particles."""
    define: dict[Name, ExpressionText] = {}
    """Names for expressions, used by others in any order."""
    spectators: list[str] = []
    """Branches or definitions of the jet that are kept beside the scores: never inputs."""
    weights: WeightsSection = WeightsSection()
    """What each jet counts, in physics and in training."""

    @model_validator(mode="after")
    def _fit_together(self) -> "DataConfig":
        refuse([*_class_problems(self), *_definition_problems(self.define), *_spectator_problems(self)])
        return self


def _class_problems(config: DataConfig) -> list[Problem]:
    """Reserved names; samples that do not exist, or belong to no class or to two."""
    problems = [
        Problem(("classes", name), f"the name is taken: {', '.join(RESERVED)} stand beside the scores")
        for name in config.classes
        if name in RESERVED
    ]
    samples = {name: c.sample for name, c in config.classes.items() if isinstance(c, SampleClass)}
    for name, sample in samples.items():
        if sample not in config.data.train:
            close = nearest(sample, config.data.train)
            suggestion = f": did you mean '{close}'?" if close else ""
            allowed = ", ".join(config.data.train)
            message = f"sample '{sample}' is not in data.train{suggestion} (allowed: {allowed})"
            problems.append(Problem(("classes", name, "sample"), message, (("data", "train"),)))
    for sample, count in Counter(samples.values()).items():
        if count > 1:
            names = ", ".join(name for name, used in samples.items() if used == sample)
            message = f"sample '{sample}' stands for several classes ({names}); a jet is in exactly one"
            problems.append(Problem(("classes",), message))
    if not problems and len(samples) == len(config.classes):
        problems += _samples_without_class(config, list(samples.values()))
    return problems


def _samples_without_class(config: DataConfig, known: list[str]) -> list[Problem]:
    """Where every class is a sample, jets of other samples would be in none."""
    parts = {"train": config.data.train, "test": config.data.test, "validation": config.data.validation}
    return [
        Problem(
            ("data", part, sample),
            f"no class takes this sample (classes take {', '.join(known)})",
            (("classes",),),
        )
        for part, samples in parts.items()
        if isinstance(samples, dict)
        for sample in samples
        if sample not in known
    ]


def _definition_problems(define: dict[str, str | int | float]) -> list[Problem]:
    """Definitions that need themselves: each cycle once, shown as a → b → a."""
    problems = []
    uses = {name: sorted(parse(text).names & define.keys()) for name, text in define.items()}
    done: set[str] = set()
    for start in uses:
        chain: list[str] = []
        waiting = [(start, 0)]
        while waiting:
            name, depth = waiting.pop()
            del chain[depth:]
            if name in chain:
                cycle = " → ".join([*chain[chain.index(name) :], name])
                problems.append(Problem(("define", name), f"needs itself: {cycle}", (("define",),)))
            elif name not in done:
                done.add(name)
                chain.append(name)
                waiting += [(used, depth + 1) for used in uses[name]]
    return problems


def _spectator_problems(config: DataConfig) -> list[Problem]:
    """Spectators that stand twice, or have the name of an output."""
    taken = {**dict.fromkeys(RESERVED, "an output"), **dict.fromkeys(config.classes, "a class")}
    problems = []
    for position, name in enumerate(config.spectators):
        if name in config.spectators[:position]:
            problems.append(Problem(("spectators", position), f"'{name}' stands twice"))
        if name in taken:
            message = (
                f"'{name}' is {taken[name]}, and both are columns of the predictions: define another name"
            )
            problems.append(Problem(("spectators", position), message))
    return problems
