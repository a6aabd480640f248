"""Loss curves of the trainings."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from jettagger.advice import Epoch, advise_members
from jettagger.evaluation.predictions import Cost
from jettagger.evaluation.results import Result
from jettagger.report.style import PALETTE, Drawing, Floats, panels, put_titles


def training_drawing(results: Sequence[Result], label: str) -> Drawing | None:
    """Training and validation loss of every network, one panel a run; the caption says what they mean."""
    shown = [result for result in results if any(len(member) for member in result.history)]
    if not shown:
        return None
    figure, axes = panels(len(shown))
    for panel, result in zip(axes, shown, strict=True):
        for number, member in enumerate(result.history):
            first = number == 0
            x = np.arange(1, len(member) + 1)
            train, validation = _losses(member, "train_loss"), _losses(member, "validation_loss")
            panel.plot(
                x, train, color=PALETTE[0], linewidth=1.2, alpha=0.8, label="training" if first else None
            )
            panel.plot(
                x,
                validation,
                color=PALETTE[1],
                linewidth=1.2,
                alpha=0.8,
                linestyle="--",
                label="validation" if first else None,
            )
        panel.set(xlabel="Epoch", ylabel="Loss [nats]")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.xaxis.set_minor_locator(MaxNLocator(integer=True, nbins=20))
        panel.legend(loc="best")
    put_titles(axes, label, [result.name for result in shown])
    return Drawing(
        name="training",
        title="Training curves",
        figure=figure,
        caption="Loss after each epoch, one line a training.",
    )


def training_words(results: Sequence[Result]) -> list[tuple[str, tuple[str, ...]]]:
    """For each run what its curves say, and what all its trainings cost."""
    return [
        (result.name, sentences)
        for result in results
        if (sentences := (*_advice(result), *_cost_words(result.cost)))
    ]


def _advice(result: Result) -> tuple[str, ...]:
    return advise_members(result.history, result.guessing, result.trainings)


def _cost_words(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ()
    return (
        f"Cost of all trainings: {cost['seconds']:.4g} s, {cost['jets']:,} jets, {cost['flops']:.3g} FLOPs, "
        f"{cost['watt_hours']:.3g} Wh ({cost['energy']}: {cost['how']}).",
    )


def _losses(member: Sequence[Epoch], key: str) -> Floats:
    values = [epoch.get(key) for epoch in member]
    losses = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(losses), losses, np.nan)
