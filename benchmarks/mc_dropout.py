"""MC dropout against the naive loop: same network, same thread, every architecture; and its memory.

    python benchmarks/mc_dropout.py [--passes 50] [--jets 1 16 256] [--threads 1]

The naive loop sends the batch through the network `passes` times, one after the other, with dropout on.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models.parts.dropout import dropout_layers, set_dropout_generator
from jettagger.models.parts.model import JetModel
from jettagger.uncertainty.decomposition import Accumulator
from jettagger.uncertainty.ensemble import probabilities_of
from jettagger.uncertainty.mc_dropout import mc_dropout

PARTICLES = 60
SPEC = InputSpec(
    tuple(Feature(f"jet{i}") for i in range(22)),
    (CollectionInput("particles", tuple(Feature(f"p{i}") for i in range(17)), 128, coordinates=True),),
)


def jets(number: int) -> Inputs:
    """Random jets of 60 particles."""
    generator = torch.Generator().manual_seed(number)
    rows = PARTICLES * number
    coordinates_NK = torch.randn(rows, 3, generator=generator) * 0.3
    coordinates_NK[:, 2].exp_()
    features_NF = torch.randn(rows, 17, generator=generator)
    lengths_B = torch.full((number,), PARTICLES)
    return Inputs(
        torch.randn(number, 22, generator=generator),
        {"particles": Packed(features_NF, lengths_B, coordinates_NK)},
    )


def naive(model: JetModel, inputs: Inputs, passes: int) -> None:
    """Dropout layers in training mode, everything else in evaluation mode, pass by pass."""
    accumulator = Accumulator()
    for _, layer in dropout_layers(model):
        layer.train()
    with torch.no_grad():
        for _ in range(passes):
            accumulator.add(probabilities_of(model(inputs)))
    accumulator.result()
    model.eval()


def seconds(action: Callable[[], object], at_least: float = 0.5) -> float:
    """The fastest of several calls, after one to warm up."""
    action()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < at_least:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Prints one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=50)
    parser.add_argument("--jets", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in models.architectures():
        for rates in (0.1, {"dense": 0.1}):
            if name == "mlp" and isinstance(rates, dict):
                continue
            config = models.config_class(name).model_validate({"dropout": rates})
            model = models.build(config, SPEC, 2, torch.Generator().manual_seed(0)).eval()
            set_dropout_generator(model, torch.Generator().manual_seed(0))
            for number in arguments.jets:
                inputs = jets(number)
                ours = seconds(lambda m=model, x=inputs: mc_dropout(m, x, arguments.passes, seed=1))  # type: ignore[misc]
                loop = seconds(lambda m=model, x=inputs: naive(m, x, arguments.passes))  # type: ignore[misc]
                figures = {
                    "architecture": name,
                    "dropout": rates,
                    "jets": number,
                    "passes": arguments.passes,
                    "threads": arguments.threads,
                    "milliseconds": round(1e3 * ours, 2),
                    "naive_milliseconds": round(1e3 * loop, 2),
                    "factor": round(loop / ours, 1),
                }
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
