"""Every container is told by its first bytes, here or at a URL."""

import os

import fsspec
import numpy as np
import pytest

import other_containers as oc
from jettagger.data.containers.base import Opening
from jettagger.data.reader import opened, opening_of, source_of
from jettagger.errors import JettaggerError
from jettagger.expressions.jagged import Jagged, from_branch
from toy_jets import toy_jets

WRITERS = [oc.parquet, oc.atlas, oc.jetnet, oc.energyflow, oc.pandas_fixed, oc.pandas_table]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_at_a_url_reads_as_the_same_file_here(tmp_path, write):
    written = write(tmp_path, oc.rectangular(toy_jets("QCD", 80, 1), 5))
    opening = opening_of(oc.config_for(written))
    fsspec.filesystem("memory").pipe("/far/file", written.path.read_bytes())
    here, far = source_of(written.path, opening), source_of("memory://far/file", opening)
    assert (far.entries, far.branches, far.identity) == (80, here.branches, here.identity)
    for name in here.branches:
        near, remote = (from_branch(name, s.read([name], 10, 70).branches[name]) for s in (here, far))
        assert type(near) is type(remote)
        values = (near.values, remote.values) if isinstance(near, Jagged) else (near, remote)
        assert np.array_equal(*values)


@pytest.mark.parametrize("write", [oc.ttree, *WRITERS])
def test_a_suffix_is_not_looked_at(tmp_path, write):
    written = write(tmp_path, oc.rectangular(toy_jets("QCD", 80, 1), 5))
    moved = written.path.rename(tmp_path / "jets.dat")
    before = source_of(moved, opening_of(oc.config_for(written))).identity
    os.utime(moved, (0, 0))
    again = source_of(moved.rename(tmp_path / "jets.root"), opening_of(oc.config_for(written)))
    assert (again.entries, again.identity) == (80, before)


def test_other_content_is_named(tmp_path):
    (tmp_path / "jets.csv").write_text("pt,eta\n1,2\n")
    with pytest.raises(
        JettaggerError,
        match=r"jets\.csv is of no known container, whatever its suffix '\.csv' says: it begins with b'pt,eta.* "
        r"\(known: ROOT, HDF5, NumPy \(\.npz, \.npy\), parquet\)",
    ):
        source_of(tmp_path / "jets.csv")


def test_a_forked_process_opens_its_own(tmp_path, monkeypatch):
    path = str(oc.parquet(tmp_path, toy_jets("QCD", 20, 1)).path)
    first = opened(path, Opening())
    assert opened(path, Opening()) is first
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert opened(path, Opening()) is not first
