"""The members of an ensemble, each a training of its own."""

import json
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from jettagger.advice import Advice
from jettagger.batch import InputSpec
from jettagger.data.batches import POOL_BYTES, Batches, bytes_per_jet
from jettagger.data.resident import Resident
from jettagger.data.spectra import TrainingWeightsResult, loss_weights, weights_of
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.tagger import BATCH
from jettagger.training import checkpoints
from jettagger.training.augmentation import Mirror
from jettagger.training.device import Hardware
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.distribution import Ranks
from jettagger.training.execution import (
    FEWEST,
    MOST_MEMBERS,
    Execution,
    asked_for,
    measured,
    not_vectorised,
    rule,
    store,
)
from jettagger.training.execution import stored as execution_of
from jettagger.training.feeding import kept_on
from jettagger.training.loop import train_member
from jettagger.training.outcome import (
    RESULT,
    MemberFailure,
    Piece,
    has_ended,
    listed,
    piece_name,
    read_failure,
    write_failure,
)
from jettagger.training.progress import Progress
from jettagger.training.recipe import Recipe, fold_folder, guessing_classes, member_folder, new_model
from jettagger.training.sharing import DropoutRows
from jettagger.training.sides import Sides
from jettagger.training.targets import beside, normalised, scaling_of
from jettagger.training.training import MemberResult, Training
from jettagger.training.trial import attempt
from jettagger.training.varied import jets_differ, member_sides
from jettagger.training.vectorised import Failed, train_together

NORMALISATION_JETS = 20_000
"""Training jets on which shifts and scales are measured: more than their precision needs."""


