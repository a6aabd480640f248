"""The prepared dataset: keyed by content, restartable, and the same numbers that went in."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_columns import config

from jettagger.data import prepared as module
from jettagger.data.columns import Columns
from jettagger.data.filling import Job, fill
from jettagger.data.prepared import open_prepared, plan, prepare
from jettagger.data.reader import source_of
from jettagger.data.shards import FORMAT, arrays_of, write_shard
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets


@pytest.fixture
def files(tmp_path):
    """Two files, and the config that reads them."""
    for number, name in enumerate(("QCD", "Top")):
        write_jets(tmp_path / f"{name}.root", toy_jets(name, 150, number + 1))
    samples = {name: str(tmp_path / f"{name}.root") for name in ("QCD", "Top")}
    return samples, config(data__prepared=str(tmp_path / "prepared"), data__train=samples)


def test_what_goes_in_comes_out(files):
    samples, settings = files
    found = prepare(settings, samples, role="data.train", extras={"tau": "jet_tau2"})
    source = source_of(Path(samples["Top"]))
    branches = Columns(settings).branches(source.branches, where="", sample_weight=1.0)
    expected = Columns(settings, {"tau": "jet_tau2"}).table(
        source.read([*branches, "jet_tau2"], 0, 150).branches,
        start=0,
        sample="Top",
        sample_weight=1.0,
        where="",
    )
    first = int(found.first_S[1])
    rows = np.arange(first, len(found))
    raw = found.read(rows, found.spec)
    assert np.array_equal(raw.jet_JF, expected.inputs.jet_JF, equal_nan=True)
    for got, wanted in zip(
        raw.collections["particles"], expected.inputs.collections["particles"], strict=True
    ):
        assert np.array_equal(got, wanted)
    assert np.array_equal(found.extras["tau"][rows], expected.extras["tau"])
    assert np.array_equal(found.spectators["jet_pt"][rows], expected.spectators["jet_pt"])
    assert np.array_equal(found.labels_J, np.repeat([0, 1], np.diff(found.first_S)))
    assert found.counts["read"] == 300


def test_rows_from_several_shards_in_order(files):
    samples, settings = files
    found = prepare(settings, samples, role="data.train")
    rows = np.sort(np.random.default_rng(1).choice(len(found), 60, replace=False))
    some = found.read(rows, found.spec)
    everything = found.read(np.arange(len(found)), found.spec)
    assert np.array_equal(some.jet_JF, everything.jet_JF[rows], equal_nan=True)
    assert np.array_equal(
        some.collections["particles"].lengths_J, everything.collections["particles"].lengths_J[rows]
    )
    assert len(found.read(rows[:0], found.spec).jet_JF) == 0


def test_second_run_fills_nothing(files, monkeypatch):
    samples, settings = files
    first = prepare(settings, samples, role="data.train")

    def refuse(*_):
        raise AssertionError("filled again")

    monkeypatch.setattr(module, "fill_all", refuse)
    assert prepare(settings, samples, role="data.train").key == first.key


def test_key_changes_with_what_matters_and_with_nothing_else(files, tmp_path):
    samples, settings = files
    key = prepare(settings, samples, role="data.train").key

    def key_of(samples=samples, extras=None, **changes):
        same = {"data__prepared": str(tmp_path / "prepared"), "data__train": samples}
        settings = config(**(same | changes))
        return prepare(settings, settings.data.train, role="data.train", extras=extras).key

    assert key_of() == key
    assert key_of(data__validation=0.3) == key
    treated = {"value": "jet_sdmass", "normalise": "none", "clip": None, "missing": 1.0}
    assert key_of(inputs__jet__features__mass=treated) == key
    sentinel = {"value": "jet_sdmass", "sentinels": [-999]}
    assert key_of(data__prepared=str(tmp_path / "elsewhere")) == key
    moved = tmp_path / "moved.root"
    moved.write_bytes(Path(samples["QCD"]).read_bytes())
    assert key_of(samples={**samples, "QCD": str(moved)}) == key
    other = write_jets(tmp_path / "other.root", toy_jets("QCD", 150, 9))
    changed = {
        key_of(samples={**samples, "QCD": str(other)}),
        key_of(samples={**samples, "QCD": {"files": samples["QCD"], "weight": 2.0}}),
        key_of(data__selection="jet_pt > 510"),
        key_of(inputs__jet__features__mass="2 * jet_sdmass"),
        key_of(inputs__jet__features__mass=sentinel),
        key_of(inputs__particles__length=8),
        key_of(define={"pt": "hypot(part_px, part_py) + 0"}),
        key_of(spectators=["jet_pt"]),
        key_of(extras={"tau": "jet_tau2"}),
        key,
    }
    assert len(changed) == 10


def test_executor_and_restart_give_the_same_bytes(files, tmp_path):
    samples, settings = files
    alone = prepare(settings, samples, role="data.train")
    elsewhere = settings.model_copy(
        update={"data": settings.data.model_copy(update={"prepared": str(tmp_path / "threads")})}
    )
    tasks = plan(settings, samples, role="data.train")
    folder = tmp_path / "threads" / alone.key
    fill(Job(folder, Path.cwd(), elsewhere, {}), tasks[1])
    with ThreadPoolExecutor(2) as executor:
        together = prepare(elsewhere, samples, role="data.train", executor=executor)
    assert together.directory == folder
    assert [record.checksum for record in together.records] == [record.checksum for record in alone.records]


def test_bytes_are_golden(tmp_path):
    """A change of these means that FORMAT has to be raised."""
    branches = {key: value[:5] for key, value in toy_jets("QCD", 50, 1).items()}
    columns = Columns(config(data__selection=None))
    table = columns.table(branches, start=0, sample="QCD", sample_weight=1.0, where="toy")
    arrays, rounding = arrays_of(table, columns.spec)
    write_shard(tmp_path / "shard.h5", arrays, table.counts, rounding)
    digest = hashlib.sha256()
    with h5py.File(tmp_path / "shard.h5") as file:
        names: list[str] = []
        file.visit(names.append)
        for name in sorted(names):
            if isinstance(file[name], h5py.Dataset):
                assert file[name].chunks is None
                assert file[name].id.get_offset() is not None
                digest.update(f"{name} {file[name].dtype} {file[name].shape}".encode())
                digest.update((np.round(file[name][:].astype(np.float64), 5) + 0.0).tobytes())
    assert (FORMAT, digest.hexdigest()[:16]) == (3, "c301e16b78fa3cb9")


def test_errors_name_what_is_wrong(files, tmp_path):
    samples, settings = files
    with pytest.raises(JettaggerError, match=r"data\.selection 'jet_pt > 9000' leaves none of 300 jets"):
        prepare(
            config(data__selection="jet_pt > 9000", data__prepared=str(tmp_path)), samples, role="data.train"
        )
    with pytest.raises(JettaggerError, match=r"classes\.Top: none of the \d+ selected jets of data\.train"):
        prepare(settings, {"QCD": samples["QCD"]}, role="data.train")
    with pytest.raises(JettaggerError, match=r"data\.train: .*QCD\.root and .*QCD\.root are the same file"):
        prepare(settings, {"a": samples["QCD"], "b": samples["QCD"]}, role="data.train")
    write_jets(tmp_path / "nothing.root", {k: v[:0] for k, v in toy_jets("QCD", 5, 1).items()})
    with pytest.raises(JettaggerError, match=r"data\.train: the files hold no jets"):
        prepare(settings, {"QCD": str(tmp_path / "nothing.root")}, role="data.train")
    found = prepare(settings, samples, role="data.train")
    manifest = found.directory / "manifest.json"
    shard = found.directory / "shard-00001-0000.h5"
    shard.rename(tmp_path / "gone")
    with pytest.raises(JettaggerError, match=r"shard-00001-0000\.h5 is missing: delete"):
        open_prepared(settings, found.directory)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(JettaggerError, match=r"prepared data of format 99, this version reads 3"):
        open_prepared(settings, found.directory)


def test_failure_leaves_no_shard(files):
    samples, settings = files
    branches = toy_jets("QCD", 150, 1)
    branches["label_QCD"][100] = False
    write_jets(Path(samples["QCD"]), branches)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"selection": None})})
    with pytest.raises(JettaggerError, match="entry 100 is in no class"):
        prepare(settings, samples, role="data.train")
    assert not [path for path in Path(settings.data.prepared).rglob("*") if path.is_file()]


def test_key_tells_which_file_belongs_to_which_sample(tmp_path):
    """Where classes are samples, the same files in other samples have other labels."""
    for number in range(3):
        write_jets(tmp_path / f"{number}.root", toy_jets("QCD", 40, number))
    changes = {
        "data__prepared": str(tmp_path / "prepared"),
        "data__test": {},
        "classes": {"a": {"sample": "a"}, "b": {"sample": "b"}},
        "data__selection": None,
    }
    labels = []
    for a, b in (((0,), (1, 2)), ((0, 1), (2,))):
        samples = {"a": [f"{tmp_path}/{n}.root" for n in a], "b": [f"{tmp_path}/{n}.root" for n in b]}
        found = prepare(config(data__train=samples, **changes), samples, role="data.train")
        labels.append(np.bincount(found.labels_J).tolist())
    assert labels == [[40, 80], [80, 40]]


def test_records_say_where_the_files_lie_now(files, tmp_path):
    samples, settings = files
    prepare(settings, samples, role="data.train")
    (tmp_path / "moved").mkdir()
    moved = {
        name: str(Path(path).rename(tmp_path / "moved" / f"{name}.root")) for name, path in samples.items()
    }
    found = prepare(settings, moved, role="data.train")
    assert [record.path for record in found.records] == list(moved.values())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_shard_is_held_open(files):
    samples, settings = files
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = prepare(settings, samples, role="data.train")
    raw = found.read(np.arange(len(found)), found.spec)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert raw.jet_JF.base is None


def test_damaged_shard_is_named(files):
    samples, settings = files
    found = prepare(settings, samples, role="data.train")
    shard = found.directory / "shard-00001-0000.h5"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(
        JettaggerError, match=r"shard-00001-0000\.h5 is damaged: it has 1000 bytes, not \d+: delete it"
    ):
        open_prepared(settings, found.directory)
    shard.unlink()
    with pytest.raises(JettaggerError, match=r"shard-00001-0000\.h5 cannot be read any more: .*No such file"):
        found.read(np.arange(len(found)), found.spec)
