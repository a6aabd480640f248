"""Ensembles through `train`: how members are trained, what is kept of it, what is drawn anew for each."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jettagger import configuration, metrics
from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.tagger import BATCH, Network, load
from jettagger.training import assembly, run, vectorised
from jettagger.training.checkpoints import load_weights
from jettagger.training.health import scored_validation
from jettagger.training.interruption import Interrupted
from jettagger.training.outcome import read_failure
from jettagger.training.sides import prepare_sides
from jettagger.training.varied import member_sides

FAST = ("training.precision=float32", "training.threads=1", "training.epochs=2", "ensemble.members=4")
MLP = "model={architecture: mlp, widths: [8], dropout: 0.1, norm: batch}"
PARTICLES = "model={architecture: particle_cnn, widths: [6], dense: [6], dropout: 0.1, norm: batch}"


def recipe_of(toy_folder: Path, *overrides: str) -> Any:
    return configuration.recipe(configuration.load(toy_folder / "config.yaml", [*FAST, *overrides]))


def train(toy_folder: Path, output: Path, *overrides: str, **arguments: Any) -> list[str]:
    said: list[str] = []
    run.train(recipe_of(toy_folder, *overrides), output, say=said.append, **arguments)
    return said


def kept(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "ensemble.json").read_text())["execution"]
    return found


def best(output: Path, member: int) -> dict[str, torch.Tensor]:
    return load_weights(output / f"member_{member}" / "best.pt")


def assert_close(first: Path, second: Path, number: int = 4, limit: float = 1e-4) -> None:
    for member in range(number):
        other = best(second, member)
        for name, x in best(first, member).items():
            torch.testing.assert_close(other[name], x, rtol=0, atol=limit, msg=f"{member} {name}")


@pytest.mark.parametrize("model", [MLP, PARTICLES], ids=["mlp", "particle_cnn"])
def test_one_pass_chunks_and_loop_give_the_same(toy_folder: Path, tmp_path: Path, model: str) -> None:
    for name, execution in (("loop", "loop"), ("together", "vectorised"), ("chunks", "{chunk: 3}")):
        train(toy_folder, tmp_path / name, model, f"ensemble.execution={execution}")
    assert kept(tmp_path / "loop") == {"way": "loop", "chunk": 1, "why": "ensemble.execution"}
    assert kept(tmp_path / "together") == {"way": "vectorised", "chunk": 4, "why": "ensemble.execution"}
    assert kept(tmp_path / "chunks")["chunk"] == 3
    assert_close(tmp_path / "loop", tmp_path / "together")
    assert_close(tmp_path / "loop", tmp_path / "chunks")
    files = [sorted(p.name for p in (tmp_path / way / "member_2").iterdir()) for way in ("loop", "together")]
    assert files[0] == files[1]


def test_the_rule_decides_and_a_resumed_run_keeps_to_it(toy_folder: Path, tmp_path: Path) -> None:
    said = train(toy_folder, tmp_path / "run", MLP)
    assert kept(tmp_path / "run")["way"] == "vectorised"
    assert any(line.startswith("4 members are trained at a time, in one pass (0.") for line in said)
    record = tmp_path / "run" / "ensemble.json"
    record.write_text(record.read_text().replace('"vectorised"', '"loop"'))
    said = train(toy_folder, tmp_path / "run", MLP, "ensemble.members=5", resume=True)
    assert any(line.startswith("members are trained one after the other (") for line in said)
    assert (tmp_path / "run" / "member_4" / "result.json").exists()


def test_a_timed_choice_is_kept(toy_folder: Path, tmp_path: Path) -> None:
    train(toy_folder, tmp_path / "run", MLP, "ensemble.execution=timed", "training.epochs=1")
    assert "× as fast in a trial" in kept(tmp_path / "run")["why"]


def test_what_cannot_be_stacked_is_trained_in_a_loop(toy_folder: Path, tmp_path: Path) -> None:
    model = "model={architecture: particle_cnn, widths: [6], dense: [6], summary: {lstm: 4}}"
    said = train(toy_folder, tmp_path / "run", model, "ensemble.execution=vectorised", "ensemble.members=2")
    assert kept(tmp_path / "run")["way"] == "loop"
    assert any("one after the other (vmap: " in line for line in said)


def test_members_of_a_later_chunk_that_differ_in_jets_are_trained_in_a_loop(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_split = assembly.member_sides

    def shorter(recipe: Any, sides: Any, member: int) -> Any:
        found = one_split(recipe, sides, 0)
        return found._replace(train_rows=found.train_rows[: -40 if member == 3 else None])

    monkeypatch.setattr(assembly, "member_sides", shorter)
    options = ("ensemble.vary=[initialisation, split]", "ensemble.execution={chunk: 2}")
    said = train(toy_folder, tmp_path / "run", MLP, *options)
    assert "members 2, 3: one after the other, since members have different numbers of training jets" in said
    assert best(tmp_path / "run", 3)


def test_one_member_of_an_ensemble_is_trained_again_to_the_bit(toy_folder: Path, tmp_path: Path) -> None:
    train(toy_folder, tmp_path / "run", MLP, "ensemble.members=4")
    before = {k: best(tmp_path / "run", k) for k in range(4)}
    train(toy_folder, tmp_path / "run", MLP, member=2, overwrite=True)
    for name, x in best(tmp_path / "run", 2).items():
        torch.testing.assert_close(before[2][name], x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("then", ["auto", "loop"])
def test_interrupted_in_one_pass(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    train(toy_folder, tmp_path / "whole", PARTICLES, "ensemble.execution=vectorised")
    asked = iter([None] * 7 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(vectorised, "asked_to_stop", lambda: next(asked))
        with pytest.raises(Interrupted):
            train(toy_folder, tmp_path / "run", PARTICLES, "ensemble.execution=vectorised")
    train(toy_folder, tmp_path / "run", PARTICLES, f"ensemble.execution={then}")
    assert kept(tmp_path / "run")["way"] == ("loop" if then == "loop" else "vectorised")
    limit = 1e-4 if then == "loop" else 0.0
    assert_close(tmp_path / "whole", tmp_path / "run", limit=limit)


@pytest.fixture
def second_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The initial weights of member 1 hold a NaN."""
    build = assembly.new_model

    def broken(recipe: Any, sides: Any, stream: int) -> Any:
        model = build(recipe, sides, stream)
        if stream == 1:
            next(model.parameters()).data[0] = float("nan")
        return model

    monkeypatch.setattr(assembly, "new_model", broken)


