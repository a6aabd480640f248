"""Members in one pass: each is the single training that it would be alone, and none sees another."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from jettagger.training import loop, vectorised
from jettagger.training.checkpoints import LAST, PREVIOUS, load_weights, steps_of
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.execution import (
    KNOWN,
    Execution,
    even_chunk,
    measured,
    not_vectorised,
    rule,
    store,
    stored,
)
from jettagger.training.interruption import Interrupted
from jettagger.training.loop import train_member
from jettagger.training.one_pass import TogetherRun
from jettagger.training.optimiser_schema import OptimiserName
from jettagger.training.schema import TrainingSection
from jettagger.training.step import make_step
from jettagger.training.training import MemberResult, Training
from jettagger.training.trial import Trial, attempt, copied
from jettagger.training.vectorised import Failed, common_step, train_together
from memory import MemoryBatches, equal, make_jets, make_model, make_training

FULL: dict[str, Any] = {
    "epochs": 5,
    "optimiser": {"name": "adamw", "lr": 1.0e-2, "weight_decay": 0.05},
    "gradient_clip": 0.4,
    "ema": 0.9,
    "label_smoothing": 0.05,
}


def members(folder: Path, number: int = 3, *, double: bool = True, **options: Any) -> list[Training]:
    """Trainings with weights, order of jets and dropout masks of their own."""
    found = []
    for member in range(number):
        model = make_model(seed=member, dropout=0.2)
        train, validation = make_jets(), make_jets(40, stream="validation")
        train.seed = 3 + member
        if double:
            model = model.double()
            for jets in (train, validation):
                jets.jet_JF, jets.weights_J = jets.jet_JF.double(), jets.weights_J.double()
        directory = folder / f"member_{member}"
        directory.mkdir(parents=True, exist_ok=True)
        more = {"train": train, "validation": validation, "member": member, "stream": member}
        found.append(make_training(directory, model, **more, **options))
    return found


def weights_of(result: MemberResult | Failed) -> dict[str, torch.Tensor]:
    assert isinstance(result, MemberResult)
    return load_weights(result.weights)


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, x in first.items():
        torch.testing.assert_close(second[name], x, rtol=0, atol=1e-10, msg=name)


OPTIMISERS = [
    *({"name": name, "lr": 0.01} for name in get_args(OptimiserName)),
    {"name": "sgd", "lr": 0.1, "nesterov": True, "lookahead": {"steps": 4}},
]
"""With those that are added to the schema."""
MORE: list[dict[str, Any]] = [
    {"l1": 0.01},
    {"swa": {}, "ema": None},
    {"lr_scaling": {"name": "linear", "reference": 8}},
]
CASES = [*({"optimiser": optimiser} for optimiser in OPTIMISERS), *MORE]


@pytest.mark.parametrize("changed", CASES, ids=str)
def test_one_pass_is_the_loop(tmp_path: Path, changed: dict[str, Any]) -> None:
    options = {**FULL, **changed}
    alone = [train_member(training) for training in members(tmp_path / "alone", **options)]
    together = train_together(members(tmp_path / "together", **options))
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, MemberResult)
        assert_close(weights_of(one), weights_of(other))
        times = ("seconds", "jets_per_second", "targets")
        for mine, theirs in zip(one.history, other.history, strict=True):
            same = {
                name: x for name, x in dataclasses.asdict(mine).items() if x is not None and name not in times
            }
            assert {name: getattr(theirs, name) for name in same} == pytest.approx(same, rel=1e-10, abs=1e-12)
    kept = tmp_path / "together" / "member_1" / LAST
    assert kept.stat().st_size < 1.1 * (tmp_path / "alone" / "member_1" / LAST).stat().st_size


@pytest.mark.slow
def test_two_hundred_steps(tmp_path: Path) -> None:
    options = {**FULL, "epochs": 34}
    alone = train_member(members(tmp_path / "alone", **options)[2])
    assert alone.history[-1].step > 200
    assert_close(weights_of(alone), weights_of(train_together(members(tmp_path / "together", **options))[2]))


def test_members_at_different_learning_rates(tmp_path: Path) -> None:
    options = {"epochs": 12, "schedule": {"name": "plateau", "patience": 0, "factor": 0.3}}
    options |= {"optimiser": {"name": "adamw", "lr": 0.1}}
    alone = [train_member(training) for training in members(tmp_path / "alone", **options)]
    rates = {tuple(record.lr for record in result.history) for result in alone}
    assert len(rates) > 1, "the members' rates differ in this test"
    for one, other in zip(alone, train_together(members(tmp_path / "together", **options)), strict=True):
        assert isinstance(other, MemberResult)
        assert [record.lr for record in one.history] == [record.lr for record in other.history]
        assert_close(weights_of(one), weights_of(other))


def test_each_member_stops_early_by_itself(tmp_path: Path) -> None:
    options = {**FULL, "epochs": 12, "early_stopping": {"patience": 1}}
    options["optimiser"] = {"name": "sgd", "lr": 0.5, "momentum": 0.5}
    alone = [train_member(training) for training in members(tmp_path / "alone", 5, **options)]
    assert len({len(result.history) for result in alone}) > 1, (
        "the members stop at different times in this test"
    )
    for one, other in zip(alone, train_together(members(tmp_path / "together", 5, **options)), strict=True):
        assert isinstance(other, MemberResult)
        assert len(one.history) == len(other.history)
        assert (one.best_epoch, one.stopped_early) == (other.best_epoch, other.stopped_early)
        assert_close(weights_of(one), weights_of(other))


def test_the_first_step_is_that_of_a_single_member(tmp_path: Path) -> None:
    """A mean over members in place of a sum would make it M times smaller."""
    options = {"optimiser": {"name": "sgd", "lr": 1.0, "momentum": 0.0}, "schedule": "constant"}
    trainings = members(tmp_path, 4, **options)
    alone, together = (
        [copied(training) for training in trainings],
        [copied(training) for training in trainings],
    )
    batches = [next(training.train.epoch(0)) for training in trainings]
    run = TogetherRun(together)
    run.step(batches)
    for one, other, batch, generator in zip(alone, together, batches, run.generators, strict=True):
        one.training.model.train()
        loop.set_dropout_generator(one.training.model, generator)
        generator.manual_seed(loop.key(one.training.section.seed, "dropout", one.training.stream, 0))
        make_step(one.training, one.state, batch)
        before = dict(trainings[one.training.member].model.named_parameters())
        for name, x in one.training.model.named_parameters():
            moved = x - before[name]
            assert moved.abs().max() > 0 or "bias" in name
            torch.testing.assert_close(
                dict(other.training.model.named_parameters())[name], x, rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("double", [True, False])
def test_a_member_that_fails_does_the_others_no_harm(tmp_path: Path, double: bool) -> None:
    whole = train_together(members(tmp_path / "whole", double=double, **FULL))
    broken = members(tmp_path / "broken", double=double, **FULL)
    jets = broken[1].train
    assert isinstance(jets, MemoryBatches)
    jets.weights_J = jets.weights_J.clone()
    jets.weights_J[17] = float("nan")
    found = train_together(broken)
    assert isinstance(found[1], Failed)
    assert found[1].member == 1
    assert found[1].step is not None
    assert 0 <= found[1].step < 6
    for k in (0, 2):
        assert equal(weights_of(whole[k]), weights_of(found[k]))
    with pytest.raises(NotFiniteError, match="the weights of jets 17 are not finite") as error:
        train_member(members_with_nan(tmp_path / "alone", double))
    assert error.value.step == found[1].step
    assert str(error.value).split(":")[0] == str(found[1].error).split(":")[0]


def members_with_nan(folder: Path, double: bool) -> Training:
    training = members(folder, double=double, **FULL)[1]
    assert isinstance(training.train, MemoryBatches)
    training.train.weights_J[17] = float("nan")
    return training


def test_all_members_fail(tmp_path: Path) -> None:
    options = {"optimiser": {"name": "sgd", "lr": 1.0e30}, "schedule": "constant"}
    found = train_together(members(tmp_path, 2, double=False, **options))
    assert all(isinstance(one, Failed) for one in found)


@pytest.mark.parametrize("then", ["together", "alone"])
def test_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    whole = train_together(members(tmp_path / "whole", **FULL))
    asked = iter([None] * 9 + ["SIGTERM"])
    monkeypatch.setattr(vectorised, "asked_to_stop", lambda: next(asked))
    with pytest.raises(Interrupted, match="after step 10, which is saved"):
        train_together(members(tmp_path / "stopped", **FULL))
    monkeypatch.setattr(vectorised, "asked_to_stop", lambda: None)
    trainings = members(tmp_path / "stopped", **FULL)
    if then == "together":
        for one, other in zip(whole, train_together(trainings, resume=True), strict=True):
            assert equal(weights_of(one), weights_of(other))
    else:
        for one, training in zip(whole, trainings, strict=True):
            assert_close(weights_of(one), weights_of(train_member(training, resume=True)))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_signal_in_a_members_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Those before it are an epoch ahead, and none loses a step."""
    whole = train_together(members(tmp_path / "whole", **FULL))
    trainings = members(tmp_path / "stopped", **FULL)
    asked = iter([None] * (number * trainings[0].validation.steps) + ["SIGTERM"])
    monkeypatch.setattr(loop, "asked_to_stop", lambda: next(asked))
    with pytest.raises(Interrupted):
        train_together(trainings)
    monkeypatch.setattr(loop, "asked_to_stop", lambda: None)
    assert [steps_of(training.directory) for training in trainings] == [[trainings[0].train.steps]] * 3
    found = train_together(members(tmp_path / "stopped", **FULL), resume=True)
    for one, other in zip(whole, found, strict=True):
        assert equal(weights_of(one), weights_of(other))


