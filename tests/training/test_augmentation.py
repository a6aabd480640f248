"""Reflections: which variables flip, of which jets, and that nothing else does."""

import pytest
import torch

from jettagger import configuration
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError
from jettagger.randomness import torch_generator
from jettagger.training.augmentation import Mirror, check
from toy_jets import CONFIG

SPEC = InputSpec(
    jet=(Feature("pt"), Feature("eta")),
    collections=(
        CollectionInput("particles", (Feature("deta"), Feature("charge"), Feature("dphi")), 20, True),
        CollectionInput("vertices", (Feature("mass"),), 4),
    ),
)
ETA = {"eta": ["jet.eta", "particles.deta", "particles.coordinates.eta"]}
BOTH = ETA | {"phi": ["particles.dphi", "particles.coordinates.phi"]}


def jets(number=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, 9, (number,), generator=generator)
    lengths_B[3] = 0
    rows = int(lengths_B.sum())
    particles = Packed(
        torch.randn(rows, 3, generator=generator), lengths_B, torch.randn(rows, 3, generator=generator)
    )
    vertices = Packed(torch.randn(number, 1, generator=generator), torch.ones(number, dtype=torch.int64))
    return Inputs(torch.randn(number, 2, generator=generator), {"particles": particles, "vertices": vertices})


def mirrored(inputs, reflections=ETA, seed=1):
    return Mirror(reflections, SPEC)(inputs, torch_generator(seed, "reflections"))


def signs(before, after):
    """±1 for each value, which keeps its size."""
    assert torch.equal(before.abs(), after.abs())
    return torch.sign(before * after)


def blocks(inputs):
    particles = inputs.collections["particles"]
    return (
        inputs.jet_BF,
        particles.features_NF,
        particles.coordinates_NK,
        inputs.collections["vertices"].features_NF,
    )


def test_odd_variables_of_some_jets_flip_together():
    inputs = jets()
    jet_BF, features_NF, coordinates_NK, vertices_NF = (
        signs(*pair) for pair in zip(blocks(inputs), blocks(mirrored(inputs)), strict=True)
    )
    flipped_B = jet_BF[:, 1]
    assert (jet_BF[:, 0] == 1).all()
    assert (vertices_NF == 1).all()
    per_particle = inputs.collections["particles"].spread(flipped_B.unsqueeze(1)).squeeze(1)
    assert torch.equal(features_NF[:, 0], per_particle)
    assert torch.equal(coordinates_NK[:, 0], per_particle)
    assert (features_NF[:, 1:] == 1).all()
    assert (coordinates_NK[:, 1:] == 1).all()


def test_half_of_the_jets_flip_and_reflections_are_independent():
    inputs = jets(4000)
    particles = inputs.collections["particles"]
    first_N = particles.lengths_B.cumsum(0) - particles.lengths_B
    some = particles.lengths_B > 0
    flips = signs(particles.features_NF, mirrored(inputs, BOTH).collections["particles"].features_NF)
    eta, phi = (flips[first_N[some], column] < 0 for column in (0, 2))
    for fraction in (eta.float().mean(), phi.float().mean()):
        assert abs(fraction - 0.5) < 4 * 0.5 / 4000**0.5
    assert abs((eta & phi).float().mean() - 0.25) < 4 * (0.1875 / 4000) ** 0.5


def test_applied_twice_it_is_the_identity():
    inputs = jets()
    once, twice = mirrored(inputs, BOTH), mirrored(mirrored(inputs, BOTH), BOTH)
    for before, after in zip(blocks(inputs), blocks(twice), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(blocks(once)[1], blocks(inputs)[1])


def test_two_reflections_of_one_variable_cancel():
    reflections = {"one": ["jet.eta"], "two": ["jet.eta"], "three": ["jet.pt", "jet.pt"]}
    inputs = jets(4000)
    flips = signs(inputs.jet_BF, mirrored(inputs, reflections).jet_BF) < 0
    assert abs(flips[:, 1].float().mean() - 0.5) < 4 * 0.5 / 4000**0.5
    assert 0.4 < flips[:, 0].float().mean() < 0.6, "named twice in one reflection it flips once"


def test_what_is_drawn_is_keyed():
    inputs = jets()
    first = blocks(mirrored(inputs))
    for one, again in zip(first, blocks(mirrored(inputs)), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(first[0], blocks(mirrored(inputs, seed=2))[0])


def test_packed_and_dense_agree():
    inputs = jets()
    packed = mirrored(inputs, BOTH).dense().collections["particles"]
    dense = mirrored(inputs.dense(), BOTH).collections["particles"]
    assert torch.equal(packed.features_BPF, dense.features_BPF)
    assert torch.equal(packed.coordinates_BPK, dense.coordinates_BPK)


def test_missing_values_stay_missing_and_inputs_are_not_changed():
    inputs = jets()
    inputs.jet_BF[5] = torch.nan
    before = [block.clone() for block in blocks(inputs)]
    after = mirrored(inputs)
    assert after.jet_BF[5].isnan().all()
    for one, other in zip(before, blocks(inputs), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_collections_that_the_model_does_not_see_are_left_out():
    inputs = jets()
    only = Inputs(inputs.jet_BF, {})
    assert torch.equal(mirrored(only).jet_BF, mirrored(inputs).jet_BF)
    assert mirrored(Inputs(None, inputs.collections)).jet_BF is None


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (
            "particles.detta",
            r"training\.reflections\.r: unknown variable 'particles\.detta': did you mean 'particles\.deta'\?",
        ),
        ("particle.deta", "did you mean 'particles.deta'"),
        ("deta", "unknown variable 'deta'"),
        ("jet.etta", r"did you mean 'jet\.eta'"),
        ("particles.coordinates.pt", "unknown variable 'particles.coordinates.pt'"),
        ("vertices.coordinates.eta", "did you mean 'particles.coordinates.eta'"),
        ("", "unknown variable ''"),
    ],
)
def test_unknown_variables(variable, message):
    with pytest.raises(JettaggerError, match=message):
        Mirror({"r": [variable]}, SPEC)
    with pytest.raises(JettaggerError, match=message):
        check({"r": [variable]}, SPEC)


def test_a_reflection_that_flips_nothing():
    with pytest.raises(
        JettaggerError, match=r"training\.reflections\.r: name the variables that change sign"
    ):
        check({"r": []}, SPEC)
    check(BOTH, SPEC)
    check({}, SPEC)


def test_all_wrong_reflections_are_reported_with_their_lines():
    text = CONFIG.format(folder="x").replace(
        "training: {epochs: 2,",
        "training:\n  reflections:\n    eta: [particles.detta]\n    phi: [particles.coordinates.phi]\n"
        "    no: [jet.pt]\n  <<: {epochs: 2,",
    )
    with pytest.raises(JettaggerError) as raised:
        configuration.loads(text, name="a.yaml")
    lines = str(raised.value).splitlines()
    assert lines[0] == "a.yaml: 2 problems"
    assert lines[1].startswith(
        "a.yaml:33: training.reflections.eta: unknown variable 'particles.detta': did you mean 'particles.deta'?"
    )
    assert lines[2].startswith("a.yaml:35: training.reflections.no: unknown variable 'jet.pt'")