@pytest.mark.parametrize("execution", ["loop", "vectorised"])
@pytest.mark.usefixtures("second_fails")
def test_a_member_that_fails_is_recorded_and_the_rest_is_trained(
    toy_folder: Path, tmp_path: Path, execution: str
) -> None:
    output = tmp_path / "run"
    said = train(toy_folder, output, MLP, "ensemble.members=3", f"ensemble.execution={execution}")
    assert [(output / f"member_{k}" / "result.json").exists() for k in range(3)] == [True, False, True]
    failure = read_failure(output / "member_1")
    assert failure is not None
    assert (failure.member, failure.fold, failure.step) == (1, None, 0)
    assert "1 weights of the network are no longer finite" in failure.reason
    assert any(line.startswith("member 1 failed after step 0: the loss or its gradient") for line in said)
    card = json.loads((output / "tagger" / "card.json").read_text())
    assert (card["members"], [one["member"] for one in card["failed"]]) == (2, [1])
    before = best(output, 2)
    said = train(
        toy_folder, output, MLP, "ensemble.members=3", f"ensemble.execution={execution}", resume=True
    )
    assert any("(--overwrite --member 1 trains it anew)" in line for line in said)
    assert all(torch.equal(before[name], x) for name, x in best(output, 2).items())


@pytest.mark.usefixtures("second_fails")
def test_the_only_member_asked_for_fails(toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JettaggerError, match=r"^member 1 failed after step 0: (.|\n)*no longer finite"):
        train(toy_folder, tmp_path / "run", MLP, member=1)
    assert read_failure(tmp_path / "run" / "member_1") is not None


def test_all_members_fail(toy_folder: Path, tmp_path: Path) -> None:
    diverging = "training.optimiser={name: sgd, lr: 1.0e30}"
    with pytest.raises(JettaggerError, match=r"^member 0 failed after step (.|\n)*\nmember 1 failed"):
        train(
            toy_folder, tmp_path / "run", MLP, diverging, "ensemble.members=2", "training.schedule=constant"
        )


@pytest.fixture(scope="module")
def sides(toy_folder: Path) -> Any:
    recipe = recipe_of(toy_folder)
    return prepare_sides(recipe.data, recipe.baselines, lambda line: None)


def test_splits_differ_and_keep_events_together(toy_folder: Path, sides: Any) -> None:
    recipe = recipe_of(toy_folder, "ensemble.vary=[split]")
    found = [member_sides(recipe, sides, k) for k in range(4)]
    assert np.array_equal(found[0].train_rows, sides.train_rows), "member 0 is the single training"
    everything = np.arange(len(sides.train))
    for one in found:
        both = np.sort(np.concatenate([one.train_rows, one.validation_rows]))
        assert np.array_equal(both, everything)
        groups = sides.train.groups
        assert not set(groups[one.train_rows]) & set(groups[one.validation_rows])
    assert len({tuple(one.validation_rows) for one in found}) == 4
    again = member_sides(recipe, sides, 3)
    assert np.array_equal(again.validation_rows, found[3].validation_rows)


def test_bootstrap_samples_draw_whole_events(toy_folder: Path, sides: Any) -> None:
    recipe = recipe_of(toy_folder, "ensemble.vary=[sample]")
    groups, missed = sides.train.groups, []
    for k in range(4):
        rows = member_sides(recipe, sides, k).train_rows
        assert (np.diff(rows) >= 0).all()
        assert set(rows) <= set(sides.train_rows)
        _, times = np.unique(rows, return_counts=True)
        assert times.max() > 1
        for group in np.unique(groups[rows])[:50]:
            of_group = sides.train_rows[groups[sides.train_rows] == group]
            counts = {int((rows == row).sum()) for row in of_group}
            assert len(counts) == 1, "jets of an event are drawn together"
        missed.append(1 - len(np.unique(rows)) / len(sides.train_rows))
    assert np.mean(missed) == pytest.approx(np.exp(-1), abs=0.05)
    assert np.array_equal(member_sides(recipe, sides, 0).validation_rows, sides.validation_rows)