def test_killed_between_two_members_checkpoints(tmp_path: Path) -> None:
    """Those that are a checkpoint ahead go back to the one that all have."""
    whole = train_together(members(tmp_path / "whole", **FULL))
    options = {**FULL, "checkpoint_seconds": 1.0e-9}
    saved: list[Any] = []

    def dying(directory: Path, *arguments: Any, keep: int) -> None:
        saved.append(directory)
        if len(saved) == 11:
            raise KeyboardInterrupt
        save(directory, *arguments, keep=keep)

    save = vectorised.checkpoints.save_last
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorised.checkpoints, "save_last", dying)
        with pytest.raises(KeyboardInterrupt):
            train_together(members(tmp_path / "killed", **options))
    folders = sorted((tmp_path / "killed").iterdir())
    assert [steps_of(folder) for folder in folders] == [[4, 3], [3, 2], [3, 2]]
    found = train_together(members(tmp_path / "killed", **FULL), resume=True)
    for one, other in zip(whole, found, strict=True):
        assert equal(weights_of(one), weights_of(other))


def test_members_that_are_behind_catch_up(tmp_path: Path) -> None:
    alone = [train_member(training) for training in members(tmp_path / "alone", **FULL)]
    monkeypatch = pytest.MonkeyPatch()
    asked = iter([None] * 12 + ["SIGTERM"])
    monkeypatch.setattr(loop, "asked_to_stop", lambda: next(asked))
    trainings = members(tmp_path / "some", **FULL)
    with monkeypatch.context(), pytest.raises(Interrupted):
        train_member(trainings[1])
    monkeypatch.undo()
    found = train_together(members(tmp_path / "some", **FULL), resume=True)
    for one, other in zip(alone, found, strict=True):
        assert_close(weights_of(one), weights_of(other))


