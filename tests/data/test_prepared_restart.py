"""Killed, disturbed, out of disk: a rerun gives the same bytes, and nothing is half-valid."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_columns import config

from jettagger.data import asides
from jettagger.data.prepared import prepare
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets

SCRIPT = Path(__file__).with_name("preparing.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("restart")
    write_jets(place / "a-0.root", toy_jets("QCD", 40, 1))
    write_jets(place / "b-0.root", toy_jets("Top", 40, 1))
    return place


def settings(folder, **more):
    samples = {"QCD": f"{folder}/a-*.root", "Top": f"{folder}/b-*.root"}
    same = {"data__prepared": str(folder / "prepared"), "data__train": samples, "data__test": {}}
    return config(**(same | more))


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


@pytest.mark.slow
def test_killed_at_each_write_and_rename(folder):
    assert run(folder, "steps") > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment(folder, seed):
    assert run(folder, "moments", seed, 25) > 10


@pytest.mark.slow
def test_several_runs_at_the_same_time(folder):
    run(folder, "together")


def test_what_the_dead_left_is_removed_and_what_the_living_write_is_not(folder, tmp_path):
    one = settings(folder, data__prepared=str(tmp_path))
    directory = prepare(one, one.data.train, role="data.train").directory
    host = asides._host()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        f".shard-00000-0000.{host}.{dead.pid}.ab.part": False,
        f".shard-00001-0000.{host}.{os.getpid()}.ab.part": True,
        ".shard-00001-0000.elsewhere.1.ab.part": True,
        ".shard-00000-0000.elsewhere.1.cd.part": False,
    }
    for name in names:
        (directory / name).touch()
    old = time.time() - 2 * asides.ABANDONED
    os.utime(directory / ".shard-00000-0000.elsewhere.1.cd.part", (old, old))
    (directory / "shard-00001-0000.h5").unlink()
    prepare(one, one.data.train, role="data.train")
    assert {path.name for path in directory.glob(".*")} == {name for name, stays in names.items() if stays}


def test_a_disk_that_is_full(folder, tmp_path):
    """A file may grow to 10 kB only: stands for a disk without room, or a quota."""
    one = settings(folder, data__prepared=str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(
            JettaggerError,
            match=r"cannot write .*shard-0000\d-0000\.h5: File too large \(this shard takes 0\.0 MB",
        ):
            prepare(one, one.data.train, role="data.train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(prepare(one, one.data.train, role="data.train")) > 0


def small_disk(place):
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(place)], capture_output=True, check=False
    )
    return mounted.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_real_disk_that_is_full(folder, tmp_path):
    place = tmp_path / "disk"
    if not small_disk(place):
        pytest.skip("no tmpfs can be mounted here")
    one = settings(folder, data__prepared=str(place / "prepared"))
    try:
        with pytest.raises(
            JettaggerError, match=r"No space left on device \(this shard takes .* MB are free\)"
        ):
            prepare(one, one.data.train, role="data.train")
        files = [path for path in place.rglob("*") if path.is_file()]
        assert all(path.suffix == ".h5" and path.stat().st_size > 0 for path in files)
        subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True)
        kept = {path: path.stat().st_ino for path in files}
        found = prepare(one, one.data.train, role="data.train")
        assert {path: path.stat().st_ino for path in files} == kept
        assert len(found) > 0
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    one = settings(folder, data__prepared=str(tmp_path / "file" / "prepared"))
    with pytest.raises(JettaggerError, match=r"cannot write .*: what should be its folder is a file"):
        prepare(one, one.data.train, role="data.train")

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    one = settings(folder, data__prepared=str(tmp_path / "prepared"))
    with pytest.raises(
        JettaggerError, match=r"cannot write .*Permission denied: data\.prepared names a folder that can be"
    ):
        prepare(one, one.data.train, role="data.train")


def test_a_shard_that_a_crash_left_half_written_is_made_again(folder, tmp_path):
    one = settings(folder, data__prepared=str(tmp_path))
    first = prepare(one, one.data.train, role="data.train")
    shard = first.directory / "shard-00001-0000.h5"
    whole = shard.read_bytes()
    (first.directory / "manifest.json").unlink()
    shard.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    again = prepare(one, one.data.train, role="data.train")
    assert shard.read_bytes() == whole
    assert again.records == first.records
