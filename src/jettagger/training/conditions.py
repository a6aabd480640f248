"""What holds while steps are made, whoever makes them."""

from collections.abc import Iterator
from contextlib import contextmanager

from jettagger.training.device import Hardware, threads
from jettagger.training.kept_memory import kept_memory
from jettagger.training.schema import TrainingSection


@contextmanager
def conditions(section: TrainingSection, hardware: Hardware) -> Iterator[None]:
    """The threads of the config, products in the hardware's precision, freed memory kept."""
    with threads(section.threads), hardware.products(), kept_memory(hardware.device):
        yield