@pytest.mark.parametrize(
    ("saved", "step"),
    [
        ([[8, 4], [4, 2]], 4),
        ([[8, 4], [8, 4]], 8),
        ([[8, 4], [2]], None),
        ([[3], []], 0),
        ([[3, 2], []], None),
        ([[], []], 0),
        ([[6, 3], [3], [6, 3]], 3),
    ],
)
def test_the_step_that_all_go_on_from(saved: list[list[int]], step: int | None) -> None:
    assert common_step(saved) == step


def test_a_checkpoint_of_a_view_holds_no_more_than_it(tmp_path: Path) -> None:
    train_together(members(tmp_path, 8, epochs=1))
    alone = train_member(members(tmp_path / "alone", 1, epochs=1)[0])
    first = (tmp_path / "member_0" / LAST).stat().st_size
    assert first < 1.1 * (alone.weights.parent / LAST).stat().st_size
    assert not (tmp_path / "member_0" / PREVIOUS).exists()


def test_a_trial_changes_nothing(tmp_path: Path) -> None:
    trainings = members(tmp_path, 2)
    before = [{name: x.clone() for name, x in t.model.state_dict().items()} for t in trainings]
    tried = attempt(trainings)
    assert tried.obstacle is None
    # 3·8 + 8·8 + 8·2 weights, two operations each, 16 jets
    assert (tried.flops, tried.convolutions, tried.particles) == (2 * 104 * 16, False, False)
    assert measured(trainings, 2).way in ("loop", "vectorised")
    assert all(equal(old, dict(t.model.state_dict())) for old, t in zip(before, trainings, strict=True))
    assert list(tmp_path.rglob("*.pt")) == []


