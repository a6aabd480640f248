"""Whoever fills a dataset, the bytes are the same, and what goes wrong reaches the user as one message."""

import hashlib
import importlib
import os
import signal
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
from test_columns import config

from jettagger.data import executors, prepared
from jettagger.data.executors import dask_workers, local_processes, usable_processors
from jettagger.data.filling import Job, fill
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from jettagger.training.sides import prepare_all
from toy_jets import toy_jets, write_jets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("executors")
    for number in range(2):
        for name in ("QCD", "Top"):
            write_jets(place / f"{name}-{number}.root", toy_jets(name, 60, number))
    return place


def settings(folder, place, **more):
    samples = {name: f"{folder}/{name}-*.root" for name in ("QCD", "Top")}
    return config(**({"data__prepared": str(place), "data__train": samples, "data__test": {}} | more))


def digests(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name != "verified.json"
    }


@pytest.fixture(scope="module")
def alone(folder):
    one = settings(folder, folder / "alone")
    return digests(prepare(one, one.data.train, role="data.train", workers=1).directory)


def test_threads(folder, tmp_path, alone):
    one = settings(folder, tmp_path)
    with ThreadPoolExecutor(3) as executor:
        found = prepare(one, one.data.train, role="data.train", executor=executor)
    assert digests(found.directory) == alone


def test_threads_that_read_parts_of_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr("jettagger.data.containers.base.CHUNK_BYTES", 200_000)
    samples = {}
    for number, name in enumerate(("QCD", "Top")):
        jets = np.random.default_rng(number).normal(size=(20_000, 8))
        np.save(tmp_path / f"{name}.npy", np.rec.fromarrays(list(jets.T), names=list("abcdefgh")))
        samples[name] = f"{tmp_path}/{name}.npy"
    parts = {
        "classes": {name: {"sample": name} for name in samples},
        "inputs": {"jet": {"features": {name: name for name in "abcdefg"}}},
        "define": {},
        "spectators": ["h"],
        "data__selection": None,
    }
    one = config(**parts, data__prepared=str(tmp_path / "one"), data__train=samples, data__test={})
    many = config(**parts, data__prepared=str(tmp_path / "many"), data__train=samples, data__test={})
    expected = prepare(one, samples, role="data.train", workers=1)
    with ThreadPoolExecutor(8) as executor:
        found = prepare(many, samples, role="data.train", executor=executor)
    assert len(expected.records) > 10
    assert digests(found.directory) == digests(expected.directory)


@pytest.mark.slow
def test_processes(folder, tmp_path, alone):
    one = settings(folder, tmp_path)
    found = prepare(one, one.data.train, role="data.train", workers=2)
    assert digests(found.directory) == alone


@pytest.mark.slow
def test_an_error_in_a_process_is_the_same_message(folder, tmp_path):
    one = settings(folder, tmp_path, data__selection=None, inputs__particles__coordinates__pt="log(0 * pt)")
    with pytest.raises(
        JettaggerError, match=r"inputs\.particles\.coordinates\.pt: \d+ values are not finite"
    ):
        prepare(one, one.data.train, role="data.train", workers=2)


def killing(job: Job, task):
    """Stands for a worker that the system kills while it reads."""
    from jettagger.data.asides import written_aside

    if task.shard == "shard-00002-0000.h5":
        with written_aside(job.directory / task.shard):
            os.kill(os.getpid(), signal.SIGKILL)
    return fill(job, task)


@pytest.mark.slow
def test_a_process_that_dies(folder, tmp_path, alone, monkeypatch):
    one = settings(folder, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("jettagger.data.filling.fill", killing)
        with pytest.raises(
            JettaggerError,
            match=r"a worker died at (.* or )?shard-00002-0000[ :].* the next run goes on with the rest",
        ):
            prepare(one, one.data.train, role="data.train", workers=2)
    found = prepare(one, one.data.train, role="data.train", workers=1)
    assert digests(found.directory) == alone


@pytest.fixture
def cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    dask = importlib.import_module("dask")
    # Without these a worker that is killed is started again, and again.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0, "temporary-directory": str(tmp_path)}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as one,
    ):
        yield one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what distributed warns of is its own
