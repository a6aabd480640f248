"""HDF5, NumPy and parquet files that were cut short or damaged: an error or data, and an error where a checksum is."""

import resource
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError

JETS = 400


def _hdf5(path: Path, *, libver: str = "earliest", **options: Any) -> None:
    rng = np.random.default_rng(1)
    jets = np.zeros(JETS, [("pt", np.float32), ("label", np.int32)])
    jets["pt"] = rng.normal(size=JETS)
    tracks = np.zeros((JETS, 10), [("d0", np.float32), ("dphi", np.float32), ("valid", bool)])
    tracks["d0"], tracks["dphi"] = rng.normal(size=(2, JETS, 10))
    tracks["valid"] = np.arange(10) < rng.integers(0, 11, JETS)[:, None]
    with h5py.File(path, "w", libver=libver) as file:
        for name, array in (("jets", jets), ("tracks", tracks)):
            chunks = (100, *array.shape[1:]) if options else None
            file.create_dataset(name, data=array, chunks=chunks, **options)


def _pandas(path: Path, **options: Any) -> None:
    rng = np.random.default_rng(1)
    names = [f"{component}_{number}" for number in range(5) for component in ("E", "PX", "PY", "PZ")]
    frame = pd.DataFrame(rng.normal(size=(JETS, 20)).astype(np.float32), columns=names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_hdf(path, key="table", **options)


def _archive(path: Path, *, compressed: bool) -> None:
    rng = np.random.default_rng(1)
    save = np.savez_compressed if compressed else np.savez
    with path.open("wb") as stream:
        save(stream, X=rng.normal(size=(JETS, 5, 4)), y=np.arange(JETS) % 2)


def _array(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.random.default_rng(1).normal(size=(JETS, 5, 4)))


def _parquet(path: Path, **options: Any) -> None:
    rng = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 10, JETS))]).astype(np.int32)
    part_px = pa.ListArray.from_arrays(offsets, rng.normal(size=offsets[-1]).astype(np.float32))
    table = pa.table({"pt": rng.normal(size=JETS), "top": np.arange(JETS) % 2 == 0, "part_px": part_px})
    pq.write_table(table, path, row_group_size=150, **options)


CONTAINERS = {
    "HDF5": lambda path: _hdf5(path),
    "HDF5 lzf": lambda path: _hdf5(path, compression="lzf"),
    "HDF5 gzip": lambda path: _hdf5(path, compression="gzip"),
    "HDF5 fletcher32": lambda path: _hdf5(path, fletcher32=True),
    "HDF5 latest gzip fletcher32": lambda path: _hdf5(
        path, libver="latest", compression="gzip", fletcher32=True
    ),
    "pandas fixed": lambda path: _pandas(path, format="fixed"),
    "pandas table": lambda path: _pandas(path, format="table", index=False),
    "npz": lambda path: _archive(path, compressed=False),
    "npz compressed": lambda path: _archive(path, compressed=True),
    "npy": _array,
    "parquet": lambda path: _parquet(path, compression="none"),
    "parquet snappy": lambda path: _parquet(path, compression="snappy"),
    "parquet zstd": lambda path: _parquet(path, compression="zstd"),
    "parquet gzip": lambda path: _parquet(path, compression="gzip"),
    "parquet page checksums": lambda path: _parquet(path, write_page_checksum=True),
}
PROTECTED = {
    *("HDF5 gzip", "HDF5 fletcher32", "HDF5 latest gzip fletcher32", "npz", "npz compressed"),
    *("parquet gzip", "parquet page checksums"),
}
"""No flip of a bit in their data goes unseen."""


def read_all(path: Path) -> dict[str, Any]:
    """All of a file, branch by branch."""
    source = source_of(path)
    return {
        name: ak.concatenate([chunk.branches[name] for chunk in source.chunks([name])])
        for name in source.branches
    }


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        ak.array_equal(left[name], right[name], equal_nan=True) for name in left
    )


def flips(path: Path, numbers: range) -> Counter[str]:
    """How many of the numbered single-bit flips end in an error, change nothing, or change data in silence."""
    whole, expected, outcomes = path.read_bytes(), read_all(path), Counter[str]()
    for number in numbers:
        bit = int(np.random.default_rng(number).integers(8 * len(whole)))
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            outcomes["unchanged" if same(read_all(path), expected) else "silent"] += 1
        except JettaggerError:
            outcomes["error"] += 1
    path.write_bytes(whole)
    return outcomes


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_flipped_bit_errs_where_there_is_a_checksum(tmp_path, name):
    CONTAINERS[name](tmp_path / "whole")
    outcomes = flips(tmp_path / "whole", range(15))
    assert outcomes.total() == 15
    if name in PROTECTED:
        assert outcomes["silent"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
def test_many_flips_in_a_process_of_its_own(tmp_path, name):
    """A crash, a hang or a hunger for memory of a library would show here."""
    CONTAINERS[name](tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, __file__, tmp_path / "whole", "250"],
        **{"capture_output": True, "text": True, "timeout": 120, "check": False},
    )
    assert done.returncode == 0, done.stderr
    counts = dict(word.split("=") for word in done.stdout.split())
    print(name, counts)
    assert sum(map(int, counts.values())) == 250
    if name in PROTECTED:
        assert "silent" not in counts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of each container."""
    folder = tmp_path_factory.mktemp("whole")
    for name, write in CONTAINERS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", CONTAINERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_always_errs(whole, tmp_path, name, cut):
    content = (whole / name).read_bytes()
    (tmp_path / "short").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(JettaggerError, match="short"):
        read_all(tmp_path / "short")


@pytest.mark.parametrize("name", CONTAINERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 1), garbage=st.binary(min_size=1, max_size=300))
def test_garbage_gives_data_or_an_error(whole, tmp_path, name, start, garbage):
    content = bytearray((whole / name).read_bytes())
    first = int(start * (len(content) - len(garbage)))
    content[first : first + len(garbage)] = garbage
    (tmp_path / "bad").write_bytes(content)
    try:
        assert len(read_all(tmp_path / "bad")) > 0
    except JettaggerError as error:
        assert "bad" in str(error)  # noqa: PT017 - data are as welcome as an error


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
    print(*(f"{kind}={count}" for kind, count in flips(Path(sys.argv[1]), range(int(sys.argv[2]))).items()))
