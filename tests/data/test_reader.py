"""ROOT files, whole and broken."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from jettagger.data.containers import base
from jettagger.data.containers.base import Opening
from jettagger.data.locations import find_files
from jettagger.data.reader import opened, source_of
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets


@pytest.mark.parametrize("rntuple", [False, True])
def test_chunks_hold_every_entry_in_order(tmp_path, monkeypatch, rntuple):
    branches = toy_jets("QCD", 250, 1)
    source = source_of(write_jets(tmp_path / "a.root", branches, rntuple=rntuple))
    monkeypatch.setattr(base, "CHUNK_BYTES", 2000)
    chunks = list(source.chunks(["part_px", "jet_pt", "event_number"]))
    assert len(chunks) > 2
    assert [chunk.start for chunk in chunks[1:]] == [chunk.stop for chunk in chunks[:-1]]
    assert (chunks[0].start, chunks[-1].stop) == (0, 250)
    px = ak.concatenate([chunk.branches["part_px"] for chunk in chunks])
    assert ak.array_equal(px, branches["part_px"], dtype_exact=False)
    assert np.array_equal(np.concatenate([c.branches["jet_pt"] for c in chunks]), branches["jet_pt"])


def test_identity_follows_content_not_name(tmp_path):
    first = write_jets(tmp_path / "a.root", toy_jets("QCD", 20, 1))
    copy = tmp_path / "b.root"
    copy.write_bytes(first.read_bytes())
    other = write_jets(tmp_path / "c.root", toy_jets("QCD", 20, 2))
    assert source_of(first).identity == source_of(copy).identity != source_of(other).identity


def test_missing_branch_names_file_and_nearest(tmp_path):
    path = write_jets(tmp_path / "a.root", toy_jets("QCD", 20, 1))
    with pytest.raises(JettaggerError, match=r"a\.root: unknown branch 'jet_ptt': did you mean 'jet_pt'\?"):
        source_of(path).read(["jet_ptt"], 0, 5)


@pytest.mark.parametrize("rntuple", [False, True])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_file_always_errs(tmp_path, kept, rntuple):
    whole = write_jets(tmp_path / "a.root", toy_jets("QCD", 2000, 1), rntuple=rntuple).read_bytes()
    path = tmp_path / "short.root"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(
        JettaggerError, match=rf"short\.root is truncated: its header says {len(whole)} bytes"
    ):
        _ = source_of(path).entries


def test_other_files_are_refused_by_name(tmp_path):
    text = tmp_path / "text.root"
    text.write_text("not a file")
    with pytest.raises(
        JettaggerError, match=r"text\.root is of no known container, .* '\.root' says: it begins"
    ):
        _ = source_of(text).entries
    (tmp_path / "empty.root").touch()
    with pytest.raises(JettaggerError, match=r"empty\.root is empty \(0 bytes\)"):
        _ = source_of(tmp_path / "empty.root").entries
    with pytest.raises(JettaggerError, match=r"is a folder, not a file"):
        _ = source_of(tmp_path).entries
    with pytest.raises(JettaggerError, match=r"no such file: .*nowhere\.root"):
        _ = source_of(tmp_path / "nowhere.root").entries


def test_overwritten_basket_is_named(tmp_path):
    path = write_jets(tmp_path / "a.root", toy_jets("QCD", 2000, 1))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    source = source_of(path)
    with pytest.raises(
        JettaggerError,
        match=r"cannot read .*a\.root: basket 0 of branch 'part_.*' \(entries 0 to 1999\) is damaged",
    ):
        source.read(source.branches, 0, source.entries)


def test_trees_are_told_apart(tmp_path):
    path = tmp_path / "two.root"
    with uproot.recreate(path) as file:
        file.mktree("first", {"x": np.float32})
        file.mktree("second", {"x": np.float32})
    with pytest.raises(
        JettaggerError, match=r"name one of its trees with data\.tree \(found: first, second\)"
    ):
        _ = source_of(path).entries
    assert source_of(path, Opening("first")).entries == 0
    with pytest.raises(JettaggerError, match=r"two\.root: unknown tree 'firts': did you mean 'first'\?"):
        _ = source_of(path, Opening("firts")).entries
    with uproot.recreate(tmp_path / "none.root"):
        pass
    with pytest.raises(JettaggerError, match=r"none\.root holds no TTree or RNTuple"):
        _ = source_of(tmp_path / "none.root").entries


def test_find_files(tmp_path):
    for name in ("b.root", "a.root", "notes.txt"):
        (tmp_path / name).touch()
    found = find_files([f"{tmp_path}/*.root", f"{tmp_path}/a.root"], where="data.train.QCD")
    assert [Path(path).name for path in found] == ["a.root", "b.root"]
    with pytest.raises(JettaggerError, match=r"data\.train\.QCD: no file matches '.*zzz\*' \(3 files in"):
        find_files(f"{tmp_path}/zzz*", where="data.train.QCD")
    with pytest.raises(JettaggerError, match=r"no such file: '.*/c\.root' \(did you mean .*root\?\)"):
        find_files(f"{tmp_path}/c.root", where="data.train.QCD")
    with pytest.raises(JettaggerError, match=r"there is no folder .*nowhere"):
        find_files(f"{tmp_path}/nowhere/c.root", where="data.train.QCD")
    with pytest.raises(JettaggerError, match=r"no file matches '.*no\*/c\.root'"):
        find_files(f"{tmp_path}/no*/c.root", where="data.train.QCD")
    with pytest.raises(JettaggerError, match=r"data\.train\.QCD: the list of files is empty"):
        find_files([], where="data.train.QCD")


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    (tmp_path / "run[1].root").touch()
    assert find_files(f"{tmp_path}/run[1].root", where="x") == [str(tmp_path / "run[1].root")]


def test_path_is_not_split_at_a_colon(tmp_path: Path):
    path = write_jets(tmp_path / "run:1.root", toy_jets("QCD", 20, 1))
    assert source_of(path).entries == 20


def test_open_files_are_shared_until_they_change(tmp_path):
    path = write_jets(tmp_path / "a.root", toy_jets("QCD", 20, 1))
    first = opened(str(path), Opening())
    assert opened(str(path), Opening()) is first
    before = first.identity
    write_jets(path, toy_jets("QCD", 30, 1))
    assert opened(str(path), Opening()).entries == 30
    assert opened(str(path), Opening()).identity != before
    path.unlink()
    with pytest.raises(JettaggerError, match=r"no such file: .*a\.root"):
        opened(str(path), Opening())
