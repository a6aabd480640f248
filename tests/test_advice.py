"""Constructed histories and what must be said of them."""

import re

import numpy as np
import pytest

from jettagger.advice import advise, advise_members, diagnose

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


SLOW = 0.70 - 0.001 * EPOCHS
COSINE = 1e-5 * (1 + np.cos(np.pi * (EPOCHS - 0.5) / 30)) / 2


def with_rates(train, lr, validation=None):
    return [{**epoch, "lr": float(rate)} for epoch, rate in zip(history(train, validation), lr, strict=True)]


def test_a_straight_slow_fall_is_a_low_rate():
    found = diagnose(with_rates(SLOW, np.full(30, 1e-6)), classes=2)
    assert found.verdict == "learning rate too low"
    assert "from 0.699 to 0.67 only, in nearly every epoch" in found.sentence
    assert "1.00 times as fast" in found.sentence
    assert "(highest: 1e-06) looks too low" in found.sentence
    # A cosine's second half makes a fifth of its way: what counts is the fall for each unit of the rate.
    falling = 0.7 - 800 * np.cumsum(COSINE)
    assert diagnose(with_rates(falling, COSINE), classes=2).verdict == "learning rate too low"
    assert diagnose(history(falling), classes=2).verdict != "learning rate too low"


@pytest.mark.parametrize(
    "train",
    [
        0.7 - 0.02 * EPOCHS,  # falls by far more than a quarter
        0.6 + 0.1 * np.exp(-EPOCHS / 4),  # bends
        0.7 - 0.0005 * EPOCHS + 0.004 * (-1.0) ** EPOCHS,  # rises in half of the epochs
        np.full(30, 0.7),
    ],
)
def test_other_falls_are_no_low_rate(train):
    assert diagnose(with_rates(train, np.full(30, 1e-3)), classes=2).verdict != "learning rate too low"


def clipped(shares):
    return [
        {**epoch, "clipped": float(share), "gradient_norm": 4.2}
        for epoch, share in zip(history(FALLING, FALLING + 0.01), shares, strict=True)
    ]


def test_a_gradient_that_is_always_clipped():
    found = advise(clipped(np.where(EPOCHS > 15, 0.95, 0.0)), classes=2)
    assert [one.verdict for one in found] == ["converged", "always clipped"]
    assert "From epoch 16 on the gradient was clipped in 95 % of the steps" in found[1].sentence
    assert "its norm was 4.2" in found[1].sentence
    assert len(advise(clipped(np.where(EPOCHS <= 15, 1.0, 0.5)), classes=2)) == 1, "clipped at first only"


def test_a_validation_loss_that_scatters():
    noise = np.random.default_rng(1).normal(size=30)
    shaky = advise(history(FALLING, FALLING + 0.03 * noise), classes=2)
    assert [one.verdict for one in shaky][1:] == ["unstable validation"]
    assert re.search(r"scatters by 0\.0\d+ \(\d+ %\) from epoch to epoch", shaky[1].sentence)
    steady = advise(history(FALLING, FALLING + 0.002 * noise), classes=2)
    assert "unstable validation" not in [one.verdict for one in steady]
    both = advise(history(FALLING + 0.03 * noise, FALLING + 0.03 * noise), classes=2)
    assert "unstable validation" not in [one.verdict for one in both], "the training loss scatters as much"


def test_losses_below_zero_are_judged_by_their_range():
    """Such as the negative log-likelihood of a narrow Gaussian."""
    noise = 1e-3 * np.random.default_rng(2).normal(size=30)
    train, validation = FALLING - 1.5 + noise, FALLING - 1.49 + noise
    assert [one.verdict for one in advise(history(train, validation))] == ["converged"]
    turning = history(train - 0.002 * EPOCHS, TURNING - 1.5)
    found = diagnose(turning)
    assert found.verdict == "overfitting"
    assert re.search(r"\(\+\d+ %\)", found.sentence)
    crossing = np.linspace(0.3, -0.3, 30)
    assert diagnose(history(crossing, crossing)).verdict == "still improving"
    assert diagnose(history(-FALLING, -FALLING)).verdict == "learning rate too high"


def test_no_epochs_no_advice():
    assert advise([], classes=2) == ()


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


@pytest.mark.parametrize("scatter", [0.0, 2e-4, 5e-3])
def test_a_loss_that_stays_at_chance_says_nothing_of_the_rate(scatter):
    rng = np.random.default_rng(1)
    verdicts = [diagnose(history(np.log(2) + scatter * rng.normal(size=20)), 2).verdict for _ in range(50)]
    assert verdicts.count("underfitting") >= 48


def test_members_are_counted():
    good, bad = history(FALLING, FALLING + 0.01), history(FALLING - 0.001 * EPOCHS, TURNING)
    sentences = advise_members([good, bad, good], classes=2)
    assert len(sentences) == 2
    assert sentences[0].startswith("2 of 3 members: converged. Member 0: ")
    assert sentences[1].startswith("1 of 3 members: overfitting. Member 1: ")
    assert advise_members([]) == ()
    always = clipped(np.ones(30))
    assert advise_members([good, always], classes=2)[1].startswith(
        "1 of 2 members: always clipped. Member 1: From"
    )
    assert advise_members([good]) == (diagnose(good).sentence,)


def test_trainings_are_named_as_in_their_run():
    good, bad = history(FALLING, FALLING + 0.01), history(FALLING - 0.001 * EPOCHS, TURNING)
    names = ["member 1", "member 3", "member 4"]
    assert advise_members([good, [], bad], 2, names)[1].startswith("1 of 2 members: overfitting. Member 4: ")
    names = ["fold 0, member 1", "fold 1, member 0"]
    assert advise_members([good, bad], 2, names)[1].startswith(
        "1 of 2 trainings: overfitting. Fold 1, member 0: "
    )


def test_figures_beyond_their_range():
    epochs = [
        {**epoch, "auc": 1.02 if k > 27 else 0.9, "accuracy": 0.8}
        for k, epoch in enumerate(history(FALLING, FALLING + 0.01))
    ]
    [found] = advise(epochs, 2)[1:]
    assert found.verdict == "figures beyond their range"
    assert found.sentence.startswith(
        "Outside 0 to 1 on the validation jets: the AUC in 2 of 30 epochs (such as 1.02), since negative event weights"
    )
    epochs[3]["accuracy"] = -0.1
    assert " and the accuracy in 1 of 30 epochs (such as -0.1), since" in advise(epochs, 2)[1].sentence
    inside = [{**epoch, "auc": None, "accuracy": 1.0} for epoch in history(FALLING, FALLING + 0.01)]
    assert len(advise(inside, 2)) == 1
