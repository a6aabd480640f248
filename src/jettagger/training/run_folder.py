"""The folder of a run: what may be written into it, what fits what is there, and what is removed."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jettagger import yaml_source
from jettagger.errors import JettaggerError
from jettagger.files import check_writable, written_aside
from jettagger.training import checkpoints, outcome
from jettagger.training.assembly import identity
from jettagger.training.outcome import Piece
from jettagger.training.recipe import Recipe, fold_folder, member_folder
from jettagger.training.sides import Sides


def check_output(
    recipe: Recipe, output: Path, chosen: Sequence[Piece], *, resume: bool, overwrite: bool
) -> None:
    """Raises JettaggerError where the run cannot be written, or would be mixed with one that is there."""
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; a run is a folder")
    if not overwrite:
        check_layout(recipe, output)
    if any(member_folder(output, k, fold).exists() for fold, k in chosen) and not (resume or overwrite):
        raise JettaggerError(
            f"{output} holds a run already: --resume goes on with it, --overwrite replaces it, "
            "--output puts the new one elsewhere"
        )
    check_writable(output / "run.json")


def check_layout(recipe: Recipe, output: Path) -> None:
    """Raises JettaggerError where a run with folds would be mixed with one without."""
    folds = recipe.data.data.folds is not None
    if any(output.glob("member_*" if folds else "fold_*/member_*")):
        there, here = ("without", "has") if folds else ("with", "has no")
        raise JettaggerError(
            f"{output} holds a run {there} folds, and the config {here} data.folds: --output puts the new one "
            "elsewhere, --overwrite replaces the old one"
        )


def check_same_config(
    recipe: Recipe, sides: Mapping[int | None, Sides], output: Path, pieces: Sequence[Piece]
) -> None:
    """Raises JettaggerError when a piece that is trained already was trained under another config."""
    for fold, member in pieces:
        folder = member_folder(output, member, fold)
        if fold in sides and outcome.has_ended(folder):
            same = {**identity(recipe._replace(fold=fold), sides[fold]), "member": member}
            # Members may be trained on different machines, and so in different precision.
            checkpoints.load_last(folder, same, free=["precision in use"])


def clear(recipe: Recipe, output: Path, chosen: Sequence[Piece]) -> None:
    """Removes what is to be replaced: the whole run, or some pieces, and what was made of them."""
    whole = len(chosen) == len(outcome.all_pieces(recipe))
    folders = [member_folder(output, member, fold) for fold, member in chosen]
    baselines = [fold_folder(output, fold) / "baselines" for fold in outcome.folds_of(chosen)]
    if whole:
        folders += [*output.glob("member_*"), *output.glob("fold_*"), output / "baselines"]
    for folder in [*folders, *baselines, output / "tagger"]:
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("run.json", "config.yaml", *(["ensemble.json"] if whole else [])):
        (output / name).unlink(missing_ok=True)


def write_config(recipe: Recipe, output: Path) -> None:
    """Leaves the resolved config in the run; what members have been trained with stays."""
    trained = any(output.glob("member_*")) or any(output.glob("fold_*/member_*"))
    if not (output / "config.yaml").exists() or not trained:
        with written_aside(output / "config.yaml") as aside:
            aside.write_text(yaml_source.write(dict(recipe.document)), encoding="utf-8")
