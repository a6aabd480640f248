"""The sections `training.optimiser` and `training.schedule`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from jettagger.schema import Fraction, Named, NotNegative, Positive, Section

OptimiserName = Literal["adamw", "adam", "sgd", "radam", "ranger", "lion", "adadelta"]
ScheduleName = Literal["one_cycle", "cosine", "flat_then_decay", "step", "plateau", "constant"]

Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]
Milestones = Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]


class LookaheadSection(Section):
    """Lookahead (arXiv:1907.08610): slow weights follow those of the optimiser, and lead them back to themselves."""

    steps: Annotated[int, Field(ge=1)] = 6
    """Steps of the optimiser between two of the slow weights."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """How much of the way to the optimiser's weights the slow ones go."""


class OptimiserSection(Named):
    """How the weights follow the gradient."""

    BY_NAME: ClassVar = {
        "ranger": {"betas": [0.95, 0.999], "epsilon": 1.0e-5, "lookahead": {}},
        "lion": {"lr": 1.0e-4, "betas": [0.9, 0.99]},
        "adadelta": {"lr": 1.0, "epsilon": 1.0e-6},
    }

    name: OptimiserName = "adamw"
    """`adamw` (arXiv:1711.05101), `adam` (arXiv:1412.6980), `radam` (arXiv:1908.03265), `ranger`: radam with
    lookahead, `lion` (arXiv:2302.06675), `adadelta` (arXiv:1212.5701), or `sgd` with momentum."""
    lr: Positive = 1.0e-3
    """Learning rate; the schedule's highest value. Default for lion: 1.0e-4, for adadelta: 1; `sgd` has none."""
    weight_decay: NotNegative | None = None
    """Decay of the weights; biases and parameters of normalisations are left out. sgd, adam, adadelta: added to the
    gradient; the others: apart from it. Default: 0.01 for adamw, 0.1 for lion, 0 for the others."""
    betas: Betas = Field(default=[0.9, 0.999])
    """adam, adamw, radam: decay of the running means of the gradient and of its square; ranger: so, default
    [0.95, 0.999]; lion: share of the mean in a step, and its decay, default [0.9, 0.99]."""
    epsilon: Positive = 1.0e-8
    """All but sgd and lion: added to the root of the mean square. Default for ranger: 1.0e-5, for adadelta:
    1.0e-6."""
    rho: Decay = 0.9
    """adadelta: decay of the running means of the squared gradient and of the squared step."""
    momentum: Decay = 0.9
    """sgd: how much of the last step is kept; 0: gradient descent as in the textbook."""
    nesterov: bool = False
    """sgd: the gradient is taken ahead, at the point that the momentum leads to."""
    lookahead: LookaheadSection | None = None
    """Lookahead around the optimiser; `lookahead: {}` takes the defaults, which are ranger's."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimiserSection":
        self._only_for({"adam", "adamw", "radam", "ranger", "lion"}, "betas")
        self._only_for({"adam", "adamw", "radam", "ranger", "adadelta"}, "epsilon")
        self._only_for({"adadelta"}, "rho")
        self._only_for({"sgd"}, "momentum", "nesterov")
        if self.name == "sgd" and "lr" not in self.model_fields_set:
            raise ValueError("sgd has no default learning rate: write {name: sgd, lr: 0.05}, for example")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        if self.name == "ranger" and self.lookahead is None:
            raise ValueError("ranger is radam with lookahead: write radam for none")
        return self


class ScheduleSection(Named):
    """How the learning rate changes during the training."""

    BY_NAME: ClassVar = {"flat_then_decay": {"final": 0.01}, "step": {"factor": 0.1}}

    name: ScheduleName = "one_cycle"
    """`one_cycle`: up, then down to almost nothing (arXiv:1708.07120); `cosine`: down (arXiv:1608.03983);
    `flat_then_decay`: as it is, then down exponentially (the recipe of ParticleNet and Particle Transformer,
    arXiv:2202.03772); `step`: down by `factor` at `milestones`; `plateau`: down by `factor` when the validation
    loss stands still; `constant`."""
    warm_up: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Fraction of all steps in which the rate rises to `optimiser.lr`. Default: 0.3 for one_cycle, 0 for the
    others."""
    initial: Fraction = 0.04
    """The rate at the start of the warm-up, as a fraction of `optimiser.lr`."""
    final: Fraction = 1.0e-3
    """one_cycle, cosine, flat_then_decay (default 0.01): the last rate, plateau: the lowest, as a fraction of
    `optimiser.lr`."""
    flat: Fraction = 0.7
    """flat_then_decay: fraction of all steps, warm-up included, after which the rate begins to fall."""
    milestones: Milestones = Field(default=[0.5, 0.75])
    """step: fractions of all steps after each of which the rate is multiplied by `factor`."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """plateau, step (default 0.1): what the rate is multiplied by."""
    patience: Annotated[int, Field(ge=0)] = 3
    """plateau: epochs without a better validation loss that are waited for."""
    min_delta: NotNegative = 0.0
    """plateau: how much lower the validation loss must be to count as better."""

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleSection":
        self._only_for({"plateau"}, "patience", "min_delta")
        self._only_for({"plateau", "step"}, "factor")
        self._only_for({"step"}, "milestones")
        self._only_for({"flat_then_decay"}, "flat")
        self._only_for({"one_cycle", "cosine", "flat_then_decay", "plateau"}, "final")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {self.milestones}")
        if self.name == "flat_then_decay" and self.final == 0:
            raise ValueError("an exponential decay never reaches 0: final must be above it")
        if self.name == "flat_then_decay" and (self.warm_up or 0.0) > self.flat:
            raise ValueError(
                f"the warm-up ({self.warm_up:g}) must end before the decay begins (flat: {self.flat:g})"
            )
        if self.name == "step" and (self.warm_up or 0.0) > self.milestones[0]:
            raise ValueError(
                f"the warm-up ({self.warm_up:g}) must end before the first milestone ({self.milestones[0]:g})"
            )
        return self
