"""What a network sees of JetClass files is the published definition of the features, jet by jet.

The definition (arXiv:2202.03772) is written down here once more, in float64 and in plain loops over particles.
Shapes: J jets, N particles, F features.
"""

import math
from functools import cache
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger import configuration, models
from jettagger.data.columns import Columns
from jettagger.data.reader import opening_of, source_of
from jettagger.data.rows import offsets_of, take
from schemas import jetclass
from schemas.drawn import drawn

CONFIGS = Path(__file__).parents[1] / "configs"
LENGTH = 128
TOLERANCE = 1e-6
KINEMATICS = ("part_pt_log", "part_e_log", "part_logptrel", "part_logerel", "part_deltaR")
IDENTITY = tuple(f"part_{name}" for name in ("charge", "isChargedHadron", "isNeutralHadron"))
IDENTITY += tuple(f"part_{name}" for name in ("isPhoton", "isElectron", "isMuon"))
DISPLACEMENT = ("part_d0", "part_d0err", "part_dz", "part_dzerr")
PLACE = ("part_deta", "part_dphi")
RAW = ("part_px", "part_py", "part_energy", "part_d0val", "part_d0err", "part_dzval", "part_dzerr")
ORDER = {
    "full": KINEMATICS + IDENTITY + DISPLACEMENT + PLACE,
    "kinpid": KINEMATICS + IDENTITY + PLACE,
    "kin": KINEMATICS + PLACE,
}
SCALED = {
    "part_pt_log": (1.7, 0.7),
    "part_e_log": (2.0, 0.7),
    "part_logptrel": (-4.7, 0.7),
    "part_logerel": (-4.7, 0.7),
    "part_deltaR": (0.2, 4.0),
}
"""What is subtracted, and what the rest is multiplied with; other features stay as they are."""


def logarithm(x):
    return math.log(x) if x > 0 else -math.inf


def published(jet, part):
    """The features of one particle, by name."""
    pt = math.hypot(part["part_px"], part["part_py"])
    raw = {
        "part_pt_log": logarithm(pt),
        "part_e_log": logarithm(part["part_energy"]),
        "part_logptrel": logarithm(pt / jet["jet_pt"]),
        "part_logerel": logarithm(part["part_energy"] / jet["jet_energy"]),
        "part_deltaR": math.hypot(part["part_deta"], part["part_dphi"]),
        "part_d0": math.tanh(part["part_d0val"]),
        "part_dz": math.tanh(part["part_dzval"]),
        **{name: part[name] for name in (*IDENTITY, "part_d0err", "part_dzerr", *PLACE)},
    }
    result = {}
    for name, value in raw.items():
        subtracted, multiplied = SCALED.get(name, (0.0, 1.0))
        low, high = (0.0, 1.0) if name.endswith("err") else (-5.0, 5.0)
        # Charge, identity and place are given without a transformation, and so without a clip.
        scaled = (value - subtracted) * multiplied
        untouched = name in (*IDENTITY, *PLACE, "part_d0", "part_dz")
        result[name] = value if untouched else min(max(scaled, low), high)
    return result


def expected(columns, names):
    """One list of feature rows a jet, at most LENGTH particles in the order of the file."""
    particles = {name: ak.to_list(x) for name, x in columns.items() if name.startswith("part_")}
    jets = []
    for number in range(len(columns["jet_pt"])):
        jet = {name: float(columns[name][number]) for name in ("jet_pt", "jet_energy")}
        rows = []
        for slot in range(min(len(particles["part_px"][number]), LENGTH)):
            part = {name: float(lists[number][slot]) for name, lists in particles.items()}
            features = published(jet, part)
            rows.append([features[name] for name in names])
        jets.append(rows)
    return jets


def odd_jets():
    """Drawn jets with what real files hold as well: no particle, too many, and values beyond the clips."""
    some = drawn(30, 7, particles=60)
    columns = jetclass.branches(some, "label_Hbb")
    many = jetclass.branches(drawn(3, 8, particles=200), "label_QCD")
    lists = {name: x[np.arange(len(x)) != 0] for name, x in columns.items()}
    empty = {name: x[:1] for name, x in columns.items()}
    for name in (name for name in empty if name.startswith("part_")):
        empty[name] = empty[name][:, :0]
    joined = {name: ak.concatenate([lists[name], empty[name], many[name]]) for name in columns}
    changes = {  # of the first particles of the first jet
        "part_px": [0.0, 1e-30, 1e6, 3e-5, 500.0],
        "part_py": [0.0, 0.0, 1e6, 4e-5, 0.0],
        "part_energy": [0.0, 1e-30, 1e9, 1e-4, 501.0],
        "part_d0val": [1e6, -1e6, 0.0, 1e-7, -3.5],
        "part_dzval": [-1e6, 1e6, 1e-20, 2.0, 20.0],
        "part_d0err": [0.0, 1.0, 1.5, 1e6, 0.3],
        "part_dzerr": [2.0, 0.0, 1e-9, 1.0, 0.9],
        "part_deta": [0.0, -6.0, 6.0, 1e-9, -0.8],
        "part_dphi": [0.0, math.pi, -math.pi, 1e-9, 0.8],
    }
    for name, values in changes.items():
        flat = ak.to_numpy(ak.flatten(joined[name])).copy()
        flat[: len(values)] = values
        joined[name] = ak.unflatten(flat, ak.num(joined[name]))
    flat_names = [name for name in joined if not name.startswith("part_")]
    return joined | {name: ak.to_numpy(joined[name]) for name in flat_names}


