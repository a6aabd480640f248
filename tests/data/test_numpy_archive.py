"""NumPy archives and single arrays."""

import numpy as np
import pytest

from jettagger.data.containers import base
from jettagger.data.containers.base import Opening
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError

NAMES = Opening(columns=(("X", ("pt", "y", "phi", "pid")),))


def arrays(jets=500):
    rng = np.random.default_rng(1)
    return {"X": rng.normal(size=(jets, 6, 4)), "y": np.arange(jets) % 2}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_energyflow(tmp_path, monkeypatch, save):
    stored = arrays()
    save(tmp_path / "a.npz", **stored)
    source = source_of(tmp_path / "a.npz", NAMES)
    assert source.branches == ("X.pt", "X.y", "X.phi", "X.pid", "y")
    monkeypatch.setattr(base, "CHUNK_BYTES", 20_000)
    chunks = list(source.chunks(source.branches))
    assert len(chunks) > 3
    for number, name in enumerate(("pt", "y", "phi", "pid")):
        found = np.concatenate([chunk.branches[f"X.{name}"] for chunk in chunks])
        assert np.array_equal(found, stored["X"][:, :, number])
    assert np.array_equal(np.concatenate([chunk.branches["y"] for chunk in chunks]), stored["y"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_ranges_in_any_order(tmp_path, save):
    stored = arrays()
    save(tmp_path / "a.npz", **stored)
    source = source_of(tmp_path / "a.npz", NAMES)
    for start, stop in [(100, 200), (300, 301), (0, 10), (10, 10), (490, 500), (490, 500), (0, 500)]:
        found = source.read(["X.pid", "y"], start, stop).branches
        assert np.array_equal(found["X.pid"], stored["X"][start:stop, :, 3])
        assert np.array_equal(found["y"], stored["y"][start:stop])


def test_single_arrays(tmp_path):
    stored = arrays()
    np.save(tmp_path / "a.npy", stored["X"])
    source = source_of(tmp_path / "a.npy", NAMES)
    assert np.array_equal(source.read(["X.phi"], 40, 60).branches["X.phi"], stored["X"][40:60, :, 2])
    assert np.array_equal(source.read(["X.phi"], 0, 3).branches["X.phi"], stored["X"][:3, :, 2])
    np.save(tmp_path / "b.npy", np.array([(1.0, 2), (3.0, 4)], [("pt", np.float32), ("n", np.int64)]))
    assert source_of(tmp_path / "b.npy").branches == ("pt", "n")


def test_metadata_is_left_out_and_a_tree_chosen(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(), bins=np.arange(3), note=1.0)
    assert "bins" not in source_of(tmp_path / "a.npz").branches
    np.savez(tmp_path / "b.npz", x=np.ones(3), z=np.ones(4))
    with pytest.raises(JettaggerError, match=r"b\.npz: its arrays have different lengths \(3: x; 4: z\)"):
        _ = source_of(tmp_path / "b.npz").entries
    assert source_of(tmp_path / "b.npz", Opening("z")).entries == 4
    with pytest.raises(JettaggerError, match=r"b\.npz: unknown array 'w' \(allowed: x, z\)"):
        _ = source_of(tmp_path / "b.npz", Opening("w")).entries
    np.savez(tmp_path / "c.npz")
    with pytest.raises(JettaggerError, match=r"c\.npz holds no array with rows"):
        _ = source_of(tmp_path / "c.npz").entries
    with pytest.raises(JettaggerError, match=r"a\.npz: data\.columns\.X: 2 names \(pt, y\) .* has length 4"):
        _ = source_of(tmp_path / "a.npz", Opening(columns=(("X", ("pt", "y")),))).branches
    with pytest.raises(JettaggerError, match=r"a\.npz: data\.columns: unknown array 'XX'"):
        _ = source_of(tmp_path / "a.npz", Opening(columns=(("XX", ("pt", "y")),))).branches


def test_objects_and_fortran_order_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.array([[1], [2, 3]], dtype=object))
    with pytest.raises(JettaggerError, match=r"a\.npz: the array 'X' holds Python objects \(a pickle\)"):
        _ = source_of(tmp_path / "a.npz").entries
    np.save(tmp_path / "b.npy", np.asfortranarray(np.ones((3, 2))))
    with pytest.raises(JettaggerError, match=r"b\.npy: the array 'X' is in Fortran order"):
        _ = source_of(tmp_path / "b.npy").entries


def test_a_short_array_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(100))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    with pytest.raises(
        JettaggerError, match=r"the array 'X' of shape \(100,\) takes 928 bytes, there are 920"
    ):
        _ = source_of(tmp_path / "a.npy").entries


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_checksum_is_compared_when_the_end_is_read(tmp_path, monkeypatch, save):
    save(tmp_path / "a.npz", **arrays())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[5000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    monkeypatch.setattr(base, "CHUNK_BYTES", 20_000)
    source = source_of(tmp_path / "a.npz", NAMES)
    with pytest.raises(JettaggerError, match=r"cannot read .*a\.npz: the file is truncated or damaged"):
        list(source.chunks(["X.pt"]))
