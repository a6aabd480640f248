"""What a run has recorded beside its scores: its networks, their trainings, and what is to be noted of them."""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from jettagger.evaluation.held_out import Run
from jettagger.outputs.schema import ClassLossSection
from jettagger.tagger import Network


def guessing_classes(run: Run) -> int | None:
    """See `Predictions.guessing`."""
    training = run.document.get("training") or {}
    loss = ClassLossSection.model_validate(training.get("loss") or {}).name
    entropy = loss in ("cross_entropy", "binary_cross_entropy") and not training.get("decorrelate")
    return len(run.tagger.classes) if entropy and not run.tagger.targets else None


def notes_of_networks(run: Run) -> tuple[str, ...]:
    """Notes of networks that are missing, have failed, or look so on the validation jets."""
    card = run.tagger.card

    def name(one: Mapping[str, Any]) -> str:
        return Network(one["member"], one["fold"]).words

    return (
        *(
            f"{run.name}: {name(one)} failed and is not part of it: {one['reason']}"
            for one in card.get("failed", ())
        ),
        *(
            f"{run.name}: {name(one)} was not trained to the end, and is not part of it"
            for one in card.get("missing", ())
        ),
        *(f"{run.name}: {problem}" for problem in card.get("problems", ())),
        *(f"{run.name}: {remark}" for remark in card.get("remarks", ())),
    )


def networks_of(run: Run) -> tuple[Network, ...]:
    """Member and fold of each network in the bundle."""
    listed = run.tagger.card.get("networks")
    return (
        tuple(Network(**one) for one in listed)
        if listed
        else tuple(Network(k) for k in range(len(run.tagger.members)))
    )


def rows_of(run: Run) -> list[list[int]]:
    """Positions of the bundle's networks in one list for each fold; in one alone where no fold is looked at."""
    folds = [one.fold for one in run.tagger.networks]
    if not run.tagger.folds:
        return [list(range(len(run.tagger.members)))]
    return [[k for k, of in enumerate(folds) if of == fold] for fold in run.tagger.folds]


def row_names(run: Run, members: int) -> list[str]:
    """Which network each row of the members' scores is; with folds, which of each fold."""
    networks, names = networks_of(run), []
    for row in range(members):
        of_row = [networks[positions[row]] for positions in rows_of(run)]
        numbers = [one.member for one in of_row]
        if len(of_row) == 1:
            names.append(of_row[0].words)
        elif len(set(numbers)) == 1:
            names.append(f"member {numbers[0]} of the folds")
        else:  # folds that lost different members
            told = "; ".join(one.words for one in of_row)
            names.append(f"network {row} of the folds ({told})")
    return names


def history_of(run: Run) -> tuple[tuple[dict[str, Any], ...], ...]:
    """The epochs of each network's training, where the run directory is still around the bundle."""
    files = [run.path / one.name / "metrics.jsonl" for one in networks_of(run)]
    if not all(file.is_file() for file in files):
        return ()
    return tuple(
        tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()) for file in files
    )


def seconds_of(run: Run) -> list[float]:
    """What the training of each network in the bundle took; empty where the card does not tell."""
    seconds = [float(one["seconds"]) for one in run.tagger.card.get("trainings", [])]
    return seconds if len(seconds) == len(run.tagger.members) else []


def groups_of(runs: Sequence[Run]) -> dict[str, str | None]:
    """Runs whose configs differ in the seed only share a group, named after what their names have in common."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        document = {**run.document, "training": {**run.document.get("training", {}), "seed": None}}
        kinds.setdefault(json.dumps(document, sort_keys=True, default=str), []).append(run.name)
    groups: dict[str, str | None] = {}
    for names in kinds.values():
        groups.update({name: _in_common(names) if len(names) > 1 else None for name in names})
    return groups


def _in_common(names: Sequence[str]) -> str:
    """`mlp` of `mlp_seed1` and `mlp_seed2`; the first name where nothing is left."""
    shared = "".join(
        next(iter(letters))
        for letters in takewhile(lambda c: len(c) == 1, map(set, zip(*names, strict=False)))
    )
    return shared.removesuffix("seed").rstrip("_-. ") or names[0]