def train_members(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    members: Sequence[int],
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> list[MemberResult]:
    """Trains the members, or goes on with them, or reads what came of them; each of them by all `ranks`.

    A member whose loss becomes NaN or infinite leaves `failed.json`, and the others are trained; the results are those
    of the members that have ended. Ranks that share batches end together where one member fails.
    """
    group = Group(recipe, sides, weights, output, hardware, say, ranks)
    results, failed = ranks.first_does(lambda: _before(group, members if resume else ()))
    for failure in failed.values():
        say(f"{failure} (--overwrite --member {failure.member} trains it anew)")
    done = {*results, *failed}
    for chunk, execution in _chunks(group, members, done):
        for ending in _train_chunk(group, chunk, execution, done, resume):
            folder = group.folder(ending.member)
            if isinstance(ending, MemberResult):
                results[ending.member] = ending
                if ranks.first:
                    write_json(folder / RESULT, _result_document(ending))
                continue
            failure = MemberFailure(ending.member, recipe.fold, str(ending.error), ending.step)
            failed[ending.member] = failure
            if ranks.first:
                write_failure(folder, failure)
            if ranks.world > 1:
                raise ending.error
            say(str(failure))
    return [results[k] for k in sorted(results)]


class Group(NamedTuple):
    """What the members of an ensemble have in common."""

    recipe: Recipe
    sides: Sides
    weights: TrainingWeightsResult
    output: Path
    hardware: Hardware
    say: Callable[[str], None]
    ranks: Ranks

    def folder(self, member: int) -> Path:
        """Where a member lies."""
        return member_folder(self.output, member, self.recipe.fold)

    @property
    def home(self) -> Path:
        """Where the members lie side by side."""
        return fold_folder(self.output, self.recipe.fold)


def _before(group: Group, members: Sequence[int]) -> tuple[dict[int, MemberResult], dict[int, MemberFailure]]:
    """The members that have ended or failed before. With the same numbers they would fail again."""
    folders = {k: group.folder(k) for k in members}
    results = {k: _read_result(folder) for k, folder in folders.items() if has_ended(folder)}
    failures = {k: failure for k, folder in folders.items() if (failure := read_failure(folder)) is not None}
    return results, failures


def _chunks(group: Group, members: Sequence[int], done: Set[int]) -> Iterator[tuple[list[int], Execution]]:
    """The members that are trained at a time, and how; the same ones whether or not the run was interrupted."""
    if done >= set(members):
        return
    execution = _execution(group, members)
    if len(members) > 1:
        group.say(str(execution))
    for first in range(0, len(members), execution.chunk):
        chunk = list(members[first : first + execution.chunk])
        if not done >= set(chunk):
            yield chunk, execution


def _execution(group: Group, members: Sequence[int]) -> Execution:
    """What the config asks for, else what the run began with, else by rule or trial; it is kept in the run.

    A member that is trained by itself, in a job of its own, and a part of an ensemble decide nothing for the others.
    """
    section, whole = group.recipe.ensemble, len(members) == group.recipe.ensemble.members
    if group.hardware.float16:
        return Execution("loop", 1, "float16 has a scaler of each member's own")
    if group.ranks.world > 1:
        return Execution("loop", 1, "several ranks share its batches")
    asked, kept = asked_for(section, len(members)), execution_of(group.home)
    if asked is None and kept is not None:
        return kept._replace(chunk=min(kept.chunk, len(members)))
    if asked is None and len(members) == 1:
        return Execution("loop", 1, "a single member")
    found = asked
    if found is None or found.way == "vectorised":
        found = _possible(group, members, found)
    if whole and len(members) > 1:
        store(group.home, found)
    return found


def _possible(group: Group, members: Sequence[int], asked: Execution | None) -> Execution:
    """One pass, if it can be had and is asked for or pays; else the loop, and why."""
    reason = not_vectorised(group.recipe.training)
    most = len(members) if asked is None else asked.chunk
    if asked is None and len(members) < FEWEST:
        return Execution("loop", 1, f"fewer than {FEWEST} members")
    if reason is None:
        trainings = _trainings(group, members[: min(most, MOST_MEMBERS)], quiet=True)
        reason = _obstacle_of_data(trainings, jets_differ(group.recipe))
    if reason is not None:
        return Execution("loop", 1, reason)
    tried = attempt(trainings)
    if tried.obstacle is not None:
        return Execution("loop", 1, tried.obstacle)
    if asked is not None:
        return asked
    if group.recipe.ensemble.execution == "timed":
        return measured(trainings, len(members))
    return rule(tried, len(members), group.hardware.device)


def _obstacle_of_data(trainings: Sequence[Training], apart: bool) -> str | None:
    """Why the batches of several members cannot be held at a time."""
    sources = [training.train for training in trainings]
    if len({(source.steps, source.jets) for source in sources}) > 1:
        return "members have different numbers of training jets"
    loaded = [source for source in sources if isinstance(source, Batches)]
    if any(source.order.pools > 1 for source in loaded):
        return "the training jets do not fit into memory at once"
    size = sum(source.jets * bytes_per_jet(source.prepared, source.inputs) for source in loaded)
    if apart and size > POOL_BYTES:
        return "the members' own training jets do not fit into memory together"
    return None


def _train_chunk(
    group: Group, members: Sequence[int], execution: Execution, done: Set[int], resume: bool
) -> Iterator[MemberResult | Failed]:
    """Trains those members of a chunk that are not done."""
    if execution.way == "vectorised":
        trainings = _trainings(group, members)
        # Of the whole chunk, also where a part of it has ended: a resumed run is trained as it would have been.
        reason = _obstacle_of_data(trainings, jets_differ(group.recipe))
        if reason is None:
            ended = {k for k in members if k in done and has_ended(group.folder(k))}
            kept = [training for training in trainings if training.member not in ended]
            yield from train_together(kept, resume=resume, failed=done)
            return
        group.say(f"{listed([Piece(None, k) for k in members])}: one after the other, since {reason}")
    for member in [k for k in members if k not in done]:
        [training] = _trainings(group, [member])
        try:
            yield train_member(training, resume=resume)
        except NotFiniteError as error:
            yield Failed(member, error.step, error)


def _trainings(group: Group, members: Sequence[int], *, quiet: bool = False) -> list[Training]:
    """The members' trainings at their start. Jets that they have in common are held once."""
    recipe, apart, ranks, found = group.recipe, jets_differ(group.recipe), group.ranks, []
    vary, held = recipe.ensemble.vary, None
    for member in members:
        sides = member_sides(recipe, group.sides, member)
        stream = member if "batches" in vary else 0
        model = new_model(recipe, sides, member if "initialisation" in vary else 0)
        weights = training_weights(recipe, sides) if apart else group.weights
        if held is None or apart:
            held = _Held.of(recipe, sides, weights, model.inputs, group.hardware, ranks)
        section = recipe.training.for_jets(held.train.jets)
        for warning in model.fit_inputs(held.train.sample(NORMALISATION_JETS, section.seed)):
            if not quiet:
                group.say(f"  {warning}")
        found.append(
            Training(
                model=model,
                train=held.kept.reshuffled((section.seed, stream)),
                validation=held.validation,
                section=section,
                directory=group.folder(member),
                hardware=group.hardware,
                config=identity(recipe, sides),
                progress=Progress(piece_name(recipe.fold, member), section.epochs, quiet=not ranks.first),
                member=member,
                stream=stream,
                mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
                ranks=ranks,
                rows=DropoutRows(model, model.inputs) if ranks.world > 1 else None,
                whole=batches(recipe, sides, weights, stream, model.inputs) if ranks.world > 1 else None,
                classes=guessing_classes(recipe),
            )
        )
    return found


class _Held(NamedTuple):
    """Jets of one or several members."""

    train: Batches
    kept: Batches | Resident
    """The same, on the device where they fit."""
    validation: Batches

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        sides: Sides,
        weights: TrainingWeightsResult,
        inputs: InputSpec,
        hardware: Hardware,
        ranks: Ranks,
    ) -> "_Held":
        """Those of a split."""
        train, validation = batches(recipe, sides, weights, 0, inputs, ranks)
        kept = kept_on(train, hardware.device) if recipe.training.accumulate == 1 else train
        return cls(train, kept, validation)


