"""ROOT files that were cut short or changed: never a wrong number where there is a checksum, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.data.containers.root import RootSource, unsound
from jettagger.data.containers.ttree import basket_trouble
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError
from root_files import (
    COMPRESSIONS,
    compressible_jets,
    everything,
    flip_counts,
    write,
    write_with_page_checksums,
)
from toy_jets import toy_jets, write_jets

KINDS = ("ttree", "rntuple")
WITH_CHECKSUM = ("zlib", "lz4", "lzma")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind and compression; not to be changed."""
    folder = tmp_path_factory.mktemp("root")
    for kind in KINDS:
        for compression in COMPRESSIONS:
            write(folder / f"{kind}_{compression}.root", kind, compression, compressible_jets(600), steps=2)
    return folder


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(folder, kind, compression):
    source = source_of(folder / f"{kind}_{compression}.root")
    expected = compressible_jets(600)
    found = source.read(expected, 0, 600).branches
    assert all(found[name].tolist() == expected[name].tolist() for name in expected)


def test_a_file_that_does_not_begin_as_one_is_refused(tmp_path):
    path = tmp_path / "a.root"
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(JettaggerError, match=r"a\.root is no ROOT file: it does not begin with 'root'"):
        _ = RootSource(str(path)).entries


@settings(max_examples=40, deadline=None)
@given(kept=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(KINDS))
def test_truncated_file_always_errs(folder, kept, kind):
    content = (folder / f"{kind}_zstd.root").read_bytes()
    short = folder / "short.root"
    short.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(
        JettaggerError, match=r"short\.root is (truncated: |empty \(0 bytes\)|of no known container)"
    ):
        everything(short)


@pytest.mark.parametrize("compression", WITH_CHECKSUM)
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_errs_where_there_is_a_checksum(folder, kind, compression):
    counts = flip_counts(folder / f"{kind}_{compression}.root", 15)
    assert counts["silent"] == counts["unnamed"] == 0
    assert counts["error"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_by_container(tmp_path, kind, compression):
    path = write(tmp_path / "a.root", kind, compression, compressible_jets(3000), steps=2)
    counts = flip_counts(path, 250)
    assert counts["unnamed"] == 0
    assert (counts["silent"] == 0) == (compression in WITH_CHECKSUM), counts


def test_checksums_of_pages_are_compared(tmp_path):
    path = write_with_page_checksums(tmp_path / "a.root", compressible_jets(600))
    pages = [p for cluster in uproot.open(path)["tree"].page_link_list for c in cluster for p in c.pages]
    assert all(page.has_checksum for page in pages)
    counts = flip_counts(path, 60)
    assert counts["silent"] == counts["unnamed"] == 0
    content = bytearray(path.read_bytes())
    content[pages[-1].locator.offset + 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(
        JettaggerError,
        match=r"a\.root: page 0 of branch 'part_px' in cluster 0 is damaged: its checksum is not the one stored",
    ):
        source_of(path).read(["part_px"], 0, 600)
    assert len(source_of(path).read(["jet_pt"], 0, 600).branches["jet_pt"]) == 600


def test_checksum_of_the_page_list_is_compared(folder, tmp_path):
    content = bytearray((folder / "rntuple_none.root").read_bytes())
    tree = uproot.open(folder / "rntuple_none.root")["tree"]
    locator = tree.footer.cluster_group_records[1].page_list_link.locator
    content[locator.offset + locator.num_bytes // 2] ^= 1
    path = tmp_path / "a.root"
    path.write_bytes(content)
    with pytest.raises(
        JettaggerError, match=r"a\.root: a list of pages is damaged: its checksum is not the one"
    ):
        _ = source_of(path).entries


def test_a_basket_that_does_not_decompress_is_named(folder, tmp_path):
    branch = uproot.open(folder / "ttree_zlib.root")["tree"]["jet_pt"]
    content = bytearray((folder / "ttree_zlib.root").read_bytes())
    content[int(branch.member("fBasketSeek")[1]) + branch.basket(1).member("fKeylen") + 15] ^= 255
    path = tmp_path / "a.root"
    path.write_bytes(content)
    source = source_of(path)
    assert len(source.read(["jet_pt"], 0, 300).branches["jet_pt"]) == 300
    with pytest.raises(
        JettaggerError,
        match=r"a\.root: basket 1 of branch 'jet_pt' \(entries 300 to 599\) is damaged: Error -3 while decompressing",
    ):
        source.read(["jet_pt"], 0, 600)


def test_lengths_in_a_basket_are_compared(folder):
    branch = uproot.open(folder / "ttree_zstd.root")["tree"]["jet_pt"]
    chunk, _ = branch.basket_chunk_cursor(0)
    content = np.array(chunk.raw_data)
    key_length = branch.basket(0).member("fKeylen")

    def trouble(at: int, value: int, entries: int = 300) -> str:
        changed = content.copy()
        changed[at] = value
        return basket_trouble(changed, entries) or ""

    assert basket_trouble(content, 300) is None
    assert basket_trouble(content[:10], 300) == "it has 10 bytes"
    assert "its key says 300 entries, its branch 299" in trouble(4, 0, 299)
    assert f"it has {len(content)}" in trouble(0, 1)
    assert "uncompressed bytes, its blocks" in trouble(6, 100)
    assert "uncompressed bytes, its blocks -1" in trouble(key_length + 3, 255)
    assert "its key says that the data end at" in trouble(key_length - 3, 255)


def test_lists_that_leave_their_content_are_refused():
    """Nothing in an uncompressed page says that an offset is wrong but the offsets themselves."""
    content = ak.contents.NumpyArray(np.arange(5.0))

    def trouble(*offsets: int) -> str | None:
        layout = ak.contents.ListOffsetArray(ak.index.Index64(np.array(offsets)), content)
        assert unsound(ak.contents.RecordArray([layout], ["x"])) == unsound(layout)
        return unsound(layout)

    assert trouble(0, 2, 2, 5) is None
    assert trouble(0, 3, 2, 5) == "a list in it has less than no elements"
    assert unsound(ak.to_layout([[[1], []], []])) is unsound(content) is None


def test_damaged_offsets_name_the_branch(folder, tmp_path):
    content = bytearray((folder / "rntuple_none.root").read_bytes())
    tree = uproot.open(folder / "rntuple_none.root")["tree"]
    column = next(n for n, c in enumerate(tree.column_records) if c.type in uproot.const.rntuple_index_types)
    page = tree.page_link_list[0][column].pages[0].locator
    content[page.offset + 80 : page.offset + 88] = bytes(8)
    path = tmp_path / "a.root"
    path.write_bytes(content)
    with pytest.raises(
        JettaggerError, match=r"a\.root: branch 'part_px' is damaged: a list in it has less than no"
    ):
        source_of(path).read(["part_px"], 0, 300)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zlib", "zstd", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_data_or_in_one_error(tmp_path, kind, compression):
    """In 2 GB and 20 s a reading at most: a damaged length asks for no memory and no time."""
    path = write_jets(tmp_path / "a.root", toy_jets("QCD", 300, 1), rntuple=kind == "rntuple")
    if compression != "zlib":
        write(path, kind, compression, compressible_jets(300), steps=3)
    script = Path(__file__).parents[1] / "root_fuzz.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(path), "250"],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(int(count) for count in done.stdout.split()) == 250