def test_a_dask_cluster(folder, tmp_path, alone, cluster, monkeypatch):
    one = settings(folder, tmp_path / "prepared")
    with monkeypatch.context() as patched, dask_workers(cluster.scheduler_address) as executor:
        patched.setattr("jettagger.data.filling.fill", killing)
        # Dask blames whatever the worker that was killed had before it, too.
        with pytest.raises(JettaggerError, match=r"a worker died at shard-\d{5}-0000\.h5 \(.*\.root\): "):
            prepare(one, one.data.train, role="data.train", executor=executor)
    with dask_workers(cluster.scheduler_address) as executor:
        wrong = settings(folder, tmp_path / "wrong", inputs__particles__coordinates__pt="log(0 * pt)")
        with pytest.raises(JettaggerError, match=r"coordinates\.pt: \d+ values are not finite"):
            prepare(wrong, wrong.data.train, role="data.train", executor=executor)
        found = prepare(one, one.data.train, role="data.train", executor=executor)
    assert digests(found.directory) == alone


def test_dask_that_is_not_there(folder, tmp_path, monkeypatch):
    one = settings(folder, tmp_path)
    with pytest.raises(JettaggerError, match="--workers and --dask exclude each other"):
        prepare_all(one, None, workers=2, dask="tcp://localhost:1")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(executors.importlib, "import_module", missing)
    with pytest.raises(
        JettaggerError, match=r"--dask needs the package distributed: pip install 'jettagger\[dask\]'"
    ):
        prepare_all(one, None, dask="tcp://localhost:1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_that_does_not_answer():
    pytest.importorskip("distributed")
    with (
        pytest.raises(JettaggerError, match=r"--dask tcp://127\.0\.0\.1:9: no Dask scheduler answers there"),
        dask_workers("tcp://127.0.0.1:9"),
    ):
        pass


def test_cancelled_workers(folder, tmp_path):
    class Gone(Executor):
        def submit(self, *_, **__):
            future: Future[None] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    one = settings(folder, tmp_path)
    with pytest.raises(JettaggerError, match="the workers were taken away before all shards were filled"):
        prepare(one, one.data.train, role="data.train", executor=Gone())


def test_how_many_processes(folder, tmp_path, monkeypatch):
    """Little to do is done here; else there is one process for each processor, if there are as many shards."""
    asked: list[int] = []

    def recorded(workers):
        asked.append(workers)
        return local_processes(1) if workers < 0 else ThreadPoolExecutor(workers)

    monkeypatch.setattr(prepared, "local_processes", recorded)
    one = settings(folder, tmp_path / "little")
    prepare(one, one.data.train, role="data.train")
    assert asked == []
    monkeypatch.setattr(prepared, "LITTLE", 1000)
    monkeypatch.setattr(prepared, "usable_processors", lambda: 3)
    one = settings(folder, tmp_path / "much")
    prepare(one, one.data.train, role="data.train")
    one = settings(folder, tmp_path / "asked")
    prepare(one, one.data.train, role="data.train", workers=100)
    assert asked == [3, 4]
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)


def test_a_batch_log_has_lines(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("jettagger.data.filling_progress.EVERY", 0.0)
    one = settings(folder, tmp_path)
    said: list[str] = []
    began = time.monotonic()
    prepare(one, one.data.train, role="data.train", say=said.append)
    assert time.monotonic() - began < 60
    assert said[0].startswith("  preparing: 60 of 240 entries, ")
    assert said[-1].startswith("  prepared 4 shards, 0 MB: 240 entries in ")
    assert said[-1].endswith(" jets selected")
