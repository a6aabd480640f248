"""A prepared dataset that was damaged is found out, and only what is damaged is prepared again."""

import os
import time

import numpy as np
import pytest
from test_columns import config

from jettagger.data import manifest as module
from jettagger.data.manifest import read_manifest
from jettagger.data.prepared import open_prepared, prepare
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets


@pytest.fixture
def one(tmp_path):
    for name in ("QCD", "Top"):
        write_jets(tmp_path / f"{name}.root", toy_jets(name, 100, 1))
    samples = {name: f"{tmp_path}/{name}.root" for name in ("QCD", "Top")}
    return config(data__prepared=str(tmp_path / "prepared"), data__train=samples, data__test={})


def flip(path, at, *, quietly=False):
    """Changes one bit; `quietly` as a disk does, without a new date."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    with path.open("r+b") as stream:
        stream.write(content)
    if quietly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def middle_of(found, number=1):
    """A shard, and the position of a byte of its particles."""
    record = found.records[number]
    return found.directory / record.name, record.places["collections/particles/values"].offset + 40


def test_a_bit_that_flipped(one):
    found = prepare(one, one.data.train, role="data.train")
    shard, at = middle_of(found)
    whole = shard.read_bytes()
    other = (found.directory / found.records[0].name).stat().st_ino
    time.sleep(0.01)
    flip(shard, at)
    with pytest.raises(
        JettaggerError,
        match=r"shard-00001-0000\.h5 is damaged: its checksum .* prepare again: only it is made anew",
    ):
        open_prepared(one, found.directory)
    said: list[str] = []
    again = prepare(one, one.data.train, role="data.train", say=said.append)
    assert "shard-00001-0000.h5 is damaged" in said[0]
    assert said[0].endswith("it is prepared again")
    assert shard.read_bytes() == whole
    assert again.records == found.records
    assert (found.directory / found.records[0].name).stat().st_ino == other


def test_a_bit_that_flipped_behind_the_date_is_found_by_verify(one):
    found = prepare(one, one.data.train, role="data.train")
    shard, at = middle_of(found)
    whole = shard.read_bytes()
    flip(shard, at, quietly=True)
    said: list[str] = []
    prepare(one, one.data.train, role="data.train", say=said.append)
    assert said == []
    assert shard.read_bytes() != whole
    prepare(one, one.data.train, role="data.train", verify=True, say=said.append)
    assert "shard-00001-0000.h5 is damaged" in said[0]
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("harm", ["missing", "short", "empty"])
def test_a_shard_that_is_not_whole(one, harm):
    found = prepare(one, one.data.train, role="data.train")
    shard, _ = middle_of(found, 0)
    whole = shard.read_bytes()
    if harm == "missing":
        shard.unlink()
    else:
        shard.write_bytes(whole[:500] if harm == "short" else b"")
    words = r"is missing" if harm == "missing" else r"is damaged: it has \d+ bytes, not \d+"
    with pytest.raises(JettaggerError, match=rf"shard-00000-0000\.h5 {words}: delete it if it is there"):
        open_prepared(one, found.directory)
    prepare(one, one.data.train, role="data.train")
    assert shard.read_bytes() == whole
    assert np.array_equal(open_prepared(one, found.directory).labels_J, found.labels_J)


def test_a_shard_is_read_again_only_if_it_looks_changed(one, monkeypatch):
    found = prepare(one, one.data.train, role="data.train")
    read: list[str] = []
    original = module.check
    monkeypatch.setattr(
        module, "check", lambda path, contents: (read.append(path.name), original(path, contents))
    )
    prepare(one, one.data.train, role="data.train")
    assert read == []
    os.utime(found.directory / "shard-00000-0000.h5", ns=(1, 1))
    prepare(one, one.data.train, role="data.train")
    prepare(one, one.data.train, role="data.train")
    assert read == ["shard-00000-0000.h5"]
    (found.directory / "verified.json").write_text("{")
    prepare(one, one.data.train, role="data.train")
    assert len(read) == 3


def test_a_damaged_manifest(one):
    found = prepare(one, one.data.train, role="data.train")
    manifest = found.directory / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:-20])
    with pytest.raises(JettaggerError, match=r"manifest\.json is damaged: delete it, and prepare again"):
        prepare(one, one.data.train, role="data.train")
    manifest.unlink()
    with pytest.raises(JettaggerError, match=r"holds no prepared dataset: there is no manifest\.json"):
        open_prepared(one, found.directory)
    before = middle_of(found)[0].stat().st_ino
    prepare(one, one.data.train, role="data.train")
    assert manifest.read_text() == text
    assert middle_of(found)[0].stat().st_ino == before
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(JettaggerError, match=r"manifest\.json cannot be read: "):
        read_manifest(found.directory)


def test_memory_of_labels_and_weights(one):
    found = prepare(one, one.data.train, role="data.train")
    assert found.labels_J.dtype == np.int8
    assert found.weights_J.dtype == np.float32
    beyond = one.model_copy(
        update={"weights": one.weights.model_copy(update={"event": "gen_weight * 1.0e-60"})}
    )
    found = prepare(beyond, beyond.data.train, role="data.train")
    assert found.weights_J.dtype == np.float64
    assert (found.weights_J > 0).all()