def test_a_network_that_mixes_its_members_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = members(tmp_path, 2)
    monkeypatch.setattr(
        TogetherRun,
        "losses",
        lambda run, batches, own=TogetherRun.losses: tuple(2 * x for x in own(run, batches)),
    )
    assert attempt(trainings).obstacle == "in one pass the gradients differ from those of each network alone"


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("trial", "number", "way", "why"),
    [
        (Trial(None, 1_000_000, False, False), 16, "vectorised", "1.0 MFLOP a step and member"),
        (Trial(None, 1_000_000, False, False), 2, "loop", "fewer than 4 members"),
        (Trial(None, 100_000_000, False, False), 16, "loop", "100.0 MFLOP a step and member, more than 20.0"),
        (Trial(None, 3_000_000, False, True), 16, "loop", "3.0 MFLOP a step and member, more than 1.0"),
        (Trial(None, 1_000_000, True, True), 16, "loop", "convolutions of several networks"),
        (Trial("no rule for lstm", 1_000_000, False, True), 16, "loop", "no rule for lstm"),
    ],
)
def test_the_rule(trial: Trial, number: int, way: str, why: str) -> None:
    found = rule(trial, number, CPU)
    assert found.way == way
    assert why in str(found)


def test_chunks_are_even() -> None:
    assert [even_chunk(members, 32) for members in (4, 32, 33, 100)] == [4, 32, 17, 25]


def test_settings_that_one_pass_does_not_know() -> None:
    assert set(TrainingSection.model_fields) >= KNOWN
    assert not_vectorised(TrainingSection.model_validate(FULL)) is None
    unknown = sorted(set(TrainingSection.model_fields) - KNOWN)
    for name in unknown:
        changed = TrainingSection().model_copy(update={name: "changed"})
        assert not_vectorised(changed) == f"training.{name} is only known to the loop"


def test_what_is_stored_is_read(tmp_path: Path) -> None:
    assert stored(tmp_path) is None
    store(tmp_path, Execution("vectorised", 8, "asked"))
    assert stored(tmp_path) == Execution("vectorised", 8, "asked")
    (tmp_path / "ensemble.json").write_text("{}")
    with pytest.raises(Exception, match=r"ensemble\.json cannot be read"):
        stored(tmp_path)
