"""`jettagger train`: from a config to a run directory with a tagger in it.

RUN/config.yaml       the resolved config
RUN/run.json          what the run was: the tagger's card, hardware, time; written last
RUN/member_K/         checkpoints, metrics.jsonl and result.json of member K
RUN/baselines/        what the config asks for under `baselines`
RUN/tagger/           the bundle
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jettagger import yaml_source
from jettagger.baselines import fit_trees
from jettagger.batch import InputSpec
from jettagger.data import splits
from jettagger.data.batches import Batches
from jettagger.data.spectra import TrainingWeightsResult, loss_weights, weights_of
from jettagger.errors import JettaggerError
from jettagger.files import check_writable, write_json, written_aside
from jettagger.tagger import BATCH
from jettagger.training import checkpoints
from jettagger.training.augmentation import Mirror
from jettagger.training.bundle import bundle
from jettagger.training.device import Hardware, choose_hardware, threads
from jettagger.training.feeding import kept_on
from jettagger.training.loop import MemberResult, Training, train_member
from jettagger.training.progress import Progress
from jettagger.training.recipe import Recipe, member_folder, new_model
from jettagger.training.sides import Filling, Sides, prepare_sides

NORMALISATION_JETS = 20_000
"""Training jets on which shifts and scales are measured: more than their precision needs."""


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
    _check_output(output, chosen, resume=resume, overwrite=overwrite)
    with threads(recipe.training.threads):
        say(f"training on {hardware.description}")
        sides = prepare_sides(recipe.data, recipe.baselines, say, Filling(workers=workers), fold=fold)
        weights = _weights(recipe, sides)
        for note in weights.notes:
            say(f"  {note}")
        _check_finished(recipe, sides, output, [k for k in members if not (overwrite and k in chosen)])
        if overwrite:
            _clear(output, None if member is None else chosen)
        _fit_baselines(recipe, sides, weights, output, say)
        results = [_train_member(recipe, sides, weights, output, k, hardware, resume, say) for k in chosen]
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
            identity = {**_identity(recipe, sides), "member": member}
            # Members may be trained on different machines, and so in different precision.
            checkpoints.load_last(folder, identity, free=["precision in use"])


def _clear(output: Path, members: Sequence[int] | None) -> None:
    """Removes what is to be replaced: all members of the run, or some, and what was made of them."""
    folders = output.glob("member_*") if members is None else [member_folder(output, k) for k in members]
    for folder in [*folders, output / "tagger", output / "baselines"]:
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("run.json", "config.yaml"):
        (output / name).unlink(missing_ok=True)


def _write_config(recipe: Recipe, output: Path) -> None:
    """Leaves the resolved config in the run; what members have been trained with stays."""
    if not (output / "config.yaml").exists() or not any(output.glob("member_*")):
        with written_aside(output / "config.yaml") as aside:
            aside.write_text(yaml_source.write(dict(recipe.document)), encoding="utf-8")


def _train_member(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    member: int,
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
) -> MemberResult:
    """Trains one member, or goes on with it, or reads what came of it."""
    section, folder = recipe.training, member_folder(output, member)
    if resume and (folder / "result.json").exists():
        return _read_result(folder)
    vary = recipe.ensemble.vary
    stream = member if "batches" in vary else 0
    model = new_model(recipe, sides, member if "initialisation" in vary else 0)
    train, validation = _batches(recipe, sides, weights, stream, model.inputs)
    for warning in model.fit_inputs(train.sample(NORMALISATION_JETS, section.seed)):
        say(f"  {warning}")
    _write_config(recipe, output)
    result = train_member(
        Training(
            model=model,
            train=kept_on(train, hardware.device),
            validation=validation,
            section=section,
            directory=folder,
            hardware=hardware,
            config=_identity(recipe, sides),
            progress=Progress(f"member {member}", section.epochs),
            member=member,
            stream=stream,
            mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
        ),
        resume=resume,
    )
    write_json(folder / "result.json", _result_document(result))
    return result


def _identity(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """All that decides the weights: a checkpoint is only resumed under the same."""
    document = recipe.document
    data: dict[str, Any] = {"key": sides.keys, "validation": document["data"].get("validation")}
    if not isinstance(recipe.data.data.test, dict):
        data["test"] = recipe.data.data.test
    if recipe.fold is not None:
        data |= {"folds": document["data"]["folds"], "fold": recipe.fold}
    kept = {name: document[name] for name in ("classes", "inputs", "model", "training") if name in document}
    return {
        "data": data,
        "ensemble": {"vary": list(recipe.ensemble.vary)},
        **kept,
        "weights": document.get("weights"),
    }


def _weights(recipe: Recipe, sides: Sides) -> TrainingWeightsResult:
    """The training weights, fitted on the training jets."""
    return weights_of(sides.train, sides.train_rows, recipe.data.weights.training, sides.train.classes)


def _batches(
    recipe: Recipe, sides: Sides, weights: TrainingWeightsResult, stream: int, inputs: InputSpec
) -> tuple[Batches, Batches]:
    """Training and validation in batches; jets whose training weight is 0 are left out."""
    trained_R = weights.factor_R > 0
    rows, factor = sides.train_rows[trained_R], weights.factor_R[trained_R]
    sampling = recipe.data.weights.training.method == "sampling"
    train = Batches(
        sides.train,
        rows,
        recipe.training.batch_size,
        weights_R=loss_weights(sides.train, rows, None if sampling else factor),
        factor_R=factor if sampling else None,
        shuffle=(recipe.training.seed, stream),
        inputs=inputs,
    )
    return train, Batches(sides.validation, sides.validation_rows, BATCH, inputs=inputs)


def _result_document(result: MemberResult) -> dict[str, Any]:
    return {
        "member": result.member,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "jets": result.jets,
    }


def _read_result(folder: Path) -> MemberResult:
    stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return MemberResult(**stored, weights=folder / checkpoints.BEST, history=checkpoints.load_history(folder))


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
