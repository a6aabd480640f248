"""The architectures: one file each, which holds its `Config` and its `Model`; shared layers are in `parts/`.

Every module of this package (not subpackage) is an architecture, named in the YAML as `model.architecture`.
torch is imported when an architecture is first asked for.
"""

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jettagger.errors import JettaggerError, unknown_name
from jettagger.schema import Section

if TYPE_CHECKING:
    import torch

    from jettagger.batch import InputSpec
    from jettagger.models.parts.model import JetModel
    from jettagger.outputs.description import Outputs


@cache
def architectures() -> tuple[str, ...]:
    """Names of all architectures, sorted; nothing is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))


def config_class(name: str) -> type[Section]:
    """The schema of the YAML's `model` section for an architecture."""
    config: type[Section] = _module(name).Config
    return config


def build(
    config: Section, inputs: "InputSpec", outputs: "Outputs | int", generator: "torch.Generator"
) -> "JetModel":
    """The model that `config` describes, its weights drawn from `generator` alone, on the CPU in float32.

    `outputs` says what its columns mean; a number is short for a softmax over so many classes.

    Its normalisation still has to be measured: `Model.fit_inputs`, or loaded with the weights.
    """
    import torch

    from jettagger.models.parts.initialisation import initialise
    from jettagger.outputs.description import plain

    columns = plain(outputs) if isinstance(outputs, int) else outputs
    architecture: str = config.architecture  # type: ignore[attr-defined]
    # torch's own layers draw weights when they are made: from a stream that is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        model: JetModel = _module(architecture).Model(config, inputs, columns.width)
    model.set_outputs(columns)
    initialise(model, generator, getattr(config, "initialisation", "auto"))
    return model


def check(config: Section, inputs: "InputSpec", outputs: int) -> "InputSpec":
    """What the model with so many output columns would look at, without memory for its weights.

    Raises JettaggerError where `build` would.
    """
    import torch

    architecture: str = config.architecture  # type: ignore[attr-defined]
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model: JetModel = _module(architecture).Model(config, inputs, outputs)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise JettaggerError("model: so large a network cannot be built") from error
    return model.inputs


def _module(name: str) -> Any:
    if name not in architectures():
        raise unknown_name("architecture", name, architectures())
    return import_module(f"{__name__}.{name}")