@pytest.fixture(scope="module")
def odd():
    return odd_jets()


@cache
def built(preset):
    """The config, its columns and its network."""
    config = configuration.load(CONFIGS / f"jetclass_{preset}.yaml")
    columns = Columns(config)
    return config, columns, models.build(config.model, columns.spec, 10, torch.Generator().manual_seed(0))


def seen(path, preset):
    """The features after the first layer of the model, their names, and the particles of each jet."""
    config, columns, model = built(preset)
    source = source_of(path, opening_of(config))
    needed = columns.branches(source.branches, where=str(path), sample_weight=1.0)
    rows, lengths = [], []
    for chunk in source.chunks(needed):
        table = columns.table(
            chunk.branches, start=chunk.start, sample="any", sample_weight=1.0, where=str(path)
        )
        inputs = take(table.inputs, offsets_of(table.inputs), np.arange(len(table.labels_J)))
        model.fit_inputs(inputs)
        packed = model.normalise(inputs).collections["particles"]
        rows.append(packed.features_NF.numpy())
        lengths.append(packed.lengths_B.numpy())
    [collection] = columns.spec.collections
    return np.concatenate(rows), tuple(f.name for f in collection.features), np.concatenate(lengths)


@pytest.mark.parametrize("preset", ORDER)
@pytest.mark.parametrize("container", ["TTree", "RNTuple"])
def test_tensors_are_the_published_features(tmp_path, odd, preset, container):
    path = jetclass.write_file(tmp_path / "jets.root", odd, rntuple=container == "RNTuple")
    found_NF, names, lengths_J = seen(path, preset)
    assert names == ORDER[preset]
    jets = expected(odd, names)
    assert [len(rows) for rows in jets] == lengths_J.tolist()
    expected_NF = np.array([row for rows in jets for row in rows])
    assert found_NF.dtype == np.float32
    assert np.isfinite(found_NF).all()
    worst_F = dict(zip(names, np.abs(found_NF - expected_NF).max(axis=0), strict=True))
    assert max(worst_F.values()) <= TOLERANCE, worst_F


def test_the_jets_of_the_test_are_odd(odd):
    """Empty, longer than the collection, on both sides in eta, and beyond every clip."""
    counts = ak.to_numpy(ak.num(odd["part_px"]))
    assert counts.min() == 0
    assert counts.max() > LENGTH
    assert (odd["jet_eta"] < 0).any()
    assert (odd["jet_eta"] > 0).any()
    rows = np.array([row for rows in expected(odd, ORDER["full"]) for row in rows])
    for name in SCALED:
        column = rows[:, ORDER["full"].index(name)]
        assert column.max() == 5 or name in ("part_logptrel", "part_logerel")
        assert column.min() == (-0.8 if name == "part_deltaR" else -5)
    for name in ("part_d0err", "part_dzerr"):
        assert rows[:, ORDER["full"].index(name)].max() == 1


def numbers(low, high):
    return st.floats(low, high, width=32, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                **{
                    name: numbers(-(2.0**40), 2.0**40)
                    for name in ("part_px", "part_py", "part_d0val", "part_dzval")
                },
                **{name: numbers(0, 2.0**40) for name in ("part_energy", "part_d0err", "part_dzerr")},
                **{name: numbers(-8, 8) for name in PLACE},
                **{name: st.sampled_from([-1.0, 0.0, 1.0]) for name in IDENTITY},
            }
        ),
        max_size=6,
    ),
    st.fixed_dictionaries({name: numbers(2.0**-10, 2.0**20) for name in ("jet_pt", "jet_energy")}),
)
def test_any_particle_gets_the_published_features(parts, jet):
    _, columns, model = built("full")
    branches = {
        name: ak.unflatten(np.array([part[name] for part in parts], np.float32), [len(parts)])
        for name in {*IDENTITY, *PLACE, *RAW}
    }
    branches |= {name: np.array([value], np.float32) for name, value in jet.items()}
    raw, _ = columns.inputs(columns.namespace(branches, where="drawn"), 1)
    found_NF = model.normalise(take(raw, offsets_of(raw), np.arange(1))).collections["particles"].features_NF
    expected_NF = [[published(jet, part)[name] for name in ORDER["full"]] for part in parts]
    np.testing.assert_allclose(found_NF, np.reshape(expected_NF, (-1, 17)), atol=TOLERANCE, rtol=0)
