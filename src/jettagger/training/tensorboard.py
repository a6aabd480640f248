"""Scalars for TensorBoard, where it is installed and asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from jettagger.errors import JettaggerError
from jettagger.training.state import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Log:
    """Writes an epoch's figures to `directory`/tensorboard; does nothing unless `wanted`."""

    def __init__(self, directory: Path, wanted: bool, step: int) -> None:
        self._writer = _open(directory / "tensorboard", step) if wanted else None

    def add(self, record: EpochRecord) -> None:
        """The figures of an epoch, at its last step."""
        if self._writer is not None:
            for name in ("train_loss", "validation_loss", "accuracy", "auc", "lr", "gradient_norm"):
                value = getattr(record, name)
                if value is not None:
                    self._writer.add_scalar(name, value, record.step)
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()


def _open(directory: Path, step: int) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise JettaggerError(
            "training.tensorboard is true, but TensorBoard is not installed:"
            " pip install 'jettagger[tensorboard]'"
        ) from error
    # What an interrupted run wrote after its last checkpoint is hidden.
    return SummaryWriter(str(directory), purge_step=step + 1)
