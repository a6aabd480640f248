"""Checkpoints `last.pt`, `previous.pt` (`previous_2.pt`, …) and `best.pt`: each is whole or absent, and carries its
checksum."""

import errno
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jettagger.errors import JettaggerError
from jettagger.files import flush, written_aside
from jettagger.training.state import EpochRecord

FORMAT = 2
"""Raised by hand when what a checkpoint holds changes."""

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"

METRICS = "metrics.jsonl"

RANKS = "number of ranks"
"""Key of what must be equal on resuming, though another number is allowed: it rounds sums in another order."""

FREE = {
    "training.device",
    "training.threads",
    "training.checkpoint_seconds",
    "training.keep_checkpoints",
    "training.compile",  # whether it was compiled is compared instead
    "training.cuda_graphs",
    "training.activation_checkpointing",
    "training.tensorboard",
    "training.watts.core",
    "training.watts.gpu",
    "training.ranks",
    "training.rank_timeout",
    "ensemble.members",
    RANKS,
}
"""Keys of the config that may change on resuming: they decide where and how long, not what is computed."""


class BrokenCheckpoint(Exception):  # noqa: N818
    """A file that is not, or no longer, a checkpoint."""


class UnreadableCheckpoint(BrokenCheckpoint):
    """A file that the system does not let us read, which may be whole."""


def save_last(directory: Path, config: Mapping[str, Any], state: Mapping[str, Any], *, keep: int = 2) -> None:
    """Writes `last.pt`; the former one becomes `previous.pt`, and so on, until `keep` are there.

    The new one is on the disk before an old one is moved: at any moment one is whole. Raises JettaggerError for a
    disk that does not take it.
    """
    last = directory / LAST
    with saving(last), written_aside(last) as aside:
        _write(aside, {"config": _plain(config), "state": _whole(dict(state))})
        flush(aside)
        names = [directory / name for name in (LAST, PREVIOUS, *(_older(n) for n in range(2, keep)))][:keep]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
    for path in kept(directory):
        if path not in names:
            path.unlink()


def _older(number: int) -> str:
    return f"{Path(PREVIOUS).stem}_{number}.pt"


def kept(directory: Path) -> list[Path]:
    """The checkpoints of a training that are there, the newest first."""
    older = sorted(directory.glob(_older(0).replace("0", "*")), key=lambda path: (len(path.name), path.name))
    return [path for path in (directory / LAST, directory / PREVIOUS, *older) if path.exists()]


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns what the system says of a disk that takes no more into one readable error."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # PyTorch's writer hides it there
        if not isinstance(cause, OSError):
            raise
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        room = f" ({_free(path.parent) / 1e6:.1f} MB are free): make room" if full else ""
        raise JettaggerError(
            f"cannot write {path}: {cause.strerror or cause}{room}; what was saved before is whole, and --resume"
            " goes on with it"
        ) from error


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def save_best(directory: Path, epoch: int, weights: Mapping[str, Tensor]) -> Path:
    """Writes `best.pt`, the weights of the best epoch, and returns its path."""
    path = directory / BEST
    with saving(path), written_aside(path) as aside:
        _write(aside, {"epoch": epoch, "weights": dict(weights)})
    return path


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a `best.pt`. Raises JettaggerError when the file is damaged."""
    try:
        weights: dict[str, Tensor] = _read(path)["weights"]
    except BrokenCheckpoint as error:
        raise JettaggerError(
            f"{path}: {error}; without {path.with_name('result.json').name} beside it, --resume makes it anew from"
            f" {LAST}"
        ) from error
    return weights


def load_last(
    directory: Path, config: Mapping[str, Any], *, free: Collection[str] = (), newest: int | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, or None where there is none; and what the user should know.

    Keys in `free` may differ from those of `config`, as those in FREE may. Checkpoints from after step `newest` are
    passed over. Raises JettaggerError when it belongs to another config, or when checkpoints exist and none is whole.
    """
    remarks: list[str] = []
    for path in kept(directory):
        try:
            content = _read(path)
        except BrokenCheckpoint as error:
            remarks.append(f"{path} cannot be used: {error}")
            continue
        _check_same_config(path, content["config"], _plain(config), FREE.union(free))
        state: dict[str, Any] = content["state"]
        if newest is not None and state["step"] > newest:
            continue
        before, now = content["config"].get(RANKS, 1), config.get(RANKS, 1)
        if before != now:
            remarks.append(
                f"the number of ranks changes from {before} to {now}: the result is the same to rounding, not to the"
                " last bit"
            )
        if len(remarks) > (before != now) or path.name != LAST:
            remarks.append(f"going on from {path}, step {state['step']}")
        return state, remarks
    if remarks:
        raise JettaggerError("; ".join(remarks) + f"; remove {directory} to train anew")
    return None, remarks