@pytest.mark.parametrize("source", ["initialisation", "batches", "split", "sample"])
def test_each_source_varies_alone(toy_folder: Path, tmp_path: Path, source: str) -> None:
    vary = f"ensemble.vary=[{source}]"
    train(toy_folder, tmp_path / "run", MLP, vary, "ensemble.members=2", "ensemble.execution=loop")
    first, second = best(tmp_path / "run", 0), best(tmp_path / "run", 1)
    assert any(not torch.equal(first[name], x) for name, x in second.items())
    shift = "normalise.jet.shift_F"
    assert torch.equal(first[shift], second[shift]) == (source in ("initialisation", "batches"))
    train(toy_folder, tmp_path / "plain", MLP, "ensemble.members=1")
    same = all(torch.equal(x, first[name]) for name, x in best(tmp_path / "plain", 0).items())
    assert same == (source != "sample"), "member 0 is the single training, but for a sample of its own"


def test_each_network_scores_the_validation_jets_of_its_own_split(
    toy_folder: Path, tmp_path: Path, sides: Any
) -> None:
    recipe = recipe_of(toy_folder, MLP, "ensemble.members=3", "ensemble.vary=[split]")
    tagger = load(run.train(recipe, tmp_path / "run", say=lambda line: None).directory)
    seen = scored_validation(recipe, tagger, {None: sides})
    spent: dict[int, list[Any]] = {}
    for k, model in enumerate(tagger.members):
        rows = member_sides(recipe, sides, k).validation_rows
        batches = Batches(sides.validation, rows, BATCH, inputs=model.inputs)
        alone = replace(tagger, members=(model,), networks=(Network(k),))
        scores = alone.run(batch.inputs for batch in batches.epoch(0)).decomposition.probabilities_NC
        for row, score_C in zip(rows, scores, strict=True):
            spent.setdefault(row, []).append(score_C)
    expected = [np.mean(spent[row], axis=0) for row in sorted(spent)]
    assert max(map(len, spent.values())) > 1
    assert np.allclose(seen.probabilities_JC, expected, rtol=1e-12, atol=0)
    assert np.array_equal(seen.labels_J, sides.validation.labels_J[sorted(spent)])
    ranking = metrics.rank(seen.probabilities_JC[:, 0], seen.labels_J == 0, seen.weights_J)
    name = f"auc {tagger.classes[0]} against the rest"
    assert tagger.card["validation"][name] == metrics.auc(ranking).value
    [remark] = tagger.card["remarks"]
    assert "each jet is scored by the networks whose validation jet it is" in remark


@pytest.mark.parametrize("source", ["initialisation", "split", "sample"])
def test_the_card_says_which_jets_each_member_has(
    toy_folder: Path, tmp_path: Path, sides: Any, source: str
) -> None:
    target = "targets={mass: {value: jet_pt}}"
    recipe = recipe_of(toy_folder, MLP, target, "ensemble.members=2", f"ensemble.vary=[{source}]")
    tagger = load(run.train(recipe, tmp_path / "run", say=lambda line: None).directory)
    shifts = []
    for k, one in enumerate(tagger.card["trainings"]):
        own = member_sides(recipe, sides, k)
        assert (one["training_jets"], one["validation_jets"]) == (
            len(own.train_rows),
            len(own.validation_rows),
        )
        shift = float(np.float32(np.median(sides.train.spectators["jet_pt"][own.train_rows])))
        assert one["targets"]["mass"]["shift"] == pytest.approx(shift)
        assert one["targets"]["mass"]["scale"] == tagger.members[k].target_scale.item() > 0
        shifts.append(one["targets"]["mass"]["shift"])
    data, mass = tagger.card["data"], tagger.card["targets"]["mass"]
    assert data["validation_jets"] == (None if source == "split" else len(sides.validation_rows))
    if source == "initialisation":
        assert data["training_jets"] == len(sides.train_rows)
        assert shifts == [mass["shift"]] * 2
    else:
        assert data["training_jets"] is mass["shift"] is mass["scale"] is None
        assert shifts[0] != shifts[1]


def test_a_split_that_is_no_fraction_cannot_vary(toy_folder: Path) -> None:
    message = (
        r"ensemble\.vary: split draws another validation fraction .* is the condition 'event_number % 5 == 0'"
    )
    with pytest.raises(JettaggerError, match=message):
        recipe_of(toy_folder, "ensemble.vary=[split]", "data.validation=event_number % 5 == 0")


def test_a_chunk_of_none(toy_folder: Path) -> None:
    with pytest.raises(JettaggerError, match=r"ensemble\.execution"):
        recipe_of(toy_folder, "ensemble.execution={chunk: 0}")
