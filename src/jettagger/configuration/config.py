"""The whole YAML: each room's section under its key, and the checks that concern several rooms."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny, model_validator

from jettagger import baselines
from jettagger.baselines import BaselinesSection
from jettagger.cluster.schema import ClusterSection
from jettagger.cluster.sweep_schema import SweepSection
from jettagger.configuration.shapes import ChosenBy
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError, unknown_name
from jettagger.evaluation.schema import EvaluationSection
from jettagger.schema import Problem, Section, Words, refuse
from jettagger.training.schema import EnsembleSection, TrainingSection


def architectures() -> list[str]:
    """Names of the architectures; the first call imports torch."""
    from jettagger import models

    return list(models.architectures())


def model_section(architecture: str) -> type[Section]:
    """The section class of an architecture."""
    from jettagger import models

    section: type[Section] = models.config_class(architecture)
    return section


def _of_architecture(given: Any) -> Any:
    """The `model` section of the class that its `architecture` names."""
    if isinstance(given, Section):
        return given
    if not isinstance(given, dict):
        example = f" (write {{architecture: {given}}})" if isinstance(given, str) else ""
        raise ValueError(f"a map with the key 'architecture' is expected{example}")
    name = given.get("architecture")
    if name is None:
        raise ValueError(f"'architecture' is missing (allowed: {', '.join(architectures())})")
    if name not in architectures():
        raise ValueError(str(unknown_name("architecture", str(name), architectures())))
    return model_section(name).model_validate(given)


ModelSection = Annotated[
    SerializeAsAny[Section],
    BeforeValidator(_of_architecture),
    ChosenBy("architecture", architectures, model_section),
    Words("{architecture, and its settings}"),
]


class Config(DataConfig):
    """Everything that a YAML says."""

    format: Literal[1]
    """Version of this format."""
    model: ModelSection
    """The architecture and its settings."""
    training: TrainingSection = TrainingSection()
    """How each network is trained."""
    ensemble: EnsembleSection = EnsembleSection()
    """How many networks are trained, and what differs between them."""
    evaluation: EvaluationSection = EvaluationSection()
    """What is measured, and in which bins it is drawn."""
    baselines: BaselinesSection = BaselinesSection()
    """Simple taggers that are fitted and reported beside the network."""
    cluster: ClusterSection = ClusterSection()
    """What each job of `jettagger submit` asks for. Changes no result."""
    sweep: SweepSection | None = None
    """Values that `jettagger sweep` and `jettagger submit --sweep` try; other commands leave it alone."""

    @model_validator(mode="after")
    def _rooms_fit_together(self) -> "Config":
        looked_at = (("classes",), ("inputs",))
        refuse(
            [
                *(
                    Problem(tuple(key.split(".")), message, looked_at)
                    for key, message in baselines.check(self.baselines, self)
                ),
                *_loss_problems(self),
                *_decorrelation_problems(self),
                *_evaluation_problems(self),
                *_cut_problems(self),
                *_ensemble_problems(self),
                *_device_problems(self),
            ]
        )
        return self


def _loss_problems(config: Config) -> list[Problem]:
    """A loss of the classes where there are none, or not as many as it takes."""
    training, classes = config.training, len(config.classes)
    problems = []
    if not classes and training.loss != TrainingSection.model_fields["loss"].default:
        message = "is for classes, and there are none: each target has its loss in `targets`"
        problems.append(Problem(("training", "loss"), message, (("classes",),)))
    if not classes and training.label_smoothing > 0:
        message = "there are no labels to smooth: `classes` is empty"
        problems.append(Problem(("training", "label_smoothing"), message, (("classes",),)))
    if classes and classes != 2 and training.loss.name == "binary_cross_entropy":
        message = f"binary_cross_entropy is for two classes, not {classes}: take cross_entropy"
        problems.append(Problem(("training", "loss"), message, (("classes",),)))
    return problems


def _decorrelation_problems(config: Config) -> list[Problem]:
    """A variable that is not kept beside the inputs, or classes that there are not."""
    section = config.training.decorrelate
    if section is None:
        return []
    place = ("training", "decorrelate")
    problems = []
    if section.variable not in config.spectators:
        message = str(unknown_name("spectator", section.variable, config.spectators))
        problems.append(Problem((*place, "variable"), message, (("spectators",),)))
    for key, name in {"background": section.background, "signal": section.signal}.items():
        if name is not None and name not in config.classes:
            message = str(unknown_name("class", name, config.classes))
            problems.append(Problem((*place, key), message, (("classes",),)))
    if section.signal == section.background:
        problems.append(Problem((*place, "signal"), "is the background as well"))
    return problems


def _evaluation_problems(config: Config) -> list[Problem]:
    """A signal or background that is no class, or both the same one."""
    evaluation = config.evaluation
    named = {"signal": evaluation.signal, "background": evaluation.background}
    problems = []
    for key, name in named.items():
        if name is not None and name not in config.classes:
            message = str(unknown_name("class", name, config.classes))
            problems.append(Problem(("evaluation", key), message, (("classes",),)))
    if evaluation.signal is not None and evaluation.signal == evaluation.background:
        problems.append(Problem(("evaluation", "background"), "is the signal as well"))
    return problems


def _cut_problems(config: Config) -> list[Problem]:
    """A cut that selects another class than the one it is judged by."""
    cut = config.baselines.cut
    if not config.classes:
        return []
    judged = config.evaluation.signal or list(config.classes)[-1]
    if cut is None or cut.signal not in config.classes or cut.signal == judged:
        return []
    said = "evaluation.signal is" if config.evaluation.signal else "the signal, by default the last class, is"
    message = f"the cut selects '{cut.signal}', and {said} '{judged}': set evaluation.signal"
    return [Problem(("baselines", "cut", "signal"), message, (("classes",), ("evaluation", "signal")))]


def _ensemble_problems(config: Config) -> list[Problem]:
    """Another split for each member of what has no random split."""
    validation = config.data.validation
    if "split" not in config.ensemble.vary or isinstance(validation, float):
        return []
    shown = "samples of its own" if isinstance(validation, dict) else f"the condition '{validation}'"
    message = (
        f"split draws another validation fraction for each member, but data.validation is {shown}: write a fraction"
        " such as 0.1 there, or leave split out"
    )
    return [Problem(("ensemble", "vary"), message, (("data", "validation"),))]


def _device_problems(config: Config) -> list[Problem]:
    """GPUs that are asked for and not used, or used and not asked for."""
    gpus, device = config.cluster.gpus, config.training.device
    if "cluster" not in config.model_fields_set or device == "auto":
        return []
    if gpus and device == "cpu":
        message = f"{gpus} for a training whose training.device is cpu: write auto there, or 0 here"
        return [Problem(("cluster", "gpus"), message, (("training", "device"),))]
    if not gpus and device != "cpu":
        message = f"0 for a training whose training.device is {device}"
        return [Problem(("cluster", "gpus"), message, (("training", "device"),))]
    return []


def problems_of_model(config: Config) -> list[Problem]:
    """Why the architecture cannot be built for these inputs and outputs, or not be trained so; imports torch."""
    from jettagger import models
    from jettagger.data.columns import Columns
    from jettagger.training.recipe import outputs_of

    try:
        seen = models.check(config.model, Columns(config).spec, outputs_of(config, config.training).width)
    except JettaggerError as error:
        key, message = re.fullmatch(r"(?:(model[\w.]*): )?(.*)", str(error), re.DOTALL).groups("model")  # type: ignore[union-attr]
        return [Problem(tuple(key.split(".")), message)]
    if config.training.mixup is not None and seen.collections:
        message = (
            f"{config.model.architecture} looks at particles, and those of two jets cannot be mixed: mixup is for "  # type: ignore[attr-defined]
            "networks on jet-level variables alone, such as mlp"
        )
        return [Problem(("training", "mixup"), message)]
    return []


def problems_of_reflections(config: Config) -> list[Problem]:
    """Reflections of variables that the inputs do not have; imports torch."""
    from jettagger.data.columns import Columns
    from jettagger.training import augmentation

    problems = []
    for name, variables in config.training.reflections.items():
        try:
            augmentation.check({name: variables}, Columns(config).spec)
        except JettaggerError as error:
            message = str(error).removeprefix(f"training.reflections.{name}: ")
            problems.append(Problem(("training", "reflections", name), message))
    return problems