def steps_of(directory: Path) -> list[int]:
    """The steps after which the checkpoints that are whole were saved, the newest first."""
    found = []
    for path in kept(directory):
        try:
            found.append(int(_read(path)["state"]["step"]))
        except BrokenCheckpoint:
            continue
    return found


def load_history(directory: Path) -> tuple[EpochRecord, ...]:
    """The complete epochs, from metrics.jsonl. Raises JettaggerError when it is missing or damaged."""
    path = directory / METRICS
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
        return tuple(EpochRecord(**json.loads(row)) for row in rows)
    except (OSError, TypeError, ValueError) as error:
        raise JettaggerError(f"{path} cannot be read: {error}") from error


def clear_leftovers(directory: Path) -> None:
    """Removes what killed processes were writing aside."""
    for aside in [*directory.glob(".*.pt"), *directory.glob(".*.json"), *directory.glob(".*.jsonl")]:
        aside.unlink(missing_ok=True)


def remove_damaged(directory: Path) -> None:
    """Removes checkpoints that are not whole, so that none takes the place of one that is."""
    for path in kept(directory):
        try:
            _read(path)
        except UnreadableCheckpoint:
            continue
        except BrokenCheckpoint:
            path.unlink()


def _write(path: Path, content: dict[str, Any]) -> None:
    with path.open("wb") as stream:  # where writing to a path fails, PyTorch does not say why
        torch.save({"format": FORMAT, "sha256": digest(content), "content": content}, stream)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise UnreadableCheckpoint(f"cannot be read ({error.strerror})") from error
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
        found, checksum, content = file["format"], file["sha256"], file["content"]
    except Exception as error:  # a damaged zip or pickle fails in many ways
        raise BrokenCheckpoint(f"damaged or not a checkpoint ({type(error).__name__})") from error
    if found != FORMAT:
        raise BrokenCheckpoint(f"written in format {found}, this version reads format {FORMAT}")
    if checksum != digest(content):
        raise BrokenCheckpoint("damaged, its checksum does not match")
    return dict(content)


def _whole(value: Any) -> Any:
    """The same without views: of those a file would hold all that they look at."""
    if isinstance(value, Tensor):
        return value if value.untyped_storage().nbytes() == value.nbytes else value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def digest(content: Any) -> str:
    """Hexadecimal SHA-256 of plain values and tensors."""
    checksum = hashlib.sha256()
    _add(checksum, content)
    return checksum.hexdigest()


def _add(checksum: "hashlib._Hash", value: Any) -> None:
    if isinstance(value, Tensor):
        checksum.update(f"{value.dtype}{tuple(value.shape)}".encode())
        checksum.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            checksum.update(f"{name!r}:".encode())
            _add(checksum, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _add(checksum, item)
    else:
        checksum.update(repr(value).encode())
    checksum.update(b";")


def _check_same_config(
    path: Path, stored: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str]
) -> None:
    before, now = _leaves(stored), _leaves(given)
    changed = [key for key in sorted({*before, *now}) if key not in free and before.get(key) != now.get(key)]
    if not changed:
        return
    shown = "; ".join(f"{key}: {before.get(key)!r} → {now.get(key)!r}" for key in changed[:10])
    more = f"; and {len(changed) - 10} more" if len(changed) > 10 else ""
    raise JettaggerError(
        f"{path} belongs to another config ({shown}{more}): resume with the config that it was started with,"
        " or train into another folder"
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}} as {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _plain(value: Any) -> Any:
    """The same with dict, list and plain values only, as a file holds them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
