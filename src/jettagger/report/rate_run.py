"""`jettagger find-lr`: a config's training at rates from low to high, and a figure of its loss; trains nothing.

DIR/lr_finder.json, DIR/figures/lr_finder.pdf and .png
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from jettagger.errors import JettaggerError
from jettagger.files import check_writable, written_aside
from jettagger.report.rate_figure import rate_drawing
from jettagger.report.style import rendered
from jettagger.training.assembly import NORMALISATION_JETS, batches, training_weights
from jettagger.training.augmentation import Mirror
from jettagger.training.device import choose_hardware, threads
from jettagger.training.launch import found_ranks
from jettagger.training.progress import Progress
from jettagger.training.rate_copies import check_copies, side_by_side_scan
from jettagger.training.rate_finder import RateScan, ScanRange, rising_scan, write_scan
from jettagger.training.recipe import Recipe, new_model
from jettagger.training.sides import prepare_sides
from jettagger.training.training import Training

FILE = "lr_finder.json"


def find_rate(
    recipe: Recipe,
    output: Path,
    *,
    name: str,
    chosen: ScanRange = ScanRange(),  # noqa: B008 - it is immutable
    copies: int | None = None,
    say: Callable[[str], None] = print,
) -> RateScan:
    """Scans learning rates, says what it suggests, and writes the scan and its figure into `output`.

    With `copies` so many copies of the network are trained side by side, each at its own rate.

    Raises JettaggerError for what is wrong with config, data, range or output.
    """
    found_ranks().check_alone("find-lr")
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; what is found goes into a folder")
    check_writable(output / FILE)
    chosen.check()
    if copies is not None:
        check_copies(copies)
    with threads(recipe.training.threads), tempfile.TemporaryDirectory() as unused:
        training = _training(recipe, Path(unused), say)
        scan = (
            rising_scan(training, chosen) if copies is None else side_by_side_scan(training, chosen, copies)
        )
    section, rate = recipe.training, scan.suggestion.rate
    facts = {
        "config": name,
        "optimiser": section.optimiser.model_dump(),
        "batch_size": section.batch_size,
        # The scan's rates are the schedule's highest, which training.lr_scaling makes of optimiser.lr.
        "suggested_lr": None if rate is None else rate * section.optimiser.lr / section.peak_rate,
    }
    drawing = rate_drawing(scan, f"{name}: {section.optimiser.name}, batches of {section.batch_size} jets")
    for suffix in ("pdf", "png"):
        with written_aside(output / "figures" / f"{drawing.name}.{suffix}") as aside:
            aside.write_bytes(rendered(drawing.figure, suffix))
    write_scan(output / FILE, scan, facts)
    say(f"{scan.steps} steps: {scan.ended}")
    words = "no suggestion" if rate is None else f"optimiser.lr: {facts['suggested_lr']:.2g}"
    say(f"{words}, since {scan.suggestion.reason}")
    say(f"figure: {output / 'figures' / drawing.name}.png")
    return scan


def _training(recipe: Recipe, directory: Path, say: Callable[[str], None]) -> Training:
    """The config's training of its first member, at its start."""
    section = recipe.training
    hardware = choose_hardware(section.device, section.precision)
    sides = prepare_sides(recipe.data, recipe.baselines, say, fold=recipe.fold)
    model = new_model(recipe, sides, 0)
    train, validation = batches(recipe, sides, training_weights(recipe, sides), 0, model.inputs)
    for warning in model.fit_inputs(train.sample(NORMALISATION_JETS, section.seed)):
        say(f"  {warning}")
    return Training(
        model=model,
        train=train,
        validation=validation,
        section=section.for_jets(train.jets),
        directory=directory,
        hardware=hardware,
        config={},
        progress=Progress("find-lr", 1, quiet=True),
        mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
    )
