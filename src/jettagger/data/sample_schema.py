"""The sections `data` and `weights` of the YAML: which jets, from where, and what each of them counts."""

from typing import Annotated, Literal

from pydantic import Field

from jettagger.data.expression_text import ExpressionText, Name
from jettagger.schema import Section, Words

Files = Annotated[str | list[str], Words("a path or glob, a list of them")]


class SampleSection(Section):
    """Files that belong together, and what is known of them."""

    files: Files
    """Paths or globs, relative to the folder that jettagger is started in."""
    weight: ExpressionText = 1.0
    """Multiplies `weights.event` for these files: a number or an expression."""


Samples = Annotated[dict[Name, Files | SampleSection], Words("a map of sample names to files")]


Fraction = Annotated[float, Field(gt=0, lt=1)]
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
    test: Samples = {}
    """Samples that are evaluated, never trained on."""
    validation: Fraction | Samples = 0.1
    """Fraction of the training samples' events, or samples of its own."""
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


Spectrum = Annotated[
    dict[str, Annotated[list[float], Field(min_length=2)]], Field(min_length=1, max_length=2)
]


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
    """Largest weight of a jet over its class's mean, so the most that it is repeated; default: none."""


class WeightsSection(Section):
    """What each jet counts."""

    event: ExpressionText = 1.0
    """Physics: cross-section, generator weight; may be negative; enters the loss and every metric."""
    training: TrainingWeights = TrainingWeights()
    """Enters the training loss only."""