def identity(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """All that decides the weights: a checkpoint is only resumed under the same."""
    document = recipe.document
    data: dict[str, Any] = {"key": sides.keys, "validation": document["data"].get("validation")}
    if not isinstance(recipe.data.data.test, dict):
        data["test"] = recipe.data.data.test
    if recipe.fold is not None:
        data |= {"folds": document["data"]["folds"], "fold": recipe.fold}
    names = ("classes", "inputs", "model", "training", *(("targets",) if recipe.data.targets else ()))
    kept = {name: document[name] for name in names if name in document}
    return {
        "data": data,
        "ensemble": {"vary": list(recipe.ensemble.vary)},
        **kept,
        "weights": document.get("weights"),
    }


def training_weights(recipe: Recipe, sides: Sides) -> TrainingWeightsResult:
    """Fitted on the training jets."""
    return weights_of(sides.train, sides.train_rows, recipe.data.weights.training, sides.train.classes)


def batches(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    stream: int,
    inputs: InputSpec,
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> tuple[Batches, Batches]:
    """Training and validation in batches, or one rank's part of them; jets whose training weight is 0 are left out."""
    trained_R = weights.factor_R > 0
    rows, factor = sides.train_rows[trained_R], weights.factor_R[trained_R]
    scaling = scaling_of(sides.train, sides.train_rows)
    decorrelate = recipe.training.decorrelate
    variable = None if decorrelate is None else decorrelate.variable
    sampling = recipe.data.weights.training.method == "sampling"
    size = recipe.training.batch_size
    train = Batches(
        sides.train,
        rows,
        max(len(rows), 1) if size == "all" else size,
        weights_R=loss_weights(sides.train, rows, None if sampling else factor),
        factor_R=factor if sampling else None,
        targets_RT=normalised(sides.train, rows, scaling),
        spectator_R=beside(sides.train, rows, variable),
        shuffle=(recipe.training.seed, stream),
        inputs=inputs,
        rank=ranks.rank,
        ranks=ranks.world,
    )
    if size == "all" and train.steps > 1:
        raise JettaggerError(
            f"training.batch_size: all: one step would hold {len(rows)} jets of"
            f" {bytes_per_jet(sides.train, inputs):.0f} bytes, more than the {POOL_BYTES / 2**20:.0f} MiB that are held"
            " at a time; write a number"
        )
    validation = Batches(
        sides.validation,
        sides.validation_rows,
        BATCH,
        targets_RT=normalised(sides.validation, sides.validation_rows, scaling),
        spectator_R=beside(sides.validation, sides.validation_rows, variable),
        inputs=inputs,
        rank=ranks.rank,
        ranks=ranks.world,
    )
    return train, validation


def _result_document(result: MemberResult) -> dict[str, Any]:
    return {
        "member": result.member,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "jets": result.jets,
        "mean_loss": result.mean_loss,
        "mean_auc": result.mean_auc,
        "mean_accuracy": result.mean_accuracy,
        "advice": [one._asdict() for one in result.advice],
    }


def _read_result(folder: Path) -> MemberResult:
    stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    stored["advice"] = tuple(Advice(**one) for one in stored["advice"])
    return MemberResult(**stored, weights=folder / checkpoints.BEST, history=checkpoints.load_history(folder))
