"""The sections of the YAML that say what is read and what is made of it.

`data`, `classes`, `inputs`, `define`, `spectators`, `weights`. Expressions are parsed here, so that a typo is
found before a file is opened; names are checked against the files' branches later.
"""

from collections import Counter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from jettagger.data.expression_text import ExpressionText, Name
from jettagger.data.input_schema import CollectionSection, IndexSection, InputSection, with_names
from jettagger.data.sample_schema import DataSection, WeightsSection
from jettagger.data.target_schema import TargetSection, output_columns
from jettagger.errors import nearest, unknown_name
from jettagger.expressions import parse
from jettagger.schema import Problem, Section, refuse

RESERVED = (
    *("entry", "expected_entropy", "file", "jet_index"),
    *("mutual_information", "passes_selection", "std", "total_entropy"),
)
"""What stands beside the classes' scores in a prediction, so that no class can have its name."""

UNCLASSED = "jets"
"""What the jets of a pure regression are called where jets are counted by class."""


class ClassSection(Section):
    """The jets of a class, told by their sample or by a branch."""

    sample: Name | None = None
    """Name of a sample in `data`: all its selected jets."""
    one_hot: str | None = None
    """A branch or definition that is 1 for the jets of the class, and 0 for all others."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "ClassSection":
        if (self.sample is None) == (self.one_hot is None):
            raise ValueError("a condition, {sample: name} or {one_hot: branch} is expected")
        return self


def _one_hot(classes: Any) -> Any:
    """A list of branches as a class each."""
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return {name: {"one_hot": name} for name in classes}
    return classes


class DataConfig(Section):
    """All that decides which numbers reach the network: the prepared dataset is keyed by it."""

    data: DataSection
    """Files and splits."""
    classes: Annotated[
        dict[Name, ExpressionText | ClassSection],
        BeforeValidator(
            _one_hot, json_schema_input_type=dict[Name, ExpressionText | ClassSection] | list[Name]
        ),
    ] = {}
    """Name -> condition, {one_hot: branch} or {sample: name}, in the order of the outputs; a list of branches is
    short for a one-hot class each. Each selected jet is in exactly one class. Two at least, or none beside
    `targets`."""
    inputs: Annotated[dict[Name, InputSection], BeforeValidator(with_names), Field(min_length=1)]
    """`jet` for jet-level variables; any other name is a collection of particles."""
    targets: dict[Name, TargetSection] = {}
    """Regression, beside classes or alone: name -> {value, loss, weight}."""
    define: dict[Name, ExpressionText] = {}
    """Names for expressions, used by others in any order."""
    spectators: list[str] = []
    """Branches or definitions of the jet that are kept beside the scores: never inputs."""
    weights: WeightsSection = WeightsSection()
    """What each jet counts, in physics and in training."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What jets are counted by: the classes, or one name for all jets of a pure regression."""
        return tuple(self.classes) or (UNCLASSED,)

    @model_validator(mode="after")
    def _fit_together(self) -> "DataConfig":
        refuse(
            [
                *_class_problems(self),
                *_target_problems(self),
                *_definition_problems(self.define),
                *_spectator_problems(self),
                *_index_problems(self),
                *_match_problems(self),
            ]
        )
        return self


def _class_problems(config: DataConfig) -> list[Problem]:
    """Reserved names; samples that do not exist, or belong to no class or to two."""
    if len(config.classes) < 2 and not (config.targets and not config.classes):
        few = f"{len(config.classes)} given, at least 2 expected"
        return [Problem(("classes",), few if config.classes else f"{few}, or none beside `targets`")]
    problems = [
        Problem(("classes", name), f"the name is taken: {', '.join(RESERVED)} stand beside the scores")
        for name in config.classes
        if name in RESERVED
    ]
    samples = {
        name: c.sample for name, c in config.classes.items() if isinstance(c, ClassSection) and c.sample
    }
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
    if not problems and samples and len(samples) == len(config.classes):
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


def _target_problems(config: DataConfig) -> list[Problem]:
    """Targets whose columns in a prediction have the name of something else there."""
    problems = []
    taken = {**dict.fromkeys(_outputs(config), "an output"), **dict.fromkeys(config.classes, "a class")}
    for name, section in config.targets.items():
        for column in output_columns(name, section):
            if column in taken:
                message = f"the name is taken: '{column}' is {taken[column]} in the predictions"
                problems.append(Problem(("targets", name), message))
            taken[column] = f"a column of the target '{name}'"
    return problems


def _outputs(config: DataConfig) -> list[str]:
    """Columns of the predictions beside the classes."""
    outputs = [*RESERVED, *(f"std_{name}" for name in config.classes)]
    if config.data.jets is not None:
        outputs.append("n_jets")  # the length of each event's lists
    return outputs


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


def _match_problems(config: DataConfig) -> list[Problem]:
    """A spectrum that is to be matched to that of no class."""
    match = config.weights.training.match
    if match is None or match.to in config.classes:
        return []
    message = str(unknown_name("class", match.to, config.classes))
    return [Problem(("weights", "training", "match", "to"), message, (("classes",),))]


def _spectator_problems(config: DataConfig) -> list[Problem]:
    """Spectators that stand twice, or have the name of an output."""
    of_targets = (column for name, x in config.targets.items() for column in output_columns(name, x))
    taken = {
        **dict.fromkeys(_outputs(config), "an output"),
        **dict.fromkeys(config.classes, "a class"),
        **dict.fromkeys(of_targets, "a column of a target"),
    }
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


def _index_problems(config: DataConfig) -> list[Problem]:
    """Links where jets are not nested in events, and inputs that link the same branches in different ways."""
    problems = []
    linked: dict[str, tuple[str, IndexSection]] = {}
    for name, section in config.inputs.items():
        if not isinstance(section, CollectionSection) or section.index is None:
            continue
        place = ("inputs", name, "index")
        if config.data.jets is None:
            message = (
                "links particles to the jets of an event, and without data.jets an entry is a jet: say which "
                "branches are those of the jets, such as data.jets: FatJet_*"
            )
            problems.append(Problem(place, message))
        other, index = linked.setdefault(section.from_, (name, section.index))
        if index != section.index:
            message = f"inputs.{other} links the same branches '{section.from_}' to the jets in another way"
            problems.append(Problem(place, message, (("inputs", other, "index"),)))
    return problems
