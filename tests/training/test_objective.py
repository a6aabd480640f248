"""Every loss against its definition, its derivative and its neighbours; targets that are unknown; decorrelation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from jettagger.batch import Batch, Inputs, Truth
from jettagger.outputs.description import Outputs, TargetOutput, describe, plain
from jettagger.outputs.schema import ClassLossSection, TargetLossSection
from jettagger.training.decorrelation import distance_correlation
from jettagger.training.objective import Objective
from jettagger.training.schema import DecorrelateSection

NAN = float("nan")
LOSSES = {
    "cross_entropy": ClassLossSection(),
    "binary_cross_entropy": ClassLossSection(name="binary_cross_entropy"),
    "focal": ClassLossSection(name="focal", gamma=1.5),
    "mse": ClassLossSection(name="mse"),
    "mse, softmax": ClassLossSection(name="mse", output="softmax"),
}
TARGETS = {
    "mse": TargetLossSection(name="mse"),
    "gaussian_nll": TargetLossSection(),
    "quantile": TargetLossSection(name="quantile", quantiles=[0.1, 0.5, 0.9]),
}
DISCO = DecorrelateSection(variable="mass", background="QCD", strength=3.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(jets: int, targets: int = 0, seed: int = 0) -> Batch:
    truth = Truth(
        torch.arange(jets) % 2,
        0.5 + drawn(jets, seed=seed + 1).abs(),
        drawn(jets, targets, seed=seed + 2) if targets else None,
    )
    return Batch(
        Inputs(drawn(jets, 3, seed=seed), {}),
        truth.labels_B,
        truth.weights_B,
        torch.arange(jets),
        targets_BT=truth.targets_BT,
        spectator_B=drawn(jets, seed=seed + 3),
    )


def objective(loss: str | None, targets: tuple[str, ...] = (), decorrelate: bool = False) -> Objective:
    classes = ("QCD", "Top") if loss else ()
    section = LOSSES[loss or "cross_entropy"]
    outputs = describe(classes, section, {name: (TARGETS[name], 0.7) for name in targets})
    return Objective(outputs, section, 0.0, DISCO if decorrelate else None)


@pytest.mark.parametrize("loss", [*LOSSES, None])
@pytest.mark.parametrize("targets", [(), tuple(TARGETS)], ids=["classes", "targets"])
@pytest.mark.parametrize("decorrelate", [False, True], ids=["", "disco"])
def test_gradients_by_finite_differences(loss, targets, decorrelate) -> None:
    if loss is None and (decorrelate or not targets):
        pytest.skip("nothing to minimise")
    wanted = objective(loss, targets, decorrelate)
    batch = batch_of(7, len(targets))
    batch = replace(batch, weights_B=batch.weights_B * torch.tensor([1.0, 1, -0.3, 1, 1, 1, 1]))
    raw_BK = drawn(7, wanted.outputs.width, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: wanted(x, batch).step, [raw_BK])


@pytest.mark.parametrize("loss", LOSSES)
def test_members_can_be_batched_and_give_the_same(loss) -> None:
    wanted = objective(loss, tuple(TARGETS), decorrelate=True)
    batch, raw_MBK = batch_of(9, 3), drawn(4, 9, wanted.outputs.width)
    assert batch.targets_BT is not None
    batch.targets_BT[2, 1] = NAN
    together_M = torch.vmap(lambda raw_BK: wanted(raw_BK, batch).step)(raw_MBK)
    alone_M = torch.stack([wanted(raw_BK, batch).step for raw_BK in raw_MBK])
    torch.testing.assert_close(together_M, alone_M, rtol=0, atol=1e-12)


def test_binary_cross_entropy_is_cross_entropy_of_the_difference() -> None:
    logits_BC, batch = drawn(8, 2), batch_of(8)
    for smoothing in (0.0, 0.1):
        softmax = replace(objective("cross_entropy"), smoothing=smoothing)
        sigmoid = replace(objective("binary_cross_entropy"), smoothing=smoothing)
        difference_B1 = logits_BC[:, 1:] - logits_BC[:, :1]
        torch.testing.assert_close(softmax(logits_BC, batch).step, sigmoid(difference_B1, batch).step)
        torch.testing.assert_close(
            softmax.outputs.probabilities(logits_BC), sigmoid.outputs.probabilities(difference_B1)
        )


def test_focal_with_gamma_0_is_cross_entropy_and_else_weighs_sure_jets_less() -> None:
    logits_BC, batch = drawn(8, 2), batch_of(8)
    plain_loss = objective("cross_entropy")
    for gamma in (0.0, 0.5, 2.0):
        section = ClassLossSection(name="focal", gamma=gamma)
        p_B = logits_BC.softmax(1).gather(1, batch.labels_B[:, None])[:, 0]
        expected_B = -((1 - p_B) ** gamma) * p_B.log()
        found_B = replace(plain_loss, class_loss=section).losses(logits_BC, batch.truth)
        torch.testing.assert_close(found_B, expected_B)
    certain_BC = torch.tensor([[40.0, -40.0]], requires_grad=True)
    truth = Truth(torch.tensor([0]), torch.ones(1))
    replace(plain_loss, class_loss=ClassLossSection(name="focal", gamma=0.5)).losses(
        certain_BC, truth
    ).sum().backward()
    assert torch.isfinite(certain_BC.grad).all()


def test_squares_of_class_outputs() -> None:
    raw_BC, batch = drawn(6, 2), batch_of(6)
    wanted_BC = torch.eye(2, dtype=torch.float64)[batch.labels_B]
    for name, estimates_BC in (("mse", raw_BC), ("mse, softmax", raw_BC.softmax(1))):
        expected_B = (estimates_BC - wanted_BC).square().sum(1)
        torch.testing.assert_close(objective(name).losses(raw_BC, batch.truth), expected_B)


def test_linear_outputs_become_probabilities_in_their_order() -> None:
    outputs = objective("mse").outputs
    z = torch.linspace(-2, 3, 2001, dtype=torch.float64)
    p_NC = outputs.probabilities(torch.stack((1 - z, z), 1))
    assert (p_NC > 0).all()
    assert ((p_NC[:, 1] / p_NC[:, 0]).log().diff() > 0).all()
    far_BC = torch.tensor([[-80.0, -90.0], [5.0, -90.0], [-0.2, 0.0]], requires_grad=True)
    p_BC = outputs.probabilities(far_BC)
    p_BC[:, 0].sum().backward()
    assert torch.isfinite(p_BC).all()
    assert torch.isfinite(far_BC.grad).all()
    inside = (z > 0.1) & (z < 0.9)
    torch.testing.assert_close(p_NC[inside, 1], z[inside], rtol=0, atol=1e-5)


def test_targets_against_their_definitions() -> None:
    batch = batch_of(5, 1)
    t_B = batch.targets_BT[:, 0]
    raw_BK = drawn(5, 3, seed=5)
    sigma_B = ((1 + raw_BK[:, 1].exp()).log() + 1e-6).sqrt()
    density_B = torch.distributions.Normal(raw_BK[:, 0], sigma_B).log_prob(t_B)
    found_B = objective(None, ("gaussian_nll",)).losses(raw_BK[:, :2], batch.truth)
    torch.testing.assert_close(found_B, 0.7 * (-density_B - math.log(2 * math.pi) / 2))
    found_B = objective(None, ("mse",)).losses(raw_BK[:, :1], batch.truth)
    torch.testing.assert_close(found_B, 0.7 * (raw_BK[:, 0] - t_B) ** 2)
    pinball_BQ = [
        [q * (t - y) if t > y else (1 - q) * (y - t) for q, y in zip((0.1, 0.5, 0.9), row, strict=True)]
        for t, row in zip(t_B.tolist(), raw_BK.tolist(), strict=True)
    ]
    found_B = objective(None, ("quantile",)).losses(raw_BK, batch.truth)
    torch.testing.assert_close(found_B, 0.7 * torch.tensor(pinball_BQ, dtype=torch.float64).mean(1))


def test_an_unknown_target_enters_no_loss_and_no_gradient() -> None:
    wanted, batch = objective(None, ("gaussian_nll", "mse")), batch_of(6, 2)
    batch.targets_BT[0] = NAN
    batch.targets_BT[1, 0] = NAN
    raw_BK = drawn(6, 3, seed=4).requires_grad_()
    found = wanted(raw_BK, batch)
    found.step.backward()
    assert not raw_BK.grad[0].any()
    assert not raw_BK.grad[1, :2].any()
    assert raw_BK.grad[1, 2] != 0
    assert torch.isfinite(raw_BK.grad).all()
    # Without classes a jet without any target counts nothing.
    assert found.weights.item() == pytest.approx(batch.weights_B[1:].sum().item())
    # Beside classes it counts as a jet of its class.
    both = objective("cross_entropy", ("gaussian_nll", "mse"))(drawn(6, 5), batch)
    assert both.weights.item() == pytest.approx(batch.weights_B.sum().item())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_doubled_weight_is_a_doubled_jet(loss) -> None:
    wanted, batch = objective(loss, ("quantile",)), batch_of(4, 1)
    raw_BK, twice = drawn(4, wanted.outputs.width), torch.tensor([0, 1, 1, 2, 3])
    copied = replace(
        batch.each(lambda x: x[twice]), weights_B=batch.weights_B[twice] * torch.tensor([1, 1, 2, 1, 1.0])
    )
    weighted = replace(batch, weights_B=batch.weights_B * torch.tensor([1, 3, 1, 1.0]))
    torch.testing.assert_close(wanted(raw_BK[twice], copied).step, wanted(raw_BK, weighted).step)


def test_mixed_truths_are_the_loss_of_mixed_labels() -> None:
    wanted, batch, share = objective("cross_entropy"), batch_of(6), 0.3
    batch = replace(batch, weights_B=torch.ones(6, dtype=torch.float64))
    partner_B = torch.tensor([3, 2, 5, 1, 0, 4])
    other = batch.truth.each(lambda x: x[partner_B])
    mixed = replace(
        batch, weights_B=share * batch.weights_B, partner=replace(other, weights_B=0.7 * other.weights_B)
    )
    raw_BC, eye = drawn(6, 2), torch.eye(2, dtype=torch.float64)
    soft_BC = share * eye[batch.labels_B] + 0.7 * eye[batch.labels_B[partner_B]]
    torch.testing.assert_close(wanted(raw_BC, mixed).step, torch.nn.functional.cross_entropy(raw_BC, soft_BC))


def reference(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """The definition, with loops over pairs of jets."""
    p, n = w / w.sum(), len(x)
    centred = []
    for v in (x, y):
        d = np.array([[abs(v[i] - v[j]) for j in range(n)] for i in range(n)])
        rows = np.array([sum(p[j] * d[i, j] for j in range(n)) for i in range(n)])
        centred.append([[d[i, j] - rows[i] - rows[j] + sum(p * rows) for j in range(n)] for i in range(n)])
    a, b = centred

    def covariance(u, v):
        return sum(p[i] * p[j] * u[i][j] * v[i][j] for i in range(n) for j in range(n))

    return covariance(a, b) / math.sqrt(covariance(a, a) * covariance(b, b))


def test_distance_correlation_against_its_definition() -> None:
    x, y, w = drawn(12), drawn(12, seed=1) ** 2, drawn(12, seed=2).abs()
    y = y + 0.5 * x
    found = distance_correlation(x, y, w)
    assert found.squared.item() == pytest.approx(reference(x.numpy(), y.numpy(), w.numpy()), abs=1e-12)
    assert found.weight.item() == pytest.approx(w.sum().item())
    # A jet of weight 0 is not there, and one of weight 2 is there twice.
    w = torch.tensor([0.0, 2.0] + [1.0] * 10, dtype=torch.float64)
    twice = [1, 1, *range(2, 12)]
    ones = torch.ones(12, dtype=torch.float64)
    same = distance_correlation(x[twice], y[twice], ones).squared
    torch.testing.assert_close(distance_correlation(x, y, w).squared, same)


def test_distance_correlation_of_independent_dependent_and_constant_variables() -> None:
    x, y, ones = drawn(1500), drawn(1500, seed=1), torch.ones(1500, dtype=torch.float64)
    assert distance_correlation(x, y, ones).squared < 0.01
    assert distance_correlation(x, 3 - 2 * x, ones).squared.item() == pytest.approx(1)
    assert distance_correlation(x, x**2, ones).squared > 0.1  # although their linear correlation is 0
    assert distance_correlation(x, torch.ones_like(x), ones).squared == 0
    assert distance_correlation(x, y, 0 * ones).squared == 0


def test_only_background_jets_with_a_known_variable_are_decorrelated() -> None:
    wanted, batch = objective("cross_entropy", decorrelate=True), batch_of(10)
    raw_BC = drawn(10, 2)
    batch.spectator_B[0] = NAN
    found = wanted.correlation(raw_BC, batch)
    chosen = torch.tensor([2, 4, 6, 8])  # QCD has the even numbers
    p_B = raw_BC.softmax(1)[chosen, 1].numpy()
    weights = batch.weights_B[chosen].numpy()
    assert found.squared.item() == pytest.approx(reference(p_B, batch.spectator_B[chosen].numpy(), weights))
    assert found.weight.item() == pytest.approx(weights.sum())
    without = replace(wanted, decorrelate=None)(raw_BC, batch)
    assert wanted(raw_BC, batch).step.item() == pytest.approx(without.step.item() + 3 * found.squared.item())


def test_with_negative_weights_the_decorrelation_is_reported_as_it_is_minimised() -> None:
    wanted, batch, raw_BC = objective("cross_entropy", decorrelate=True), batch_of(10), drawn(10, 2)
    batch = replace(batch, weights_B=torch.where(torch.arange(10) < 3, -1.0, batch.weights_B))
    penalty = 3 * wanted.correlation(raw_BC, batch).squared.item()
    found, without = wanted(raw_BC, batch), replace(wanted, decorrelate=None)(raw_BC, batch)
    mean = (without.losses / without.weights).item()
    assert penalty > 0.1
    assert (found.losses / found.weights).item() == pytest.approx(mean + penalty)
    assert found.step.item() == pytest.approx(without.step.item() + penalty)


def scores_of_background(strength: float | None) -> tuple[float, float]:
    """dCor² of score and mass of new background jets, and the separation, after a training that may be decorrelated."""

    def jets_of(number: int, seed: int) -> Batch:
        batch = batch_of(number, seed=seed)
        top_B = batch.labels_B == 1
        # The mass of Top has a peak where that of QCD is broad; one more variable separates without it.
        mass_B = torch.where(top_B, 0.3 * drawn(number, seed=seed + 4), 2 * drawn(number, seed=seed + 4))
        other_B = drawn(number, seed=seed + 5) + torch.where(top_B, 1.0, -1.0)
        inputs = Inputs(torch.stack((mass_B, other_B), 1), {})
        return replace(batch, inputs=inputs, spectator_B=mass_B, weights_B=torch.ones_like(mass_B))

    section = None if strength is None else DISCO.model_copy(update={"strength": strength})
    wanted = replace(objective("cross_entropy"), decorrelate=section)
    layers = torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    network = torch.nn.Sequential(*layers).double()
    for number, parameter in enumerate(network.parameters()):
        parameter.data = 0.5 * drawn(*parameter.shape, seed=number)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(150):
        batch = jets_of(256, 100 * step)
        optimiser.zero_grad()
        wanted(network(batch.inputs.jet_BF), batch).step.backward()
        optimiser.step()
    with torch.no_grad():
        batch = jets_of(1000, 7)
        raw_BC = network(batch.inputs.jet_BF)
    top_B, score_B = batch.labels_B == 1, raw_BC.softmax(1)[:, 1]
    found = replace(wanted, decorrelate=DISCO).correlation(raw_BC, batch)
    assert found is not None
    return found.squared.item(), (score_B[top_B].mean() - score_B[~top_B].mean()).item()


def test_a_decorrelated_score_tells_little_of_the_mass_and_still_separates() -> None:
    (plain_correlation, plain_gap), (correlation, gap) = map(scores_of_background, (None, 3.0))
    assert plain_correlation > 0.05
    assert correlation < plain_correlation / 3
    assert plain_gap > gap > 0.5


def test_columns_and_their_meaning() -> None:
    outputs = Outputs(
        ("QCD", "Top"),
        "sigmoid",
        (
            TargetOutput("mass", "gaussian_nll"),
            TargetOutput("energy", "quantile", (0.25, 0.5, 0.75)),
            TargetOutput("pt", "mse"),
        ),
    )
    assert outputs.width == 1 + 2 + 3 + 1
    assert outputs.columns_of("energy") == slice(3, 6)
    raw = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, 0.0, 3.0], dtype=torch.float64)
    shift, scale = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 3.0, 4.0])
    found = outputs.estimates(raw, shift.double(), scale.double())
    assert found["mass"].value == 11
    assert found["mass"].variance == pytest.approx(4 * (math.log(1 + math.e) + 1e-6))
    assert found["energy"].quantiles.tolist() == [17, 20, 26]
    assert found["energy"].value == 20
    assert found["pt"].value == 42
    assert found["pt"].variance is None
    assert outputs.probabilities(raw).tolist() == [0.5, 0.5]
    with pytest.raises(KeyError):
        outputs.columns_of("eta")


def fitted(loss: TargetLossSection, members: int = 2) -> dict[str, np.ndarray]:
    """What networks say at 41 points in [-4, 4] after a training on y = x³ + N(0, 3²); members side by side."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(1000, 1, generator=generator, dtype=torch.float64) * 8 - 4
    y = x[:, 0] ** 3 + 3 * torch.randn(1000, generator=generator, dtype=torch.float64)
    shift, scale = y.mean(), y.std()
    outputs = describe((), ClassLossSection(), {"y": (loss, 1.0)})
    wanted = Objective(outputs, ClassLossSection())
    batch = Batch(
        Inputs(x, {}),
        torch.zeros(1000, dtype=torch.int64),
        torch.ones(1000, dtype=torch.float64),
        torch.arange(1000),
        targets_BT=((y - shift) / scale)[:, None],
    )
    torch.manual_seed(1)
    networks = [
        torch.nn.Sequential(
            torch.nn.Linear(1, 20), torch.nn.Tanh(), torch.nn.Linear(20, outputs.width)
        ).double()
        for _ in range(members)
    ]
    weights, buffers = stack_module_state(networks)
    adam = torch.optim.Adam(weights.values(), 0.02)

    def raw(weights_of_one, buffers_of_one, at):
        return functional_call(networks[0], (weights_of_one, buffers_of_one), (at / 4,))

    def loss_of(weights_of_one, buffers_of_one):
        return wanted(raw(weights_of_one, buffers_of_one, x), batch).step

    for _ in range(700):
        adam.zero_grad()
        torch.vmap(loss_of)(weights, buffers).sum().backward()
        adam.step()
    at = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None]
    with torch.no_grad():
        raw_MNK = torch.vmap(raw, in_dims=(0, 0, None))(weights, buffers, at)
    found = outputs.estimates(raw_MNK, shift[None], scale[None])["y"]
    named = {"value": found.value, "variance": found.variance, "quantiles": found.quantiles}
    return {name: x.numpy() for name, x in named.items() if x is not None} | {"truth": at[:, 0].numpy() ** 3}


@pytest.mark.slow
def test_a_gaussian_loss_learns_the_noise() -> None:
    found = fitted(TargetLossSection())
    sigma = np.sqrt(found["variance"]).mean(0)
    assert sigma[4:-4] == pytest.approx(3.0, abs=1.2)
    assert sigma.mean() == pytest.approx(3.0, abs=0.4)
    assert np.sqrt(np.mean((found["value"].mean(0) - found["truth"]) ** 2)) < 1.2


@pytest.mark.slow
def test_quantiles_cover_at_their_levels() -> None:
    found = fitted(TargetLossSection(name="quantile", quantiles=[0.16, 0.5, 0.84]))
    low, median, high = np.moveaxis(found["quantiles"].mean(0), -1, 0)
    noise = 3 * np.random.default_rng(0).standard_normal((2000, 41))
    drawn_y = found["truth"] + noise
    for level, edge in ((0.16, low), (0.5, median), (0.84, high)):
        assert (drawn_y < edge).mean() == pytest.approx(level, abs=0.06)


def test_a_plain_softmax() -> None:
    raw = drawn(3, 4)
    torch.testing.assert_close(plain(4).probabilities(raw), raw.softmax(-1))
