"""The sections of the YAML that say how networks are trained: `training` and `ensemble`."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from jettagger.data.expression_text import Name
from jettagger.errors import unknown_name
from jettagger.outputs.schema import ClassLossSection
from jettagger.schema import Named, NotNegative, Positive, Section
from jettagger.training.optimiser_schema import OptimiserSection, ScheduleSection

LrScalingName = Literal["none", "linear", "square_root"]
Varied = Literal["initialisation", "batches", "split", "sample"]

Sources = Annotated[list[Varied], Field(min_length=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


PART = 1024
"""Jets that pass through the network at a time where a batch is all jets."""


class EarlyStoppingSection(Section):
    """When a training ends before its last epoch."""

    patience: AtLeastOne = 5
    """Epochs without a better validation loss after which the training ends."""
    min_delta: NotNegative = 0.0
    """How much lower the validation loss must be to count as better."""


class DecorrelateSection(Section):
    """Distance correlation as a regulariser (DisCo, arXiv:2001.05310)."""

    variable: str
    """One of `spectators`."""
    background: Name
    """Class whose jets are to have a score that does not depend on the variable."""
    strength: Positive
    """What the squared distance correlation, from 0 to 1, counts beside the loss; 1 to 100 is usual."""
    signal: Name | None = None
    """Class whose score it is. Default: all classes but `background` together."""


class LrScalingSection(Named):
    """How the learning rate follows the batch size."""

    KIND: ClassVar[str] = "scaling"

    name: LrScalingName = "none"
    """`none`: `optimiser.lr` is the rate whatever the batch; `linear` (arXiv:1706.02677): it is multiplied by
    batch_size / reference; `square_root`: by the root of that (arXiv:1404.5997)."""
    reference: AtLeastOne | None = None
    """linear, square_root: jets in the batch that `optimiser.lr` was found for."""

    @model_validator(mode="after")
    def _consistent(self) -> "LrScalingSection":
        self._only_for({"linear", "square_root"}, "reference")
        if self.name != "none" and self.reference is None:
            raise ValueError(
                f"{self.name} needs the batch that optimiser.lr was found for: write"
                f" {{name: {self.name}, reference: 256}}, for example"
            )
        return self

    def factor(self, batch_size: int) -> float:
        """What the rate is multiplied by."""
        if self.reference is None:
            return 1.0
        ratio = batch_size / self.reference
        return ratio if self.name == "linear" else math.sqrt(ratio)


class SwaSection(Section):
    """Stochastic weight averaging (arXiv:1803.05407): the network that is kept is a mean of the last weights."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """Fraction of all steps after which weights enter the mean, each with the same share. A rate that stays high
    until the end (`schedule: constant`) gives it the most to average."""
    every: AtLeastOne = 1
    """Steps between two weights that enter."""


class WattsSection(Section):
    """Powers that are assumed for the energy in a run's record where the machine measures none; no number of the
    training hangs on them."""

    core: Positive = 10.0
    """Of a busy processor core, W."""
    gpu: Positive = 300.0
    """Of a GPU, W."""


class TrainingSection(Section):
    """How one network is trained."""

    epochs: AtLeastOne = 20
    """Passes over the training jets."""
    batch_size: AtLeastOne | Literal["all"] = 256
    """Jets in a step, over all ranks together. `all`: gradient descent, a step an epoch over all training jets, which
    pass through the network in parts of at most 1024 (or in `accumulate` parts)."""
    optimiser: OptimiserSection = OptimiserSection()
    """A name, or a section with the name and its settings."""
    schedule: ScheduleSection = ScheduleSection()
    """A name, or a section with the name and its settings."""
    lr_scaling: LrScalingSection = LrScalingSection()
    """A name, or a section with the name and its settings."""
    gradient_clip: Positive | None = None
    """Gradients whose norm over all parameters is larger are scaled down to it."""
    early_stopping: EarlyStoppingSection | None = None
    """Ends the training when the validation loss stands still. The final network is always that of the best
    epoch."""
    loss: ClassLossSection = ClassLossSection()
    """What is minimised for the classes: a name, or a section with the name and its settings. Targets have losses
    of their own."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """cross_entropy, binary_cross_entropy: share of a jet's label that is spread evenly over the classes."""
    mixup: Positive | None = None
    """Jets are mixed in pairs, inputs and losses alike, with a share drawn from Beta(mixup, mixup)
    (arXiv:1710.09412); 0.2 is usual. For networks on jet-level variables."""
    decorrelate: DecorrelateSection | None = None
    """Makes the score of background jets independent of a variable, such as the mass."""
    reflections: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default={})
    """Symmetries: name -> variables that change sign, such as {phi: [particles.dphi, particles.d0]}. Each is applied
    to a random half of the jets of a batch. Variables: `<collection>.<feature>`, `jet.<feature>`,
    `<collection>.coordinates.eta`."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of a running mean of the weights, such as 0.999; the mean is validated and kept."""
    ranks: Literal["batch", "members"] = "batch"
    """What processes started by torchrun share: `batch`: each takes a part of every batch, and all train one member
    after the other; `members`: each trains members of the ensemble by itself."""
    sync_batch_norm: bool = True
    """With several ranks: BatchNorm takes its statistics from all of them, as one process would. false: each from
    its own part of the batch, and the running statistics are their mean: quicker, but another training."""
    rank_timeout: Positive = 600.0
    """Seconds that ranks wait for each other in a step, and that one may be silent, before they take it for lost."""
    swa: SwaSection | None = None
    """Keeps an equal mean of the last weights in place of the best epoch's; `swa: {}` takes the defaults."""
    l1: NotNegative = 0.0
    """λ of a penalty λ Σ|w| over the weights (not biases, not parameters of normalisations), which pulls those that
    are not needed to 0. Part of what is minimised, not of the loss that is reported."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:N`."""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """bfloat16 runs matrix products in 16 bits, `auto`: where the hardware has it; float16 the same on older GPUs,
    with a scaled loss; tf32 in 19 bits on GPUs from compute capability 8.0."""
    accumulate: AtLeastOne = 1
    """Parts in which a batch passes through the network, one after the other, to save memory; the result is that of
    the whole batch, but BatchNorm takes its statistics from each part."""
    activation_checkpointing: bool = False
    """Computes layers anew for the gradient and does not keep what they gave: a third more time, much less memory;
    the same numbers."""
    compile: bool = False
    """Compiles the network with torch.compile; where that fails it is said, and it runs as it is."""
    cuda_graphs: bool = False
    """Records the network once and replays it: on CUDA, for networks without particles and dropout."""
    threads: AtLeastOne | None = None
    """CPU threads; default: PyTorch's. Equal results to the last bit need an equal number."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Names all random numbers of the training: initial weights, batches, dropout."""
    checkpoint_seconds: Positive | None = 60.0
    """Time between two checkpoints inside an epoch; null: one at the end of each epoch only."""
    keep_checkpoints: AtLeastOne = 2
    """How many of the latest checkpoints are kept: the last, and those before for when it is damaged."""
    tensorboard: bool = False
    """Writes TensorBoard logs as well (extra `tensorboard`)."""
    watts: WattsSection = WattsSection()
    """What the energy in the run's record is estimated by where it cannot be measured."""

    @model_validator(mode="after")
    def _losses_fit(self) -> "TrainingSection":
        smoothed = ("cross_entropy", "binary_cross_entropy")
        if self.label_smoothing > 0 and self.loss.name not in smoothed:
            raise ValueError(
                f"label_smoothing is for {' and '.join(smoothed)}; {self.loss.name} has no use for it: leave it out"
            )
        if self.mixup is not None and self.decorrelate is not None:
            raise ValueError(
                "mixup and decorrelate exclude each other: a mixed jet is no background jet and has no mass"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_run(self) -> "TrainingSection":
        ways = ("compile", "cuda_graphs", "activation_checkpointing")
        asked = [name for name in ways if getattr(self, name)]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} do not go together: take one of them")
        if self.cuda_graphs and self.accumulate > 1:
            raise ValueError(
                "cuda_graphs and accumulate do not go together: what fits in one graph needs no parts"
            )
        if self.batch_size != "all" and self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate cuts a batch into {self.accumulate} parts, and batch_size is {self.batch_size}:"
                " a part holds at least one jet"
            )
        return self

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        kind, colon, number = device.partition(":")
        if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and number.isdecimal()):
            raise ValueError(str(unknown_name("device", device, ["auto", "cpu", "cuda", "cuda:N"])))
        return device

    @property
    def peak_rate(self) -> float:
        """The schedule's highest learning rate."""
        if self.batch_size == "all":  # without lr_scaling
            return self.optimiser.lr
        return self.optimiser.lr * self.lr_scaling.factor(self.batch_size)

    def for_jets(self, jets: int) -> "TrainingSection":
        """The section for so many training jets: `batch_size: all` becomes their number, in parts."""
        if self.batch_size != "all":
            return self
        parts = self.accumulate if self.accumulate > 1 else math.ceil(jets / PART)
        return self.model_copy(update={"batch_size": jets, "accumulate": max(parts, 1)})

    @model_validator(mode="after")
    def _all_jets_have_one_rate(self) -> "TrainingSection":
        if self.batch_size == "all" and self.lr_scaling.name != "none":
            raise ValueError(
                "lr_scaling follows the number of jets in a step: write it as batch_size, not all"
            )
        return self

    @model_validator(mode="after")
    def _one_mean_of_the_weights(self) -> "TrainingSection":
        for name in ("ema", "early_stopping"):
            if self.swa is not None and getattr(self, name) is not None:
                raise ValueError(f"swa and {name} exclude each other: {_BESIDE_SWA[name]}")
        return self


_BESIDE_SWA = {
    "ema": "each is a mean of the weights, and one is kept",
    "early_stopping": "the mean is taken over the last steps of a training whose length is known",
}


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
