"""`jettagger train`: from a config to a run directory with a tagger in it.

RUN/config.yaml       the resolved config
RUN/run.json          what the run was: the tagger's card, hardware, time; written last
RUN/member_K/         checkpoints, metrics.jsonl and result.json of member K
RUN/baselines/        what the config asks for under `baselines`
RUN/tagger/           the bundle
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jettagger.baselines import fit_trees
from jettagger.data import splits
from jettagger.data.spectra import TrainingWeightsResult, loss_weights
from jettagger.errors import JettaggerError
from jettagger.files import check_writable, write_json
from jettagger.training import checkpoints
from jettagger.training.bundle import bundle
from jettagger.training.device import choose_hardware, threads
from jettagger.training.interruption import interrupted_before, marking
from jettagger.training.members import identity, train_members, training_weights
from jettagger.training.recipe import Recipe, member_folder
from jettagger.training.sides import Filling, Sides, prepare_sides
from jettagger.training.training import MemberResult


@dataclass(frozen=True)
class RunSummary:
    """What `train` did."""

    directory: Path
    tagger: Path | None
    """None while members are missing."""
    members: tuple[MemberResult, ...]
    seconds: float


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    member: int | None = None,
    fold: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> RunSummary:
    """Trains all members (or one) and writes the bundle once all are there; without the jets of `fold`.

    `workers` processes prepare the data (default: one a processor).

    Raises JettaggerError for what is wrong with config, data or output, before the first step where it can.
    """
    began = time.monotonic()
    splits.check_fold(recipe.data.data, fold)
    recipe = recipe._replace(fold=fold)
    members = range(recipe.ensemble.members)
    if member is not None and member not in members:
        raise JettaggerError(
            f"--member {member}: ensemble.members is {len(members)}; members are counted from 0"
        )
    chosen = list(members) if member is None else [member]
    hardware = choose_hardware(recipe.training.device, recipe.training.precision)
    folders = [member_folder(output, k) for k in chosen]
    if not resume and (name := interrupted_before(folders, overwriting=overwrite)) is not None:
        say(f"going on with what {name} interrupted; remove {output} to begin anew")
        resume, overwrite = True, False
    _check_output(output, chosen, resume=resume, overwrite=overwrite)
    with threads(recipe.training.threads), marking(folders, overwriting=overwrite):
        say(f"training on {hardware.description}")
        sides = prepare_sides(recipe.data, recipe.baselines, say, Filling(workers=workers), fold=fold)
        weights = training_weights(recipe, sides)
        for note in weights.notes:
            say(f"  {note}")
        _check_finished(recipe, sides, output, [k for k in members if not (overwrite and k in chosen)])
        if overwrite:
            _clear(output, None if member is None else chosen)
        _fit_baselines(recipe, sides, weights, output, say)
        results = train_members(recipe, sides, weights, output, chosen, hardware, resume, say)
        missing = [k for k in members if not (member_folder(output, k) / "result.json").exists()]
        if missing:
            say(f"the tagger waits for members {', '.join(map(str, missing))}")
            return RunSummary(output, None, tuple(results), time.monotonic() - began)
        tagger = bundle(recipe, sides, output)
    seconds = time.monotonic() - began
    write_json(output / "run.json", {**tagger.card, "hardware": hardware.description, "seconds": seconds})
    say(f"tagger: {output / 'tagger'} ({seconds:.0f} s)")
    return RunSummary(output, output / "tagger", tuple(results), seconds)


def _check_output(output: Path, members: Sequence[int], *, resume: bool, overwrite: bool) -> None:
    """Raises JettaggerError where the run cannot be written, or would be mixed with one that is there."""
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; a run is a folder")
    if any(member_folder(output, k).exists() for k in members) and not (resume or overwrite):
        raise JettaggerError(
            f"{output} holds a run already: --resume goes on with it, --overwrite replaces it, "
            "--output puts the new one elsewhere"
        )
    check_writable(output / "run.json")


def _check_finished(recipe: Recipe, sides: Sides, output: Path, members: Sequence[int]) -> None:
    """Raises JettaggerError when a member that is trained already was trained under another config."""
    for member in members:
        folder = member_folder(output, member)
        if (folder / "result.json").exists():
            same = {**identity(recipe, sides), "member": member}
            # Members may be trained on different machines, and so in different precision.
            checkpoints.load_last(folder, same, free=["precision in use"])


def _clear(output: Path, members: Sequence[int] | None) -> None:
    """Removes what is to be replaced: all members of the run, or some, and what was made of them."""
    folders = output.glob("member_*") if members is None else [member_folder(output, k) for k in members]
    for folder in [*folders, output / "tagger", output / "baselines"]:
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("run.json", "config.yaml", "ensemble.json"):
        (output / name).unlink(missing_ok=True)


def _fit_baselines(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    say: Callable[[str], None],
) -> None:
    section = recipe.baselines.boosted_trees
    if section is None:
        return
    began = time.monotonic()
    trained_R = weights.factor_R > 0
    rows = sides.train_rows[trained_R]
    weights_R = loss_weights(sides.train, rows, weights.factor_R[trained_R])
    trees = fit_trees(section, sides.train, rows, weights_R, seed=recipe.training.seed)
    trees.save(output / "baselines" / "boosted_trees.npz")
    say(f"boosted trees: fitted in {time.monotonic() - began:.1f} s")
