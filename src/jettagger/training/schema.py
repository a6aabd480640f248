"""The sections of the YAML that say how networks are trained: `training` and `ensemble`."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from jettagger.errors import unknown_name
from jettagger.schema import Section

OptimiserName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["one_cycle", "cosine", "plateau", "constant"]
Varied = Literal["initialisation", "batches", "split", "sample"]

NOT_YET: dict[str, str] = {}
"""Values that are settled but not implemented: path, and what they will do."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]
Sources = Annotated[list[Varied], Field(min_length=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


class _Named(Section):
    """A section of which the name alone may be written: `schedule: cosine` is `schedule: {name: cosine}`."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        section = {"name": given} if isinstance(given, str) else given
        if isinstance(section, dict) and isinstance(section.get("name"), str):
            allowed = get_args(cls.model_fields["name"].annotation)
            if section["name"] not in allowed:
                kind = cls.__name__.removesuffix("Section").lower()
                raise ValueError(str(unknown_name(kind, section["name"], allowed)))
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
        for field in fields:
            if name not in names and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is used by {' and '.join(sorted(names))} only, not by {name}")


class OptimiserSection(_Named):
    """How the weights follow the gradient."""

    name: OptimiserName = "adamw"
    """`adamw` (arXiv:1711.05101), `adam` (arXiv:1412.6980), or `sgd` with momentum."""
    lr: Positive = 1.0e-3
    """Learning rate; the schedule's highest value. `sgd` has no default."""
    weight_decay: NotNegative | None = None
    """Decay of the weights; biases and parameters of normalisations are left out. Default: 0.01 for adamw,
    0 for the others."""
    betas: Betas = Field(default=[0.9, 0.999])
    """adam, adamw: decay of the running means of the gradient and of its square."""
    epsilon: Positive = 1.0e-8
    """adam, adamw: added to the root of the mean square."""
    momentum: Decay = 0.9
    """sgd: how much of the last step is kept."""
    nesterov: bool = False
    """sgd: the gradient is taken ahead, at the point that the momentum leads to."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimiserSection":
        self._only_for({"adam", "adamw"}, "betas", "epsilon")
        self._only_for({"sgd"}, "momentum", "nesterov")
        if self.name == "sgd" and "lr" not in self.model_fields_set:
            raise ValueError("sgd has no default learning rate: write {name: sgd, lr: 0.05}, for example")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class ScheduleSection(_Named):
    """How the learning rate changes during the training."""

    name: ScheduleName = "one_cycle"
    """`one_cycle`: up, then down to almost nothing (arXiv:1708.07120); `cosine`: down; `plateau`: down by
    `factor` when the validation loss stands still; `constant`."""
    warm_up: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Fraction of all steps in which the rate rises to `optimiser.lr`. Default: 0.3 for one_cycle, 0 for the
    others."""
    initial: Fraction = 0.04
    """The rate at the start of the warm-up, as a fraction of `optimiser.lr`."""
    final: Fraction = 1.0e-3
    """one_cycle, cosine: the last rate, plateau: the lowest, as a fraction of `optimiser.lr`."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """plateau: what the rate is multiplied by."""
    patience: Annotated[int, Field(ge=0)] = 3
    """plateau: epochs without a better validation loss that are waited for."""

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleSection":
        self._only_for({"plateau"}, "factor", "patience")
        self._only_for({"one_cycle", "cosine", "plateau"}, "final")
        return self


class EarlyStoppingSection(Section):
    """When a training ends before its last epoch."""

    patience: AtLeastOne = 5
    """Epochs without a better validation loss after which the training ends."""
    min_delta: NotNegative = 0.0
    """How much lower the validation loss must be to count as better."""


class TrainingSection(Section):
    """How one network is trained."""

    epochs: AtLeastOne = 20
    """Passes over the training jets."""
    batch_size: AtLeastOne = 256
    """Jets in a step."""
    optimiser: OptimiserSection = OptimiserSection()
    """A name, or a section with the name and its settings."""
    schedule: ScheduleSection = ScheduleSection()
    """A name, or a section with the name and its settings."""
    gradient_clip: Positive | None = None
    """Gradients whose norm over all parameters is larger are scaled down to it."""
    early_stopping: EarlyStoppingSection | None = None
    """Ends the training when the validation loss stands still. The final network is always that of the best
    epoch."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a jet's label that is spread evenly over the classes."""
    reflections: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default={})
    """Symmetries: name -> variables that change sign, such as {phi: [particles.dphi, particles.d0]}. Each is applied
    to a random half of the jets of a batch. Variables: `<collection>.<feature>`, `jet.<feature>`,
    `<collection>.coordinates.eta`."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of a running mean of the weights, such as 0.999; the mean is validated and kept."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:N`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 runs matrix products in 16 bits; `auto`: where the hardware has it and it pays."""
    threads: AtLeastOne | None = None
    """CPU threads; default: PyTorch's. Equal results to the last bit need an equal number."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Names all random numbers of the training: initial weights, batches, dropout."""
    checkpoint_seconds: Positive | None = 60.0
    """Time between two checkpoints inside an epoch; null: one at the end of each epoch only."""
    tensorboard: bool = False
    """Writes TensorBoard logs as well (extra `tensorboard`)."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        kind, colon, number = device.partition(":")
        if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and number.isdecimal()):
            raise ValueError(str(unknown_name("device", device, ["auto", "cpu", "cuda", "cuda:N"])))
        return device


class ChunkSection(Section):
    """So many members in one pass."""

    chunk: AtLeastOne
    """Members that are trained at a time; 1 is `loop`."""


class EnsembleSection(Section):
    """How many networks are trained, and what differs between them."""

    members: AtLeastOne = 1
    """Networks; their mean is the tagger, their spread the uncertainty between trainings."""
    vary: Sources = Field(default=["initialisation", "batches"])
    """Drawn anew for each member: `initialisation` (weights), `batches` (their order, and dropout), `split` (which jets
    train and which validate), `sample` (a bootstrap sample of the training jets, event by event)."""
    execution: Literal["auto", "loop", "vectorised", "timed"] | ChunkSection = "auto"
    """How members are trained on one device: `loop`, one after the other; `vectorised`, all in one pass; `{chunk: K}`,
    K at a time; `auto`, by a rule on their number and size; `timed`, what is the faster in a trial. The choice is kept
    in the run's ensemble.json, and goes for a run that is resumed."""
