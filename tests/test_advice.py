"""Constructed histories and what must be said of them."""

import re

import numpy as np
import pytest

from jettagger.advice import advise_members, diagnose

EPOCHS = np.arange(1, 31)


def history(train, validation=None):
    validation = [None] * len(train) if validation is None else validation
    return [
        {"epoch": k + 1, "train_loss": t, "validation_loss": v, "learning_rate": 1.0e-3}
        for k, (t, v) in enumerate(zip(train, validation, strict=True))
    ]


FALLING = 0.2 + 0.3 * np.exp(-EPOCHS / 3)
TURNING = 0.25 + 0.3 * np.exp(-EPOCHS / 3) + 0.004 * np.maximum(EPOCHS - 12, 0)


@pytest.mark.parametrize(
    ("train", "validation", "verdict", "words"),
    [
        (FALLING, FALLING + 0.01, "converged", r"best in epoch 30 of 30, 0.21 against 0.2"),
        (FALLING - 0.001 * EPOCHS, TURNING, "overfitting", r"Overfitting from epoch 1\d: since then"),
        (
            0.6 - 0.01 * EPOCHS,
            0.61 - 0.01 * EPOCHS,
            "still improving",
            r"last 6 of 30 epochs .* fell from 0.37",
        ),
        (np.full(30, 0.69), np.full(30, 0.69), "underfitting", r"0.69, 100 % of ln 2 = 0.6931"),
        (0.3 + 0.001 * EPOCHS, FALLING, "learning rate too high", r"above 0.301 after the first epoch"),
        (
            0.5 - 0.005 * EPOCHS + 0.05 * (-1.0) ** EPOCHS,
            FALLING,
            "learning rate too high",
            r"rose by more than 2 %",
        ),
        ([0.5, 0.4, float("nan"), 0.4], [0.5] * 4, "diverged", "not finite from epoch 3"),
        ([0.5, 0.4, 0.3, 0.3], [0.5, float("inf"), 0.5, 0.5], "diverged", "not finite from epoch 2"),
        ([0.5, 0.4], [0.5, 0.4], "too short", "Only 2 epochs"),
    ],
)
def test_verdicts(train, validation, verdict, words):
    found = diagnose(history(train, validation), classes=2)
    assert found.verdict == verdict
    assert re.search(words, found.sentence)


def test_without_validation_the_training_loss_is_judged():
    assert diagnose(history(0.6 - 0.01 * EPOCHS)).verdict == "still improving"
    assert diagnose(history(FALLING)).verdict == "converged"


def test_noise_alone_is_no_overfitting():
    rng = np.random.default_rng(0)
    verdicts = [
        diagnose(history(FALLING - 1e-4 * EPOCHS, FALLING + 0.01 + 0.004 * rng.normal(size=30))).verdict
        for _ in range(50)
    ]
    assert verdicts.count("overfitting") <= 2


def test_members_are_counted():
    good, bad = history(FALLING, FALLING + 0.01), history(FALLING - 0.001 * EPOCHS, TURNING)
    sentences = advise_members([good, bad, good], classes=2)
    assert len(sentences) == 2
    assert sentences[0].startswith("2 of 3 members: converged. Member 0: ")
    assert sentences[1].startswith("1 of 3 members: overfitting. Member 1: ")
    assert advise_members([]) == ()
    assert advise_members([good]) == (diagnose(good).sentence,)
