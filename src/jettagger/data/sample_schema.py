"""The sections `data` and `weights` of the YAML: which jets, from where, and what each of them counts."""

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from jettagger.data.expression_text import ExpressionText, Name, parsed
from jettagger.expressions import parse
from jettagger.schema import Problem, Section, Words, refuse

Files = Annotated[str | list[str], Words("a path or glob, a list of them")]


class SampleSection(Section):
    """Files that belong together, and what is known of them."""

    files: Files
    """Paths or globs, relative to the folder that jettagger is started in."""
    weight: ExpressionText = 1.0
    """Multiplies `weights.event` for these files: a number or an expression."""


Samples = Annotated[dict[Name, Files | SampleSection], Words("a map of sample names to files")]


_PATH = re.compile(r"\*\*|\*\.|/\*|://|^[.~]?/|\.(root|h5|hdf5?|parquet|npz)\b")


def _is_condition(text: str) -> str:
    if not parse(parsed(text)).names:
        raise ValueError(f"'{text}' is the same for all jets; a condition looks at a branch")
    return text


def _is_not_a_path(given: Any) -> Any:
    """Files without a sample are refused here: as an expression they would only be bad grammar."""
    for text in given if isinstance(given, list) else [given]:
        if isinstance(given, list) or (isinstance(text, str) and _PATH.search(text)):
            raise ValueError(
                f"{text!r} looks like files, and samples are written {{name: files}}; a text is a condition on "
                "the training samples, such as event_number % 10 == 0"
            )
    return given


Fraction = Annotated[float, Field(gt=0, lt=1)]
Condition = Annotated[str, AfterValidator(_is_condition), Words("a condition on the training jets")]
Side = Annotated[Fraction | Condition | Samples, BeforeValidator(_is_not_a_path)]
"""Jets that are held out of the training: some of the training samples', or samples of their own."""
Unit = Literal["MeV", "GeV", "TeV", "um", "mm", "cm", "m"]
Units = Literal["GeV", "MeV"] | dict[str, Unit]
Storage = Literal["float32", "float16"]


class FoldsSection(Section):
    """Fold k is held out of training k; its jets are those whose event number leaves the remainder k."""

    k: Annotated[int, Field(ge=2)]
    """Number of folds."""
    by: ExpressionText = "event_number"
    """Whole number of the event; the fold is its remainder after division by k."""


class DataSection(Section):
    """Which files, which jets, and how they are split."""

    train: Samples
    """Samples to train on: name -> files. A sample is not a class."""
    test: Side = {}
    """Jets that are evaluated, never trained on: samples of their own, or a fraction of the training samples'
    events, or a condition on them (event_number % 10 == 0)."""
    validation: Side = 0.1
    """Jets that choose the epoch, likewise: a fraction of what the test leaves, a condition, or samples."""
    folds: FoldsSection | None = None
    """K-folds: each jet is scored by a network that never saw its event."""
    group_by: str | None = None
    """Branch whose equal values stay on one side of a split; default: `event_number` where it exists, else
    blocks of neighbouring entries."""
    tree: str | None = None
    """Name of the TTree or RNTuple, or key of the table (pandas); default: the only one in the file."""
    jets: str | None = None
    """Glob of the branches with one value a jet, such as FatJet_*, where an entry is an event; default: an entry
    is a jet."""
    columns: dict[str, list[Name]] = {}
    """Names for the last axis of arrays that have none (EnergyFlow, JetNet): {X: [pt, y, phi, pid]} gives X.pt, …"""
    slots: dict[str, ExpressionText] = {}
    """Which slots of arrays of fixed length hold a particle: glob of branches -> condition for each slot, or
    number of filled slots."""
    units: Units = "GeV"
    """`GeV`; `MeV`: branches named as energies and momenta are divided by 1000; or glob of branches -> unit."""
    selection: ExpressionText | None = None
    """Jets that fulfil it are used."""
    on_error: Literal["stop", "skip"] = "stop"
    """`skip`: a training or test file that cannot be read is left out, counted and reported."""
    prepared: str = "prepared"
    """Folder of the prepared datasets, which are keyed by content and can be shared by configs."""
    storage: Storage = "float32"
    """How the prepared values of particles are stored; the error that float16 makes is measured and reported."""


def _ascending(edges: list[float]) -> list[float]:
    for low, high in pairwise(edges):
        if low >= high:
            raise ValueError(f"edges ascend; {high:g} follows {low:g}")
    return edges


Edges = Annotated[list[float], Field(min_length=2), AfterValidator(_ascending)]
Spectrum = Annotated[dict[Annotated[str, AfterValidator(parsed)], Edges], Field(min_length=1, max_length=2)]


class MatchSection(Section):
    """Spectra that are made alike."""

    to: Name
    """The class whose spectrum the others take."""
    spectrum: Spectrum
    """Variable -> edges of its bins, one or two of them."""


class TrainingWeights(Section):
    """Weights that help the training and never touch a metric."""

    balance: Literal["classes", "none"] = "none"
    """`classes`: every class has the same sum of weights."""
    flatten: Spectrum | None = None
    """Variable -> edges of its bins, one or two of them: each class's spectrum becomes flat."""
    match: MatchSection | None = None
    """Each class's spectrum becomes that of one class."""
    method: Literal["loss", "sampling"] = "loss"
    """`loss`: the weights multiply the loss; `sampling`: they say how often a jet is drawn in an epoch."""
    cap: Annotated[float, Field(gt=1)] | None = None
    """Largest training weight of a jet over the mean of its class; with `sampling` over the mean of all jets: the
    most that a jet is repeated in an epoch, on average; default: none."""

    @model_validator(mode="after")
    def _fit_together(self) -> "TrainingWeights":
        problems = []
        shaped = self.flatten is not None or self.match is not None
        if self.flatten is not None and self.match is not None:
            problems.append(
                Problem(("match",), "a spectrum is made flat or that of a class: leave flatten or match out")
            )
        if self.method == "sampling" and not shaped and self.balance == "none":
            message = "there is nothing to sample by: add balance: classes, flatten or match"
            problems.append(Problem(("method",), message))
        if self.cap is not None and not shaped and self.method == "loss":
            problems.append(Problem(("cap",), "without flatten or match all jets of a class weigh the same"))
        refuse(problems)
        return self


class WeightsSection(Section):
    """What each jet counts."""

    event: ExpressionText = 1.0
    """Physics: cross-section, generator weight; may be negative; enters the loss and every metric."""
    training: TrainingWeights = TrainingWeights()
    """Enters the training only: its loss, or how often a jet is drawn."""
