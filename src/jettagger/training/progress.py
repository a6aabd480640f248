"""What is seen of a training: a bar on a terminal, a line an epoch in a batch log, both written to stderr."""

import sys
from typing import NoReturn

from tqdm import tqdm

from jettagger.training.state import EpochRecord


class Progress:
    """Shows the epochs of one member. `label` stands before each line."""

    def __init__(self, label: str, epochs: int, *, quiet: bool = False) -> None:
        self.label = label
        self.epochs = epochs
        self.quiet = quiet
        self._bar: tqdm[NoReturn] | None = None

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)

    def start(self, epoch: int, steps: int, done: int) -> None:
        """Epoch (from 0) begins, or goes on after `done` of its steps."""
        if sys.stderr.isatty() and not self.quiet:
            title = f"{self.label} epoch {epoch + 1}/{self.epochs}"
            self._bar = tqdm(total=steps, initial=done, desc=title, unit="batch", leave=False)

    def advance(self) -> None:
        """A step was made."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """The bar goes away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def end(self, record: EpochRecord, *, best: bool) -> None:
        """The epoch is complete."""
        self.close()
        auc = "" if record.auc is None else f", AUC {record.auc:.5f}"
        accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.4f}"
        widths = {name: figures["resolution"] for name, figures in record.targets.items()}
        targets = "".join(f", resolution of {name} {_figure(width)}" for name, width in widths.items())
        disco = "" if record.decorrelation is None else f", dCor² {record.decorrelation:.4f}"
        left_out = f", {record.left_out} of the steps left out (float16)" if record.left_out else ""
        self.say(
            f"epoch {record.epoch}/{self.epochs}: loss {record.train_loss:.4f}, validation"
            f" {record.validation_loss:.4f}{auc}{accuracy}{targets}{disco}, lr {record.lr:.2e},"
            f" {record.seconds:.1f} s, {record.jets_per_second:.0f} jets/s{left_out}{' (best)' if best else ''}"
        )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
